"""Batches until they end: who is asked when, and with what the command ends."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import openai

from phi3batch.mistakes import Ended
from phi3batch.progress import ENDED, describe, display
from phi3batch.service import BatchService
from phi3batch.statuses import INTERRUPTED, NOT_DONE, ROWS_FAILED, TOO_LATE
from schemas.openai import Batch

_FIRST_PAUSE: Final = 0.25
_PATIENCE: Final = 900.0

Reader = Callable[[str], Batch | None]
Wait = Callable[[], bool]


def followed(ids: Sequence[str], read: Reader, wait: Wait) -> Iterator[Batch]:
    """Each batch as it is read, again and again until it has ended; `wait` says whether to go on.

    Those that still run are read once between two waits. `read` gives None where it could not.
    """
    open_ids = list(dict.fromkeys(ids))
    while open_ids:
        for batch_id in tuple(open_ids):
            batch = read(batch_id)
            if batch is None:
                continue
            if batch.status in ENDED:
                open_ids.remove(batch_id)
            yield batch
        if open_ids and not wait():
            return


class Patience:
    """Reads batches past outages: what cannot be reached is tried again for `seconds`.

    Then, and where the service refuses, the error is raised.
    """

    def __init__(
        self,
        read: Callable[[str], Batch],
        tell: Callable[[str], None],
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._read = read
        self._tell = tell
        self._seconds = seconds
        self._since: float | None = None

    def read(self, batch_id: str) -> Batch | None:
        """A batch; None where the service could not be reached."""
        try:
            batch = self._read(batch_id)
        except (openai.APIConnectionError, openai.InternalServerError) as error:
            now = self._clock()
            if self._since is None:
                self._since = now
                self._tell(f"not to be reached ({error}): still trying; the batch goes on")
            if now - self._since >= self._seconds:
                raise
            return None
        self._since = None
        return batch


def growing(longest: float) -> Iterator[float]:
    """Seconds between looks: short ones first, for small batches end within a second."""
    pause = min(_FIRST_PAUSE, longest)
    while True:
        yield pause
        pause = min(pause * 1.5, longest)


def status_of(batch: Batch, *, strict: bool) -> int:
    """The exit status: 1 unless it completed, 3 where no row or, if strict, not each succeeded."""
    counts = batch.request_counts
    if batch.status != "completed":
        return NOT_DONE
    if counts.completed == counts.total or (counts.completed and not strict):
        return 0
    return ROWS_FAILED


def watch(
    service: BatchService,
    ids: Sequence[str],
    *,
    strict: bool,
    interval: float,
    timeout: float | None,
    tell: Callable[[Batch], None],
) -> int:
    """Show batches until all have ended; `tell` gets each that has.

    The result is the exit status. Ctrl-C and `timeout` leave the batches running, and say how to
    come back.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    pauses = growing(interval)

    def wait() -> bool:
        pause = next(pauses)
        if deadline is not None and time.monotonic() + pause > deadline:
            return False
        time.sleep(pause)
        return True

    last: dict[str, Batch] = {}
    try:
        with display() as shown:
            patient = Patience(service.batch, shown.note, _PATIENCE, time.monotonic)
            for batch in followed(ids, patient.read, wait):
                last[batch.id] = batch
                shown.show(batch)
    except KeyboardInterrupt:
        raise Ended(INTERRUPTED, f"Ctrl-C: {come_back(ids, last)}") from None
    for batch in last.values():
        if batch.status in ENDED:
            tell(batch)
    if any(each not in last or last[each].status not in ENDED for each in ids):
        raise Ended(TOO_LATE, f"--timeout has passed: {come_back(ids, last)}")
    statuses = [status_of(batch, strict=strict) for batch in last.values()]
    return NOT_DONE if NOT_DONE in statuses else max(statuses, default=0)


def told(batch: Batch) -> None:
    """A batch on standard output: one line."""
    print(describe(batch))
    sys.stdout.flush()


def come_back(ids: Sequence[str], last: Mapping[str, Batch]) -> str:
    """How to follow batches again that somebody follows no more, by what was read of them last."""
    running = [each for each in ids if each not in last or last[each].status not in ENDED]
    names = " ".join(dict.fromkeys(running))
    if not running:
        return f"all have ended; see: phi3batch watch {' '.join(ids)}"
    if all(each in last and last[each].phi3.paused for each in running):
        goes = "they are paused" if len(running) > 1 else "it is paused"
    else:
        goes = f"{'they go' if len(running) > 1 else 'it goes'} on without you"
    return f"{goes}; come back with: phi3batch watch {names}"
