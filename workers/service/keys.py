"""Where the keys of endpoints are, and what becomes of one that is refused."""

import json
from collections.abc import Mapping
from pathlib import Path


class Keys:
    """Keys of endpoints by the names of their settings.

    On Azure a change of settings restarts the app. Locally a key that is refused is looked up again
    in local.settings.json, so that one mends it without losing what runs.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._file = folder / "local.settings.json"
        self._given: set[str] = set()

    def __call__(self, name: str) -> str | None:
        """The value of a setting; read afresh from the file when it is asked for again."""
        fresh = self._in_file(name) if name in self._given else None
        self._given.add(name)
        return self._environment.get(name) if fresh is None else fresh

    def _in_file(self, name: str) -> str | None:
        try:
            value = json.loads(self._file.read_text(encoding="utf-8-sig"))["Values"][name]
        except (OSError, ValueError, LookupError, TypeError):
            return None  # not there, or just being written
        return value if isinstance(value, str) else None
