"""`python -m local host`: one function host, as one instance of the app in Azure would be."""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from local import keys, settings
from local.host.loading import LoadError, import_app
from local.host.serving import Host, stop_at_signals
from local.loading import loading
from local.usage import Parser
from workers.ports.errors import SettingsError

PROJECT = Path(__file__).parent.parent
# Where no setting says when the nightly container is swept.
NIGHTLY = "0 0 2 * * *"


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM, SIGINT or the end of the process that gives the settings."""
    given = _arguments(arguments)
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if given.verbose:
        logging.getLogger("local.host").setLevel(logging.DEBUG)
    # Imported while what the settings point to still starts; an app reads nothing at its import.
    with loading():
        app = import_app(given.app)
    if given.settings_from_stdin:
        os.environ.update(_settings_from(sys.stdin.readline()))
    settings.apply(given.app)
    os.environ.setdefault("NIGHTLY_SCHEDULE", NIGHTLY)
    os.environ.setdefault(keys.SETTING, keys.function_key(PROJECT / ".local"))
    try:
        host = Host(app, given.app)
    except LoadError as error:
        raise SettingsError(str(error)) from error
    asyncio.run(_serve(host, given))
    return 0


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m local host", description=__doc__)
    add = parser.add_argument
    add("--app", type=Path, default=PROJECT, help="folder of function_app.py")
    add("--port", type=int, default=0, help="of HTTP; 0 (default) takes a free one")
    add("--verbose", action="store_true", help="log a line for each call")
    add(
        "--settings-from-stdin",
        action="store_true",
        help="read a line of settings (JSON) from standard input once loaded; end when it ends",
    )
    return parser.parse_args(arguments)


def _settings_from(line: str) -> dict[str, str]:
    try:
        return dict(json.loads(line))
    except ValueError as error:
        raise SettingsError("standard input has no line of settings (a JSON object)") from error


async def _serve(host: Host, given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    stopping = stop_at_signals(stop)
    if given.settings_from_stdin:
        _at_end_of_stdin(stopping)
    await host.run(stop, given.port, lambda address: print(address, flush=True))
    # As in Azure, an app's clients are not closed but cut off: nobody needs to hear of that.
    logging.shutdown()
    os._exit(0)


def _at_end_of_stdin(stopping: Callable[[], None]) -> None:
    """The pipe ends when the parent does, however it ends: no host is left over."""
    loop = asyncio.get_running_loop()
    number = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(number, 4096):
            loop.remove_reader(number)
            stopping()

    loop.add_reader(number, readable)
