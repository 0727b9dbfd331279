"""`GET /api/health`: what the service reaches and what waits, in few calls and little time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.health import DeploymentHealth
from schemas.versions import RELEASE
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.bus import MemoryBus
from tests.doubles.service import EPOCH, Bench, bench
from tests.golden import releases
from tests.simulation.virtual_time import run
from workers.api import health
from workers.api.openapi import document
from workers.ports import BlobInfo
from workers.ports.errors import StorageError, Unavailable
from workers.quota.health import HealthBoard


class Sick(MemoryBlobs):
    """Storage whose listings fail, or never come, or are counted."""

    error: Exception | None = None
    silent = False
    listed = 0

    async def list(
        self, container: str, prefix: str = "", *, start: str | None = None, page: int | None = None
    ) -> AsyncIterator[BlobInfo]:
        self.listed += 1
        if self.silent:
            await asyncio.sleep(3600)
        if self.error is not None:
            raise self.error
        async for info in super().list(container, prefix, start=start, page=page):
            yield info


@asynccontextmanager
async def sick() -> AsyncIterator[tuple[Bench, Sick]]:
    blobs = Sick(lambda: EPOCH + asyncio.get_running_loop().time())
    async with bench(blobs=blobs) as service:
        yield service, blobs


async def told(service: Bench) -> tuple[int, dict[str, Any]]:
    """The answer, which keeps to the OpenAPI document."""
    reply = await service.ask("GET", "/api/health")
    answers = document()["paths"]["/api/health"]["get"]["responses"]
    schema = answers[str(reply.code)]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document()["components"]}
    Draft202012Validator(whole).validate(reply.body)
    assert reply.headers["Cache-Control"] == "no-store"
    return reply.code, reply.body


def test_all_is_well_and_nothing_waits() -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            code, body = await told(service)
            assert (code, body["status"], body["version"]) == (200, "ok", RELEASE)
            assert body["storage"] == body["bus"] == {"reached": True, "message": None}
            assert (body["open_jobs"], body["oldest_wait_seconds"]) == (0, None)
            assert [each["name"] for each in body["deployments"]] == ["phi"]

    run(story)


def test_open_jobs_are_counted_from_the_oldest_on() -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            for name in ("a.jsonl", "b.jsonl"):
                await service.drop(b'{"prompt": "x"}\n', name)
                reply = await service.ask(
                    "POST", "/api/jobs", {"container": "prompts", "name": name}
                )
                assert reply.code == 202
                await asyncio.sleep(40)
            body = (await told(service))[1]
            assert body["open_jobs"] == 2
            assert 80 <= body["oldest_wait_seconds"] < 82
            await service.settle()
            body = (await told(service))[1]
            assert (body["open_jobs"], body["oldest_wait_seconds"]) == (0, None)

    run(story)


def test_many_jobs_and_processes_cost_no_more_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST_COUNTED", 3)

    async def story(_: Random) -> None:
        async with sick() as (service, blobs):
            for name in "abcde":
                await service.drop(b'{"prompt": "x"}\n', f"{name}.jsonl")
                asked = {"container": "prompts", "name": f"{name}.jsonl"}
                await service.ask("POST", "/api/jobs", asked)
            board = HealthBoard(blobs, "state")
            for process in range(20):
                await board.tell("phi", f"p{process}", DeploymentHealth(at=service.clock()))
            blobs.listed = 0
            body = (await told(service))[1]
            assert body["open_jobs"] == 3
            assert body["deployments"][0]["processes"] == health.MOST_WORDS
            assert blobs.listed == 2

    run(story)


@pytest.mark.parametrize(
    ("error", "says"),
    [(Unavailable("storage is away"), "away"), (StorageError("403: give it a role"), "role")],
)
def test_storage_that_is_not_reached_is_503_and_says_why(error: Exception, says: str) -> None:
    async def story(_: Random) -> None:
        async with sick() as (service, blobs):
            blobs.error = error
            code, body = await told(service)
            assert (code, body["status"]) == (503, "unavailable")
            assert body["storage"]["reached"] is False
            assert says in body["storage"]["message"]
            assert body["bus"]["reached"] is True
            assert (body["open_jobs"], body["oldest_wait_seconds"]) == (None, None)
            assert body["deployments"][0]["breaker"] is None

    run(story)


def test_storage_that_is_silent_is_waited_for_no_longer_than_the_deadline() -> None:
    async def story(_: Random) -> None:
        async with sick() as (service, blobs):
            blobs.silent = True
            began = service.clock()
            code, body = await told(service)
            assert service.clock() - began == pytest.approx(health.DEADLINE_SECONDS, abs=0.1)
            assert (code, body["storage"]["message"]) == (503, "no answer within 5 s")

    run(story)


def test_a_bus_that_is_not_reached_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: MemoryBus, queue: str) -> None:
        raise Unavailable(f"Service Bus does not serve {queue}")

    monkeypatch.setattr(MemoryBus, "reach", away)

    async def story(_: Random) -> None:
        async with bench() as service:
            code, body = await told(service)
            assert (code, body["status"]) == (503, "unavailable")
            assert body["bus"] == {"reached": False, "message": "Service Bus does not serve jobs"}
            assert body["storage"]["reached"] is True

    run(story)


@pytest.mark.parametrize(
    "word",
    [
        DeploymentHealth(at=EPOCH, breaker="open", message="mend PHI_KEY", until=EPOCH + 60),
        DeploymentHealth(at=EPOCH, failing=("sharing quotas",)),
    ],
)
def test_a_deployment_that_is_out_of_order_is_told_and_is_no_503(word: DeploymentHealth) -> None:
    async def story(_: Random) -> None:
        async with sick() as (service, blobs):
            await HealthBoard(blobs, "state").tell("phi", "p", word)
            code, body = await told(service)
            assert (code, body["status"]) == (200, "degraded")
            assert body["deployments"][0]["message"] == word.message

    run(story)


def test_the_version_is_the_one_of_the_project() -> None:
    assert releases.version() == RELEASE
