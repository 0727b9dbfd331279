"""Where do the microseconds of a row go, and who pays them?

    python -m benchmarks.row_cost [--rows 5000] [--rounds 5]

One worker's parts run in this process, over a real Azurite and a simulated endpoint that answers
after 50 ms, 500 calls at once, each a process of its own. Every millisecond a signal looks at
what runs, and gives the processor time since the last look to the room of `workers/` that is
innermost on the stack: to its own code, or to libraries that it called. So the parts sum to what
the process took, and nothing is counted while it waits. What has no room on its stack is the event
loop's, or aiohttp's where it reads what came in. Medians of the rounds, after one that imports.
`--functions` prints those of each room that took most, by themselves and with what they called.
"""

import argparse
import asyncio
import gc
import os
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import aiohttp

from benchmarks.telemetry import row_seconds
from benchmarks.throughput import ROWS, bare, endpoint
from local.azurite import azurite
from workers.service.memory import GC_THRESHOLD

LOOK_EVERY: Final = 0.001
WORKERS: Final = f"{Path(__file__).parent.parent / 'workers'}/"
AIOHTTP: Final = f"{Path(aiohttp.__file__).parent}/"
LOOP: Final = "event loop"
READING: Final = "answers read"
COLLECTOR: Final = "garbage"
THREADS: Final = "threads"
# What it is in the words of a reader, by how the file's path below workers/ begins; the first that
# fits. A storage or bus call is its caller's, whose room lies further out.
ROOMS: Final = {
    "adapters/endpoints/": "call",
    "adapters/": "",
    "ports/": "",
    "rows/": "rows",
    "dispatch/": "dispatch",
    "quota/": "dispatch",
    "shards/journal": "journal",
    "shards/spool": "spool",
    "shards/": "shard",
    "intake/": "planning",
    "jobs/": "job and status",
    "": "job and status",
}

Part = tuple[str, bool]
"""A room, and whether it was a library beneath it that ran."""


class Look:
    """Processor seconds by part, and by function, as a signal finds them; its own left out."""

    def __init__(self) -> None:
        self.parts: defaultdict[Part, float] = defaultdict(float)
        self.functions: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._last: float | None = None
        self._collecting = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, self._note)
        began, threads = time.thread_time(), time.process_time() - time.thread_time()
        self._last = began
        gc.callbacks.append(self._collected)
        signal.setitimer(signal.ITIMER_REAL, LOOK_EVERY, LOOK_EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)
            gc.callbacks.remove(self._collected)
            self.parts[THREADS, True] = time.process_time() - time.thread_time() - threads

    def _note(self, _: int, frame: FrameType | None) -> None:
        if self._last is None or frame is None:
            return  # it looks already
        last, self._last = self._last, None
        spent = time.thread_time() - last
        self.parts[part(frame)] += spent
        self.functions[function(frame)] += spent
        self._last = time.thread_time()

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        """Whoever makes the object that starts it is not the one who pays."""
        now = time.thread_time()
        if phase == "start":
            self._collecting = now
        elif self._last is not None:
            self.parts[COLLECTOR, True] += now - self._collecting
            self._last += now - self._collecting


def part(frame: FrameType) -> Part:
    """To whom belongs what runs?"""
    at: FrameType | None = frame
    while at is not None:
        if room := room_of(at.f_code):
            return room, not in_workers(frame.f_code)
        at = at.f_back
    return (READING if frame.f_code.co_filename.startswith(AIOHTTP) else LOOP), True


@cache
def in_workers(code: CodeType) -> bool:
    return code.co_filename.startswith(WORKERS)


@cache
def room_of(code: CodeType) -> str:
    if not in_workers(code):
        return ""
    path = code.co_filename.removeprefix(WORKERS)
    return next(room for start, room in ROOMS.items() if path.startswith(start))


def function(frame: FrameType) -> tuple[str, str]:
    """What runs, and the innermost function of ours that it runs for."""
    at: FrameType | None = frame
    while at is not None and not in_workers(at.f_code):
        at = at.f_back
    return _name(at) if at else "", _name(frame)


def _name(frame: FrameType) -> str:
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{frame.f_code.co_qualname}"


async def rounds(rows: int, count: int) -> tuple[list[Look], list[float]]:
    """What each round showed, and the CPU seconds of one of bare aiohttp's rows."""
    looks, plain = [], []
    with endpoint() as url:
        async with azurite() as storage:
            for turn in range(count + 1):
                look = Look()
                await row_seconds(
                    "off", "", url, storage.connection_string, rows, watching=look.watching()
                )
                began = time.process_time()
                await bare(url)
                if turn:
                    looks.append(look)
                    plain.append((time.process_time() - began) / ROWS)
    return looks, plain


def show(looks: list[Look], plain: list[float], rows: int) -> None:
    print(f"{'µs a row':16}{'own code':>10}{'libraries':>11}{'together':>10}")

    def median(name: str, beneath: bool) -> float:
        return statistics.median(look.parts[name, beneath] for look in looks) / rows * 1e6

    whole = [sum(look.parts.values()) / rows for look in looks]
    names = {name for look in looks for name, _ in look.parts}
    found = {name: (median(name, False), median(name, True)) for name in names}
    for name, (own, beneath) in sorted(found.items(), key=lambda each: -sum(each[1])):
        print(f"{name:16}{own:10.1f}{beneath:11.1f}{own + beneath:10.1f}")
    print(f"{'all':16}{'':21}{statistics.median(whole) * 1e6:10.1f}")
    print(f"{'bare aiohttp':16}{'':21}{statistics.median(plain) * 1e6:10.1f}", flush=True)


def show_functions(looks: list[Look], rows: int, most: int) -> None:
    total: defaultdict[tuple[str, str], float] = defaultdict(float)
    for look in looks:
        for name, seconds in look.functions.items():
            total[name] += seconds
    for (ours, ran), seconds in sorted(total.items(), key=lambda each: -each[1])[:most]:
        print(f"{seconds / len(looks) / rows * 1e6:8.2f} µs  {ours}  {ran if ran != ours else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--functions", type=int, default=0, metavar="N")
    given = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)
    looks, plain = asyncio.run(rounds(given.rows, given.rounds))
    print(f"{given.rows:,} rows, {given.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    show(looks, plain, given.rows)
    show_functions(looks, given.rows, given.functions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
