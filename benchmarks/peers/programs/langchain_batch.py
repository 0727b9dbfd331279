"""LangChain's ChatOpenAI and `abatch`, with its rate limiter as its documents show it."""

import asyncio

from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_openai import ChatOpenAI

from benchmarks.peers.programs.work import IN_FLIGHT, RETRIES, Work, run


def limiter(rate: float) -> InMemoryRateLimiter:
    """Of several settings that which came nearest to the quota: its own look every 0.1 s for one
    call, which is ten a second."""
    return InMemoryRateLimiter(
        requests_per_second=rate, check_every_n_seconds=0.01, max_bucket_size=5
    )


def model(work: Work) -> ChatOpenAI:
    """The client; it paces itself where a quota is known."""
    return ChatOpenAI(
        model=work.model,
        base_url=work.url,
        api_key="none",
        max_tokens=work.rows[0]["max_tokens"],
        max_retries=RETRIES,
        rate_limiter=limiter(work.requests_per_minute / 60) if work.requests_per_minute else None,
    )


async def ask_all(work: Work) -> None:
    messages = [row["messages"] for row in work.rows]
    config = {"max_concurrency": IN_FLIGHT}
    answers = await model(work).abatch(messages, config, return_exceptions=True)
    for row, answer in enumerate(answers):
        if isinstance(answer, Exception):
            print(row, type(answer).__name__)
        else:
            work.keep(row, answer.content)


if __name__ == "__main__":
    run(lambda work: asyncio.run(ask_all(work)))
