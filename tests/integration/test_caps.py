"""A capped job on real processes, of which all but one are killed while they ask.

The judge is the endpoint: it counts the tokens that it bills, whoever hears of them.
"""

from pathlib import Path
from typing import Any

import pytest

from local.endpoint import Settings
from tests.integration import ordeal
from tests.integration.ordeal import answered, rows_of
from tests.integration.processes import processes, usual_deployments
from tests.integration.user import jsonl, user_of

ROWS = 500
CAP = 9_000
"""Tokens: of the rows, half or so."""


def deployments(url: str) -> list[dict[str, Any]]:
    """With few calls at once: what is on its way at a kill counts as spent."""
    return [each | {"max_concurrency": 2} for each in usual_deployments(url)]


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.long)])
async def test_the_endpoint_never_bills_more_than_the_cap_whoever_is_killed(
    tmp_path: Path, workers: int
) -> None:
    running = processes(
        tmp_path,
        workers=workers,
        simulator=Settings(profile="openai", latency=0.1, mean_tokens=8),
        deployments=deployments,
        settings=ordeal.SETTINGS,
        config=ordeal.config(),
    )
    async with user_of(running) as user:
        await user.drop("capped.jsonl", jsonl(rows_of(ROWS)), {"max_total_tokens": CAP})

        async def after(count: int) -> None:
            await user.until(lambda: answered(user) >= count, f"{count} answers", 60)

        for worker in range(1, workers):
            await after(40 * worker)
            user.processes.hosts.processes[worker].kill()
            assert user.processes.endpoint.stats()["tokens_billed"] <= CAP
        ended = await user.job("prompts/capped.jsonl", seconds=180)
        billed = user.processes.endpoint.stats()["tokens_billed"]
        results = await user.results(ended.status)
    results.check(ROWS)
    budget = ended.status.budget
    assert budget is not None
    assert billed <= budget.tokens_spent <= CAP
    assert budget.tokens_reserved == 0
    assert set(results.codes().values()) == {"budget_exceeded"}
    assert len(results.output) > 40 * (workers - 1)
    # The kills cost what was on its way, and as much again.
    told = results.manifest.tokens.total
    assert told > CAP / 3, f"{told} of {CAP} tokens were told, {billed} billed, {budget}"
