"""`phi3batch results`: bring results home, and join them to the table that they are of."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Final

import orjson

from phi3batch.answers import Joined, added_columns, joined, refuse_taken
from phi3batch.mistakes import Mistake
from phi3batch.results import MANIFEST, Results, naming_in
from phi3batch.rollcall import refuse_other_table
from phi3batch.tables import Table, open_table
from phi3batch.tasks import Naming
from phi3batch.verifying import differences

ROWS_FAILED: Final = 3
_DEFAULT: Final = ("answer",)


def run(given: Namespace) -> int:
    """0 where the results are at home, 3 where no row was answered."""
    folders, answered = _at_home(given)
    if given.join is None:
        for folder in folders:
            print(folder)
        return 0 if answered else ROWS_FAILED
    naming = _naming(given, folders)
    table = open_table(given.join, given.format)
    _refuse_other(table, naming)
    target = given.to or given.join.with_name(f"{given.join.stem}.answers{given.join.suffix}")
    if target.suffix.lower() != given.join.suffix.lower():
        raise Mistake(f"the joined table is of {given.join}'s format: call it *{given.join.suffix}")
    summary = _join(table, target, folders, naming)
    _tell(given, target, summary)
    return 0 if summary.whole or not summary.rows else ROWS_FAILED


def _at_home(given: Namespace) -> tuple[list[Path], bool]:
    """The folders of all results, and whether any row was answered; batches' are downloaded."""
    wanted = [each for each in given.results if not _lies_here(each)]
    if given.out is not None and not wanted:
        raise Mistake("-o says where batches' results go: these are folders already")
    folders = [_folder(given, each) if each in wanted else Path(each) for each in given.results]
    answered = len(wanted) < len(folders)
    if wanted:
        # Loads the SDK, which takes most of a second.
        from phi3batch.fetching import fetch_ended  # noqa: PLC0415

        for batch_id, folder in zip(given.results, folders, strict=True):
            if batch_id in wanted:
                answered |= fetch_ended(batch_id, folder).counts.succeeded > 0
    return folders, answered


def _lies_here(name: str) -> bool:
    """Whether results are a folder. One of a batch's name counts where it is whole."""
    folder = Path(name)
    if not folder.is_dir():
        return False
    is_batch = name.startswith("batch_")
    if not (folder / MANIFEST).exists():
        return not is_batch
    wrong = differences(folder)
    if wrong and not is_batch:
        raise Mistake(f"{folder} is not what was written: {'; '.join(wrong)}")
    return not wrong


def _folder(given: Namespace, name: str) -> Path:
    if given.out is None:
        return Path(name)
    return Path(given.out) / name if len(given.results) > 1 else Path(given.out)


def _naming(given: Namespace, folders: list[Path]) -> Naming:
    told = next((found for each in folders if (found := naming_in(each)) is not None), None)
    columns = tuple(given.columns or (told.columns if told else _DEFAULT))
    if given.id_column or told is None:
        return Naming(columns, given.id_column)
    return replace(told, columns=columns)


def _refuse_other(table: Table, naming: Naming) -> None:
    """Raise Mistake where the table lacks its ids, or is not the one that its batch is of."""
    if naming.id_column is not None and table.uniform and naming.id_column not in table.columns:
        told = ", ".join(map(repr, table.columns))
        raise Mistake(f"{table.path} has no column {naming.id_column!r}: it has {told}")
    refuse_other_table(table, naming)


def _join(table: Table, target: Path, folders: list[Path], naming: Naming) -> Joined:
    """Write the joined table; it has its name once it is whole."""
    summary = Joined()
    with Results(folders, naming) as results:
        added = added_columns(naming, results.kinds)
        refuse_taken(table, added)
        part = target.with_name(f".{target.name}.part")
        try:
            table.write(part, added, joined(table.rows(), naming, results, summary))
            part.replace(target)
        except OSError as error:
            raise Mistake(f"{target}: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)
    return summary


def _tell(given: Namespace, target: Path, summary: Joined) -> None:
    if given.json:
        told = {"table": str(target), "rows": summary.rows, "whole": summary.whole}
        print(orjson.dumps({**told, "errors": summary.errors}).decode())
        return
    print(target)
    missing = ", ".join(f"{count:,} {code}" for code, count in summary.errors.items())
    why = f"; missing: {missing}" if missing else ""
    print(f"{summary.whole:,} of {summary.rows:,} rows answered{why}", file=sys.stderr)
