"""What events and status say of a job."""

from typing import Any

import pytest

from schemas.jobs import Asked, Job, JobOptions, JobState, Reason, Waiting
from schemas.listing import Rejection
from schemas.results import Counts, Tokens
from tests.jobs.test_lifecycle import job
from workers.jobs import events

NOW = 1_800_000_000.0


def asked_job() -> Job:
    return job().model_copy(
        update={
            "created": NOW - 60,
            "asked": Asked(message_id="m", correlation_id="c", metadata={"a": "1", "b": "2"}),
            "options": JobOptions(metadata={"b": "own"}),
        }
    )


def test_times_are_utc_to_the_millisecond() -> None:
    assert events.iso(0.0) == "1970-01-01T00:00:00.000Z"
    assert events.iso(NOW + 0.1234) == "2027-01-15T08:00:00.123Z"


def test_a_job_without_a_state_is_being_validated() -> None:
    told = events.status(asked_job(), None, "results", NOW)
    assert told.state == "validating"
    assert told.counts is None
    assert told.input == "prompts/in.jsonl"
    assert told.results == "results/in/j"
    assert told.created == "2027-01-15T07:59:00.000Z"
    assert (told.message_id, told.correlation_id) == ("m", "c")
    assert told.metadata == {"a": "1", "b": "own"}


def test_a_status_has_counts_rate_and_time_left() -> None:
    state = JobState(
        revision=7,
        state="in_progress",
        counts=Counts(total=100, succeeded=38, failed=2),
        tokens=Tokens(prompt=9, completion=3),
        started=NOW - 10,
        marks=((NOW - 10, 0), (NOW, 40)),
        waiting=Waiting(
            reason="quota", deployment="phi", message="mend it", since=NOW - 1, until=NOW + 5
        ),
    )
    told = events.status(asked_job(), state, "results", NOW)
    assert told.state == "in_progress"
    assert told.counts == state.counts
    assert (told.rate, told.seconds_left) == (4.0, 20.0)
    assert told.waiting == {
        "reason": "quota",
        "deployment": "phi",
        "message": "mend it",
        "since": events.iso(NOW - 1),
        "until": events.iso(NOW + 5),
    }
    assert told.started == events.iso(NOW - 10)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "in_progress"),
        ({"paused": True}, "paused"),
        ({"ending": "cancelled"}, "cancelling"),
        ({"ending": "expired"}, "expiring"),
        ({"ending": "failed"}, "failing"),
        ({"state": "finalizing"}, "finalizing"),
        ({"state": "expired", "ending": "expired", "ended": NOW}, "expired"),
    ],
)
def test_states_are_shown_as_users_know_them(fields: dict[str, object], shown: str) -> None:
    state = JobState(revision=1, state="in_progress").model_copy(update=fields)
    told = events.status(asked_job(), state, "results", NOW)
    assert told.state == shown
    assert (told.ended is not None) == state.terminal


def test_an_ended_job_waits_for_nothing() -> None:
    waiting = Waiting(reason="quota", since=NOW)
    state = JobState(revision=9, state="completed", ended=NOW, waiting=waiting)
    assert events.status(asked_job(), state, "results", NOW).waiting is None


def test_a_wait_whose_end_is_long_past_is_not_told() -> None:
    waiting = Waiting(reason="outage", since=NOW, until=NOW + 60)
    state = JobState(revision=9, state="in_progress", waiting=waiting)
    assert events.status(asked_job(), state, "results", NOW + 70).waiting is not None
    assert events.status(asked_job(), state, "results", NOW + 80).waiting is None


def test_an_event_is_a_cloud_event_in_the_order_of_revisions() -> None:
    told = [
        events.event(
            "job.progress",
            asked_job(),
            JobState(revision=revision, state="in_progress"),
            "results",
            NOW,
        )
        for revision in (9, 10, 123_456)
    ]
    assert [event.sequence for event in told] == sorted(event.sequence for event in told)
    first = told[0]
    assert first.specversion == "1.0"
    assert first.id == "j:9:job.progress"
    assert first.subject == "j"
    assert first.time == events.iso(NOW)


def test_a_rejection_is_the_same_event_however_often_it_is_told() -> None:
    reason = Reason(code="file_not_found", message="x" * 10_000)
    rejections = [
        Rejection(
            id="name",
            type="job.rejected",
            reason=reason,
            input="prompts/x",
            asked=Asked(message_id="m"),
            created=now,
        )
        for now in (NOW, NOW + 9)
    ]
    told = [events.rejection_event(each) for each in rejections]
    assert told[0].id == told[1].id
    data = told[0].data
    assert (data.job, data.rejection, data.state) == (None, "name", "rejected")
    assert (data.input, data.message_id) == ("prompts/x", "m")
    assert data.reason is not None
    assert len(data.reason.message) == 2000


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, {"state": "validating"}, "job.validating"),
        (None, {"paused": True}, "job.paused"),
        (None, {"state": "validating", "ending": "cancelled"}, "job.cancelling"),
        ({"state": "validating"}, {"state": "in_progress"}, "job.in_progress"),
        ({}, {}, "job.progress"),
        ({}, {"paused": True}, "job.paused"),
        ({"paused": True}, {}, "job.resumed"),
        ({}, {"ending": "cancelled"}, "job.cancelling"),
        ({}, {"ending": "expired"}, "job.expiring"),
        ({}, {"ending": "failed"}, "job.failing"),
        ({"paused": True}, {"ending": "expired"}, "job.expiring"),
        ({"ending": "failed"}, {"ending": "failed"}, "job.progress"),
        ({"ending": "failed"}, {"ending": "failed", "state": "finalizing"}, "job.finalizing"),
        ({"state": "finalizing"}, {"state": "completed"}, "job.completed"),
        ({"state": "finalizing"}, {"state": "failed", "ending": "failed"}, "job.failed"),
        ({"state": "finalizing"}, {"state": "expired", "ending": "expired"}, "job.expired"),
        ({"state": "finalizing"}, {"state": "cancelled", "ending": "cancelled"}, "job.cancelled"),
    ],
)
def test_each_change_has_its_event(
    before: dict[str, Any] | None, after: dict[str, Any], told: str
) -> None:
    usual = {"revision": 1, "state": "in_progress"}
    known = None if before is None else JobState(**(usual | before))
    assert events.event_type(known, JobState(**(usual | after))) == told


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, "job.in_progress"),
        ({"counts": Counts(total=3, failed=1)}, "job.progress"),
        ({"paused": True}, "job.paused"),
        ({"ending": "cancelled"}, "job.cancelling"),
        ({"state": "finalizing", "ending": "cancelled"}, "job.finalizing"),
        ({"state": "completed"}, "job.completed"),
    ],
)
def test_a_repeat_tells_how_things_stand(state: dict[str, Any], told: str) -> None:
    usual = {"revision": 1, "state": "in_progress"}
    assert events.standing_event(JobState(**(usual | state))) == told
