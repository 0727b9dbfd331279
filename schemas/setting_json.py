"""What does a setting hold that is JSON?"""

import json
from collections import Counter
from typing import Any


def setting_json(setting: str, text: str) -> Any:
    """The value of a setting. Raises ValueError, which quotes names of fields alone.

    A name that stands twice in an object is refused: only the last of both would count.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, times in Counter(name for name, _ in pairs).items():
            if times > 1:
                raise ValueError(f"{setting}: {name[:40]!r} stands {times} times in one object")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{setting} is not JSON: {error.msg} at {where}") from None
