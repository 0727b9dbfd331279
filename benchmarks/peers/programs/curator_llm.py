"""Curator's LLM over a list of rows, as its document on online processing shows it."""

import tempfile
from typing import Any

# It has the encoding that Curator would fetch from outside, and says where it lies.
import litellm.litellm_core_utils.default_encoding  # noqa: F401
from bespokelabs import curator

from benchmarks.peers.programs.work import IN_FLIGHT, RETRIES, Work, run

UNLIMITED = 10**9


class Asker(curator.LLM):  # type: ignore[misc, unused-ignore]
    """One call a row; its answer as it is."""

    def prompt(self, row: dict[str, Any]) -> Any:
        return row["messages"]

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"row": row["row"], "text": response}


def ask_all(work: Work) -> None:
    asker = Asker(
        model_name=work.model,
        backend="openai",
        generation_params={"max_tokens": work.rows[0]["max_tokens"]},
        backend_params={
            "base_url": work.url,
            "api_key": "none",
            "max_concurrent_requests": IN_FLIGHT,
            "max_requests_per_minute": work.requests_per_minute or UNLIMITED,
            "max_tokens_per_minute": UNLIMITED,
            "max_retries": RETRIES,
            "require_all_responses": False,
            # An answer that max_tokens ends is one: by its default it would be asked again.
            "invalid_finish_reasons": ["content_filter"],
        },
    )
    rows = [{"row": at, "messages": row["messages"]} for at, row in enumerate(work.rows)]
    # It keeps answers on disk and does not ask again what it finds there: a place of its own.
    with tempfile.TemporaryDirectory() as folder:
        for answer in asker(rows, working_dir=folder).dataset:
            work.keep(answer["row"], answer["text"])


if __name__ == "__main__":
    run(ask_all)
