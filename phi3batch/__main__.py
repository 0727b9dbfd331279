"""`phi3batch COMMAND`: the exit status says what came of it."""

import importlib
import os
import sys
from collections.abc import Sequence

from phi3batch.arguments import read
from phi3batch.mistakes import INTERRUPTED, LEFT, Ended, Mistake, cannot_be_used
from phi3batch.usage import WRONG_USAGE

_PIPE_CLOSED = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    0 done, 1 not done, 2 wrong usage, 3 rows failed, 4 not admitted, 124 too late, 130 Ctrl-C.
    """
    given = read(arguments)
    try:
        # Only the command's own module: the SDK alone takes most of a second.
        command = importlib.import_module(f"phi3batch.commands.{given.module}")
        status: int = command.run(given)
        sys.stdout.flush()
    except Mistake as mistake:
        return _failed(WRONG_USAGE, mistake)
    except Ended as ended:
        if ended.status in LEFT:
            print(ended, file=sys.stderr)
            return ended.status
        return _failed(ended.status, ended)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has enough, as `head` does; nothing is left to be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except OSError as error:
        return _failed(WRONG_USAGE, Mistake(cannot_be_used(error)))
    return status


def _failed(status: int, why: Exception) -> int:
    print(f"error: {why}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
