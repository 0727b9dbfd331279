"""With which exit status does each command end, and what does it mean?"""

from collections.abc import Mapping
from typing import Final

NOT_DONE: Final = 1
WRONG_USAGE: Final = 2
ROWS_FAILED: Final = 3
NOT_ADMITTED: Final = 4
TOO_LATE: Final = 124
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

Meanings = Mapping[int, str]

_ALWAYS: Final[Meanings] = {
    WRONG_USAGE: "the command is used wrongly, or a file of this machine cannot be used",
    INTERRUPTED: "Ctrl-C",
    PIPE_CLOSED: "whoever reads the output has closed it",
}
_AWAY: Final = "the service is away or refuses"
_OF_SERVICE: Final[Meanings] = {NOT_DONE: _AWAY, NOT_ADMITTED: "the service does not know the key"}
_WATCHED: Final[Meanings] = {
    ROWS_FAILED: "a batch has no row with an answer (with --strict: one without)",
    TOO_LATE: "--timeout has passed; the batches go on",
    INTERRUPTED: "Ctrl-C; the batches go on",
}
_ACTED: Final[Meanings] = {
    **_OF_SERVICE,
    0: "all batches do so",
    NOT_DONE: f"a batch's state does not allow it, or {_AWAY}",
}

MEANINGS: Final[Mapping[str, Meanings]] = {
    name: {**_ALWAYS, **own}
    for name, own in {
        "submit": {
            **_OF_SERVICE,
            **_WATCHED,
            0: "all batches are made (with --watch: and have completed)",
            NOT_DONE: f"a batch was not made (with --watch: not completed), or {_AWAY}",
        },
        "watch": {
            **_OF_SERVICE,
            **_WATCHED,
            0: "all batches have completed",
            NOT_DONE: f"a batch has not completed, or {_AWAY}",
        },
        "results": {
            **_OF_SERVICE,
            0: "the results are here, and a row has its answers (or there is no row)",
            NOT_DONE: f"a batch has not ended, what came is not whole, or {_AWAY}",
            ROWS_FAILED: "the results are here, and no row has its answers",
        },
        "retry": {
            **_OF_SERVICE,
            **_WATCHED,
            0: "the rows are asked again (with --watch: completed), or there are none",
            NOT_DONE: f"a batch has not ended (with --watch: not completed), or {_AWAY}",
        },
        "ls": {**_OF_SERVICE, 0: "the batches are listed"},
        "show": {**_OF_SERVICE, 0: "the batch is told"},
        "events": {**_OF_SERVICE, 0: "the events are told"},
        "cancel": _ACTED,
        "pause": _ACTED,
        "resume": _ACTED,
        "validate": {0: "each row can be asked", NOT_DONE: "a row cannot, or there is none"},
        "estimate": {
            **_OF_SERVICE,
            0: "the estimate is told, and all of it may be answered",
            NOT_DONE: f"some of it surely would not (the last line says why), or {_AWAY}",
        },
        "files ls": {**_OF_SERVICE, 0: "the files are listed"},
        "files rm": {
            **_OF_SERVICE,
            0: "the files are deleted",
            NOT_DONE: f"there is no such file, or {_AWAY}",
        },
        "keys new": {0: "the key is told"},
        "webhooks secret": {0: "the secret is told"},
        "webhooks replay": {**_ACTED, 0: "the receiver is told of each batch"},
        "completion": {0: "the script is printed"},
    }.items()
}
"""What each status of each command means; `up` ends as `python -m local up` does."""


def told(command: str) -> str:
    """The statuses of a command, a line each; where to look, of one that has actions."""
    if command not in MEANINGS:
        return "the exit status of each action stands in its own --help"
    lines = (f"  {status:<5}{meaning}" for status, meaning in sorted(MEANINGS[command].items()))
    return "\n".join(["exit status:", *lines])
