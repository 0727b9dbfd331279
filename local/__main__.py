"""`python -m local`: run a file, keep everything up, be one function host, verify a result."""

import argparse
import sys

from local import hosting
from workers.errors import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 all well, 1 it went wrong, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    hosting.add_command(commands)
    given = parser.parse_args(arguments)
    try:
        return int(given.run(given))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
