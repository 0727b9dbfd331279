"""Batches until they end: who is asked when, and with what the command ends."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from phi3batch.mistakes import Ended
from phi3batch.progress import ENDED, describe, display
from phi3batch.service import NOT_DONE, BatchService
from schemas.openai import Batch

ROWS_FAILED: Final = 3
TOO_LATE: Final = 124
INTERRUPTED: Final = 130
_FIRST_PAUSE: Final = 0.25

Reader = Callable[[str], Batch]
Wait = Callable[[], bool]


def followed(ids: Sequence[str], read: Reader, wait: Wait) -> Iterator[Batch]:
    """Each batch as it is read, again and again until it has ended; `wait` says whether to go on.

    Those that still run are read once between two waits.
    """
    open_ids = list(dict.fromkeys(ids))
    while open_ids:
        for batch_id in tuple(open_ids):
            batch = read(batch_id)
            if batch.status in ENDED:
                open_ids.remove(batch_id)
            yield batch
        if open_ids and not wait():
            return


def growing(longest: float) -> Iterator[float]:
    """Seconds between looks: short ones first, for small batches end within a second."""
    pause = min(_FIRST_PAUSE, longest)
    while True:
        yield pause
        pause = min(pause * 1.5, longest)


def status_of(batch: Batch, *, strict: bool) -> int:
    """0 completed, 1 otherwise ended, 3 where no row succeeded or, if strict, one did not."""
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
    """Show batches until all have ended; `tell` gets each that has. Gives the exit status.

    Ctrl-C and `timeout` leave the batches running, and say how to come back.
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
            for batch in followed(ids, service.batch, wait):
                last[batch.id] = batch
                shown.show(batch)
    except KeyboardInterrupt:
        raise Ended(INTERRUPTED, _come_back(ids, last)) from None
    for batch in last.values():
        if batch.status in ENDED:
            tell(batch)
    if any(batch.status not in ENDED for batch in last.values()):
        raise Ended(TOO_LATE, _come_back(ids, last))
    statuses = [status_of(batch, strict=strict) for batch in last.values()]
    return NOT_DONE if NOT_DONE in statuses else max(statuses, default=0)


def told(batch: Batch) -> None:
    """A batch on standard output: one line."""
    print(describe(batch))
    sys.stdout.flush()


def _come_back(ids: Sequence[str], last: dict[str, Batch]) -> str:
    running = [each for each in ids if each not in last or last[each].status not in ENDED]
    names = " ".join(dict.fromkeys(running))
    goes = "they go on" if len(running) > 1 else "it goes on"
    return f"not waited for: {goes} without you; come back with: phi3batch watch {names}"
