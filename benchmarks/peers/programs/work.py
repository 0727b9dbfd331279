"""What is every program given, and where does it leave what it was answered?

Of the standard library alone: each environment holds one peer and what that needs.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

IN_FLIGHT: Final = 100
RETRIES: Final = 10
"""Of each call. The openai package has 2 by default, Curator 10, LiteLLM's document shows 3."""


@dataclass(frozen=True, slots=True)
class Work:
    """Rows (bodies without a model) to ask `model` at `url`, and a place for the answers.

    `requests_per_minute` is the quota; 0: there is none.
    """

    url: str
    model: str
    requests_per_minute: int
    rows: list[dict[str, Any]]
    out: TextIO

    def keep(self, row: int, text: str | None) -> None:
        """The answer to a row, by its place among the rows."""
        self.out.write(json.dumps({"row": row, "text": text}) + "\n")


def run(ask_all: Callable[[Work], None]) -> None:
    """Do what the command line says. The last line written tells when it began and ended, by
    Unix time, and the processor seconds in between."""
    url, model, requests_per_minute, asked, answered = sys.argv[1:]
    began, used = time.time(), sum(os.times()[:4])
    with Path(asked).open() as lines, Path(answered).open("w") as out:
        ask_all(Work(url, model, int(requests_per_minute), list(map(json.loads, lines)), out))
        out.flush()
        times = {"began": began, "ended": time.time(), "processor": sum(os.times()[:4]) - used}
        out.write(json.dumps(times) + "\n")
