"""Links to a job's results: for minutes, each to one file, for whoever has it."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from schemas.listing import ResultLink
from workers.api.http import HttpRefusal
from workers.jobs.events import iso
from workers.jobs.store import JobStore
from workers.ports import BlobRef, Transfers

LINK_SECONDS: Final = 600.0
"""For which a link holds: to begin a download, not to pass it on."""

_RESULT: Final = re.compile(
    r"(output|errors)(\.[2-9])?\.jsonl|manifest(\.[2-9])?\.json|report\.html"
)


class ResultLinks:
    """Makes links where the setting DOWNLOADS allows them."""

    def __init__(
        self, store: JobStore, transfers: Transfers, *, allowed: bool, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._transfers = transfers
        self._allowed = allowed
        self._clock = clock

    async def of(self, job_id: str) -> tuple[ResultLink, ...]:
        """A link to each file of an ended job, empty once it was deleted. Raises HttpRefusal."""
        if not self._allowed:
            raise HttpRefusal(409, "no_links", "DOWNLOADS is body: read the blobs of `results`")
        job = await self._store.job(job_id)
        if job is None:
            return ()
        held = await self._store.state(job_id)
        if held is None or not held.state.terminal:
            raise HttpRefusal(
                409, "not_possible", "the job has not ended: there are no results yet", param="id"
            )
        found = await self._sizes(self._store.result(job, ""))
        expires = iso(self._clock() + LINK_SECONDS)
        return tuple(
            [
                ResultLink(
                    name=name,
                    bytes=size,
                    url=await self._transfers.link(
                        self._store.result(job, name), LINK_SECONDS, f"{job.id}-{name}"
                    ),
                    expires=expires,
                )
                for name, size in found.items()
            ]
        )

    async def _sizes(self, folder: BlobRef) -> Mapping[str, int]:
        return {
            name: info.size
            async for info in self._store.blobs.list(folder.container, folder.name)
            if _RESULT.fullmatch(name := info.ref.name.removeprefix(folder.name))
        }
