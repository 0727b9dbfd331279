"""The golden files of each release, how this version reads and writes them, what CHANGELOG says."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from pydantic import BaseModel

from schemas.messages import StatusEvent
from tests.golden.shapes import DOCUMENTS, MESSAGES, Shape, changes
from workers.jobs.store import dump, load
from workers.quota.book import Book
from workers.shards.journal import JournalLine, calls_of, from_journal, journal_line, spent_line

ROOT: Final = Path(__file__).parent.parent.parent
FOLDER: Final = Path(__file__).parent
SHAPES: Final = "shapes.json"
HEADING: Final = "### Stored documents and messages"
# What users are given is read by them alone; it leaves out what does not apply.
GIVEN: Final = frozenset({"output.jsonl", "errors.jsonl"})


def version() -> str:
    """The release that this one is going to be."""
    project: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    return project


def releases() -> Sequence[str]:
    """All that have golden files, oldest first."""
    names = (path.name for path in FOLDER.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name))
    return sorted(names, key=lambda name: tuple(map(int, name.split("."))))


def files(release: str) -> Mapping[str, Path]:
    """The golden files of a release by their names; those of events and messages are in folders."""
    folder = FOLDER / release
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.json*"))}
    found.pop(SHAPES, None)
    return found


def shapes(release: str) -> Mapping[str, Shape]:
    """What could stand in the documents of a release."""
    told: Mapping[str, Shape] = json.loads((FOLDER / release / SHAPES).read_text("utf-8"))
    return told


def entries(path: Path) -> Sequence[Any]:
    """The documents in a file: one, or one a line."""
    text = path.read_bytes()
    return [orjson.loads(each) for each in (text.splitlines() if _lines(path) else [text])]


def text_of(path: Path, documents: Sequence[Any]) -> str:
    """A golden file of these documents."""
    if _lines(path):
        return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in documents)
    [document] = documents
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _lines(path: Path) -> bool:
    return path.suffix == ".jsonl"


def shaped(name: str) -> str:
    """The name among the shapes of a golden file's."""
    return "event" if name.startswith("events/") else name.rsplit("/", 1)[-1]


def again(name: str, document: Any) -> Any:
    """A document as this version writes it, having read it."""
    if name == "quota.json":
        book = Book.load(orjson.dumps(document))
        return None if book is None else orjson.loads(book.dump())
    if name == "journal.jsonl":
        return _journaled(document)
    if name.startswith("events/"):
        return StatusEvent.model_validate(document).model_dump(mode="json", exclude_none=True)
    model = MESSAGES[shaped(name)] if name.startswith("messages/") else DOCUMENTS[name]
    assert issubclass(model, BaseModel)
    if name in GIVEN:
        return model.model_validate(document).model_dump(mode="json", exclude_unset=True)
    return orjson.loads(dump(load(model, orjson.dumps(document))))


def _journaled(line: Any) -> Any:
    read = msgspec.json.decode(orjson.dumps(line), type=JournalLine)
    if read.row is not None:
        return orjson.loads(b"".join(journal_line(from_journal(read.row, read))))
    return line if read.spent is None else orjson.loads(spent_line(read.spent, calls_of(read)))


def missing(release: str, now: Mapping[str, Shape]) -> Sequence[str]:
    """The fields that no golden file of their kind gives a value for."""
    told: dict[str, list[Any]] = {name: [] for name in now}
    for name, path in files(release).items():
        told[shaped(name)] += entries(path)
    told["journal.jsonl"] = [call for line in told["journal.jsonl"] for call in line.get("use", ())]
    return [
        f"{name} needs a value for {path}"
        for name, shape in now.items()
        for path, kind in shape.items()
        if kind != "null" and not any(_values(told[name], re.findall(r"\w+|\{\}|\[\]", path)))
    ]


def _values(found: Sequence[Any], path: Sequence[str]) -> Iterator[bool]:
    for part in path:
        inner: list[Any] = []
        for each in found:
            if part == "[]" and isinstance(each, list):
                inner += each
            elif part == "{}" and isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, dict) and part in each:
                inner.append(each[part])
        found = inner
    yield from (each is not None for each in found)


def section(release: str) -> str:
    """What CHANGELOG.md says of the documents of a release."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    own = re.search(rf"^## \[{re.escape(release)}\].*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    told = re.search(
        rf"^{HEADING}$(.*?)(?=^###? |\Z)", own[0] if own else "", re.MULTILINE | re.DOTALL
    )
    return told[1] if told else ""


def untold(before: str, release: str) -> Sequence[str]:
    """The changes from one release to another that CHANGELOG.md does not name."""
    bullets = re.split(r"^- ", section(release), flags=re.MULTILINE)
    old, new = shapes(before), shapes(release)
    return [
        f"`{name}`: `{path.rstrip('{}[]')}` ({what})"
        for name in sorted({*old, *new})
        for path, what in changes(old.get(name, {}), new.get(name, {})).items()
        if not any(_tells(bullet, name, path, whole=name not in old) for bullet in bullets)
    ]


def _tells(bullet: str, name: str, path: str, *, whole: bool) -> bool:
    named = set(re.findall(r"`([^`]+)`", bullet))
    field = path.rstrip("{}[]")
    return name in named and (whole or not named.isdisjoint({field, field.rsplit(".", 1)[-1]}))
