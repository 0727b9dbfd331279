"""`python -m local.servicebus`: run the broker until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import signal
import sqlite3
import sys
from pathlib import Path

from .broker.configuration import ConfigurationError
from .server.faults import Fault, Faults
from .server.serving import serve
from .server.store import StoreInUseError


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error} (see docs/servicebus.md)") from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.servicebus", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("Config.json"))
    parser.add_argument("--port", type=int, default=5672, help="0 takes a free one")
    parser.add_argument("--data", type=Path, help="keep messages in this SQLite file")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND:OPERATION[,NAME=VALUE...]",
        help="misbehave, as in lose-ack:send,entity=jobs,probability=0.1 (docs/servicebus.md)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the faults' probabilities")
    parser.add_argument("--verbose", action="store_true", help="log to stderr")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    faults = Faults(arguments.fault, arguments.seed)
    async with serve(
        arguments.config, port=arguments.port, data=arguments.data, faults=faults
    ) as server:
        print(server.connection_string, flush=True)
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((stopped, server.failed), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if server.failed.done():
            server.failed.result()


def main() -> None:
    """Run until told to stop."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING)
    try:
        asyncio.run(_run(arguments))
    except (ConfigurationError, StoreInUseError, sqlite3.Error, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
