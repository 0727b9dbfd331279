"""Does every open job move, once nothing goes wrong any more?"""

from typing import TYPE_CHECKING

from schemas.jobs import JobState
from tests.simulation.process import EPOCH

if TYPE_CHECKING:
    from tests.simulation.world import World

LOOK_SECONDS = 60.0
IDLE_SECONDS = 600.0
NEVER_NUDGED_SECONDS = 15 * 60.0
NUDGED_SECONDS = 65 * 60.0


class Liveness:
    """Looks at all open jobs every minute; names one that stands still, and what it waits for.

    Every ten minutes are enough while all that are open are known to wait. A bound runs from the
    last fault, or from when the job moved last, whichever is later.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._stored: dict[str, bytes | None] = {}
        self._seen: dict[str, JobState | None] = {}
        self._moved_at: dict[str, float] = {}
        spans = (
            *world.scenario.storms,
            *world.scenario.outages,
            *world.scenario.storage_out,
            *world.scenario.bus_out,
            *world.scenario.no_runs,
            *(cut.span for cut in world.scenario.partitions),
            *(throttle.span for throttle in world.scenario.throttles),
        )
        self._spans = sorted((span.begin, span.end) for span in spans)
        self._disturbed_at = 0.0

    def disturbed(self) -> None:
        """Something went wrong, came back, or was done to a job."""
        self._disturbed_at = self._world.now

    def _calm_at(self) -> float:
        """Since when nothing has gone wrong."""
        ends = [end for begin, end in self._spans if begin <= self._world.now]
        return max((self._disturbed_at, *ends))

    def look(self) -> None:
        """Look at all open jobs, and again after a while."""
        jobs = self._world.records.open_markers()
        waiting = [self._look(job) for job in jobs]
        self._world.loop.call_later(IDLE_SECONDS if all(waiting) else LOOK_SECONDS, self.look)

    def _look(self, job: str) -> bool:
        """Judge a job; whether it is known to wait."""
        now, stored = self._world.now, self._world.records.of_job(job, "state.json")
        if job not in self._stored or stored != self._stored[job]:
            self._stored[job] = stored
            state = None if stored is None else JobState.model_validate_json(stored)
            if job not in self._seen or _reached(state) != _reached(self._seen[job]):
                self._moved_at[job] = now if state is None else self._world.records.moved_at(job)
            self._seen[job] = state
        still = now - max(self._moved_at[job], self._calm_at())
        if still <= NEVER_NUDGED_SECONDS / 2:
            return False
        state = self._seen[job]
        if state is not None and self._waits(job, state):
            return True
        self._judge(job, state, still)
        return False

    def _judge(self, job: str, state: JobState | None, still: float) -> None:
        # Until it runs, and when it is being finished, helping it does not show in its state.
        runs = state is not None and state.state == "in_progress" and state.out
        never_nudged = runs and not (state and state.nudges)
        if still > (NEVER_NUDGED_SECONDS if never_nudged else NUDGED_SECONDS):
            self._world.fault_found(f"job {job} has stood still since the last fault: {state}")

    def _waits(self, job: str, state: JobState) -> bool:
        if state.paused:
            caps = self._world.caps
            begins = state.next == 0 and state.waiting is not None
            return caps is None or not (begins and caps.has_room(job))
        waiting = state.waiting
        if waiting is None or waiting.reason == "budget":
            return False  # what others hold of a cap has to come back
        until = waiting.until
        return until is not None and until > EPOCH + self._world.now


def _reached(state: JobState | None) -> tuple[object, ...]:
    """How far a job is: that it is helped, or waits anew, moves nothing."""
    if state is None:
        return ()
    return (
        *(state.state, state.ending, state.paused, state.next, state.out),
        *(state.counts, state.running),
    )
