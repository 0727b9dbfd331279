"""What is said of a job that has ended, and with which exit status the command ends."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from local import results
from local.following import Arrived
from local.progress import describe
from schemas.status import JobStatus

ANSWERS_SHOWN = 2
CODES_SHOWN = 10
NOT_COMPLETED = 1
ROWS_FAILED = 3
INTERRUPTED = 130
GOES_ON = "the same command goes on with it"


def report(console: Console, status: JobStatus, folder: Path, seconds: float | None = None) -> None:
    """The counts, the errors by code, where the results lie and the first of them."""
    took = "" if seconds is None else f" · {seconds:.1f} s"
    source = f", from the blobs {status.results}/" if status.results else ""
    lines = [describe(status) + took, *_errors(folder), "", f"results in {folder}/{source}"]
    if (folder / results.REPORT).exists():
        lines.append(f"how it went: {folder / results.REPORT}")
    for custom_id, answer in results.first_answers(folder, ANSWERS_SHOWN):
        lines.append(f"  {custom_id}: {answer}")
    _tell(console, lines)


def report_events(console: Console, arrived: Sequence[Arrived]) -> None:
    """The status events, as they came."""
    _tell(console, ("", "status events, in order of arrival"))
    _tell(
        console,
        (
            f"  {each.after:7.2f} s  {each.event.type}{_counted(each.event.data)}"
            for each in arrived
        ),
    )


def exit_status(status: JobStatus, *, strict: bool, interrupted: bool) -> int:
    """Say why a job did not end well, if it did not, and return the exit status: 0 if it did."""
    counts = status.counts
    if status.state == "cancelled" and interrupted:
        print(f"interrupted: what is done is at home; {GOES_ON}", file=sys.stderr)
        return INTERRUPTED
    if status.state != "completed":
        reason = f": {status.reason.message}" if status.reason else ""
        state = status.state or "rejected"
        stands = f"was {state}" if state in {"rejected", "cancelled"} else state
        print(f"error: the job {stands}{reason}", file=sys.stderr)
        return NOT_COMPLETED
    if counts is None or not counts.errors or (counts.succeeded and not strict):
        return 0
    failed = f"{counts.errors:,} of {counts.total:,} rows" if counts.succeeded else "every row"
    print(f"error: {failed} failed", file=sys.stderr)
    return ROWS_FAILED


def _errors(folder: Path) -> list[str]:
    codes = results.errors_by_code(folder)
    lines = [f"  {each.count:,} {code}: {each.first}" for code, each in codes[:CODES_SHOWN]]
    more = sum(each.count for _, each in codes[CODES_SHOWN:])
    return [*lines, f"  {more:,} with other codes"] if more else lines


def _counted(status: JobStatus) -> str:
    counts = status.counts
    return f"  {counts.done:,} of {counts.total:,} rows" if counts and counts.total else ""


def _tell(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False)
