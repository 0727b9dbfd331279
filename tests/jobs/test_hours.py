"""Jobs and deployments that may be asked at some hours alone: nothing is asked at any other."""

import asyncio
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from schemas.hours import Hours
from schemas.jobs import Job, JobOptions, JobState, Waiting
from schemas.outcomes import Outcome
from schemas.results import Counts
from tests.doubles.service import DEPLOYMENT, EPOCH, MODEL, Answering, Bench, bench
from tests.simulation.virtual_time import run
from workers.jobs import pace
from workers.jobs.lifecycle import wait
from workers.ports import BlobRef

HOUR = 3600.0
# The doubles' time begins on 15 January 2027 at 08:00 UTC.
LATER = Hours(hours="10:00-11:00", time_zone="UTC")
ROWS = b'{"prompt": "p"}\n'


class Watched(Answering):
    """Each call takes a while; `began` are the times at which calls did, since the begin."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.began: list[float] = []

    async def ask(self, task: Any, body: Any) -> Outcome:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.seconds)
        return await super().ask(task, body)


def clock(seconds: float) -> str:
    return datetime.fromtimestamp(EPOCH + seconds, UTC).strftime("%H:%M:%S")


async def serve(*workers: Bench, until: float) -> None:
    """Let the workers serve the queues, each for itself, for so long."""
    loop = asyncio.get_running_loop()

    async def one(worker: Bench) -> None:
        while loop.time() < until:
            await worker.settle()
            await asyncio.sleep(20.0)

    await asyncio.gather(*map(one, workers))


def beside(first: Bench, endpoint: Answering, **settings: Any) -> Bench:
    """A second process over the same storage and queues."""
    return Bench(
        blobs=first.blobs,
        bus=first.bus,
        settings=first.settings,
        endpoint=endpoint,
        transfers=first.blobs,  # type: ignore[arg-type]
        rng=Random(1),
    )


async def told(service: Bench) -> dict[str, Any]:
    reply = await service.ask("GET", "/api/jobs")
    (job,) = reply.body["data"]
    return dict(job)


def test_a_job_of_a_priority_waits_for_its_hour_and_says_so() -> None:
    async def story(_: Random) -> None:
        endpoint = Watched(1.0)
        async with bench(endpoint=endpoint, priority_hours={"low": LATER}) as service:
            await service.drop(ROWS * 60, options={"priority": "low"})
            await service.announce()
            await serve(service, until=60.0)
            waiting = (await told(service))["waiting"]
            assert waiting["reason"] == "hours"
            assert waiting["until"] == "2027-01-15T10:00:00.000Z"
            listed = await service.ask("GET", "/api/jobs", waits_for="hours")
            assert len(listed.body["data"]) == 1
            assert endpoint.began == []
            await serve(service, until=3 * HOUR)
            ended = await service.ended()
            assert ended.state == "completed"
            assert {clock(at)[:2] for at in endpoint.began} == {"10"}
            assert 2 * HOUR - 5 < ended.manifest["closed_seconds"] < 2 * HOUR + 5
            report = BlobRef("results", f"{ended.folder.partition('/')[2]}/report.html")
            page = (await service.blobs.read(report)).data.decode()
            assert "Waits of the whole job" in page
            assert "1 h 59 min" in page or "2 h 0 min" in page

    run(story)


def test_other_priorities_do_not_wait() -> None:
    async def story(_: Random) -> None:
        async with bench(priority_hours={"low": LATER}) as service:
            ended = await service.run(ROWS)
            assert ended.state == "completed"
            assert "closed_seconds" not in ended.manifest

    run(story)


@pytest.mark.slow
@pytest.mark.parametrize(
    "limited",
    [
        "priority",
        pytest.param("deployment", marks=pytest.mark.long),
        "one of two deployments",
    ],
)
@pytest.mark.parametrize(
    ("rows", "seconds"), [(450, 20.0), pytest.param(900, 10.0, marks=pytest.mark.long)]
)
def test_nothing_is_asked_at_other_hours_on_many_workers(
    limited: str, rows: int, seconds: float
) -> None:
    """Two processes with more rows than the hour takes: what is left is asked the next day."""
    hours = {"hours": LATER.hours, "time_zone": LATER.time_zone}
    open_ = {"max_concurrency": 1}
    deployment = DEPLOYMENT.model_copy(update=open_ if limited == "priority" else open_ | hours)
    settings: dict[str, Any] = {"deployments": (deployment,), "shard_seconds": 30.0}
    if limited.startswith("one"):
        other = DEPLOYMENT.model_copy(update={"name": "other", "model": "another-model"})
        settings["deployments"] = (deployment, other)
    if limited == "priority":
        settings["priority_hours"] = {"normal": LATER}

    async def story(_: Random) -> None:
        endpoint = Watched(seconds)
        async with bench(endpoint=endpoint, **settings) as service:
            second = beside(service, endpoint)
            await service.drop(ROWS * rows, options={"completion_window": "3d", "model": MODEL})
            await service.announce()
            # An hour beyond the end of the second day's.
            await serve(service, second, until=28 * HOUR)
            ended = await service.ended()
            assert ended.counts["succeeded"] == rows
            days = {int((EPOCH + at) // 86400) for at in endpoint.began}
            assert len(days) == 2
            assert all("10:00:00" <= clock(at) < "11:00:01" for at in endpoint.began)
            assert ended.manifest["closed_seconds"] > 20 * HOUR

    run(story)


def test_a_cancel_is_not_kept_waiting_for_an_hour() -> None:
    async def story(_: Random) -> None:
        async with bench(priority_hours={"normal": LATER}) as service:
            await service.drop(ROWS * 60)
            await service.announce()
            await serve(service, until=30.0)
            job = (await told(service))["job"]
            await service.ask("POST", f"/api/jobs/{job}/cancel")
            await serve(service, until=90.0)
            ended = await service.ended()
            assert ended.state == "cancelled"
            assert ended.counts["cancelled"] == 60
            assert ended.manifest["closed_seconds"] > 20

    run(story)


def test_a_job_whose_window_ends_before_its_hour_is_at_risk() -> None:
    async def story(_: Random) -> None:
        async with bench(priority_hours={"normal": LATER}) as service:
            await service.drop(ROWS * 60, options={"completion_window": "1h"})
            await service.announce()
            await serve(service, until=30.0)
            status = await told(service)
            assert status["at_risk"]["late_seconds"] == pytest.approx(HOUR, abs=60)
            assert status["at_risk"].get("needed_rate") is None

    run(story)


# -- the decisions alone


def job(hours: Hours | None, expires: float) -> Job:
    return Job(
        id="j",
        door="queue",
        container="inputs",
        name="a.jsonl",
        etag="0x1",
        size=9,
        options=JobOptions(),
        priority="low",
        created=EPOCH,
        expires=expires,
        window=8,
        max_line_bytes=4096,
        results="a/j",
        hours=hours,
    )


STATE = JobState(
    revision=1,
    state="in_progress",
    counts=Counts(total=7200, succeeded=0),
    least_seconds=7200.0,
    started=EPOCH,
)


def test_time_left_goes_on_in_the_jobs_hours_alone() -> None:
    going = pace.Pace(1.0, "quota")
    limited = job(LATER, EPOCH + 48 * HOUR)
    # Two hours until it opens, an hour of work, 23 hours until it opens again, and the other hour.
    assert pace.seconds_left(limited, STATE, going, EPOCH) == 27 * HOUR
    assert pace.seconds_left(job(None, EPOCH), STATE, going, EPOCH) == 2 * HOUR
    assert pace.needs(limited, STATE, EPOCH) == pytest.approx(1.0)
    assert pace.at_risk(limited, STATE, 27 * HOUR, EPOCH) is None
    tight = job(LATER, EPOCH + 24 * HOUR)
    risk = pace.at_risk(tight, STATE, 27 * HOUR, EPOCH)
    assert risk is not None
    assert (risk.late_seconds, risk.needed_rate, risk.needed_quota) == (3 * HOUR, 2.0, 2.0)


def test_a_deployment_that_opens_too_late_is_a_risk_too() -> None:
    waiting = Waiting(reason="hours", since=EPOCH, until=EPOCH + 20 * HOUR)
    waits = wait(STATE.model_copy(update={"least_seconds": None}), waiting).state
    assert waits is not None
    risk = pace.at_risk(job(None, EPOCH + 10 * HOUR), waits, None, EPOCH)
    assert risk is not None
    assert risk.late_seconds == 10 * HOUR
    assert risk.needed_rate is None, "no rate helps: nothing is asked before its window ends"
    assert pace.at_risk(job(None, EPOCH + 30 * HOUR), waits, None, EPOCH) is None


def test_what_a_late_job_needs_is_for_the_time_in_which_it_may_be_asked() -> None:
    # 7,200 rows, an hour of which is left when its deployment opens, or 30 minutes of its own.
    opens = Waiting(reason="hours", since=EPOCH, until=EPOCH + 9 * HOUR)
    waits = wait(STATE, opens).state
    assert waits is not None
    risk = pace.at_risk(job(None, EPOCH + 10 * HOUR), waits, None, EPOCH)
    assert risk is not None
    assert (risk.late_seconds, risk.needed_rate, risk.needed_quota) == (HOUR, 2.0, 2.0)
    both = job(Hours(hours="08:00-17:30", time_zone="UTC"), EPOCH + 10 * HOUR)
    risk = pace.at_risk(both, waits, None, EPOCH)
    assert risk is not None
    assert (risk.needed_rate, risk.needed_quota) == (4.0, 4.0)
    # Its weight among others is that of its window: once it may be asked it is pressed enough.
    assert pace.needs(job(None, EPOCH + 10 * HOUR), waits, EPOCH) == pytest.approx(0.2)


def test_hours_that_all_deployments_share_are_the_jobs() -> None:
    at_night = DEPLOYMENT.model_copy(update={"hours": "22:00-06:00", "time_zone": "UTC"})
    assert pace.shared_hours((at_night, at_night)) == Hours(hours="22:00-06:00", time_zone="UTC")
    assert pace.shared_hours((at_night, DEPLOYMENT)) is None
    assert pace.shared_hours(()) is None
