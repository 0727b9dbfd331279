"""LiteLLM's Router, set up as its documents on routing and on rate limits show it."""

import asyncio
from typing import Any

import litellm
from litellm import Router

from benchmarks.peers.programs.work import IN_FLIGHT, RETRIES, Work, run


def router(work: Work) -> Router:
    """One deployment. Its quota is enforced before calls, where it is known."""
    told: dict[str, Any] = {
        "model": f"openai/{work.model}",
        "api_base": work.url,
        "api_key": "none",
    }
    checks: dict[str, Any] = {}
    if work.requests_per_minute:
        told["rpm"] = work.requests_per_minute
        checks["optional_pre_call_checks"] = ["enforce_model_rate_limits"]
    return Router(
        model_list=[{"model_name": "phi", "litellm_params": told}],
        num_retries=RETRIES,
        # There is no other deployment that could be asked while this one rests.
        disable_cooldowns=True,
        **checks,
    )


async def ask_all(work: Work) -> None:
    litellm.suppress_debug_info = True
    asked, room = router(work), asyncio.Semaphore(IN_FLIGHT)

    async def ask(row: int) -> None:
        async with room:
            try:
                answer = await asked.acompletion(model="phi", **work.rows[row])
            except litellm.exceptions.OpenAIError as error:
                print(row, type(error).__name__)
                return
            work.keep(row, answer.choices[0].message.content)

    await asyncio.gather(*map(ask, range(len(work.rows))))


if __name__ == "__main__":
    run(lambda work: asyncio.run(ask_all(work)))
