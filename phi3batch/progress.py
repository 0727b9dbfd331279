"""How is a batch shown while it runs? A live line on a terminal, plain lines without one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from phi3batch.money import in_short, rows_done
from schemas.openai import Batch, BatchLineError
from schemas.status import AtRisk

# Columns of a terminal below which an id is told by its last characters.
_WIDE: Final = 140
_SHORT: Final = 8
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})


def describe(batch: Batch) -> str:
    """One line: id, state, rows, rate, tokens, cost, time left, and what it waits for."""
    counts, more = batch.request_counts, batch.phi3
    parts = [f"{batch.id} {'paused' if more.paused else batch.status}"]
    if counts.total:
        parts.append(f"{rows_done(batch):,} of {counts.total:,} rows")
        parts.append(f"{counts.completed:,} succeeded")
        if counts.failed:
            parts.append(f"{counts.failed:,} failed")
        if batch.status in ENDED and (missing := counts.total - rows_done(batch)) > 0:
            parts.append(f"{missing:,} got no answer")
    if batch.status == "in_progress":
        if more.rate:
            allowed = " allowed" if more.basis == "quota" else ""
            parts.append(f"{more.rate:,.1f} rows/s{allowed}")
        if more.seconds_left is not None:
            parts.append(f"{timedelta(seconds=round(more.seconds_left))} left")
        if more.at_risk is not None:
            parts.append(f"{timedelta(seconds=round(more.at_risk.late_seconds))} too late")
    if batch.usage.total_tokens:
        parts.append(f"{batch.usage.total_tokens:,} tokens")
    if more.cost is not None:
        parts.append(in_short(more.cost))
    if more.waiting is not None and batch.status not in ENDED:
        whose = f" of {more.waiting['deployment']}" if "deployment" in more.waiting else ""
        parts.append(f"waiting for {more.waiting['reason']}{whose}")
    if batch.errors is not None and batch.errors.data:
        first = batch.errors.data[0]
        parts.append(f"{first.code}: {placed(first)}")
    return " · ".join(parts)


def advice(batch: Batch) -> str | None:
    """What to do about that which a batch waits for, where the service says so."""
    waiting = None if batch.status in ENDED else batch.phi3.waiting
    return None if waiting is None else waiting.get("message")


def in_time(risk: AtRisk) -> str:
    """By how much a batch will miss the end of its window, and what would do."""
    late = f"it will miss the end of its window by {timedelta(seconds=round(risk.late_seconds))}"
    if risk.needed_rate is None:
        return f"{late}: none of its hours is left before that"
    enough = f"{late}: {risk.needed_rate:,.1f} rows/s would do"
    if risk.needed_quota is None:
        return enough
    if risk.needed_quota > 1:
        return f"{enough}, but its quotas do not suffice: raise them, or give it more time"
    return f"{enough}, which take {risk.needed_quota:.0%} of its quotas"


def placed(error: BatchLineError) -> str:
    """What is wrong, with the line of the input where there is one."""
    if error.line is None:
        return error.message
    where = f"line {error.line}: "
    return f"{where}{error.message.removeprefix(where)}"


class Display:
    """Shows batches as they are read; on plain lines only what has changed."""

    def __init__(self, live: Progress | None) -> None:
        self._live = live
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, str] = {}
        self._advised: dict[str, str] = {}
        self._paused: set[str] = set()

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._live is None:
            print(text, file=sys.stderr)
        else:
            self._live.console.print(text, markup=False, highlight=False)

    def show(self, batch: Batch) -> None:
        """A batch as it is now, and once that it is paused or goes on, and what it waits for."""
        self._move(batch)
        self._tell_pause(batch)
        said = advice(batch)
        if said is not None and self._advised.get(batch.id) != said:
            self._advised[batch.id] = said
            self.note(f"{batch.id} waits: {said}")

    def _tell_pause(self, batch: Batch) -> None:
        paused = batch.phi3.paused and batch.status not in ENDED
        if paused is (batch.id in self._paused):
            return
        if paused:
            self._paused.add(batch.id)
            told = f"it asks no more rows until: phi3batch resume {batch.id}"
            if batch.phi3.waiting is not None:
                told = f"it waits for {batch.phi3.waiting['reason']}"
            self.note(f"{batch.id} is paused: {told}")
            return
        self._paused.remove(batch.id)
        if batch.status == "in_progress":
            self.note(f"{batch.id} is resumed: it goes on")

    def _move(self, batch: Batch) -> None:
        line = describe(batch)
        if self._live is None:
            # The last line is the command's own, on standard output.
            if batch.status not in ENDED and self._shown.get(batch.id) != line:
                self.note(line)
            self._shown[batch.id] = line
            return
        if self._live.console.width < _WIDE:
            line = line.replace(batch.id, f"…{batch.id[-_SHORT:]}")
        if batch.id not in self._tasks:
            self._tasks[batch.id] = self._live.add_task("", total=None)
        counts = batch.request_counts
        self._live.update(
            self._tasks[batch.id],
            description=line,
            total=counts.total or None,
            completed=rows_done(batch),
        )


@contextmanager
def display() -> Iterator[Display]:
    """On standard error, for data go to standard output; live on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Display(None)
        return
    text = TextColumn(
        "{task.description}", markup=False, table_column=Column(no_wrap=False, overflow="fold")
    )
    with Progress(BarColumn(bar_width=16), text, console=console, transient=True) as live:
        yield Display(live)
