"""What is submitted: a file of requests as it is, or one that is made of a table."""

import shutil
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from phi3batch.answers import added_columns, refuse_taken
from phi3batch.checking import MAX_LINE_BYTES, first_unbounded
from phi3batch.mistakes import Mistake, writing
from phi3batch.rollcall import RollCall
from phi3batch.tables import Table, format_of, open_table
from phi3batch.tasks import Asking, Naming, NotAsked, RowTask, embedding_task, prompt_task
from schemas.jobs import JobOptions, parse_options
from workers.rows.templating import OnMissing

STANDARD_INPUT: Final = "-"
_TOLD: Final = 3


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file of requests. `naming` is there where it was made of a table, `source` by its name.

    `codes` and `not_asked` are of a table's tasks that no request could be made of: all codes, and
    the first tasks.
    """

    path: Path
    source: str
    naming: Naming | None = None
    codes: Counter[str] = field(default_factory=Counter)
    not_asked: list[NotAsked] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is uploaded as."""
        return self.path.name

    def note(self, task: NotAsked) -> None:
        """Count one."""
        self.codes[task.code] += 1
        if len(self.not_asked) < _TOLD:
            self.not_asked.append(task)


def options_of(given: Namespace) -> JobOptions:
    """The options that were given. Raises Mistake."""
    try:
        return parse_options({**given.options, **dict(given.option)})
    except ValueError as error:
        raise Mistake(str(error)) from None


def refuse_unbounded(file: Prepared, options: JobOptions) -> None:
    """Raise Mistake where the batch would fail for a row that names no max_tokens, by a cap."""
    with file.path.open("rb") as content:
        row = first_unbounded(content, options)
    if row is None:
        return
    place, message = f"line {row.line}", row.message.removeprefix(f"line {row.line}: ")
    if file.naming is not None:
        place = ", ".join(f"{name} {at}" for name, at in file.naming.place(row.line).items())
    raise Mistake(f"{file.source}, {place}: {message} (-O max_tokens=N)")


@contextmanager
def prepared(given: Namespace, file: str) -> Iterator[Prepared]:
    """The file of requests; one that was made goes at the end. Raises Mistake."""
    with ExitStack() as stack:
        source, name = _source(file, stack)
        tasks = [_task(each, given.system) for each in given.tasks]
        tabular = (given.format or format_of(source)) != "jsonl"
        if not tasks and not tabular:
            source.open("rb").close()  # told by its name, before anything is sent
            yield Prepared(source, name)
            return
        if not tasks:
            raise Mistake(
                f"{file} is a table: say what is asked of each row, with "
                "--prompt 'Summarise: {column}' or --embed column"
            )
        options = options_of(given)
        if options.template is not None:
            raise Mistake("the option template is for files of requests: say --template")
        on_missing: OnMissing = "empty" if options.on_missing == "empty" else given.on_missing
        table = open_table(source, given.format)
        naming = Naming(tuple(task.column for task in tasks), given.id_column)
        asking = Asking(tasks, naming, MAX_LINE_BYTES, on_missing)
        _check_columns(table, asking)
        target = _temporary(stack) / f"{Path(name).stem}.jsonl"
        yield _written(asking, table, Prepared(target, name))


def _source(file: str, stack: ExitStack) -> tuple[Path, str]:
    if file != STANDARD_INPUT:
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
    behind = " NAME, behind the --prompt, --embed or --template that it is of"
    refuse_taken(table, added_columns(asking.naming, {}), behind)
    named = [asking.naming.id_column, *asking.fields] if table.uniform else []
    for name in named:
        if name is not None and not {name, name.partition(".")[0]}.intersection(table.columns):
            told = ", ".join(map(repr, table.columns))
            raise Mistake(f"{table.path} has no column {name!r}: it has {told}")


def _written(asking: Asking, table: Table, made: Prepared) -> Prepared:
    roll, asked = RollCall(table, asking.naming), 0
    with writing(made.path), made.path.open("wb") as file:
        for line in asking.lines(roll.rows()):
            if isinstance(line, NotAsked):
                made.note(line)
                file.write(line.as_line())
            else:
                asked += 1
                file.write(line)
    if not asked:
        why = f": {made.not_asked[0].message}" if made.not_asked else ""
        raise Mistake(f"{table.path}: no row of it can be asked{why}")
    roll.refuse_repeated()
    return replace(made, naming=replace(asking.naming, table=roll.digest))
