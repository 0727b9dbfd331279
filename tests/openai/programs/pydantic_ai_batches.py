"""`python pydantic_ai_batches.py URL KEY MODEL`: an agent whose requests go by batches.

Pydantic AI sends batches for `/v1/responses` alone, which no Phi-3 endpoint answers: what has to
come is an error at once that says so, instead of a batch that a user waits for.
"""

import asyncio
import sys
from datetime import timedelta

from pydantic_ai import Agent
from pydantic_ai.capabilities import BatchModelRequests
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

URL, KEY, MODEL = sys.argv[1:]


async def main() -> None:
    provider = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
    batching = BatchModelRequests(max_wait=timedelta(seconds=1), poll_interval=timedelta(seconds=1))
    agent = Agent(OpenAIResponsesModel(MODEL, provider=provider), capabilities=[batching])
    try:
        await agent.run("Hi")
    except ModelHTTPError as error:
        print(f"refused with {error.status_code}: {error}")


asyncio.run(main())
