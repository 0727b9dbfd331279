"""All jobs and rejections of tenants, newest first, found without reading any other."""

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from schemas.jobs import Job
from schemas.listing import (
    Done,
    IndexEntry,
    Rejection,
    created_of,
    entry_of,
    index_id,
    index_name,
    span_of,
)
from schemas.status import JobStatus
from schemas.tenants import DEFAULT_TENANT
from workers.jobs import events
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.ports.errors import NewerVersion, Unreadable
from workers.ports.together import all_of

_SEARCHED_AT_ONCE: Final = 4998


class Listed(NamedTuple):
    """An entry, and whose it is."""

    tenant: str
    entry: IndexEntry


class JobIndex:
    """The entries below `index/`, the records of rejections, and the open jobs as such entries.

    Errors are those of the blobs.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def add(self, what: Job | Rejection) -> None:
        """List what stands already; a second time nothing happens."""
        entry = entry_of(what)
        await self._store.create_document(self._ref(what.tenant, entry.name), entry)

    async def reject(self, rejection: Rejection) -> None:
        """Record a rejection, and list the record that stands."""
        await self.add(await self._store.create_document(self._rejected(rejection.id), rejection))

    async def rejection(self, identity: str) -> Rejection | None:
        """What was rejected, by what it is called."""
        return await self._store.find(Rejection, self._rejected(identity))

    async def place(self, tenants: Collection[str], identity: str) -> str | None:
        """The name of some tenants' entry by its id, also of what this version cannot read."""
        try:
            found = await self._find(identity)
        except (NewerVersion, Unreadable):
            names = await all_of(lambda tenant: self._searched(tenant, identity), tenants)
            return next(filter(None, names), None)
        if found is None or found.tenant not in tenants:
            return None
        return index_name(found.created, found.id)

    async def _searched(self, tenant: str, identity: str) -> str | None:
        last, more = None, True
        while more:
            names, more = await self.names(tenant, _SEARCHED_AT_ONCE, last)
            if found := next((name for name in names if index_id(name) == identity), None):
                return found
            last = names[-1] if names else last
        return None

    async def _find(self, identity: str) -> Job | Done | Rejection | None:
        """What goes by this id, be it deleted but for its end."""
        return (
            await self._store.job(identity)
            or await self._store.done(identity)
            or await self.rejection(identity)
        )

    async def status(self, identity: str, now: float) -> tuple[JobStatus, int] | None:
        """What is to be told of what goes by this id, and the revision of its state."""
        job = await self._store.job(identity)
        held = None if job is None else await self._store.state(identity)
        if held is None and (done := await self._store.done(identity)) is not None:
            return done.status, done.revision
        if job is not None:
            state = held.state if held else None
            told = events.status(job, state, self._store.results_container, now)
            return told, state.revision if state else 0
        rejection = await self.rejection(identity)
        return None if rejection is None else (events.rejected(rejection), 0)

    async def page(
        self, tenants: Collection[str], most: int, after: str | None = None
    ) -> tuple[Sequence[Listed], bool]:
        """The newest `most` entries of some tenants together behind the one of a name, and whether
        others follow. It costs a listing for each tenant, and `most` reads.
        """
        pages = await all_of(lambda tenant: self.names(tenant, most, after), tenants, at_once=16)
        found = sorted(
            (name, tenant)
            for tenant, (names, _) in zip(tenants, pages, strict=True)
            for name in names
        )
        more = len(found) > most or any(more for _, more in pages)
        newest = found[:most]
        entries = await all_of(lambda each: self._entry(each[1], each[0]), newest)
        listed = zip(newest, entries, strict=True)
        return [Listed(tenant, entry) for (_, tenant), entry in listed if entry], more

    async def open_page(self, most: int, after: str = "") -> tuple[Sequence[Listed], bool]:
        """The first `most` open jobs behind one, by their ids, which begin with the time of their
        file, and whether others follow: those that no worker has pinned yet as well.
        """
        found: list[tuple[str, float]] = []
        async with aclosing(self._store.open_jobs(most + 2, after)) as jobs:
            async for each in jobs:
                found.append(each)
                if len(found) > most:
                    break
        return await all_of(self._open, found[:most]), len(found) > most

    async def _open(self, each: tuple[str, float]) -> Listed:
        identity, marked = each
        try:
            if (job := await self._store.job(identity)) is not None:
                return Listed(job.tenant, entry_of(job))
            told = await self._store.announcement(identity)
        except (NewerVersion, Unreadable):
            told = None
        if told is None:
            return Listed(DEFAULT_TENANT, IndexEntry(id=identity, created=marked))
        entry = IndexEntry(
            id=identity,
            door=told.door,
            input=f"{told.container}/{told.name}",
            metadata=told.asked.metadata,
            created=marked,
        )
        return Listed(told.tenant, entry)

    async def names(
        self, tenant: str, most: int, after: str | None = None
    ) -> tuple[Sequence[str], bool]:
        """The names of the newest `most` entries behind one, and whether others follow.

        What it costs does not depend on how many there are.
        """
        folder = self._ref(tenant, "")
        last = None if after is None else folder.name + after
        names: list[str] = []
        async for info in self._store.blobs.list(
            folder.container, folder.name, start=last, page=most + 2
        ):
            if info.ref.name != last:
                names.append(info.ref.name.removeprefix(folder.name))
            if len(names) > most:
                break
        return names[:most], len(names) > most

    async def of_month(self, tenant: str, month: str) -> AsyncGenerator[str]:
        """The names of a tenant's entries of a month (2026-11, in UTC), newest first."""
        begin, end = span_of(month)
        folder = self._ref(tenant, "")
        start = folder.name + index_name(end, "")
        async for info in self._store.blobs.list(folder.container, folder.name, start=start):
            name = info.ref.name.removeprefix(folder.name)
            if created_of(name) < begin:
                break
            if created_of(name) < end:
                yield name

    async def _entry(self, tenant: str, name: str) -> IndexEntry | None:
        try:
            return await self._store.find(IndexEntry, self._ref(tenant, name))
        except (NewerVersion, Unreadable):
            return IndexEntry(id=index_id(name), created=created_of(name))

    def _ref(self, tenant: str, name: str) -> BlobRef:
        return BlobRef(self._store.state_container, f"index/{tenant}/{name}")

    def _rejected(self, identity: str) -> BlobRef:
        return BlobRef(self._store.state_container, f"rejected/{identity}")
