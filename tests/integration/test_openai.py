"""The doors under /v1, asked by the `openai` package as it stands."""

import json
import secrets
from collections.abc import AsyncIterator
from random import Random
from urllib.parse import quote, urlencode

import aiohttp
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from yarl import URL

from local import keys
from local.hosts import hosts
from local.stack import PROJECT
from tests.api.hostile import SECRET, hostile, is_refusal
from tests.integration.processes import CHAT_MODEL, Processes, in_one_task, processes, until
from tests.integration.spoiled_http import answers_to, spoiled, wrong_with
from workers.api.guessing import FREE_GUESSES

API_KEY = secrets.token_urlsafe()

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Processes]:
    folder = tmp_path_factory.mktemp("processes")
    given = {keys.API_KEYS: keys.api_keys(API_KEY)}
    async with in_one_task(processes(folder, settings=given)) as started:
        yield started


def row(number: int) -> bytes:
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": f"about {number}"}]}
    line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps(line | {"body": body}).encode() + b"\n"


async def test_a_file_becomes_a_batch_and_its_answers(running: Processes) -> None:
    base = await running.hosts.up() + "/v1"
    async with AsyncOpenAI(base_url=base, api_key=API_KEY, max_retries=0) as client:
        data = b"".join(row(number) for number in range(20))
        file = await client.files.create(file=('é".jsonl', data), purpose="batch")
        assert (file.filename, file.bytes, file.status) == ('é".jsonl', len(data), "processed")
        batch = await client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"team": "blue"},
        )
        assert (batch.status, batch.input_file_id) == ("validating", file.id)
        done = await until(lambda: completed(client, batch.id), "the batch completes")
        assert done.request_counts.completed == 20
        answer = await client.files.content(done.output_file_id)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert [line["custom_id"] for line in lines] == [f"r{number}" for number in range(20)]


async def test_hostile_requests_are_refused_over_the_wire_too(running: Processes) -> None:
    base, rng = await running.hosts.up(), Random(7)
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {API_KEY}"}) as http,
        AsyncOpenAI(base_url=f"{base}/v1", api_key=API_KEY, max_retries=0) as client,
    ):
        before = await stored(client)
        for _ in range(200):
            made = hostile(rng)
            sent = all(text.isprintable() for text in made.headers.values())
            if not sent or "content-length" in made.headers or made.method in ("HEAD", "TRACE"):
                continue  # what no client sends, or what the host answers itself
            path = quote(made.path, safe="/%", errors="surrogateescape")
            url = URL(f"{base}{path}?{urlencode(made.query)}", encoded=True)
            async with http.request(
                made.method, url, headers=made.headers, data=made.body
            ) as answer:
                said = await answer.read()
                assert is_refusal(answer.status, json.loads(said or b"{}")), (made, answer, said)
        assert await stored(client) == before
    for line in running.log:
        assert SECRET not in line
        assert API_KEY not in line


async def test_http_that_no_client_sends_is_refused_and_leaves_nothing(running: Processes) -> None:
    base, rng = URL(await running.hosts.up()), Random(19)
    host, port = base.host or "", base.port or 0
    ours = 0
    async with AsyncOpenAI(base_url=f"{base}/v1", api_key=API_KEY, max_retries=0) as client:
        before = await stored(client)
        for _ in range(300):
            sent, ends = spoiled(rng, f"{host}:{port}", API_KEY)
            answer = await answers_to(sent, host, port, ends=ends)
            assert (wrong := wrong_with(answer)) is None, (wrong, sent, answer)
            ours += b"x-request-id" in answer.lower()
        assert ours > 40, "some come as far as the doors"
        assert await stored(client) == before
    for line in running.log:
        assert SECRET not in line
        assert API_KEY not in line


async def test_who_guesses_keys_is_told_to_wait_whatever_address_he_says(
    running: Processes,
) -> None:
    async with (
        hosts(1, PROJECT, running.log.append, verbose=True) as unasked,
        aiohttp.ClientSession() as http,
    ):
        unasked.give(running.settings)
        base = await unasked.up()

        async def ask(key: str, number: int) -> int:
            made_up = {"client-ip": f"9.9.9.{number}:1", "x-forwarded-for": f"8.8.8.{number}"}
            headers = {"authorization": f"Bearer {key}", **made_up}
            async with http.get(f"{base}/v1/files", headers=headers) as answer:
                return answer.status

        statuses = [await ask(f"guess-{number}", number) for number in range(40)]
        assert statuses[:FREE_GUESSES] == [401] * FREE_GUESSES
        assert 429 in statuses[FREE_GUESSES:]
        assert await ask(API_KEY, 0) == 200


async def stored(client: AsyncOpenAI) -> set[str]:
    """The ids of all files and batches."""
    return {each.id async for each in client.files.list()} | {
        each.id async for each in client.batches.list()
    }


async def completed(client: AsyncOpenAI, batch_id: str) -> object:
    batch = await client.batches.retrieve(batch_id)
    assert batch.status in ("validating", "in_progress", "finalizing", "completed"), batch
    return batch if batch.status == "completed" else None
