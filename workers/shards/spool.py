"""A shard's results while it runs: in memory up to a bound, beyond it in a temporary file."""

import hashlib
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from workers.rows.writing import RowResult

MEMORY_BYTES: Final = 16 * 1024 * 1024


class Spool:
    """Results by row. The lines may be large (embeddings), all else is kept as it is."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._texts = SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115 - closed by close
        self._places: dict[int, tuple[int, int]] = {}
        self._results: dict[int, RowResult] = {}

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, row: int) -> bool:
        return row in self._results

    def add(self, result: RowResult) -> None:
        """Keep a result; the first one of a row counts."""
        if result.row in self._results:
            return
        end = self._texts.seek(0, 2)
        self._texts.write(result.text)
        self._places[result.row] = (end, len(result.text))
        self._results[result.row] = result._replace(text=b"")

    def results(self) -> Iterator[RowResult]:
        """All results in input order, without their lines."""
        for row in sorted(self._results):
            yield self._results[row]

    def part(self, rows: Iterable[int]) -> tuple[IO[bytes], int, str]:
        """The lines of some rows as one file at its start, its length, and its SHA-256 in hex."""
        lines: IO[bytes] = SpooledTemporaryFile(max_size=self._memory_bytes)  # noqa: SIM115
        digest, length = hashlib.sha256(), 0
        for row in rows:
            start, size = self._places[row]
            self._texts.seek(start)
            line = self._texts.read(size) + b"\n"
            digest.update(line)
            length += lines.write(line)
        lines.seek(0)
        return lines, length, digest.hexdigest()

    def close(self) -> None:
        """Forget everything."""
        self._texts.close()
