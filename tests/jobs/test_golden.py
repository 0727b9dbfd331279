"""What is stored and sent is what the golden files say, and CHANGELOG.md says what has changed.

Workers of two releases run side by side while one replaces the other, and again when it is rolled
back: a stored document outlives the code that wrote it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import schemas.files
import schemas.health
import schemas.history
import schemas.listing
import schemas.messages
import schemas.plans
import schemas.results
import schemas.status
import schemas.walks
from tests.golden import releases, shapes

NOW = releases.version()
EARLIER = [release for release in releases.releases() if release != NOW]
WHAT_TO_DO = f"""
A stored document or a message has changed. Workers of the release before read it and swap it too:
1. Run `python -m tests.golden`: it brings tests/golden/{NOW} up to the schemas.
2. Give each new field a value there, other than null.
3. Name each change in CHANGELOG.md, section [{NOW}], "Stored documents and messages":
   - `state.json`: `field`, what it says.
4. What workers of {EARLIER[-1]} would break (a new word or option, a field that they must obey)
   goes out with schema_version 2 only: docs/protocol.md, "Versions"."""
# Fields that were called otherwise.
RENAMED = {"seconds": "call_seconds", "waited": "row_seconds_waited"}
STORED = [
    model
    for module in (
        schemas.files,
        schemas.health,
        schemas.history,
        schemas.jobs,
        schemas.listing,
        schemas.messages,
        schemas.walks,
        schemas.plans,
        schemas.results,
    )
    for model in vars(module).values()
    if isinstance(model, type)
    and issubclass(model, BaseModel)
    and model.__module__ == module.__name__
    and not model.__name__.startswith("_")
    and "schema_version" in model.model_fields
]


def golden(release: str) -> Iterator[Any]:
    for name, path in releases.files(release).items():
        yield pytest.param(name, path, id=f"{release}/{name}")


def test_every_field_and_word_is_pinned() -> None:
    told = [
        f"{name}: {path}: {what}"
        for name, shape in shapes.current().items()
        for path, what in shapes.changes(releases.shapes(NOW).get(name, {}), shape).items()
    ]
    assert not told, "\n".join([WHAT_TO_DO, *told])


def test_golden_files_have_a_value_for_every_field() -> None:
    lacking = releases.missing(NOW, shapes.current())
    assert not lacking, "\n".join([WHAT_TO_DO, *lacking])


@pytest.mark.parametrize(("name", "path"), golden(NOW))
def test_what_was_stored_is_written_back_as_it_was(name: str, path: Path) -> None:
    written = [releases.again(name, document) for document in releases.entries(path)]
    assert releases.text_of(path, written) == path.read_text("utf-8"), WHAT_TO_DO


def test_changelog_names_every_change_of_what_is_stored() -> None:
    untold = releases.untold(EARLIER[-1], NOW)
    assert not untold, "\n".join([WHAT_TO_DO, *untold])


def test_every_document_message_and_event_has_a_golden_file() -> None:
    models = {*shapes.SHAPED.values(), schemas.status.JobStatus}  # the status is an event's data
    assert [model.__name__ for model in STORED if model not in models] == [], WHAT_TO_DO
    events = {Path(name).stem for name in releases.files(NOW) if name.startswith("events/")}
    assert events == set(get_args(schemas.messages.EventType)), WHAT_TO_DO
    named = {Path(name).name for name in releases.files(NOW)}
    assert {*shapes.DOCUMENTS, *shapes.MESSAGES} <= named, WHAT_TO_DO


@pytest.mark.parametrize(
    ("name", "path"), [each for release in EARLIER for each in golden(release)]
)
def test_what_earlier_releases_stored_is_read(name: str, path: Path) -> None:
    if name in releases.GIVEN:
        return  # read by users alone, each with the manifest beside it
    for document in releases.entries(path):
        assert lost(document, releases.again(name, document)) == []


def lost(before: Any, after: Any, where: str = "") -> list[str]:
    """What stands in one document and not in the other."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            each
            for key, value in before.items()
            for each in lost(
                value,
                after[key] if key in after else after.get(RENAMED.get(key, key)),
                f"{where}.{key}",
            )
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [each for pair in zip(before, after, strict=True) for each in lost(*pair, where)]
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]


def test_a_change_that_nobody_names_is_found() -> None:
    before = {"state": "'a' | 'b'", "gone": "string"}
    after = {"state": "'a' | 'b' | 'c'", "counts.new": "integer"}
    assert shapes.changes(before, after) == {
        "state": "'a' | 'b' -> 'a' | 'b' | 'c'",
        "gone": "gone",
        "counts.new": "new: integer",
    }
