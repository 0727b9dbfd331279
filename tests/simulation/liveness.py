"""Does every open job move, once nothing goes wrong any more?"""

from math import inf
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
    last fault, from when the job moved last, or from when what it waited for was there, whichever
    is latest.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._stored: dict[str, bytes | None] = {}
        self._seen: dict[str, JobState | None] = {}
        self._moved_at: dict[str, float] = {}
        self._nudged_at: dict[str, float] = {}
        self._waits: dict[str, tuple[float, float]] = {}
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

    def disturbed(self, *, until: float = 0.0) -> None:
        """Something went wrong, or does `until` then, came back, or was done to a job."""
        self._disturbed_at = max(self._disturbed_at, self._world.now, until)

    def nudged(self, job: str) -> None:
        """The sweeper helps a job, whether that comes to something or not: it comes back later."""
        self._nudged_at[job] = self._world.now

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
                name = f"open/{job}" if state is None else f"jobs/{job}/state.json"
                self._moved_at[job] = self._world.records.modified_at(name)
            self._seen[job] = state
        free_at = max(self._moved_at[job], self._calm_at())
        if now - free_at <= NEVER_NUDGED_SECONDS / 2:
            return False
        state = self._seen[job]
        if state is not None:
            free_at = max(free_at, self._waits_until(job, state, free_at))
        self._judge(job, state, now - free_at)
        return free_at > now

    def _judge(self, job: str, state: JobState | None, still: float) -> None:
        nudged = (state and state.nudges) or self._nudged_at.get(job, -inf) >= self._moved_at[job]
        # Who waits for room is looked after by each sweep.
        often = state is not None and state.paused
        if still > (NUDGED_SECONDS if nudged and not often else NEVER_NUDGED_SECONDS):
            self._world.fault_found(f"job {job} has stood still since the last fault: {state}")

    def _waits_until(self, job: str, state: JobState, since: float) -> float:
        """When what a job waits for is there, or was; a wait that is renewed ends as was said first
        of all that was said since it stands still.
        """
        waiting, caps = state.waiting, self._world.caps
        if state.paused:
            begins = state.next == 0 and waiting is not None
            room_since = caps.room_since(job) if caps is not None and begins else None
            return inf if room_since is None else room_since
        if waiting is None or waiting.until is None or waiting.reason == "budget":
            return 0.0  # what others hold of a cap has to come back
        if self._waits.get(job, (-inf, 0.0))[0] != since:
            self._waits[job] = since, waiting.until - EPOCH
        return self._waits[job][1]


def _reached(state: JobState | None) -> tuple[object, ...]:
    """How far a job is: that it is helped, or waits anew, moves nothing."""
    if state is None:
        return ()
    return (
        *(state.state, state.ending, state.paused, state.next, state.out),
        *(state.counts, state.running),
    )
