"""How many hosts, and which simulated endpoint: the arguments that `run` and `up` share.

Apart from `usage`, so that a host need not load the simulator.
"""

import argparse
import math

from local.endpoint.profiles import PROFILES
from local.usage import Parser


def workers(text: str) -> int:
    """A number of function hosts."""
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("must be 1 to 64")
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
