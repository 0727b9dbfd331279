"""How are several things read at the same time, and an error told as if there were one of them?"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from workers.ports.errors import first_of

Item = TypeVar("Item")
Known = TypeVar("Known")


async def all_of(
    do: Callable[[Item], Awaitable[Known]], items: Iterable[Item], *, at_once: int = 100
) -> list[Known]:
    """What is found for each item, in their order. Raises the first error; the others stop."""
    room = asyncio.Semaphore(at_once)

    async def one(item: Item) -> Known:
        async with room:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from errors
    return [task.result() for task in tasks]
