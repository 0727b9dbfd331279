"""What yields no job: told to whoever asked, recorded, and listed among the jobs."""

import logging
from collections.abc import Callable, Container
from typing import Final, NamedTuple

from schemas.jobs import Asked, Door, Reason
from schemas.listing import Rejection, RejectionType
from schemas.tenants import DEFAULT_TENANT
from workers.jobs.index import JobIndex
from workers.jobs.outbox import Outbox
from workers.ports.errors import WorkerError

NOBODY: Final = Asked()

log = logging.getLogger(__name__)


class InputError(WorkerError):
    """The input cannot become a job. `param` is the field of the request that is wrong."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        self.code = code
        self.param = param
        super().__init__(message)


class Origin(NamedTuple):
    """Where something comes from, as far as it can be told; `input` is container/name."""

    input: str | None = None
    tenant: str = DEFAULT_TENANT
    door: Door = "queue"


class Rejections:
    """What yields no job, told before it is recorded: a crash in between has it told twice.

    Each message is answered; a file is told of once, however often somebody comes upon it. `what`
    is what it is called: the same at every delivery, and at every look.
    """

    def __init__(
        self,
        index: JobIndex,
        outbox: Outbox,
        tenants: Container[str],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._index = index
        self._outbox = outbox
        self._tenants = tenants
        self._clock = clock

    async def reject(self, what: str, error: InputError, asked: Asked, origin: Origin) -> None:
        """A message or a file yields no job."""
        reason = Reason(code=error.code, message=str(error))
        await self._record("job.rejected", what, reason, asked, origin)

    async def refuse(self, what: str, reason: Reason, asked: Asked, origin: Origin) -> None:
        """A message is kept, because this version cannot read it."""
        await self._record("job.refused", what, reason, asked, origin)

    async def _record(
        self, kind: RejectionType, what: str, reason: Reason, asked: Asked, origin: Origin
    ) -> None:
        known = await self._index.rejection(what)
        if known is None:
            log.warning("[REJECTED] %s: %r: %s", kind, origin.input or what, reason.code)
        rejection = Rejection(
            id=what,
            type=kind,
            reason=reason,
            tenant=origin.tenant if origin.tenant in self._tenants else DEFAULT_TENANT,
            door=origin.door,
            input=origin.input,
            asked=asked,
            created=self._clock() if known is None else known.created,
        )
        if known is None:
            await self._outbox.tell_rejection(rejection)
        elif origin.door == "queue":
            # Without a MessageId, who says the same cannot be told from who is delivered again.
            repeated_at = self._clock() if asked.message_id is None else None
            await self._outbox.tell_rejection(rejection, repeated_at)
        await self._index.reject(rejection)
