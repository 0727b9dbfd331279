"""The open marker of a file on its way to being a job: kept once there is one, else withdrawn.

Two workers may have announcements of one file. The one that finds its file as it was pins the job;
the other one, who finds it changed, may remove the marker only as it stood before it looked for a
job, and looks once more behind that. Pinning makes another marker of it, so what the first has
pinned keeps its marker, whatever becomes of the second.
"""

from schemas.messages import Announcement
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.ports.errors import BlobChanged, BlobMissing, WorkerError


async def renew(store: JobStore, announcement: Announcement) -> None:
    """Make another marker of the one of a job that was just pinned, or mark it again."""
    marker = store.marker(announcement.job)
    while True:
        try:
            stands = await store.blobs.read(marker)
            # As it stands: a later release may have written in it what this one does not know.
            await store.blobs.replace(marker, stands.data, stands.etag)
        except BlobMissing:
            if not await store.open(announcement):
                continue
        except BlobChanged:
            continue
        return


async def withdraw(store: JobStore, announcement: Announcement) -> bool:
    """Remove the marker of a file that becomes no job; gives whether it has not become one."""
    marker = store.marker(announcement.job)
    while True:
        seen = await _etag(store, marker)
        if await store.job(announcement.job) is not None:
            break
        if seen is None:
            return True
        try:
            await store.blobs.delete(marker, seen)
        except BlobChanged:
            continue
        # Who dies behind pinning has not renewed it, and earlier releases never do.
        try:
            if await store.job(announcement.job) is None:
                return True
        except WorkerError:
            await store.open(announcement)
            raise
        break
    await renew(store, announcement)
    return False


async def _etag(store: JobStore, marker: BlobRef) -> str | None:
    try:
        return (await store.blobs.head(marker)).etag
    except BlobMissing:
        return None
