"""Results at home: folders of output.jsonl, errors.jsonl and manifest.json, by custom_id."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from phi3batch.answers import NO_ANSWER, Cell, head_of, kind_of, value_of
from phi3batch.mistakes import Mistake
from phi3batch.tables import Kind
from phi3batch.tasks import Naming

OUTPUT: Final = "output.jsonl"
ERRORS: Final = "errors.jsonl"
MANIFEST: Final = "manifest.json"


class Results:
    """The answers in some folders; one counts above an error, and a later folder's above others.

    Held in memory are each row's custom_id and where its answer lies, and no answer.
    Raises Mistake where a folder holds no results, or a line that is none.
    """

    def __init__(self, folders: Sequence[Path], naming: Naming) -> None:
        self._stack = ExitStack()
        self._naming = naming
        self._files: list[BinaryIO] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._errors: dict[str, str] = {}
        self.kinds: dict[str, set[Kind]] = {}
        for folder in folders:
            self._read(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def answer(self, custom_id: str) -> Cell:
        """What was answered; an error where there is no answer."""
        place = self._places.get(custom_id)
        if place is None:
            return Cell(None, self._errors.get(custom_id, NO_ANSWER))
        file = self._files[place[0]]
        file.seek(place[1])
        return Cell(value_of(file.readline()))

    def _read(self, folder: Path) -> None:
        manifest = _manifest_in(folder)
        output, errors = (Path(each.name).name for each in (manifest.output, manifest.errors))
        if not any((folder / name).is_file() for name in (output, errors)):
            raise Mistake(f"{folder} holds no results: neither {output} nor {errors}")
        for custom_id, _, code in self._lines(folder / errors):
            self._errors[custom_id] = sys.intern(code or "unknown")
        at = len(self._files)
        for custom_id, offset, code in self._lines(folder / output, kinds=True):
            if code is None:
                self._places[custom_id] = at, offset

    def _lines(self, path: Path, *, kinds: bool = False) -> Iterator[tuple[str, int, str | None]]:
        """The custom_id, offset and error's code of each line that has an id."""
        if not path.is_file():
            return
        file = self._stack.enter_context(path.open("rb"))
        self._files.append(file)
        offset = 0
        for number, line in enumerate(file, 1):
            try:
                custom_id, code = head_of(line)
                if kinds and custom_id is not None and code is None:
                    self._note(custom_id, value_of(line))
            except DecodeError as error:
                raise Mistake(f"{path}, line {number}: no line of results: {error}") from None
            if custom_id is not None:
                yield custom_id, offset, code
            offset += len(line)

    def _note(self, custom_id: str, value: Any) -> None:
        columns = self._naming.columns
        column = columns[0] if len(columns) == 1 else custom_id.rpartition("#")[2]
        self.kinds.setdefault(column, set()).add(kind_of(value))


def naming_in(folder: Path) -> Naming | None:
    """How the table was named that a folder's results are of; None where it is not said."""
    return Naming.from_metadata(_manifest_in(folder).options.get("metadata") or {})


class _Named(Struct, frozen=True):
    name: str


class _Proof(Struct):
    """What of a manifest counts here, whichever version wrote it."""

    options: dict[str, Any] = {}
    output: _Named = _Named(OUTPUT)
    errors: _Named = _Named(ERRORS)


_decode = Decoder(_Proof).decode


def _manifest_in(folder: Path) -> _Proof:
    try:
        return _decode((folder / MANIFEST).read_bytes())
    except (OSError, DecodeError):
        return _Proof()
