"""How arguments are read: their types, and tasks in the order in which they are given."""

import argparse
import json
import math
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from phi3batch.statuses import WRONG_USAGE

_ID = re.compile(r"[\w.:-]+")
_JOB = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}")


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before an error."""

    def error(self, message: str) -> NoReturn:
        """One line, and exit status 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(WRONG_USAGE)


class KeptLines(argparse.HelpFormatter):
    """Fills a text of one line, and leaves the lines of one that has several."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))


class AddTask(argparse.Action):
    """`--prompt`, `--embed` and `--template`: one more task for each row, in their order."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        """Add it."""
        task = {"kind": self.const, "value": values, "column": None, "model": None}
        namespace.tasks = [*namespace.tasks, task]


class OfTask(argparse.Action):
    """`--as` and `--model`: of the task before them."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        """Say it of the last one. Raises ArgumentError where there is none."""
        if not namespace.tasks:
            for_all = "; for all rows say -O model=MODEL" if self.const == "model" else ""
            told = f"stands behind the --prompt, --embed or --template it speaks of{for_all}"
            raise argparse.ArgumentError(self, told)
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


def one_id(text: str) -> str:
    """An id of a batch or a file; that of a job, as /api tells it, is its batch's."""
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no id: `phi3batch ls` lists batches")
    return f"batch_{text}" if _JOB.fullmatch(text) else text


def some_name(text: str) -> str:
    """An id, or a folder."""
    if not text:
        raise argparse.ArgumentTypeError("'' is neither an id nor a folder")
    return text


def context(text: str) -> tuple[str, int]:
    """Tokens that a model can read, or `model=tokens`."""
    model, _, tokens = text.rpartition("=")
    if not tokens.isdecimal() or int(tokens) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write TOKENS or MODEL=TOKENS")
    return model, int(tokens)


def prices(text: str) -> tuple[Decimal, Decimal]:
    """Prices of a million tokens read and written."""
    try:
        read, written = map(Decimal, text.split(","))
    except (ValueError, ArithmeticError):
        read = written = Decimal("nan")
    if not all(
        each.is_finite() and each >= 0 and abs(each.adjusted()) < 30 for each in (read, written)
    ):
        raise argparse.ArgumentTypeError(f"{text!r}: write READ,WRITTEN")
    return read, written


def positive(text: str) -> float:
    """A number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: has to be a number above 0")
    return number


def whole(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or not 0 < int(text) < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r}: has to be a whole number above 0")
    return int(text)
