"""How is a job's progress shown? A live line on a terminal, plain lines in a pipe."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from schemas.status import JobStatus

# A plain line comes at most so often, unless the state has changed. Seconds.
PLAIN_EVERY = 2.0


class Display:
    """Shows each status it is given. Made by `display`."""

    def __init__(self, console: Console, live: Progress | None) -> None:
        self._console = console
        self._live = live
        self._task: TaskID | None = live.add_task("starting", total=None) if live else None
        self._state: str | None = None
        self._line = ""
        self._told = 0.0
        self._advice: str | None = None

    def tell(self, line: str) -> None:
        """A line of its own, above the live one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, status: JobStatus) -> None:
        """The job as it is now, and once what to do about that which it waits for."""
        self._move(status)
        advice = (status.waiting or {}).get("message")
        if advice is not None and advice != self._advice:
            self._advice = advice
            self.tell(f"it waits: {advice}")

    def _move(self, status: JobStatus) -> None:
        line = describe(status)
        if self._live is not None and self._task is not None:
            counts = status.counts
            self._live.update(
                self._task,
                description=line,
                total=counts.total if counts and counts.total else None,
                completed=counts.done + (status.running or 0) if counts else 0,
            )
            return
        now = time.monotonic()
        if line == self._line or (status.state == self._state and now - self._told < PLAIN_EVERY):
            return
        self._state, self._told, self._line = status.state, now, line
        self.tell(line)


@contextmanager
def display(console: Console) -> Iterator[Display]:
    """Live on a terminal; the live line is gone at the end."""
    if not console.is_terminal:
        yield Display(console, None)
        return
    # Wrapped where a terminal is narrow: every figure is wanted.
    wrapped = Column(no_wrap=False, overflow="fold")
    text = TextColumn("{task.description}", markup=False, table_column=wrapped)
    columns = (BarColumn(bar_width=16), text)
    with Progress(*columns, console=console, transient=True) as live:
        yield Display(console, live)


def describe(status: JobStatus) -> str:
    """One line: state, rows done of all, succeeded, failed, rows/s, tokens, cost, time left."""
    counts = status.counts
    parts: list[str] = [status.state or "rejected"]
    if counts is not None and counts.errors and status.state == "completed":
        parts[0] += f", {counts.errors:,} of {counts.total:,} failed"
    if counts is not None and counts.total:
        done = counts.done + (status.running or 0)
        parts.append(f"{done:,} of {counts.total:,} rows")
        parts.append(f"{counts.succeeded:,} succeeded")
        parts.append(f"{counts.errors:,} failed")
    if status.rate:
        allowed = " allowed" if status.basis == "quota" else ""
        parts.append(f"{status.rate:,.1f} rows/s{allowed}")
    if status.tokens is not None and status.tokens.total:
        parts.append(f"{status.tokens.total:,} tokens")
    if status.cost is not None and status.tokens is not None and status.tokens.total:
        parts.append(f"{status.cost.counted} {status.cost.currency}")
    if status.seconds_left is not None and status.state == "in_progress":
        parts.append(f"{timedelta(seconds=round(status.seconds_left))} left")
    if status.waiting is not None:
        whose = f" of {status.waiting['deployment']}" if "deployment" in status.waiting else ""
        parts.append(f"waiting for {status.waiting['reason']}{whose}")
    return " · ".join(parts)
