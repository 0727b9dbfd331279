"""What the command line takes: its commands and their arguments."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import shtab

from phi3batch.tables import FORMATS

WRONG_USAGE = 2


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before an error."""

    def error(self, message: str) -> NoReturn:
        """One line, and exit status 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(WRONG_USAGE)


class _AddTask(argparse.Action):
    """`--prompt`, `--embed` and `--template`: one more task for each row, in their order."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        task = {"kind": self.const, "value": values, "column": None, "model": None}
        namespace.tasks = [*namespace.tasks, task]


class _OfTask(argparse.Action):
    """`--as` and `--model`: of the task before them."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        if not namespace.tasks:
            raise argparse.ArgumentError(self, "stands behind the --prompt or --embed it speaks of")
        *before, last = namespace.tasks
        namespace.tasks = [*before, last | {self.const: values}]


def pair(text: str) -> tuple[str, str]:
    """`name=value`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return name, value


def option(text: str) -> tuple[str, Any]:
    """`name=value`, where the value is JSON or else a text."""
    name, value = pair(text)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or `@` and the name of a file that holds one."""
    try:
        content = Path(text[1:]).read_text("utf-8") if text.startswith("@") else text
        value = json.loads(content)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text[1:]}: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("has to be a JSON object")
    return value


def context(text: str) -> tuple[str, int]:
    """Tokens that a model can read, or `model=tokens`."""
    model, _, tokens = text.rpartition("=")
    if not tokens.isdecimal() or int(tokens) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write TOKENS or MODEL=TOKENS")
    return model, int(tokens)


def parser() -> Parser:
    """Everything that can be said to `phi3batch`."""
    root = Parser(prog="phi3batch", description="Batches for Phi-3: from a file to its answers.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return root


def _command(commands: Any, name: str, text: str, **more: Any) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", **more
    )
    return made


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object a line, for programs")


def _add_file(command: argparse.ArgumentParser) -> None:
    file: Any = command.add_argument(
        "file", metavar="FILE", help="JSON Lines of requests, or a table; - is standard input"
    )
    file.complete = shtab.FILE
    command.add_argument("--format", choices=FORMATS, help="of the file (default: by its name)")
    _add_tasks(command.add_argument_group("tables", "CSV, TSV, Parquet, or JSON Lines of rows"))
    command.add_argument(
        *("--option", "-O"), dest="option", type=option, action="append", default=[],
        metavar="NAME=VALUE", help="an option of the job, such as max_tokens=64",
    )  # fmt: skip
    command.add_argument(
        "--options", type=json_object, default={}, metavar="JSON", help="options, or @FILE of them"
    )


def _add_tasks(group: Any) -> None:
    group.set_defaults(tasks=[])
    add = group.add_argument
    add(
        "--prompt", action=_AddTask, const="prompt", metavar="TEXT",
        help="ask this of each row; {name} is a column",
    )  # fmt: skip
    add("--system", metavar="TEXT", help="what stands before each prompt; {name} is a column")
    add(
        "--embed", action=_AddTask, const="embed", metavar="COLUMN",
        help="embed this column of each row",
    )  # fmt: skip
    add(
        "--template", action=_AddTask, const="template", type=json_object, metavar="JSON",
        help="the request that each row becomes, or @FILE of it; may be given several times, as "
        "--prompt and --embed",
    )  # fmt: skip
    add(
        "--as", action=_OfTask, const="column", metavar="COLUMN", dest="tasks",
        help="the column of its answers (default: answer, embedding)",
    )  # fmt: skip
    add(
        "--model", action=_OfTask, const="model", metavar="MODEL", dest="tasks",
        help="the model that is asked (default: the job's)",
    )  # fmt: skip
    add("--id-column", metavar="COLUMN", help="(default: custom_id, id, prompt_id, or the number)")
    add(
        "--on-missing", choices=("refuse", "empty"), default="refuse",
        help="what an empty cell does to its row's task",
    )  # fmt: skip


def _add_validate(commands: Any) -> None:
    command = _command(
        commands, "validate", "say what the service will make of a file, by its own rules, offline"
    )
    _add_file(command)
    command.add_argument(
        "--context", type=context, action="append", default=[], metavar="[MODEL=]TOKENS",
        help="tokens that a model can read (default: as names tell, such as ...-4k-instruct)",
    )  # fmt: skip
    _add_json(command)


def _add_results(commands: Any) -> None:
    command = _command(commands, "results", "bring results home, and join them to their table")
    command.add_argument(
        "results", nargs="+", metavar="DIR", help="folders of results; later ones answer for more"
    )
    table: Any = command.add_argument(
        "--join", type=Path, metavar="TABLE", help="the table that was submitted"
    )
    table.complete = shtab.FILE
    command.add_argument("--format", choices=FORMATS, help="of the table (default: by its name)")
    command.add_argument(
        "--to", type=Path, metavar="FILE", help="where the joined table goes (NAME.answers.csv)"
    )
    command.add_argument("--id-column", metavar="COLUMN", help="(default: as it was submitted)")
    command.add_argument(
        "--as", dest="columns", action="append", metavar="COLUMN",
        help="the columns of the answers (default: as they were submitted)",
    )  # fmt: skip
    _add_json(command)


def _add_completion(commands: Any) -> None:
    command = _command(commands, "completion", "print what completes commands in a shell")
    command.add_argument("shell", choices=("bash", "zsh"))


_COMMANDS: Sequence[Callable[[Any], None]] = (_add_validate, _add_results, _add_completion)
