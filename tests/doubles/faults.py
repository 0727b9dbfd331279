"""Faults around any implementation of the ports: crashes, lost answers, the SDK's own repeats.

A fault is called as `fault(kind, name, phase)` before and after each call, with the port's method
as kind, `container/name` or the entity as name. It may raise

- `ProcessKilled`: the process dies there. Before: nothing happened; after: the effect took place.
- `Unavailable`: after the effect, a lost answer; before it, a request that never arrived.
- `AnswerLost`: the same, and the SDK repeats the call: one's own success becomes `BlobExists`,
  `BlobChanged`, or an append that is there twice.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import IO, Literal, TypeVar

from workers.ports import BlobInfo, BlobRef, Blobs, Bus, OutMessage, Received, Stored
from workers.ports.errors import Unavailable

Phase = Literal["before", "after"]
Fault = Callable[[str, str, Phase], None]
T = TypeVar("T")

EFFECTS = frozenset(
    {
        "create",
        "replace",
        "delete",
        "create_append",
        "append",
        "acquire_lease",
        "renew_lease",
        "release_lease",
        "stage_from",
        "commit",
        "send",
    }
)
# As the adapters set the SDKs: a first call and two repeats.
TRIES = 3


class ProcessKilled(BaseException):
    """The process is gone, as after kill -9: nothing may catch this and go on."""


class AnswerLost(Exception):
    """The answer of a call is lost below the SDK, which repeats the call."""


class CrashAt:
    """Kills the process at its n-th durable effect (from 1), before or after it.

    What is left of the process does nothing any more: each later call is killed too.
    """

    def __init__(self, nth: int, phase: Phase) -> None:
        self.nth = nth
        self.phase = phase
        self.count = 0
        self.dead = False

    def __call__(self, kind: str, name: str, phase: Phase) -> None:
        if self.dead:
            raise ProcessKilled
        if kind in EFFECTS and phase == self.phase:
            self.count += 1
            if self.count == self.nth:
                self.dead = True
                raise ProcessKilled


class EffectLog:
    """Only counts: `effects` lists (kind, name) of each durable effect that took place."""

    def __init__(self) -> None:
        self.effects: list[tuple[str, str]] = []

    def __call__(self, kind: str, name: str, phase: Phase) -> None:
        if kind in EFFECTS and phase == "after":
            self.effects.append((kind, name))


async def _guarded(fault: Fault, kind: str, name: str, call: Callable[[], Awaitable[T]]) -> T:
    for _ in range(TRIES):
        try:
            fault(kind, name, "before")
            result = await call()
            fault(kind, name, "after")
        except AnswerLost:
            continue
        return result
    raise Unavailable(f"no answer for {kind} of {name}")


class FaultyBus:
    """A bus with a fault around each send; `split` sends message by message.

    Split, a crash can leave the first part of a send behind, as several batches can.
    """

    def __init__(self, inner: Bus, fault: Fault, *, split: bool = False) -> None:
        self.inner = inner
        self.fault = fault
        self.split = split

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        parts = [[message] for message in messages] if self.split else [messages]
        for part in parts:
            await _guarded(self.fault, "send", entity, lambda: self.inner.send(entity, part))  # noqa: B023

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        self.fault("take_dead", queue, "before")
        return await self.inner.take_dead(queue, handle, most)

    async def reach(self, queue: str) -> None:
        self.fault("reach", queue, "before")
        await self.inner.reach(queue)


class FaultyBlobs:
    """Blobs with a fault around each call."""

    def __init__(self, inner: Blobs, fault: Fault) -> None:
        self.inner = inner
        self.fault = fault

    async def _do(self, kind: str, ref: BlobRef, call: Callable[[], Awaitable[T]]) -> T:
        return await _guarded(self.fault, kind, f"{ref.container}/{ref.name}", call)

    async def head(self, ref: BlobRef) -> BlobInfo:
        return await self._do("head", ref, lambda: self.inner.head(ref))

    async def read(self, ref: BlobRef) -> Stored:
        return await self._do("read", ref, lambda: self.inner.read(ref))

    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        return await self._do(
            "read_range", ref, lambda: self.inner.read_range(ref, offset, length, etag=etag)
        )

    async def create(
        self,
        ref: BlobRef,
        data: bytes | IO[bytes],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> str:
        return await self._do(
            "create",
            ref,
            lambda: self.inner.create(ref, data, metadata=metadata, content_type=content_type),
        )

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        return await self._do("replace", ref, lambda: self.inner.replace(ref, data, etag))

    async def delete(self, ref: BlobRef, etag: str | None = None) -> None:
        await self._do("delete", ref, lambda: self.inner.delete(ref, etag))

    async def list(
        self, container: str, prefix: str = "", *, start: str | None = None, page: int | None = None
    ) -> AsyncIterator[BlobInfo]:
        items = self.inner.list(container, prefix, start=start, page=page)
        async for info in self._each("list", container, items):
            yield info

    async def _each(self, kind: str, container: str, items: AsyncIterator[T]) -> AsyncIterator[T]:
        # Under the SDK's repeats a listing goes on where it was: nothing to tell apart.
        try:
            self.fault(kind, container, "before")
            async for item in items:
                yield item
            self.fault(kind, container, "after")
        except AnswerLost as error:
            raise Unavailable from error

    async def create_append(self, ref: BlobRef) -> None:
        await self._do("create_append", ref, lambda: self.inner.create_append(ref))

    async def append(self, ref: BlobRef, data: bytes) -> None:
        await self._do("append", ref, lambda: self.inner.append(ref, data))

    async def acquire_lease(self, ref: BlobRef, lease_id: str, seconds: int) -> None:
        await self._do(
            "acquire_lease", ref, lambda: self.inner.acquire_lease(ref, lease_id, seconds)
        )

    async def renew_lease(self, ref: BlobRef, lease_id: str) -> None:
        await self._do("renew_lease", ref, lambda: self.inner.renew_lease(ref, lease_id))

    async def release_lease(self, ref: BlobRef, lease_id: str) -> None:
        await self._do("release_lease", ref, lambda: self.inner.release_lease(ref, lease_id))

    async def stage_from(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        await self._do("stage_from", ref, lambda: self.inner.stage_from(ref, block_id, source))

    async def commit(
        self,
        ref: BlobRef,
        block_ids: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/jsonl",
    ) -> None:
        def commit() -> Awaitable[None]:
            return self.inner.commit(ref, block_ids, metadata=metadata, content_type=content_type)

        await self._do("commit", ref, commit)
