"""Which function key do local hosts ask for? One that is made once and kept, as Azure keeps one."""

import os
import secrets
from pathlib import Path

SETTING = "LOCAL_FUNCTION_KEY"
HEADER = "x-functions-key"
FILE = "function-key"


def function_key(data: Path) -> str:
    """The setting's key, or the one kept in a folder, which is made if need be."""
    if (given := os.environ.get(SETTING)) is not None:
        return given
    file = data / FILE
    try:
        data.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    return file.read_text().strip()
