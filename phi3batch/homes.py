"""Where do results lie on this machine, and whose are they?"""

import re
import sys
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from phi3batch.mistakes import Mistake
from phi3batch.reports import report_in
from phi3batch.results import ERRORS, MANIFEST, OUTPUT
from phi3batch.verifying import verify
from schemas.openai import BATCH_PREFIX
from schemas.results import Manifest

_BATCH: Final = re.compile(rf"{BATCH_PREFIX}[0-9]{{8}}T[0-9]{{6}}Z-[0-9a-f]{{16}}")


@dataclass(frozen=True, slots=True)
class Home:
    """A folder of results. What lies in one without a manifest cannot be held against any.

    `report` is the page that says how it went, where it lies there.
    """

    folder: Path
    manifest: Manifest | None
    report: Path | None = None

    @property
    def batch(self) -> str | None:
        """Whose they are."""
        return None if self.manifest is None else f"{BATCH_PREFIX}{self.manifest.job}"

    @property
    def answered(self) -> bool:
        """Whether any row was, as far as is known, or there was none to answer."""
        if self.manifest is None or self.manifest.counts.succeeded:
            return True
        # Whatever else fails a batch as a whole leaves rows without an answer.
        return (self.manifest.reason or {}).get("code") == "empty_file"


def home_of(given: Namespace, name: str) -> Home:
    """The results of a batch, which are downloaded where they are not here; or those in a folder.

    Raises Mistake where something else lies in their place, and where they are damaged.
    """
    if is_folder(name):
        return _home_in(Path(name))
    folder = _folder(given, name)
    manifest = manifest_in(folder)
    _refuse_others(Home(folder, manifest), name)
    if manifest is not None and (wrong := verify(manifest, folder)):
        print(f"{folder}: {'; '.join(wrong)}: fetched again", file=sys.stderr)
        manifest = None
    report = report_in(folder, name)
    if manifest is None or report is None:
        # Loads the SDK, which takes most of a second.
        from phi3batch.fetching import fetch_ended, fetch_report  # noqa: PLC0415

        manifest = manifest or fetch_ended(name, folder)
        report = report or fetch_report(name, folder)
    return Home(folder, manifest, report)


def _home_in(folder: Path) -> Home:
    found = Home(folder, manifest_in(folder))
    if found.manifest is None or found.batch is None:
        return found
    if wrong := verify(found.manifest, folder):
        raise Mistake(f"{folder} is not what was written: {'; '.join(wrong)}")
    return replace(found, report=report_in(folder, found.batch))


def is_folder(name: str) -> bool:
    """Whether a name means a folder of results, and no batch."""
    return _BATCH.fullmatch(name) is None and Path(name).is_dir()


def manifest_in(folder: Path) -> Manifest | None:
    """The manifest in a folder; None where there is none that can be read."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def _folder(given: Namespace, name: str) -> Path:
    if given.out is None:
        return Path(name)
    return Path(given.out) / name if len(given.results) > 1 else Path(given.out)


def _refuse_others(found: Home, batch_id: str) -> None:
    """Raise Mistake where what lies there would be lost, but in a folder of the batch's name."""
    if found.batch not in (None, batch_id):
        raise Mistake(f"{found.folder} holds the results of {found.batch}: name another with -o")
    if found.batch is None and found.folder.name != batch_id:
        for name in (MANIFEST, OUTPUT, ERRORS):
            if (there := found.folder / name).exists():
                raise Mistake(f"{there} would be overwritten: name another folder with -o")
