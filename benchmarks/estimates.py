"""How far are estimates off? What was reckoned of GSM8K before, beside what it took.

    python -m benchmarks.estimates [--file samples/gsm8k-test.jsonl] [--only alone mixed shared]

Real function hosts, storage and Service Bus, and simulated endpoints that keep quotas. Three
settings: `alone`, one deployment and short answers; `mixed`, two deployments of one model with
different prices and quotas, and longer answers; `shared`, the quota of `alone` while another job
asks for all of it. Printed is what the job's report says. The simulator counts a token for three
bytes, and its answers have 24 to 72 of them. Ends with status 1 where anything is off by more than
MOST_OFF.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from benchmarks.whole_job import CONTAINER
from local.endpoint.server import simulate
from local.endpoint.settings import Settings
from local.following import events
from local.stack import Stack, StackOptions, stack
from schemas.results import Manifest
from workers.jobs.comparison import compared

FILE: Final = Path("samples/gsm8k-test.jsonl")
MODEL: Final = "Phi-3-mini-4k-instruct"
TEMPLATE: Final = {"messages": [{"role": "user", "content": "{question}"}]}
WORKERS: Final = 2
MOST_OFF: Final = 0.2


@dataclass(frozen=True, slots=True)
class Quota:
    """One simulated endpoint, and what a million tokens of it cost."""

    requests: int
    tokens: int
    price: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a job is run with. `others`: whether another job asks for the quota all the time."""

    quotas: Sequence[Quota]
    max_tokens: int
    others: bool = False


CHEAP, DEAR = ("0.13", "0.52"), ("0.17", "0.68")
SETTINGS: Final = {
    "alone": Setting([Quota(1_000, 200_000, CHEAP)], 64),
    "mixed": Setting([Quota(1_000, 200_000, CHEAP), Quota(600, 400_000, DEAR)], 200),
    "shared": Setting([Quota(1_000, 200_000, CHEAP)], 64, others=True),
}


@contextlib.asynccontextmanager
async def deployments(quotas: Sequence[Quota]) -> AsyncIterator[str]:
    """Endpoints with these quotas, as the setting DEPLOYMENTS names them."""
    async with contextlib.AsyncExitStack() as running:
        told: list[dict[str, Any]] = []
        for at, quota in enumerate(quotas):
            settings = Settings(
                latency=0.5,
                latency_sigma=0.5,
                requests_per_minute=quota.requests,
                tokens_per_minute=quota.tokens,
            )
            endpoint = await running.enter_async_context(simulate(settings))
            price = {"input": quota.price[0], "output": quota.price[1], "currency": "USD"}
            own = {"name": f"phi-{at}", "kind": "model-inference", "model": MODEL, "auth": "none"}
            url = f"{endpoint.url}/endpoints/{MODEL}"
            limits = {"requests_per_minute": quota.requests, "tokens_per_minute": quota.tokens}
            told.append({**own, **limits, "url": url, "price": price})
        yield json.dumps(told)


async def begun(running: Stack, name: str) -> None:
    """Wait until the first rows of a job are done."""
    async with events(running.bus, f"{CONTAINER}/{name}") as arriving:
        async for arrived in arriving:
            told = arrived.event.data
            if arrived.last or (told.counts and told.counts.done) or told.running:
                return


async def drop(container: ContainerClient, name: str, data: bytes, max_tokens: int) -> None:
    """Drop a file whose job makes chats of its rows."""
    options = json.dumps({"template": TEMPLATE, "max_tokens": max_tokens}).encode()
    told = base64.urlsafe_b64encode(options).decode().rstrip("=")
    await container.upload_blob(name, data, metadata={"options": told})


async def manifest(storage: BlobServiceClient, results: str) -> Manifest:
    container, _, folder = results.partition("/")
    blob = storage.get_blob_client(container, f"{folder}/manifest.json")
    return Manifest.model_validate(orjson.loads(await (await blob.download_blob()).readall()))


async def measure(setting: Setting, data: bytes) -> Manifest:
    """The manifest of a job with a setting."""
    async with deployments(setting.quotas) as told:
        os.environ["DEPLOYMENTS"] = told
        options = StackOptions(workers=WORKERS)
        async with (
            stack(options, lambda _: None) as running,
            BlobServiceClient.from_connection_string(running.storage) as storage,
        ):
            await running.hosts.up()
            container = storage.get_container_client(CONTAINER)
            if setting.others:
                await drop(container, "other.jsonl", 3 * data, setting.max_tokens)
                await begun(running, "other.jsonl")
            async with events(running.bus, f"{CONTAINER}/gsm8k.jsonl") as arriving:
                await drop(container, "gsm8k.jsonl", data, setting.max_tokens)
                async for arrived in arriving:
                    last = arrived.event.data
            if last.results is None:
                raise SystemExit(f"the job came to nothing: {last}")
            return await manifest(storage, last.results)


def show(name: str, made: Manifest) -> None:
    print(f"{name}: {made.state}")
    for what, least, most, took, off in compared(made):
        print(f"  {what!s:18}{least!s:>14}{most!s:>14}{took!s:>14}  {off}", flush=True)


def far_off(made: Manifest) -> bool:
    """Whether anything is off by more than MOST_OFF."""
    off = [str(row[-1]).partition("%") for row in compared(made)]
    return any(sign and float(percent) > 100 * MOST_OFF for percent, sign, _ in off)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=FILE, help="rows with a field `question`")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    given = parser.parse_args()
    data = given.file.read_bytes()
    print(f"{'':20}{'at least':>14}{'at most':>14}{'it took':>14}  off")
    good = True
    for name in given.only:
        made = asyncio.run(measure(SETTINGS[name], data))
        show(name, made)
        good = good and made.state == "completed" and not far_off(made)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
