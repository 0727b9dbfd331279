"""The loop that many write: the openai package and a semaphore."""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from openai import AsyncOpenAI, OpenAIError

from benchmarks.peers.programs.work import IN_FLIGHT, RETRIES, Work, run


async def ask_all(work: Work, *gates: AbstractAsyncContextManager[None]) -> None:
    """Ask all rows at once, each through a semaphore and the gates."""
    room = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncOpenAI(base_url=work.url, api_key="none", max_retries=RETRIES) as client:

        async def ask(row: int) -> None:
            async with AsyncExitStack() as stack:
                for gate in (room, *gates):
                    await stack.enter_async_context(gate)
                try:
                    answer = await client.chat.completions.create(
                        model=work.model, **work.rows[row]
                    )
                except OpenAIError as error:
                    print(row, type(error).__name__)
                    return
                work.keep(row, answer.choices[0].message.content)

        await asyncio.gather(*map(ask, range(len(work.rows))))


if __name__ == "__main__":
    run(lambda work: asyncio.run(ask_all(work)))
