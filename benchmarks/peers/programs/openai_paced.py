"""The same loop with aiolimiter in front, as those write it who know their quota."""

import asyncio

from aiolimiter import AsyncLimiter

from benchmarks.peers.programs.openai_loop import ask_all
from benchmarks.peers.programs.work import Work, run


async def paced(work: Work) -> None:
    # The burst is a call: aiolimiter's own would let two seconds' quota through in the first.
    await ask_all(work, AsyncLimiter(1, 60 / work.requests_per_minute))


if __name__ == "__main__":
    run(lambda work: asyncio.run(paced(work)))
