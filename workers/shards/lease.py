"""A shard's lease: held while it runs, renewed in time, given back at the end."""

import asyncio
import logging
from typing import Final

from workers.dispatch.call import Gate
from workers.errors import LeaseHeld, LeaseLost, StorageError, Unavailable, WorkerError
from workers.ports import BlobRef, Blobs

SECONDS: Final = 30
# Calls are admitted until this long after the start of the last renewal that succeeded.
SAFE_SECONDS: Final = 28.0
RENEW_SECONDS: Final = 8.0

log = logging.getLogger(__name__)


class Lease:
    """One attempt's hold on a shard. `until` is the loop's time up to which calls are admitted."""

    def __init__(self, blobs: Blobs, ref: BlobRef, attempt: str) -> None:
        self._blobs = blobs
        self._ref = ref
        self.attempt = attempt
        self.until = 0.0

    async def acquire(self) -> bool:
        """Take the lease; gives whether no other attempt holds it."""
        start = asyncio.get_running_loop().time()
        try:
            await self._blobs.acquire_lease(self._ref, self.attempt, SECONDS)
        except LeaseHeld:
            return False
        self.until = start + SAFE_SECONDS
        return True

    async def keep(self, gate: Gate) -> None:
        """Renew the lease until it is lost; `gate` hears of each renewal.

        To be begun at once: what earlier attempts left may take longer to read than a lease lasts,
        and an attempt that begins without one leaves only more to read.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                held = await self.renew()
            # One that is refused or not answered is none: in time the gate lets nobody through.
            except WorkerError as error:
                log.debug("a lease could not be renewed: %s", error)
                continue
            except Exception:
                log.exception("a lease could not be renewed")
                continue
            if not held:
                gate.close("lease")
                return
            gate.prolong(self.until)

    async def renew(self) -> bool:
        """Prolong the lease; gives whether it is not lost."""
        start = asyncio.get_running_loop().time()
        try:
            await self._blobs.renew_lease(self._ref, self.attempt)
        except LeaseLost:
            return False
        self.until = start + SAFE_SECONDS
        return True

    async def release(self) -> None:
        """Give the lease back; it runs out by itself where that fails."""
        try:
            await self._blobs.release_lease(self._ref, self.attempt)
        except (StorageError, Unavailable) as error:
            log.debug("a lease could not be given back, and runs out by itself: %s", error)
