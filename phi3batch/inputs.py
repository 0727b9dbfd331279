"""What is submitted: a file of requests as it is, or one that is made of a table."""

import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from phi3batch.answers import added_columns, refuse_taken
from phi3batch.checking import MAX_LINE_BYTES
from phi3batch.mistakes import Mistake, writing
from phi3batch.tables import Table, format_of, open_table
from phi3batch.tasks import Asking, Naming, NotAsked, RowTask, embedding_task, prompt_task
from schemas.jobs import JobOptions, parse_options

REPEATED: Final = (
    "another row has this id: name a column whose values differ with --id-column, or drop that "
    "column, and rows are called by their numbers"
)
_STANDARD_INPUT: Final = "-"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file of requests. `naming` is there where it was made of a table."""

    path: Path
    name: str
    naming: Naming | None = None


def options_of(given: Namespace) -> JobOptions:
    """The options that were given. Raises Mistake."""
    try:
        return parse_options({**given.options, **dict(given.option)})
    except ValueError as error:
        raise Mistake(str(error)) from None


@contextmanager
def prepared(given: Namespace, file: str, tell: Callable[[NotAsked], None]) -> Iterator[Prepared]:
    """The file of requests; one that was made goes at the end. `tell` gets what it could not ask.

    Raises Mistake.
    """
    with ExitStack() as stack:
        source, name = _source(file, stack)
        tasks = [_task(each, given.system) for each in given.tasks]
        tabular = (given.format or format_of(source)) != "jsonl"
        if not tasks and not tabular:
            yield Prepared(source, name)
            return
        if not tasks:
            raise Mistake(
                f"{file} is a table: say what is asked of each row, with "
                "--prompt 'Summarise: {column}' or --embed column"
            )
        if options_of(given).template is not None:
            raise Mistake("the option template is for files of requests: say --template")
        table = open_table(source, given.format)
        naming = Naming(tuple(task.column for task in tasks), given.id_column)
        asking = Asking(tasks, naming, MAX_LINE_BYTES, given.on_missing)
        _check_columns(table, asking)
        target = _temporary(stack) / f"{Path(name).stem}.jsonl"
        _write(asking, table, target, tell)
        yield Prepared(target, target.name, naming)


def _source(file: str, stack: ExitStack) -> tuple[Path, str]:
    if file != _STANDARD_INPUT:
        path = Path(file)
        if not path.is_file():
            raise Mistake(f"{path}: {'a folder' if path.is_dir() else 'no such file'}")
        return path, path.name
    # Read twice, and some formats from their end.
    path = _temporary(stack) / "stdin"
    with writing(path), path.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    return path, path.name


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phi3batch-")))


def _task(told: Mapping[str, Any], system: str | None) -> RowTask:
    column, value = told["column"], told["value"]
    match told["kind"]:
        case "prompt":
            task = prompt_task(value, column or "answer", system)
        case "embed":
            task = embedding_task(value, column or "embedding")
        case _:
            task = RowTask(column or "answer", value)
    return RowTask(task.column, task.template, told["model"])


def _check_columns(table: Table, asking: Asking) -> None:
    """Raise Mistake where a column is named that the table lacks, or would be written twice."""
    refuse_taken(table, added_columns(asking.naming, {}))
    named = [asking.naming.id_column, *asking.fields] if table.uniform else []
    for name in named:
        if name is not None and not {name, name.partition(".")[0]}.intersection(table.columns):
            told = ", ".join(map(repr, table.columns))
            raise Mistake(f"{table.path} has no column {name!r}: it has {told}")


def _write(asking: Asking, table: Table, target: Path, tell: Callable[[NotAsked], None]) -> None:
    asked = 0
    with writing(target), target.open("wb") as file:
        for line in asking.lines(table.rows()):
            if isinstance(line, NotAsked):
                tell(line)
                continue
            asked += 1
            file.write(line)
    if not asked:
        raise Mistake(f"{table.path}: no row of it can be asked")
