"""A file of 250 MB from the command line, by the doors of a running service, at its full size."""

import asyncio
import hashlib
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import openai
import psutil
import pytest

from phi3batch.service import PART
from tests.integration.processes import CHAT_MODEL, processes
from tests.openai.relay import Relay
from tests.openai.serving import KEY, settings

PROJECT = Path(__file__).parents[2]
SIZE = 250_000_000
MB = 1_000_000
MOST_OF_WORKER, MOST_OF_COMMAND = 300 * MB, 160 * MB

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.xdist_group("openai")]


def write(path: Path) -> str:
    """A file of requests, each with a long prompt; gives its SHA-256."""
    digest, written, number = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        while written < SIZE:
            number += 1
            messages = [{"role": "user", "content": f"{number} " + "word " * 12_000}]
            body = {"model": CHAT_MODEL, "messages": messages, "max_tokens": 1}
            row = {"custom_id": str(number), "url": "/v1/chat/completions", "body": body}
            line = json.dumps(row).encode() + b"\n"
            written += file.write(line)
            digest.update(line)
    return digest.hexdigest()


async def downloaded(url: str, file_id: str) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client,
        client.files.with_streaming_response.content(file_id) as answer,
    ):
        async for piece in answer.iter_bytes():
            digest.update(piece)
    return digest.hexdigest()


@asynccontextmanager
async def watched(pid: int) -> AsyncIterator[list[int]]:
    """The memory that a process holds while the block runs, in bytes."""
    found: list[int] = []

    async def watch() -> None:
        while True:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid).memory_info().rss)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(watch())
    try:
        yield found
    finally:
        task.cancel()


async def test_250_mb_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    digest = write(path)
    async with processes(tmp_path, settings=settings()) as running:
        url = await running.hosts.up()
        [worker] = running.hosts.processes.values()
        with Relay(url) as relay:
            # The answer to a part in the middle is lost, after the service has stored it.
            relay.loses = lambda seen: sum(at.endswith("/parts") for _, at, _ in seen) == 7
            command = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "phi3batch", "submit", str(path), "--json"),
                stdout=PIPE,
                env=os.environ
                | {"PYTHONPATH": str(PROJECT), "PHI3BATCH_URL": relay.url, "PHI3BATCH_KEY": KEY},
            )
            async with (
                openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client,
                watched(worker.pid) as of_worker,
                watched(command.pid) as of_command,
            ):
                said, _ = await command.communicate()
                assert command.returncode == 0
                batch = await client.batches.retrieve(json.loads(said)["id"])
                while batch.status == "validating":
                    await asyncio.sleep(0.2)
                    batch = await client.batches.retrieve(batch.id)
                await client.batches.cancel(batch.id)
        assert (batch.status, batch.errors) == ("in_progress", None)
        assert await downloaded(url, batch.input_file_id) == digest
        parts = [at for _, at, _ in relay.seen if at.endswith("/parts")]
        # Each part once, and the one again whose answer was lost.
        assert len(parts) == -(-path.stat().st_size // PART) + 1
        print(f"worker {max(of_worker) / MB:.0f} MB, command {max(of_command) / MB:.0f} MB")
        assert max(of_worker) < MOST_OF_WORKER
        assert max(of_command) < MOST_OF_COMMAND
