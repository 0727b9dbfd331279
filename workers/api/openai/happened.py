"""What has happened to a batch? As far as its stored state remembers it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from schemas.jobs import TERMINAL
from schemas.openai import Batch, BatchEvent
from schemas.pauses import PauseChange

_LEVELS: Final[Mapping[str, Literal["info", "warn", "error"]]] = {
    "failed": "error",
    "expired": "error",
    "waiting": "warn",
    "paused": "warn",
    "cancelled": "warn",
}


def events_of(batch: Batch, pauses: Sequence[PauseChange]) -> list[BatchEvent]:
    """The events of a batch, the latest first. `pauses` are those that its state remembers."""
    counts = batch.request_counts
    rows = f"{counts.completed} of {counts.total} rows succeeded, {counts.failed} failed"
    if batch.errors is not None and batch.errors.data:
        rows += f": {batch.errors.data[0].message}"
    ended = getattr(batch, f"{batch.status}_at", None) if batch.status in TERMINAL else None
    found = [
        _event(
            batch, "validating", batch.created_at, f"the batch came by the door {batch.phi3.door}"
        ),
        _event(batch, "in_progress", batch.in_progress_at, f"{counts.total} rows are planned"),
        *_of_pauses(batch, pauses),
        _event(batch, "cancelling", batch.cancelling_at, "no more rows are asked"),
        _event(batch, "finalizing", batch.finalizing_at, "every row has its line"),
        *_of_wait(batch, pauses),
        _event(batch, batch.status, ended, rows),
    ]
    # Of one second the later one stands further on.
    told = [event for event in reversed(found) if event is not None]
    return sorted(told, key=lambda event: -event.created_at)


def _event(
    batch: Batch, kind: str, at: float | None, message: str, *, of_many: bool = False
) -> BatchEvent | None:
    """An event; None for what has not happened."""
    if at is None:
        return None
    return BatchEvent(
        id=f"{batch.id}:{kind}:{at:.3f}" if of_many else f"{batch.id}:{kind}",
        created_at=int(at),
        level=_LEVELS.get(kind, "info"),
        type=f"batch.{kind}",
        message=message,
    )


def _of_pauses(batch: Batch, pauses: Sequence[PauseChange]) -> list[BatchEvent | None]:
    """Of each pause that it was paused, by whom, and of its end that it went on."""
    found = []
    for change in pauses:
        kind = "paused" if change.paused else "resumed"
        message = "the batch goes on"
        if change.paused and change.reason is not None:
            message = f"the batch waits for {change.reason}"
            if change is pauses[-1] and (told := (batch.phi3.waiting or {}).get("message")):
                message += f": {told}"
        elif change.paused:
            message = "the batch was paused by hand: it asks no more rows until it is resumed"
        found.append(_event(batch, kind, change.at, message, of_many=True))
    return found


def _of_wait(batch: Batch, pauses: Sequence[PauseChange]) -> list[BatchEvent | None]:
    """What it waits for now, unless the last pause says so."""
    waiting = batch.phi3.waiting
    if waiting is None or (batch.phi3.paused and pauses and pauses[-1].paused):
        return []
    told = " ".join(waiting.get(name, "") for name in ("reason", "deployment", "message"))
    since = datetime.fromisoformat(waiting["since"]).timestamp()
    return [_event(batch, "waiting", since, f"the batch waits for {told.strip()}")]
