"""Which keys do local hosts ask for? A function key and an API key, made once and kept."""

import hashlib
import json
import os
import secrets
from pathlib import Path

from schemas.access import KEY_PREFIX

SETTING = "LOCAL_FUNCTION_KEY"
HEADER = "x-functions-key"
FILE = "function-key"
API_KEYS = "API_KEYS"
API_KEY_FILE = "api-key"
API_KEY_NAME = "local"


def function_key(data: Path) -> str:
    """The setting's key, or the one kept in a folder, which is made if need be."""
    if (given := os.environ.get(SETTING)) is not None:
        return given
    return _kept(data / FILE, secrets.token_urlsafe(24))


def api_key(data: Path) -> str:
    """The API key of the tenant `default` that is kept in a folder, which is made if need be."""
    return _kept(data / API_KEY_FILE, KEY_PREFIX + secrets.token_urlsafe(32))


def api_keys(key: str, others: str = "") -> str:
    """The setting API_KEYS that also lets a key of the tenant `default` in, beside others."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    known = [entry for entry in json.loads(others or "[]") if entry["name"] != API_KEY_NAME]
    return json.dumps([*known, {"name": API_KEY_NAME, "sha256": digest}])


def _kept(file: Path, fresh: str) -> str:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(fresh)
    except FileExistsError:
        pass
    return file.read_text().strip()
