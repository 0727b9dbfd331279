"""A model endpoint in memory: counts what it bills for each row, and has the bad days of real ones.

It answers with the prompt it was asked, so that a row that got another row's answer is seen.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from schemas.deployments import Task
from schemas.outcomes import Outcome, OutcomeKind, Usage
from tests.simulation.scenario import Scenario

if TYPE_CHECKING:
    from tests.simulation.billing import Run


class Poisoned(Exception):
    """The row that was asked kills the process that asks it."""


@dataclass(slots=True)
class Call:
    """One billed call: the rows' prompts, who made it, and whether its answer arrived.

    It was `asked` when its process let it go, and `begun` when the service had it.
    """

    prompts: tuple[str, ...]
    run: "Run | None"
    asked: float
    begun: float
    answered: float | None = None
    lost: bool = False


Bills = Callable[[Call, Task, Mapping[str, Any]], Usage]
"""What the service bills for a call that has come to it."""


class Service:
    """The service behind all deployments.

    It takes calls with the key `key`, and for deployments that are not `gone`; `given_key` is the
    one that workers find in their settings when they start.
    """

    def __init__(self, scenario: Scenario, rng: Random) -> None:
        self._scenario = scenario
        self._rng = rng
        self.calls: list[Call] = []
        self.key = self.given_key = 1
        self.gone: set[str] = set()
        self.refused: Counter[OutcomeKind] = Counter()
        self.bills: Bills = lambda call, *_: Usage(len(call.prompts), 1)

    def refuses(self, deployment: str, key: int) -> Outcome | None:
        """What it says to a call before it looks at it."""
        refusal = None
        if key != self.key:
            refusal = Outcome("auth", 401, code="unauthorized", message="another key is valid")
        elif deployment in self.gone:
            refusal = Outcome("gone", 404, code="not_found", message="no such deployment")
        if refusal is not None:
            self.refused[refusal.kind] += 1
        return refusal

    async def ask(
        self, task: Task, body: Mapping[str, Any], run: "Run | None", asked: float, *, lost: bool
    ) -> tuple[Outcome, Call | None]:
        """Answer a call, or lose the answer; the billed call comes with the outcome.

        Raises Poisoned.
        """
        loop = asyncio.get_running_loop()
        prompts = prompts_of(task, body)
        refusal = await self._refused(prompts)
        if refusal is not None:
            return refusal, None
        call = Call(prompts, run, asked, loop.time())
        self.calls.append(call)
        if run is not None:
            run.calls.append(call)
        usage = self.bills(call, task, body)
        if any(prompt.endswith("/poison") for prompt in prompts):
            raise Poisoned
        latency = self._rng.uniform(0.05, 2.0) * self._scenario.latency
        await asyncio.sleep(latency)
        if lost:
            call.lost = True
            return Outcome(kind="transient", billed=True, code="connection"), call
        return Outcome("ok", 200, _answer(task, prompts), usage, billed=True), call

    async def _refused(self, prompts: tuple[str, ...]) -> Outcome | None:
        now = asyncio.get_running_loop().time()
        if any(now in storm for storm in self._scenario.storms) and self._rng.random() < 0.8:
            wait = self._rng.choice((None, 1.0, 5.0, 30.0, 60.0))
            return Outcome("throttled", 429, retry_after=wait, limit="requests")
        if any(prompt.endswith("/refused") for prompt in prompts):
            return Outcome("bad_request", 400, code="bad_request", message="refused: change it")
        if any(prompt.endswith("/filtered") for prompt in prompts):
            return Outcome("content_filter", 400, code="content_filter", message="filtered")
        return None


def prompts_of(task: Task, body: Mapping[str, Any]) -> tuple[str, ...]:
    """What a call asks, row by row."""
    if task == "embeddings":
        given = body["input"]
        return tuple(given) if isinstance(given, list) else (given,)
    return (body["messages"][-1]["content"],)


def _answer(task: Task, prompts: tuple[str, ...]) -> dict[str, Any]:
    if task == "embeddings":
        vectors = [
            {"index": at, "embedding": [1.0], "of": prompt} for at, prompt in enumerate(prompts)
        ]
        return {"object": "list", "data": vectors, "usage": {"prompt_tokens": len(prompts)}}
    return {"choices": [{"message": {"role": "assistant", "content": prompts[0]}}]}
