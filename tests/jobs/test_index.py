"""Lists of jobs: newest first, whatever there is besides, and what it costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.jobs import Asked, Job
from schemas.listing import entry_of, index_name
from schemas.messages import JobRequest
from schemas.tenants import Tenant
from tests.doubles.blobs import MemoryBlob, MemoryBlobs
from tests.doubles.faults import FaultyBlobs
from tests.doubles.service import EPOCH, Bench, bench
from tests.jobs.test_lifecycle import job
from workers.ports import BlobRef

ROWS = b'{"prompt": "p"}\n'


async def page(service: Bench, **asked: Any) -> tuple[list[str], bool]:
    """The inputs on a page, and whether there are more."""
    reply = await service.ask("GET", "/api/jobs", **asked)
    assert reply.code == 200
    return [each["input"] for each in reply.body["data"]], reply.body["has_more"]


@given(st.lists(st.integers(0, 4_000_000_000_000), min_size=2, unique=True))
def test_names_sort_newest_first(milliseconds: Sequence[int]) -> None:
    names = [index_name(each / 1000, "j") for each in sorted(milliseconds, reverse=True)]
    assert names == sorted(names)
    assert {len(name) for name in names} == {15}


async def test_newest_is_who_came_last_and_not_whose_file_is_youngest() -> None:
    async with bench() as service:
        for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
            await service.drop(ROWS, name)
        for name in ("c.jsonl", "a.jsonl", "b.jsonl"):
            await service.announce(name)
            await service.settle()
        assert await page(service) == (
            ["prompts/b.jsonl", "prompts/a.jsonl", "prompts/c.jsonl"],
            False,
        )


def stored(service: Bench) -> Sequence[BlobRef]:
    assert isinstance(service.blobs, MemoryBlobs)
    return list(service.blobs.blobs)


def standing(number: int) -> Job:
    """One of very many jobs, a second younger than the one before."""
    return job().model_copy(update={"id": f"j{number:06}", "created": EPOCH + number})


def put(blobs: MemoryBlobs, name: str, document: Mapping[str, Any]) -> None:
    data = orjson.dumps(document)
    blob = MemoryBlob(data, "e", EPOCH, EPOCH, "application/json")
    blobs.blobs[BlobRef("state", name)] = blob


@pytest.mark.slow
async def test_a_page_costs_the_same_at_100_000_jobs() -> None:
    calls: list[str] = []
    inner = MemoryBlobs(lambda: EPOCH)
    # Newest first, as they lie; those beyond the pages that are asked for only have to be there.
    for number in reversed(range(100_000)):
        name = index_name(EPOCH + number, f"j{number:06}")
        entry: Mapping[str, Any] = {}
        if number % 50_000 < 60:
            each = standing(number)
            entry = entry_of(each).model_dump()
            assert name == entry_of(each).name
            put(inner, f"jobs/{each.id}/job.json", each.model_dump(mode="json"))
        put(inner, f"index/default/{name}", entry)
    listed = 0
    counted = inner.list

    async def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal listed
        async for info in counted(*args, **kwargs):
            listed += 1
            yield info

    inner.list = counting  # type: ignore[method-assign]
    blobs = FaultyBlobs(
        inner, lambda kind, _name, phase: calls.append(kind) if phase == "before" else None
    )
    async with bench(blobs=blobs) as service:
        for after in ("j050055", "j000055"):
            calls.clear()
            listed = 0
            reply = await service.ask("GET", "/api/jobs", limit="20", after=after)
            first = int(after[1:]) - 1
            told = [each["job"] for each in reply.body["data"]]
            assert told == [f"j{number:06}" for number in range(first, first - 20, -1)]
            assert reply.body["has_more"]
            assert listed <= 22
            assert len(calls) <= 1 + 1 + 4 * 20


async def test_a_job_whose_intake_broke_off_is_listed_once_it_goes_on() -> None:
    broken = False

    def once(kind: str, name: str, phase: str) -> None:
        nonlocal broken
        if not broken and kind == "create" and "index/" in name and phase == "before":
            broken = True
            raise ConnectionError

    inner = MemoryBlobs(lambda: EPOCH)
    async with bench(blobs=FaultyBlobs(inner, once)) as service:
        await service.drop(ROWS)
        with pytest.raises(ConnectionError):
            await service.announce()
        await service.announce()
        await service.settle()
        assert await page(service) == (["prompts/in.jsonl"], False)
        assert len([ref for ref in inner.blobs if ref.name.startswith("index/")]) == 1


async def test_rejections_are_listed_with_their_input_and_told_to_whoever_waits_for_an_end() -> (
    None
):
    async with bench() as service:
        await service.run(ROWS)
        await service.say({"container": "prompts", "name": "no.jsonl"}, team="blue")
        await service.say({"container": "prompts", "name": "in.jsonl", "etagg": 1})
        await service.settle()
        for _ in range(2):
            await service.drop(b"", "notes.txt")
            await service.announce("notes.txt")
            await service.announce("notes.txt")
        told = [event["data"] for event in service.events if event["type"] == "job.rejected"]
        assert [each["input"] for each in told] == [
            "prompts/no.jsonl",
            "prompts/in.jsonl",
            "prompts/notes.txt",
            "prompts/notes.txt",
        ]
        reply = await service.ask("GET", "/api/jobs")
        assert [each["state"] for each in reply.body["data"]] == ["rejected"] * 4 + ["completed"]
        first = next(each for each in reply.body["data"] if each["input"] == "prompts/no.jsonl")
        assert first == {"schema_version": 1, **told[0]}
        assert (first["reason"]["code"], first["metadata"]) == ("file_not_found", {"team": "blue"})
        assert (await service.ask("GET", f"/api/jobs/{first['rejection']}")).body == first
        rest = await service.ask("GET", "/api/jobs", after=first["rejection"])
        assert rest.body["data"][-1]["state"] == "completed"
        assert first not in rest.body["data"]


async def test_a_message_of_a_newer_version_is_listed_with_what_it_names() -> None:
    async with bench() as service:
        body = {"schema_version": 99, "container": "prompts", "name": "new.jsonl"}
        await service.say(body)
        await service.settle()
        [told] = [event["data"] for event in service.events]
        assert told["input"] == "prompts/new.jsonl"
        assert (await page(service)) == (["prompts/new.jsonl"], False)


async def test_each_tenant_has_a_list_and_jobs_of_its_own() -> None:
    tenants = {"default": Tenant(), "blue": Tenant(weight=2)}
    request = {"container": "prompts", "name": "in.jsonl"}
    async with bench(tenants=tenants) as service:
        await service.run(ROWS)
        await service.say(request | {"tenant": "blue"})
        await service.say(request | {"tenant": "red"})
        await service.settle()
        jobs = {
            event["data"]["job"]: event["data"]["tenant"]
            for event in service.events
            if event["data"].get("job")
        }
        assert sorted(jobs.values()) == ["blue", "default"]
        [rejected] = [each["data"] for each in service.events if each["type"] == "job.rejected"]
        assert (rejected["reason"]["code"], rejected["tenant"]) == ("unknown_tenant", "default")
        listed = [
            ref.name.split("/")[1] for ref in stored(service) if ref.name.startswith("index/")
        ]
        assert sorted(listed) == ["blue", "default", "default"]


async def test_only_what_earlier_versions_would_break_is_kept_from_them() -> None:
    async with bench(tenants={"default": Tenant(), "blue": Tenant()}) as service:
        await service.drop(ROWS)
        request = {"container": "prompts", "name": "in.jsonl"}
        for extra, version in (({}, 1), ({"tenant": "blue"}, 2)):
            read = JobRequest.model_validate(request | extra)
            told = (await service.doors.announced(read, Asked())).model_dump(mode="json")
            assert (told["schema_version"], "tenant" in told) == (version, bool(extra))
