"""What the command line takes: its commands and their arguments."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import shtab

from phi3batch import statuses
from phi3batch.tables import FORMATS
from phi3batch.usage import (
    AddTask,
    KeptLines,
    OfTask,
    Parser,
    context,
    json_object,
    one_id,
    option,
    pair,
    positive,
    prices,
    some_name,
    whole,
)

_STATES = ("validating", "in_progress", "paused", "finalizing", "completed", "failed", "expired",
           "cancelling", "cancelled")  # fmt: skip
_EPILOG = """\
the service is named by PHI3BATCH_URL and PHI3BATCH_KEY, or OPENAI_BASE_URL and OPENAI_API_KEY

exit status: 0 done, 1 not done, 2 wrong usage, 3 no row was answered (with --strict: one was
not), 4 not admitted, 124 --timeout has passed, 130 Ctrl-C, 141 nobody reads the output any
more; `phi3batch COMMAND --help` tells what each means there"""


def parser() -> Parser:
    """Everything that can be said to `phi3batch`."""
    root = Parser(
        prog="phi3batch",
        description="Batches for Phi-3: from a file or a table to its answers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return root


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was said; what `up` hands on stands in `rest`."""
    root = parser()
    given, rest = root.parse_known_args(arguments)
    if rest and given.module != "up":
        given.command.error(f"unrecognized arguments: {' '.join(rest)}")
    given.rest = rest
    return given


def _command(commands: Any, name: str, text: str, module: str = "") -> argparse.ArgumentParser:
    made = _action(commands, name, text)
    made.set_defaults(module=module or name)
    return made


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = actions.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=KeptLines,
    )
    made.epilog = statuses.told(made.prog.partition(" ")[2])
    made.set_defaults(command=made)
    return made


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object a line, for programs")


def _add_file(command: argparse.ArgumentParser, name: str, **more: Any) -> None:
    """What is read, and how: a file of requests, or a table and what is asked of its rows."""
    file: Any = command.add_argument(
        name, metavar="FILE", help="JSON Lines of requests, or a table; - is standard input", **more
    )
    file.complete = shtab.FILE
    add = command.add_argument
    add("--format", choices=FORMATS, help="of the file (default: by its name)")
    _add_options(command)
    _add_tasks(command.add_argument_group("tables", "CSV, TSV, Parquet, or JSON Lines of rows"))


def _add_options(
    command: argparse.ArgumentParser, of: str = "of the job", example: str = "max_tokens=64"
) -> None:
    add = command.add_argument
    add(
        *("--option", "-O"), type=option, action="append", default=[], metavar="NAME=VALUE",
        help=f"an option {of}, such as {example}",
    )  # fmt: skip
    text = f"options {of}, or @FILE of them"
    add("--options", type=json_object, default={}, metavar="JSON", help=text)


def _add_tasks(group: Any) -> None:
    group.set_defaults(tasks=[])
    add = group.add_argument
    text = "ask this of each row; {name} is a column"
    add("--prompt", action=AddTask, const="prompt", metavar="TEXT", help=text)
    add("--system", metavar="TEXT", help="the system turn of each prompt; {name} is a column")
    text = "embed this column of each row"
    add("--embed", action=AddTask, const="embed", metavar="COLUMN", help=text)
    text = "the request that each row becomes, or @FILE of it"
    add("--template", action=AddTask, const="template", type=json_object, metavar="JSON", help=text)
    text = (
        "the column of the answers to the task before it (default: answer, embedding); two tasks "
        "a row are --prompt 'Label: {text}' --as label --embed text --as vector"
    )
    add("--as", action=OfTask, const="column", metavar="COLUMN", dest="tasks", help=text)
    text = "the model that answers the task before it (default: that of -O model=MODEL)"
    add("--model", action=OfTask, const="model", metavar="MODEL", dest="tasks", help=text)
    text = "what tells rows apart (default: custom_id, id, prompt_id, or the row's number)"
    add("--id-column", metavar="COLUMN", help=text)
    text = "what an empty cell does: its row is not asked (default), or it is an empty text"
    add("--on-missing", choices=("refuse", "empty"), default="refuse", help=text)


