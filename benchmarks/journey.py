"""How far a reader has to go to follow one row: files touched, and moves between files.

`python -m benchmarks.journey` runs the production code over the in-memory doubles with a job of one
row, and follows the handler of its shard's message from there to the receipt that names its output
line. Each entry into a function of `workers/` or `schemas/` counts, as does each time that a
coroutine goes on after a wait; a move is an entry that lies in another file than the one before.
`--root` takes another checkout, to compare with; `--path` prints the way itself.
"""

import argparse
import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from itertools import groupby, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent.parent
LINE = b'{"custom_id": "a", "messages": [{"role": "user", "content": "Hi"}]}\n'


class Journey:
    """What was entered, in order: the file and the function."""

    def __init__(self, root: Path) -> None:
        self._folders = tuple(f"{root / name}/" for name in ("workers", "schemas"))
        self._start = len(f"{root}/")
        self.steps: list[tuple[str, str]] = []

    def follow(self, handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """The handler, with all that it enters taken down."""

        async def followed(message: Any) -> None:
            sys.setprofile(self._note)
            try:
                await handler(message)
            finally:
                sys.setprofile(None)

        return followed

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(self._folders):
            self.steps.append((code.co_filename[self._start :], code.co_name))

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.steps}

    @property
    def moves(self) -> int:
        return sum(file != following for (file, _), (following, _) in pairwise(self.steps))

    @property
    def moves_of_rooms(self) -> int:
        """Moves that there would be if each room were one file."""
        rooms = [Path(file).parent for file, _ in self.steps]
        return sum(room != following for room, following in pairwise(rooms))

    @property
    def waits(self) -> int:
        """How often the handler itself goes on after a wait."""
        return self.steps.count(self.steps[0]) - 1


async def journey(root: Path) -> Journey:
    """One row's, in the checkout at `root`."""
    sys.path.insert(0, str(root))
    doubles = importlib.import_module("tests.doubles.service")
    made = Journey(root)
    async with doubles.bench() as bench:
        bench.inbox.shards = made.follow(bench.inbox.shards)
        ended = await bench.run(LINE)
        assert ended.counts["succeeded"] == 1
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journey", description=__doc__)
    parser.add_argument("--root", type=Path, default=HERE, help="a checkout of this repository")
    parser.add_argument("--path", action="store_true", help="print each file and what it ran")
    arguments = parser.parse_args()
    made = asyncio.run(journey(arguments.root.resolve()))
    if arguments.path:
        for file, steps in groupby(made.steps, key=lambda step: step[0]):
            print(f"{file}: {' '.join(function for _, function in steps)}")
    print(f"{len(made.files)} files, {made.moves} moves between them, {len(made.steps)} entries")
    print(f"{made.moves_of_rooms} moves between rooms, {made.waits} waits of the handler")


if __name__ == "__main__":
    main()
