"""How a job comes to its end: before its time, and from its last receipt to its manifest.

The functions are transitions as those of `lifecycle`.
"""

from collections.abc import Mapping

from schemas.jobs import Ending, JobState, Reason
from schemas.results import Lost, Use
from workers.jobs.lifecycle import NOTHING, Change, filled, moved, nothing_left, waited
from workers.jobs.pace import sample


def end(
    state: JobState | None,
    ending: Ending,
    reason: Reason | None,
    *,
    repeated: bool = False,
    now: float | None = None,
) -> Change:
    """End a job before its time: the first ending counts, and none does once it is finalizing."""
    if state is None:
        # A cancel may come before the plan: intake then plans, and the rows flow to their ends.
        return Change(
            JobState(revision=1, state="validating", ending=ending, reason=reason, ending_since=now)
        )
    if state.terminal or state.state == "finalizing":
        return NOTHING
    if state.ending is not None:
        return Change(None, state.out if repeated else (), repeated and nothing_left(state))
    ended = moved(
        state,
        ending=ending,
        reason=reason,
        ending_since=now,
        paused=False,
        gen=state.gen + 1,
        waiting=None,
        **({} if now is None else waited(state, now)),
    )
    full, _ = filled(ended)  # of one that waited to begin nothing was out
    return Change(full, full.out, nothing_left(full))


def finalize(state: JobState, *, repeated: bool = False, now: float | None = None) -> Change:
    """Every shard has its receipt: assemble, paused or not, for there is nothing left to ask.

    Where something is left, a repeat comes from who asked for an ending or a resume, and may have
    died before anything was sent.
    """
    if not nothing_left(state):
        going = state.state == "in_progress" and not state.paused
        return Change(None, state.out if repeated and going else ())
    before = {} if now is None else waited(state, now)
    finalizing = {"state": "finalizing", "paused": False, "waiting": None, **before}
    return Change(moved(state, finalizing_since=now, **finalizing))


def stage(state: JobState, staged: int, *, repeated: bool = False) -> Change:
    """The parts of the first `staged` shards are staged; the next slice goes on from there."""
    if state.state != "finalizing":
        return NOTHING
    if staged <= state.staged:
        return Change(finish=repeated)
    return Change(moved(state, staged=staged), finish=True)


def close(
    state: JobState,
    *,
    use: Mapping[str, Use],
    lost: Lost,
    now: float,
    manifest: str | None = None,
) -> Change:
    """The manifest stands, under the usual name or that one: the terminal state.

    `use` and `lost` are those of all receipts: a swap by the release 0.1.0 empties the state's.
    """
    if state.state != "finalizing":
        return NOTHING
    ended = moved(
        state,
        state=state.ending or "completed",
        use=dict(use),
        lost=lost,
        manifest=manifest,
        ended=now,
        sampled=now,
    )
    return Change(ended, sample=sample(ended, now, None))