def _add_waiting(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--strict", action="store_true", help="status 3 where any row was not answered")
    text = "longest time between two looks (default 2)"
    add("--interval", type=positive, default=2.0, metavar="SECONDS", help=text)
    text = "leave with status 124 after that time; the batches go on"
    add("--timeout", type=positive, metavar="SECONDS", help=text)


def _add_ids(command: argparse.ArgumentParser, what: str = "batches") -> None:
    command.add_argument("ids", nargs="+", type=one_id, metavar="ID", help=f"of {what}")


def _add_id(command: argparse.ArgumentParser) -> None:
    command.add_argument("id", type=one_id, metavar="ID", help="of a batch")


def _validate(commands: Any) -> None:
    text = "say what the service will make of a file, by its own rules, offline"
    command = _command(commands, "validate", text)
    _add_file(command, "file")
    text = (
        "tokens that a model can read (default: as its name tells, such as ...-4k-instruct, for "
        "nothing is asked of the service)"
    )
    command.add_argument(
        "--context", type=context, action="append", default=[], metavar="[MODEL=]TOKENS", help=text
    )
    _add_json(command)


def _estimate(commands: Any) -> None:
    text = (
        "reckon tokens, time and cost of a file, by the service's quotas and prices where one is "
        "named, and whether caps (-O max_cost=5) have room"
    )
    command = _command(commands, "estimate", text)
    _add_file(command, "file")
    add = command.add_argument
    add("--requests-per-minute", type=positive, metavar="N", help="reckon by this, and offline")
    add("--tokens-per-minute", type=positive, metavar="N", help="reckon by this, and offline")
    text = "of a million tokens that are read and written, in whatever currency"
    add("--prices", type=prices, metavar="READ,WRITTEN", help=text)
    _add_json(command)


def _submit(commands: Any) -> None:
    command = _command(commands, "submit", "make batches of files or tables; prints their ids")
    _add_file(command, "files", nargs="+")
    add = command.add_argument
    text = "told again in every event, and by `ls`"
    add("--meta", type=pair, action="append", default=[], metavar="NAME=VALUE", help=text)
    add("--watch", action="store_true", help="follow them until they end, as `watch` does")
    _add_waiting(command)
    _add_json(command)


def _watch(commands: Any) -> None:
    command = _command(commands, "watch", "follow batches until they end")
    _add_ids(command)
    _add_waiting(command)
    _add_json(command)


def _ls(commands: Any) -> None:
    command = _command(commands, "ls", "list the latest batches")
    command.add_argument("--status", choices=_STATES, help="only those")
    _add_limit(command)
    _add_json(command)


def _add_limit(command: argparse.ArgumentParser) -> None:
    text = "how many of the latest are looked at, before any choice (default 20)"
    command.add_argument("--limit", type=whole, default=20, metavar="N", help=text)


def _show(commands: Any) -> None:
    command = _command(commands, "show", "tell everything that is known of a batch")
    _add_id(command)
    _add_json(command)


def _results(commands: Any) -> None:
    command = _command(commands, "results", "bring results home, and join them to their table")
    add = command.add_argument
    text = "batches, or folders that their results lie in; of several the later fill gaps"
    add("results", nargs="+", type=some_name, metavar="ID", help=text)
    add("-o", "--out", type=Path, metavar="DIR", help="where they go (default: a folder ID)")
    table: Any = add("--join", type=Path, metavar="TABLE", help="the table that was submitted")
    table.complete = shtab.FILE
    add("--format", choices=FORMATS, help="of the table (default: by its name)")
    add("--to", type=Path, metavar="FILE", help="the joined table (default: TABLE.answers.csv)")
    add("--id-column", metavar="COLUMN", help="(default: as it was submitted)")
    text = "the columns of the answers (default: as they were submitted)"
    add("--as", dest="columns", action="append", metavar="COLUMN", help=text)
    _add_json(command)


def _retry(commands: Any) -> None:
    text = "ask again what a batch has not answered, in a batch of its own"
    command = _command(commands, "retry", text)
    _add_id(command)
    _add_options(command, "in the place of the first batch's own", "max_cost=5")
    command.add_argument("--watch", action="store_true", help="follow it until it ends")
    _add_waiting(command)
    _add_json(command)


def _acting(commands: Any) -> None:
    texts = {
        "cancel": "end batches; what is done is kept",
        "pause": "ask no more rows until `resume`",
        "resume": "go on with batches that are paused",
    }
    for action, text in texts.items():
        command = _command(commands, action, text, "acting")
        command.set_defaults(action=action)
        _add_ids(command)
        _add_json(command)


def _events(commands: Any) -> None:
    command = _command(commands, "events", "tell what has happened to a batch")
    _add_id(command)
    _add_json(command)


def _files(commands: Any) -> None:
    command = _command(commands, "files", "list uploaded files, or delete them")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = _action(actions, "ls", "list the latest files")
    _add_limit(listed)
    _add_json(listed)
    removed = _action(actions, "rm", "delete files; batches that need them go on")
    _add_ids(removed, "files")
    _add_json(removed)


def _keys(commands: Any) -> None:
    command = _command(commands, "keys", "make keys for the doors")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = _action(actions, "new", "make a key, and what the setting API_KEYS is told of it")
    made.add_argument("name", metavar="NAME", help="told in the service's logs")
    made.add_argument("--tenant", default="default", help="whose files and batches it opens")
    made.add_argument("--days", type=whole, metavar="N", help="until it expires (default: never)")
    _add_json(made)


def _webhooks(commands: Any) -> None:
    command = _command(commands, "webhooks", "make secrets, and tell receivers once more")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    _action(actions, "secret", "make a secret that the service signs with")
    text = "tell the receiver once more that batches have ended, with the same event ids"
    replay = _action(actions, "replay", text)
    _add_ids(replay)
    _add_json(replay)


def _up(commands: Any) -> None:
    text = "run the whole service on this machine, where the repository is installed"
    # Its arguments, --help too, are those of `python -m local up`.
    command = commands.add_parser("up", help=text, add_help=False)
    command.set_defaults(module="up", command=command)


def _completion(commands: Any) -> None:
    command = _command(commands, "completion", "print what completes commands in a shell")
    command.add_argument("shell", choices=("bash", "zsh"))


_COMMANDS: Sequence[Callable[[Any], None]] = (
    *(_submit, _watch, _results, _retry, _ls, _show, _events, _acting),
    *(_validate, _estimate, _files, _keys, _webhooks, _up, _completion),
)
