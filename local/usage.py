"""Arguments of a command: wrong ones end it with status 2 and one clear line."""

import argparse
import sys
from typing import NoReturn

from local.endpoint.profiles import PROFILES


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before an error."""

    def error(self, message: str) -> NoReturn:
        """One line, and exit status 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def workers(text: str) -> int:
    """A number of function hosts."""
    count = int(text)
    if not 1 <= count <= 64:
        raise argparse.ArgumentTypeError("must be 1 to 64")
    return count


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
    add("--requests-per-minute", type=int, metavar="N", help="0: unlimited; default: as it is")
    add("--tokens-per-minute", type=int, metavar="N", help="0: unlimited; default: as it is")
    add("--latency", type=float, metavar="S", help="mean seconds to an answer (default 0)")


def simulator_of(given: argparse.Namespace) -> dict[str, object]:
    """The simulator's settings that were given."""
    names = ("requests_per_minute", "tokens_per_minute", "latency")
    values = {name: getattr(given, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
