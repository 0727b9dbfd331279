"""`python -m local host`: one function host, as one instance of the app in Azure would be."""

import argparse
import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from local import settings
from local.host.loading import LoadError, import_app
from local.host.serving import Host, stop_at_signals
from workers.errors import SettingsError

PROJECT = Path(__file__).parent.parent


def add_command(commands: Any) -> None:
    """Add `host` to the commands of `python -m local`."""
    command = commands.add_parser("host", help="run function_app.py against what the settings say")
    command.add_argument("--app", type=Path, default=PROJECT, help="folder of function_app.py")
    command.add_argument(
        "--port", type=int, default=0, help="of HTTP; 0 (default) takes a free one"
    )
    command.add_argument("--verbose", action="store_true", help="a line for each call")
    command.add_argument(
        "--settings-from-stdin",
        action="store_true",
        help="read a line of settings (JSON) from standard input once loaded; end when it ends",
    )
    command.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Serve until SIGTERM, SIGINT or the end of the process that gives the settings."""
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("local.host").setLevel(logging.DEBUG if given.verbose else logging.INFO)
    if given.settings_from_stdin:
        os.environ.update(_settings_from(sys.stdin.readline()))
    settings.apply(given.app)
    try:
        host = Host(import_app(given.app), given.app)
        asyncio.run(_serve(host, given))
    except LoadError as error:
        raise SettingsError(str(error)) from error
    return 0


def _settings_from(line: str) -> dict[str, str]:
    try:
        return dict(json.loads(line))
    except ValueError as error:
        raise SettingsError("standard input has no line of settings (a JSON object)") from error


async def _serve(host: Host, given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    stop_at_signals(stop)
    if given.settings_from_stdin:
        _stop_at_end_of_stdin(stop)
    await host.run(stop, given.port, lambda address: print(address, flush=True))


def _stop_at_end_of_stdin(stop: asyncio.Event) -> None:
    """The pipe ends when the parent does, however it ends: no host is left over."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), readable)
