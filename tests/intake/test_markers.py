"""The open marker of a file that two workers look at, one of whom finds it changed."""

from contextlib import suppress

import pytest

from schemas.messages import Announcement
from tests.doubles.service import Bench, bench
from workers.intake import markers
from workers.ports import BlobRef
from workers.ports.errors import Unavailable

ROWS = b'{"prompt": "a"}\n'


async def marked(service: Bench) -> Announcement:
    """A file that is announced, and that nobody has looked at yet."""
    await service.drop(ROWS, "in.jsonl", container="inputs")
    request = {"container": "inputs", "name": "in.jsonl"}
    posted = await service.ask("POST", "/api/jobs", request)
    told = await service.store.announcement(posted.body["job"])
    assert told is not None
    return told


async def test_a_file_that_becomes_no_job_loses_its_marker() -> None:
    async with bench() as service:
        told = await marked(service)
        assert await markers.withdraw(service.store, told)
        assert not await service.store.is_open(told.job)
        assert await markers.withdraw(service.store, told)


async def test_a_job_keeps_its_marker_though_who_looks_for_it_cannot_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench() as service:
        told = await marked(service)

        async def busy(_job: str) -> None:
            raise Unavailable("503 Server Busy")

        with monkeypatch.context() as patch, suppress(Unavailable):
            patch.setattr(service.store, "job", busy)
            await markers.withdraw(service.store, told)
        assert await service.store.is_open(told.job)


async def test_who_found_no_job_does_not_remove_the_marker_of_the_one_that_was_pinned_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench() as service:
        told = await marked(service)
        job, delete = service.store.job, service.blobs.delete
        looks = 0

        async def late(ref: BlobRef, etag: str | None = None) -> None:
            # Before the marker goes, the other worker pins the job.
            nonlocal looks
            looks += 1
            if looks == 1:
                monkeypatch.setattr(service.store, "job", pinned)
                await markers.renew(service.store, told)
            await delete(ref, etag)

        async def pinned(_job: str) -> object:
            return object()

        assert await job(told.job) is None
        monkeypatch.setattr(service.blobs, "delete", late)
        assert not await markers.withdraw(service.store, told)
        assert (looks, await service.store.is_open(told.job)) == (1, True)


async def test_a_job_whose_marker_was_withdrawn_before_it_was_pinned_is_marked_again() -> None:
    async with bench() as service:
        told = await marked(service)
        assert await markers.withdraw(service.store, told)
        await markers.renew(service.store, told)
        assert await service.store.announcement(told.job) == told
