"""What is told of shards that are out, however many attempts tell it at the same time."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from schemas.jobs import JobState
from schemas.results import Counts
from workers.jobs.lifecycle import Change, Progress
from workers.jobs.transitions import Transitions
from workers.shards.attempt import Attempt
from workers.shards.reports import Reports

JOB = cast(Any, SimpleNamespace(id="job"))
OUT = JobState(
    revision=1, state="in_progress", shards=3, out=(0, 1, 2), next=3, counts=Counts(total=300)
)


def attempt(shard: int, rows: int, lease: float = 60.0) -> Attempt:
    """One that has journaled so many rows, and has its lease for so many seconds more."""
    until = asyncio.get_running_loop().time() + lease
    return cast(
        Attempt,
        SimpleNamespace(
            job=JOB, shard=shard, journaled=Progress(rows), lease=SimpleNamespace(until=until)
        ),
    )


class Meeting:
    """Transitions whose first swap meets another's."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile
        self.taken: list[Change] = []

    async def take(self, _job: object, becomes: Callable[[JobState, bool], Change]) -> None:
        self.taken.append(becomes(OUT, False))
        self._meanwhile()
        stands = OUT.model_copy(update={"running": ((1, 90),)})
        self.taken.append(becomes(stands, True))


def told(change: Change) -> dict[int, int]:
    assert change.state is not None
    return dict(change.state.running)


async def test_a_report_that_is_tried_again_leaves_what_an_attempt_told_at_its_end() -> None:
    ending, other = attempt(0, 40), attempt(1, 50)
    attempts = {id(each): each for each in (ending, other)}
    meeting = Meeting(lambda: attempts.__delitem__(id(other)))
    reports = Reports(cast(Transitions, meeting), lambda: 100.0)
    await reports.progress(JOB, attempts.values())
    first, again = map(told, meeting.taken)
    assert (first, again) == ({0: 40, 1: 50}, {0: 40, 1: 90})


async def test_of_a_shard_whose_lease_is_lost_its_next_attempt_tells() -> None:
    meeting = Meeting(lambda: None)
    attempts = [attempt(0, 40), attempt(1, 40, lease=-1.0)]
    await Reports(cast(Transitions, meeting), lambda: 100.0).progress(JOB, attempts)
    assert told(meeting.taken[-1]) == {0: 40, 1: 90}
