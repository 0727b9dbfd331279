"""`python -m local COMMAND`: the whole service on one machine, without Azure.

run FILE    run one file from the drop to its results, and stop everything again
up          keep everything running, for tools of one's own
host        one function host, against whatever the settings point to
verify DIR  check downloaded results against their manifest
"""

import importlib
import logging
import os
import sys

from local.loading import loading
from workers.ports.errors import SettingsError

COMMANDS = {
    "run": "local.running",
    "up": "local.staying",
    "host": "local.hosting",
    "verify": "local.verifying",
}


def main(arguments: list[str]) -> int:
    """The exit status: 0 all well, 1 it went wrong, 2 wrong usage."""
    if os.name == "nt":
        print("error: this runs on Linux and macOS; on Windows, run it within WSL", file=sys.stderr)
        return 2
    if arguments and arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        said = repr(arguments[0]) if arguments else "no command"
        print(f"error: {said} given, known are {known}", file=sys.stderr)
        return 2
    # The SDKs tell of each broken connection at length, where the commands say it in a line.
    logging.getLogger("azure").setLevel(logging.ERROR)
    try:
        # Only the command's own module: each process starts as fast as it can.
        with loading():
            command = importlib.import_module(COMMANDS[arguments[0]])
        return int(command.main(arguments[1:]))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
