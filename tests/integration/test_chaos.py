"""A job whose workers are killed and frozen, and whose storage and bus go away."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration import ordeal
from tests.integration.ordeal import Ordeal, answered, job_of, keys_of
from tests.integration.processes import processes
from tests.integration.user import jsonl, user_of

LEASE_SECONDS = 30.0


@pytest.mark.parametrize(
    ("count", "latency"),
    [
        # Slowly, so that there is time for all that is done to it.
        (1_250, 2 * ordeal.LATENCY),
        pytest.param(2_500, ordeal.LATENCY, marks=pytest.mark.long),
    ],
)
async def test_nothing_is_lost_or_doubled_whoever_is_killed(
    tmp_path: Path, count: int, latency: float
) -> None:
    rows = ordeal.rows_of(count)
    running = processes(
        tmp_path,
        workers=3,
        simulator=replace(ordeal.SIMULATOR, latency=latency),
        deployments=ordeal.deployments,
        settings=ordeal.SETTINGS,
        config=ordeal.config(),
    )
    async with user_of(running) as user:
        await user.drop("ordeal.jsonl", jsonl(rows))
        harm = Ordeal(user, await job_of(user, "prompts/ordeal.jsonl"), keys_of(rows))

        async def after(share: float) -> None:
            await user.until(
                lambda: answered(user) >= share * count, f"{share:.0%} of the answers", 60
            )

        await after(0.06)
        await harm.stop(2)
        frozen = time.monotonic()
        await after(0.12)
        await harm.kill(1)
        await after(0.18)
        await harm.restart_bus()
        await after(0.24)
        await harm.kill(3)
        await after(0.30)
        await harm.kill(1)
        await after(0.36)
        await harm.restart_storage()
        await user.until(
            lambda: time.monotonic() > frozen + LEASE_SECONDS + 2, "its leases have run out", 60
        )
        harm.resume(2)

        ended = await user.job("prompts/ordeal.jsonl", seconds=90)
        harm.check(await user.results(ended.status), rows)
