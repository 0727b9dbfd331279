"""LiteLLM's Router, as its document on retries and limits shows it."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import litellm
from litellm import Router

IN_FLIGHT = 100
RETRIES = 5


async def ask_all(rows: list[Any], url: str, model: str, out: TextIO, rpm: str) -> None:
    litellm.suppress_debug_info = True
    told: dict[str, Any] = {"model": f"openai/{model}", "api_base": url, "api_key": "none"}
    told |= {"rpm": int(rpm)} if int(rpm) else {}
    router = Router(
        model_list=[{"model_name": "phi", "litellm_params": told}],
        num_retries=RETRIES,
        default_max_parallel_requests=IN_FLIGHT,
        routing_strategy="usage-based-routing-v2",
        # It has one deployment alone: to rest it helps nobody.
        disable_cooldowns=True,
    )
    room = asyncio.Semaphore(IN_FLIGHT)

    async def ask(number: int) -> None:
        async with room:
            try:
                answer = await router.acompletion(model="phi", **rows[number])
            except litellm.exceptions.OpenAIError:
                return
            text = answer.choices[0].message.content
            out.write(json.dumps({"row": number, "text": text}) + "\n")

    began = time.time()
    await asyncio.gather(*map(ask, range(len(rows))))
    out.write(json.dumps({"began": began, "ended": time.time()}) + "\n")


def main(url: str, model: str, asked: str, answered: str, rpm: str) -> None:
    rows = list(map(json.loads, Path(asked).read_text().splitlines()))
    with Path(answered).open("w") as out:
        asyncio.run(ask_all(rows, url, model, out, rpm))


main(*sys.argv[1:])
