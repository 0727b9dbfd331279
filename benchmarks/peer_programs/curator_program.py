"""Curator's LLM over a list of rows, as its document on online processing shows it."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from bespokelabs import curator

IN_FLIGHT = 100
RETRIES = 5
UNLIMITED = 10**9


class Asker(curator.LLM):  # type: ignore[misc, unused-ignore]
    def prompt(self, row: dict[str, Any]) -> Any:
        return row["messages"]

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"row": row["row"], "text": response}


def main(url: str, model: str, asked: str, answered: str, rpm: str) -> None:
    rows = list(map(json.loads, Path(asked).read_text().splitlines()))
    asker = Asker(
        model_name=model,
        backend="openai",
        generation_params={"max_tokens": rows[0]["max_tokens"]},
        backend_params={
            "base_url": url,
            "api_key": "none",
            "max_concurrent_requests": IN_FLIGHT,
            "max_requests_per_minute": int(rpm) or UNLIMITED,
            "max_tokens_per_minute": UNLIMITED,
            "max_retries": RETRIES,
            "require_all_responses": False,
        },
    )
    began = time.time()
    answers = asker(
        [{"row": at, "messages": row["messages"]} for at, row in enumerate(rows)],
        working_dir=str(Path(answered).with_suffix("")) + f".{time.time_ns()}",
    )
    ended = time.time()
    lines = [{"row": each["row"], "text": each["text"]} for each in answers.dataset]
    told = [*lines, {"began": began, "ended": ended}]
    Path(answered).write_text("".join(json.dumps(line) + "\n" for line in told))


main(*sys.argv[1:])
