"""`phi3batch results`: bring results home, and join them to the table that they are of."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from phi3batch.answers import Joined, added_columns, joined, refuse_taken
from phi3batch.homes import Home, home_of, is_folder
from phi3batch.mistakes import Mistake
from phi3batch.printing import print_json
from phi3batch.results import ERRORS, Results, naming_in
from phi3batch.rollcall import refuse_other_table
from phi3batch.statuses import ROWS_FAILED
from phi3batch.tables import Table, open_table
from phi3batch.tasks import RETRY_OF, Naming

_DEFAULT: Final = ("answer",)


def run(given: Namespace) -> int:
    """The exit status, 0 where the results are at home, 3 where no row was answered."""
    target = None if given.join is None else _target(given, given.join)
    if given.out is not None and all(map(is_folder, given.results)):
        raise Mistake("-o says where batches' results go: these are folders already")
    homes = [home_of(given, each) for each in given.results]
    if target is None:
        for home in homes:
            _tell_home(given, home)
        return 0 if any(home.answered for home in homes) else ROWS_FAILED
    _refuse_part(homes, given.join)
    folders = [home.folder for home in homes]
    naming = _naming(given, folders)
    table = open_table(given.join, given.format)
    _refuse_other(table, naming)
    summary = _join(table, target, folders, naming)
    _tell(given, target, summary)
    return 0 if summary.whole or not summary.rows else ROWS_FAILED


def _target(given: Namespace, table: Path) -> Path:
    """Where the joined table goes. Raises Mistake."""
    target: Path = given.to or table.with_name(f"{table.stem}.answers{table.suffix}")
    if target.suffix.lower() != table.suffix.lower():
        raise Mistake(f"the joined table is of {table}'s format: call it *{table.suffix}")
    if target.resolve() == table.resolve():
        raise Mistake(f"--to would replace the table {table} itself: name another file")
    return target


def _refuse_part(homes: Sequence[Home], table: Path) -> None:
    """Raise Mistake where results hold only what others had not answered, and those are missing."""
    named = {home.batch for home in homes}
    for home in homes:
        first = home.manifest and (home.manifest.options.get("metadata") or {}).get(RETRY_OF)
        if first and first not in named:
            both = f"phi3batch results {first} {home.batch} --join {table}"
            told = f"{home.batch} holds only what {first} had not answered: join both, as {both}"
            raise Mistake(told)


def _tell_home(given: Namespace, home: Home) -> None:
    if home.manifest is None:
        print(home.folder)
        return
    counts = home.manifest.counts
    if given.json:
        codes = {code: each.rows for code, each in home.manifest.codes.items()}
        told = {"batch": home.batch, "folder": str(home.folder), "rows": counts.total}
        report = None if home.report is None else str(home.report)
        print_json({**told, "succeeded": counts.succeeded, "errors": codes, "report": report})
        return
    print(home.folder)
    where = f"; the others, and why: {home.folder / ERRORS}" if counts.errors else ""
    sums = f"{counts.succeeded:,} of {counts.total:,} rows answered"
    print(f"{home.batch}: {sums}{where}", file=sys.stderr)
    if home.report is not None:
        print(f"how it went: {home.report}", file=sys.stderr)


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
            if summary.rows and not summary.known:
                raise Mistake(
                    f"no row of {table.path} is among these results: is it the table that was "
                    "submitted, and --id-column what tells its rows apart?"
                )
            part.replace(target)
        except OSError as error:
            raise Mistake(f"{target}: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)
    return summary


def _tell(given: Namespace, target: Path, summary: Joined) -> None:
    if given.json:
        told = {"table": str(target), "rows": summary.rows, "whole": summary.whole}
        print_json({**told, "errors": summary.errors})
        return
    print(target)
    missing = ", ".join(f"{count:,} {code}" for code, count in summary.errors.items())
    why = f"; missing: {missing}" if missing else ""
    print(f"{summary.whole:,} of {summary.rows:,} rows answered{why}", file=sys.stderr)
