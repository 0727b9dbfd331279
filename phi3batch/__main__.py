"""`phi3batch COMMAND`: the exit status says what came of it."""

import importlib
import os
import sys
from collections.abc import Sequence

from phi3batch.arguments import read
from phi3batch.mistakes import LEFT, Ended, Mistake, cannot_be_used
from phi3batch.statuses import INTERRUPTED, PIPE_CLOSED, WRONG_USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what its exit status means stands in `phi3batch.statuses`."""
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
        return PIPE_CLOSED
    except OSError as error:
        return _failed(WRONG_USAGE, Mistake(cannot_be_used(error)))
    return status


def _failed(status: int, why: Exception) -> int:
    print(f"error: {why}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
