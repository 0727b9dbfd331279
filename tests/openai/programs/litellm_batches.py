"""`python litellm_batches.py URL KEY MODEL openai|azure`: what LiteLLM's users do with batches."""

import asyncio
import io
import json
import sys
import time
from typing import Any

import litellm

URL, KEY, MODEL, DIALECT = sys.argv[1:]
SECONDS = 120


def where() -> dict[str, Any]:
    """How a user names an endpoint of his own."""
    if DIALECT == "azure":
        named = {"custom_llm_provider": "azure", "api_base": URL, "api_version": "2024-10-21"}
    else:
        named = {"custom_llm_provider": "openai", "api_base": f"{URL}/v1"}
    return {"api_key": KEY, **named}


def rows(count: int) -> Any:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    lines = [
        {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(count)
    ]
    return ("in.jsonl", io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))


def create(file: Any) -> Any:
    # The rows name no model: without what stands in `extra_body` none of them can be asked.
    return litellm.create_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id=file.id,
        metadata={"team": "blue"},
        extra_body={"phi3": {"model": MODEL}},
        **where(),
    )


def one_after_the_other() -> None:
    file = litellm.create_file(file=rows(5), purpose="batch", **where())
    batch = create(file)
    deadline = time.monotonic() + SECONDS
    while batch.status not in ("completed", "failed") and time.monotonic() < deadline:
        time.sleep(0.2)
        batch = litellm.retrieve_batch(batch_id=batch.id, **where())
    assert (batch.status, batch.metadata) == ("completed", {"team": "blue"}), batch
    content = litellm.file_content(file_id=batch.output_file_id, **where()).content
    answers = [json.loads(line) for line in content.splitlines()]
    assert [each["custom_id"] for each in answers] == [f"r{number}" for number in range(5)]
    assert all(each["response"]["status_code"] == 200 for each in answers)
    assert batch.id in [each.id for each in litellm.list_batches(limit=2, **where())]
    assert litellm.file_retrieve(file_id=file.id, **where()).filename == "in.jsonl"
    assert file.id in [each.id for each in litellm.file_list(**where())]
    assert litellm.file_delete(file_id=file.id, **where()).deleted


def a_cancel() -> None:
    batch = create(litellm.create_file(file=rows(200), purpose="batch", **where()))
    status = litellm.cancel_batch(batch_id=batch.id, **where()).status
    assert status in ("cancelling", "cancelled"), status


async def in_an_event_loop() -> None:
    file = await litellm.acreate_file(file=rows(1), purpose="batch", **where())
    batch = await litellm.acreate_batch(
        completion_window="24h",
        endpoint="/v1/chat/completions",
        input_file_id=file.id,
        extra_body={"phi3": {"model": MODEL}},
        **where(),
    )
    found = await litellm.aretrieve_batch(batch_id=batch.id, **where())
    assert found.id == batch.id, found


one_after_the_other()
a_cancel()
asyncio.run(in_an_event_loop())
print("ok", DIALECT)
