"""Arguments of a command: wrong ones end it with status 2 and one clear line."""

import argparse
import math
import socket
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from local.endpoint.profiles import PROFILES


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before an error."""

    def error(self, message: str) -> NoReturn:
        """One line, and exit status 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def writable(self, folder: Path) -> Path:
        """The folder, made if needed: told now where that fails, not once a job has run."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            self.error(f"cannot write into {folder}: {error.strerror}")


def workers(text: str) -> int:
    """A number of function hosts."""
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("must be 1 to 64")
    return int(text)


def port(text: str) -> int:
    """A port that is free; 0 leaves the choice to the system. Defaults are looked at as well."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", int(text)))
        except OSError as error:
            raise argparse.ArgumentTypeError(
                f"port {text}: {error.strerror}: stop what uses it, or name another (0: a free one)"
            ) from error
    return int(text)


def _limit(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number; 0 means unlimited")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be 0 to 3600 seconds")
    return seconds


def add_stack_arguments(parser: Parser) -> None:
    """What `run` and `up` have in common."""
    add = parser.add_argument
    add("--workers", type=workers, default=1, metavar="N", help="function hosts (default 1)")
    add("--verbose", action="store_true", help="log a line for each call of a function")
    simulator = parser.add_argument_group(
        "the simulated endpoint", "not started where DEPLOYMENTS is set"
    )
    add = simulator.add_argument
    add("--profile", choices=PROFILES, default="serverless", help="the service that is played")
    add("--requests-per-minute", type=_limit, metavar="N", help="0: unlimited; default: as it is")
    add("--tokens-per-minute", type=_limit, metavar="N", help="0: unlimited; default: as it is")
    add("--latency", type=_seconds, metavar="S", help="mean seconds to an answer (default 0)")


def simulator_of(given: argparse.Namespace) -> dict[str, object]:
    """The simulator's settings that were given."""
    names = ("requests_per_minute", "tokens_per_minute", "latency")
    values = {name: getattr(given, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
