"""The open marker of a file on its way to being a job: kept once there is one, else withdrawn.

Two workers may have announcements of one file. The one that finds its file as it was pins the job;
the other one, who finds it changed, may remove the marker only as it stood before it looked for a
job. Pinning makes another marker of it, so what the first has pinned keeps its marker, whatever
becomes of the second.
"""

import contextlib

from schemas.messages import Announcement
from workers.jobs.store import JobStore
from workers.ports.errors import BlobChanged, BlobMissing


async def renew(store: JobStore, announcement: Announcement) -> None:
    """Make another marker of the one of a job that was just pinned, or mark it again."""
    marker = store.marker(announcement.job)
    while not await store.open(announcement):
        with contextlib.suppress(BlobMissing, BlobChanged):
            # As it stands: a later release may have written in it what this one does not know.
            stands = await store.blobs.read(marker)
            await store.blobs.replace(marker, stands.data, stands.etag)
            return


async def withdraw(store: JobStore, announcement: Announcement) -> bool:
    """Remove the marker of a file that becomes no job; gives whether it has not become one."""
    marker = store.marker(announcement.job)
    while True:
        try:
            seen = (await store.blobs.head(marker)).etag
        except BlobMissing:
            seen = None
        if await store.job(announcement.job) is not None:
            await store.open(announcement)
            return False
        if seen is None:
            return True
        # Nothing is left to do behind it, and to fail.
        with contextlib.suppress(BlobChanged):
            await store.blobs.delete(marker, seen)
            return True
