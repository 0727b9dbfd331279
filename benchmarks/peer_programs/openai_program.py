"""The loop that people write: the openai package, 100 calls at once, five retries."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from openai import AsyncOpenAI, OpenAIError

IN_FLIGHT = 100
RETRIES = 5


async def ask_all(rows: list[Any], url: str, model: str, out: TextIO) -> None:
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=RETRIES)
    room = asyncio.Semaphore(IN_FLIGHT)

    async def ask(number: int) -> None:
        async with room:
            try:
                answer = await client.chat.completions.create(model=model, **rows[number])
            except OpenAIError:
                return
            text = answer.choices[0].message.content
            out.write(json.dumps({"row": number, "text": text}) + "\n")

    began = time.time()
    await asyncio.gather(*map(ask, range(len(rows))))
    out.write(json.dumps({"began": began, "ended": time.time()}) + "\n")


def main(url: str, model: str, asked: str, answered: str, _: str) -> None:
    rows = list(map(json.loads, Path(asked).read_text().splitlines()))
    with Path(answered).open("w") as out:
        asyncio.run(ask_all(rows, url, model, out))


main(*sys.argv[1:])
