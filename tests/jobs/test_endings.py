"""How jobs end although somebody dies, or writes where their results belong."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from schemas.results import Manifest
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import EPOCH, Bench, bench
from tests.simulation.virtual_time import run
from workers.jobs.outbox import JOBS, SHARDS
from workers.ports import BlobRef
from workers.ports.errors import Unavailable

ROWS = b'{"prompt": "p"}\n{"prompt": "q"}\n{"prompt": "r"}\n'


class Killed(Exception):
    """Stands for the end of a process."""


def test_a_cancel_whose_process_dies_before_its_sends_waits_for_no_sweeper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(_: Random) -> None:
        loop = asyncio.get_running_loop()
        blobs = MemoryBlobs(lambda: EPOCH + loop.time())
        async with bench(blobs=blobs) as service:
            await service.drop(ROWS)
            await service.announce()
            # The shard's message is with a worker that has gone.
            while delivery := service.bus.receive(SHARDS):  # type: ignore[attr-defined]
                service.bus.complete(delivery)  # type: ignore[attr-defined]
            job = service.events[0]["data"]["job"]

            async def dies(*_: Any, **__: Any) -> None:
                raise Killed

            with monkeypatch.context() as dying:
                dying.setattr(service.service.doors._outbox, "send_shards", dies)
                with pytest.raises(Killed):
                    await service.ask("POST", f"/api/jobs/{job}/cancel")
            await service.settle()
            assert not [event for event in service.events if event["data"].get("ended")]
            await asyncio.sleep(11.0)
            await service.settle()
            ended = await service.ended()
            assert (ended.state, ended.counts["cancelled"]) == ("cancelled", 3)

    run(story)


@pytest.mark.parametrize("fault", [Killed, Unavailable])
def test_a_resume_whose_sends_fail_waits_for_no_sweeper(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    async def story(_: Random) -> None:
        loop = asyncio.get_running_loop()
        blobs = MemoryBlobs(lambda: EPOCH + loop.time())
        async with bench(blobs=blobs) as service:
            await service.drop(ROWS)
            await service.announce()
            job = service.events[0]["data"]["job"]
            await service.ask("POST", f"/api/jobs/{job}/pause")
            await service.settle()

            async def fails(*_: Any, **__: Any) -> None:
                raise fault

            with monkeypatch.context() as failing, contextlib.suppress(Killed):
                failing.setattr(service.service.doors._outbox, "send_shards", fails)
                assert (await service.ask("POST", f"/api/jobs/{job}/resume")).code == 503
            # Whoever asks again is told that the job goes on, and it does.
            assert (await service.ask("POST", f"/api/jobs/{job}/resume")).code == 202
            await service.settle()
            assert not service.endpoint.asked
            await asyncio.sleep(11.0)
            await service.settle()
            assert (await service.ended()).counts["succeeded"] == 3

    run(story)


def test_a_resume_that_went_out_asks_nothing_twice() -> None:
    async def story(_: Random) -> None:
        loop = asyncio.get_running_loop()
        blobs = MemoryBlobs(lambda: EPOCH + loop.time())
        async with bench(blobs=blobs) as service:
            await service.drop(ROWS)
            await service.announce()
            job = service.events[0]["data"]["job"]
            await service.ask("POST", f"/api/jobs/{job}/pause")
            await service.settle()
            assert (await service.ask("POST", f"/api/jobs/{job}/resume")).code == 202
            await service.settle()
            told = len(service.events)
            await asyncio.sleep(11.0)
            await service.settle()
            assert (len(service.endpoint.asked), len(service.events)) == (3, told)

    run(story)


def test_a_cancel_that_went_out_is_not_sent_twice() -> None:
    async def story(_: Random) -> None:
        loop = asyncio.get_running_loop()
        blobs = MemoryBlobs(lambda: EPOCH + loop.time())
        async with bench(blobs=blobs) as service:
            await service.drop(ROWS)
            await service.announce()
            job = service.events[0]["data"]["job"]
            assert (await service.ask("POST", f"/api/jobs/{job}/cancel")).code == 202
            await service.settle()
            told = len(service.events)
            await asyncio.sleep(11.0)
            await service.settle()
            assert len(service.events) == told
            assert (await service.ended()).state == "cancelled"

    run(story)


@pytest.mark.parametrize("taken", [["output.jsonl"], ["output.jsonl", "output.2.jsonl"]])
async def test_where_somebody_else_wrote_the_answers_get_a_name_of_their_own(
    taken: list[str],
) -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        folder = service.events[0]["data"]["results"].removeprefix("results/")
        for name in taken:
            await service.blobs.create(BlobRef("results", f"{folder}/{name}"), b"mine")
        await service.settle()

        async def read(name: str) -> bytes:
            return (await service.blobs.read(BlobRef("results", f"{folder}/{name}"))).data

        manifest = Manifest.model_validate_json(await read("manifest.json"))
        assert manifest.state == "completed"
        assert manifest.output.name == f"output.{len(taken) + 1}.jsonl"
        assert manifest.errors.name == "errors.jsonl"
        lines = (await read(manifest.output.name)).splitlines()
        assert [json.loads(line)["custom_id"] for line in lines] == ["1", "2", "3"]
        assert len(b"".join(lines)) + len(lines) == manifest.output.length
        assert [await read(name) for name in taken] == [b"mine"] * len(taken)


class Finishing:
    """A job whose shards are done and whose results are to be written."""

    def __init__(self, service: Bench) -> None:
        self.service = service
        self.folder = service.events[0]["data"]["results"].removeprefix("results/")

    def ref(self, name: str) -> BlobRef:
        return BlobRef("results", f"{self.folder}/{name}")

    async def names(self) -> list[str]:
        found = self.service.blobs.list("results", f"{self.folder}/")
        return [info.ref.name.rpartition("/")[2] async for info in found]

    async def manifest(self, name: str = "manifest.json") -> Manifest:
        stored = await self.service.blobs.read(self.ref(name))
        return Manifest.model_validate_json(stored.data)

    async def repeated(self) -> None:
        """Finish once more, as after a crash between the results and the terminal state."""
        store, job = self.service.service.store, self.service.events[0]["subject"]
        held = await store.state(job)
        assert held is not None
        before = {"state": "finalizing", "staged": 0, "ended": None}
        assert await store.swap(job, held, held.state.model_copy(update=before))
        await self.service.service.inbox._finisher.run(job, repeated=True)


@asynccontextmanager
async def finishing(rows: bytes = ROWS) -> AsyncIterator[Finishing]:
    async with bench() as service:
        await service.drop(rows)
        await service.announce()
        yield Finishing(service)


@pytest.mark.parametrize(
    "theirs",
    [b'{"mine": "somebody else"}', b"no JSON", b"[]", b'{"job": "another", "state": "completed"}'],
)
async def test_a_strangers_manifest_is_not_the_jobs(theirs: bytes) -> None:
    async with finishing() as job:
        await job.service.blobs.create(job.ref("manifest.json"), theirs)
        await job.service.blobs.create(job.ref("output.jsonl"), b"mine")
        await job.service.settle()
        last = job.service.events[-1]
        assert (last["type"], last["data"]["manifest"]) == ("job.completed", "manifest.2.json")
        told = (await job.service.ask("GET", f"/api/jobs/{last['subject']}")).body
        assert told["manifest"] == "manifest.2.json"
        manifest = await job.manifest(told["manifest"])
        assert (manifest.job, manifest.output.name) == (last["subject"], "output.2.jsonl")
        assert (await job.service.blobs.read(job.ref("manifest.json"))).data == theirs
        assert "report.html" in await job.names()
        await job.repeated()
        assert "manifest.3.json" not in await job.names()


async def test_a_job_whose_names_are_free_tells_no_name_of_its_manifest() -> None:
    async with finishing() as job:
        await job.service.settle()
        assert "manifest" not in job.service.events[-1]["data"]


async def test_a_strangers_file_as_long_as_the_answers_is_not_taken_for_them() -> None:
    async with finishing() as job:
        # Up to the message that has the results written: of this very job, for each line tells how
        # long its call took.
        await job.service.settle(lambda delivery: delivery.queue == JOBS)
        receipt = await job.service.store.receipt(job.service.events[0]["subject"], 0)
        assert receipt is not None
        assert receipt.output is not None
        length = receipt.output.length
        await job.service.blobs.create(job.ref("output.jsonl"), b"z" * length)
        await job.service.settle()
        output = (await job.manifest()).output
        assert (output.name, output.length) == ("output.2.jsonl", length)
        assert b"z" * 9 not in (await job.service.blobs.read(job.ref(output.name))).data


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("manifested", [True, False])
async def test_who_finishes_once_more_finds_his_own_files(marked: bool, manifested: bool) -> None:
    """Those that the release 0.1.0 wrote have no mark: their content tells."""
    async with finishing() as job:
        await job.service.settle()
        blobs, names = job.service.blobs, await job.names()
        assert isinstance(blobs, MemoryBlobs)
        if not marked:
            for name in ("output.jsonl", "errors.jsonl"):
                blobs.blobs[job.ref(name)].metadata.clear()
        if not manifested:
            await blobs.delete(job.ref("manifest.json"))
        await job.repeated()
        assert await job.names() == names
        assert (await job.manifest()).output.name == "output.jsonl"
        assert job.service.events[-1]["type"] == "job.completed"


@pytest.mark.parametrize(
    ("options", "rows", "code"),
    [
        ({"max_token": 1}, ROWS, "invalid_options"),
        ({"on_invalid": "fail"}, ROWS + b"{\n", "invalid_rows"),
        ({}, b"id,prompt\n1,p\n", "not_jsonl"),
        ({}, ROWS, None),
    ],
)
async def test_a_job_that_fails_as_a_whole_leaves_one_line_in_the_log(
    options: dict[str, Any], rows: bytes, code: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "workers")
    async with bench() as service:
        await service.drop(rows, options=options)
        await service.announce()
        await service.announce()
        await service.settle()
        job = (await service.ended()).event["subject"]
    said = [record.getMessage() for record in caplog.records]
    assert said == ([f"[JOB_FAILED] job {job} of 'prompts/in.jsonl' fails: {code}"] if code else [])


async def test_the_manifest_tells_of_codes_that_an_earlier_workers_swap_has_dropped() -> None:
    async with bench() as service:
        await service.drop(ROWS + b"{\n" + b'{"prompt": " "}\n' + b"[\n")
        await service.announce()
        job = service.events[0]["subject"]
        await service.settle(lambda delivery: b'"finish"' in delivery.message.body)
        store = service.service.store
        held = await store.state(job)
        assert held is not None
        assert held.state.codes
        assert await store.swap(job, held, held.state.model_copy(update={"codes": {}}))
        await service.settle()
        codes = (await service.ended()).manifest["codes"]
        assert {code: count["rows"] for code, count in codes.items()} == {
            "invalid_json": 2,
            "invalid_row": 1,
        }
