"""`AsyncOpenAI`, asked as `OpenAI` is: one set of probes for both."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any


class Waiting:
    """What an asynchronous client is, gives, or has: each call waits for its answer.

    All of them run in one event loop, in a thread of its own.
    """

    _loop = asyncio.new_event_loop()
    _started = threading.Lock()

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return self._given(found)
        return lambda *given, **named: self._given(found(*given, **named))

    def __enter__(self) -> Any:
        return self._given(self._run(self._inner.__aenter__()))

    def __exit__(self, *error: object) -> None:
        self._run(self._inner.__aexit__(*error))

    def __iter__(self) -> Iterator[Any]:
        """The entries of pages, or the pieces of a content."""
        pieces = aiter(self._inner)
        while (piece := self._run(_next(pieces))) is not _END:
            yield piece

    def _run(self, awaitable: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._loop).result()

    def _given(self, found: Any) -> Any:
        """What is told, as it is; what has calls of its own, to be waited for too."""
        if inspect.isawaitable(found):
            found = self._run(found)
        resource = type(found).__module__.startswith("openai.resources")
        waits = resource or hasattr(found, "__aenter__") or hasattr(found, "__aiter__")
        streamed = type(found).__name__.startswith("AsyncStreamed")
        return Waiting(found) if waits or streamed else found


_END = object()


async def _next(pieces: AsyncIterator[Any]) -> Any:
    return await anext(pieces, _END)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
