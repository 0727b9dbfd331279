"""The open marker of a file that two workers look at, one of whom finds it changed."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from schemas.messages import Announcement
from tests.browser import states
from tests.doubles.service import Bench, bench
from workers.intake import markers
from workers.jobs.store import JobStore
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


Pinned = Callable[[], Awaitable[object]]


def pinned_before_the_marker_goes(
    service: Bench, monkeypatch: pytest.MonkeyPatch, pin: Pinned
) -> list[str | None]:
    """Has another worker pin the job once a first one is about to delete its marker; gives the
    ETags that this was to be done at.
    """
    delete, at = service.blobs.delete, list[str | None]()

    async def late(ref: BlobRef, etag: str | None = None) -> None:
        if not at:
            await pin()
        at.append(etag)
        await delete(ref, etag)

    monkeypatch.setattr(service.blobs, "delete", late)
    return at


async def test_who_found_no_job_removes_no_marker_of_one_that_was_pinned_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench() as service:
        told = await marked(service)
        deletions = pinned_before_the_marker_goes(
            service, monkeypatch, lambda: service.settle(stop=states.after(0))
        )
        assert not await markers.withdraw(service.store, told)
        assert len(deletions) == 1
        assert await service.store.is_open(told.job)


@pytest.mark.parametrize("away", [False, True])
async def test_what_is_pinned_without_a_new_marker_has_its_marker_back(
    monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """An earlier release marks by creation alone, and who dies behind pinning not at all."""
    async with bench() as service:
        told = await marked(service)

        async def pin() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(markers, "renew", JobStore.open)
                await service.settle(stop=states.after(0))
            if away:
                monkeypatch.setattr(service.store, "job", busy)

        async def busy(_job: str) -> None:
            raise Unavailable("503 Server Busy")

        deletions = pinned_before_the_marker_goes(service, monkeypatch, pin)
        if away:
            with pytest.raises(Unavailable):
                await markers.withdraw(service.store, told)
        else:
            assert not await markers.withdraw(service.store, told)
        assert len(deletions) == 1
        assert await service.store.is_open(told.job)


async def test_a_job_whose_marker_was_withdrawn_before_it_was_pinned_is_marked_again() -> None:
    async with bench() as service:
        told = await marked(service)
        assert await markers.withdraw(service.store, told)
        await markers.renew(service.store, told)
        assert await service.store.announcement(told.job) == told
