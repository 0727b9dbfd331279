"""Dead between any two effects, or with any answer lost: what is asked again comes to one thing.

A process dies before or after each durable effect of a call; its user asks again, of a process that
lives. Afterwards there is one of everything, and what is deleted leaves nothing behind.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from schemas.tenants import Tenant
from tests.api.client import CHAT, KEYS, Client, rows
from tests.api.test_uploads import begun, complete, part
from tests.doubles import FaultyBlobs, MemoryBlobs
from tests.doubles.faults import EFFECTS, AnswerLost, CrashAt, Fault, Phase, ProcessKilled
from tests.doubles.service import EPOCH, Bench, bench
from workers.ports import BlobRef

ROWS = rows(2)
DAYS = 3 * 86_400.0
Doing = Callable[[Client, dict[str, str]], Awaitable[None]]
"""What a user does, with what he remembers of what was answered."""


class LoseAt:
    """Loses the answer of the n-th effect: the SDK calls again, and meets its own success."""

    def __init__(self, nth: int) -> None:
        self.nth = nth
        self.count = 0

    def __call__(self, kind: str, name: str, phase: Phase) -> None:
        if kind in EFFECTS and phase == "after":
            self.count += 1
            if self.count == self.nth:
                raise AnswerLost


async def make_batch(client: Client, known: dict[str, str]) -> None:
    """Upload a file and create a batch of it; what was not answered is asked again."""
    if "file" not in known:
        known["file"] = (await client.upload(ROWS))["id"]
    counted = {"x-stainless-retry-count": "1" if "asked" in known else "0"}
    known["asked"] = "yes"
    body = {"input_file_id": known["file"], "endpoint": CHAT, "completion_window": "24h"}
    status, told = await client.ask("POST", "/v1/batches", body, counted)
    assert status == 200, told
    known["batch"] = told["id"]
    _, page = await client.ask("GET", "/v1/batches")
    assert known["batch"] in [each["id"] for each in page["data"]], "listed once it is answered"


async def upload_in_parts(client: Client, known: dict[str, str]) -> None:
    """A file in two parts."""
    if "upload" not in known:
        known["upload"] = (await begun(client, len(ROWS)))["id"]
    upload = {"id": known["upload"]}
    for name, data in (("one", ROWS[:9]), ("two", ROWS[9:])):
        if name not in known:
            known[name] = await part(client, upload, data)
    status, told = await complete(client, upload, known["one"], known["two"])
    assert status == 200, told
    known["file"] = told["file"]["id"]


async def delete_file(client: Client, known: dict[str, str]) -> None:
    """A file that comes and goes."""
    if "file" not in known:
        known["file"] = (await client.upload(ROWS))["id"]
    again = "asked" in known
    known["asked"] = "yes"
    status, _ = await client.ask("DELETE", f"/v1/files/{known['file']}")
    assert status == 200 or (again and status == 404)


@asynccontextmanager
async def process(memory: MemoryBlobs, fault: Fault, seed: int) -> AsyncIterator[Bench]:
    blobs = FaultyBlobs(memory, fault)
    tenants = {"default": Tenant(), "blue": Tenant()}
    async with bench(
        blobs=blobs, transfers=memory, rng=Random(seed), api_keys=KEYS, tenants=tenants
    ) as made:
        yield made


# With how many durable effects each has.
EFFECTS_OF: tuple[tuple[Doing, int], ...] = (
    (make_batch, 9),
    (upload_in_parts, 5),
    (delete_file, 6),
)


def crashes() -> Iterator[tuple[Doing, int, Phase]]:
    for doing, effects in EFFECTS_OF:
        for nth in range(1, effects + 1):
            yield doing, nth, "before"
            yield doing, nth, "after"


@pytest.mark.parametrize(("doing", "nth", "phase"), list(crashes()))
async def test_a_crash_anywhere_leaves_one_of_everything(
    doing: Doing, nth: int, phase: Phase
) -> None:
    memory = MemoryBlobs(lambda: EPOCH)
    known: dict[str, str] = {}
    crash = CrashAt(nth, phase)
    async with process(memory, crash, 1) as dying:
        with pytest.raises(ProcessKilled):
            await doing(Client(dying), known)
    async with process(memory, lambda *_: None, 2) as living:
        client = Client(living)
        await doing(client, known)
        await settled(living, client, known)


@pytest.mark.parametrize(("doing", "effects"), EFFECTS_OF)
async def test_a_lost_answer_anywhere_is_no_error(doing: Doing, effects: int) -> None:
    for nth in range(1, effects + 2):
        memory = MemoryBlobs(lambda: EPOCH)
        known: dict[str, str] = {}
        fault = LoseAt(nth)
        async with process(memory, fault, 1) as running:
            client = Client(running)
            await doing(client, known)
            assert (fault.count < nth) == (nth > effects), "EFFECTS_OF says otherwise"
            await settled(running, client, known)


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2])
async def test_a_result_that_is_deleted_leaves_nothing_of_what_it_was_made_of(
    nth: int, phase: Phase
) -> None:
    memory = MemoryBlobs(lambda: EPOCH)
    async with process(memory, lambda *_: None, 1) as first:
        batch = await Client(first).run(ROWS)
        job = batch["id"].removeprefix("batch_")
        assert await names(first, "state", f"jobs/{job}/output/")
    path = f"/v1/files/{batch['output_file_id']}"
    async with process(memory, CrashAt(nth, phase), 2) as dying:
        with pytest.raises(ProcessKilled):
            await Client(dying).ask("DELETE", path)
    async with process(memory, lambda *_: None, 3) as living:
        status, _ = await Client(living).ask("DELETE", path)
        assert status in (200, 404)
        living.elapsed += DAYS
        for _ in range(2):
            await living.service.retention.run()
        for folder in (f"jobs/{job}/output/", f"jobs/{job}/journal/", "due/"):
            assert await names(living, "state", folder) == [], folder


async def settled(service: Bench, client: Client, known: dict[str, str]) -> None:
    """All comes to its end, and nothing is left of what is deleted then."""
    service.elapsed += 400.0
    await service.sweeper.run()
    await service.settle()
    if "batch" in known:
        _, page = await client.ask("GET", "/v1/batches")
        assert [each["id"] for each in page["data"]] == [known["batch"]]
        assert page["data"][0]["status"] == "completed"
    _, page = await client.ask("GET", "/v1/files")
    for file in page["data"]:
        assert await client.content(file["id"]) == ROWS
        await client.ask("DELETE", f"/v1/files/{file['id']}")
    service.elapsed += DAYS
    for _ in range(2):
        await service.service.retention.run()
    assert await names(service, "files", "") == []
    for folder in ("files/", "uploads/", "creations/", "due/"):
        assert await names(service, "state", folder) == [], folder


async def names(service: Bench, container: str, prefix: str) -> list[BlobRef]:
    return [info.ref async for info in service.blobs.list(container, prefix)]
