"""How long does it take until the nightly files that are new have been announced, among old ones?

    python -m benchmarks.nightly [--files 100000] [--new 1000]

Azurite in memory holds the files, the local broker takes the messages; both are processes of their
own. The timer's run is timed from its begin to its end, and each new file has to have its open
marker then. Ends with status 1 from a minute on.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Iterable

import orjson
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from benchmarks.servicebus import ROOT, running_broker
from local.azurite import azurite
from schemas.walks import Walk
from workers.adapters.blobs import connect_blobs
from workers.adapters.bus import connect_bus
from workers.intake.walking import MARGIN_SECONDS
from workers.service import compose
from workers.settings import Settings

ROW = b'{"prompt": "What is 2 + 3?"}\n'
MOST_SECONDS = 60.0
AT_ONCE = 48


async def put(container: ContainerClient, names: Iterable[str]) -> None:
    """Upload files, some at a time."""
    left = iter(names)

    async def some() -> None:
        for name in left:
            await container.upload_blob(name, ROW)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def fill(storage: str, settings: Settings, files: int, new: int) -> None:
    """Old files, a walk that has seen them, and new ones among them."""
    every = files // new
    async with BlobServiceClient.from_connection_string(storage) as service:
        container = await service.create_container(settings.nightly_container)
        await put(container, (f"{at:06}.jsonl" for at in range(files) if at % every))
        await asyncio.sleep(2.0)  # storage tells times in whole seconds
        night = Walk(since=time.time() + MARGIN_SECONDS - 1.0)
        state = await service.create_container(settings.state_container)
        await state.upload_blob(
            f"nightly/{settings.nightly_container}.json", orjson.dumps(night.model_dump())
        )
        await put(container, (f"{at:06}.jsonl" for at in range(0, files, every)))


async def main(files: int, new: int) -> int:
    settings = Settings(deployments=())
    entities = json.loads((ROOT / "Config.json").read_text("utf-8"))
    async with azurite() as emulator, running_broker(None, entities) as broker:
        began = time.perf_counter()
        await fill(emulator.connection_string, settings, files, new)
        print(f"{files:,} files after {time.perf_counter() - began:.0f} s", flush=True)
        async with (
            connect_blobs(emulator.connection_string) as blobs,
            connect_bus(broker.connection_string) as bus,
        ):
            rng = random.Random(0)
            service = compose(
                settings, blobs, bus, {}, transfers=blobs, ledger=None, clock=time.time, rng=rng
            )
            began = time.perf_counter()
            told = await service.nightly.run()
            seconds = time.perf_counter() - began
            marked = [info.ref async for info in blobs.list(settings.state_container, "open/")]
    print(
        f"{told:,} new among {files:,} nightly files announced in {seconds:.1f} s, "
        f"{len(marked):,} of them marked"
    )
    expected = len(range(0, files, files // new))
    return 0 if told == len(marked) == expected and seconds < MOST_SECONDS else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=1000)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.files, given.new)))
