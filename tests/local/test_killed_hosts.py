"""Function hosts that are killed again and again: the job still ends, with every row once."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from azure.storage.blob.aio import BlobServiceClient

from local import results
from local.dropping import drop
from local.following import events
from local.hosts import Hosts
from local.stack import StackOptions, stack

ROWS = 200
# Of each host: three in a row would have ended everything.
KILLS = 5


async def kill_every_three_seconds(hosts: Hosts, number: int, rng: random.Random) -> None:
    """A host that serves, after three seconds more or less, again and again for a while."""
    kills = 0
    while kills < KILLS:
        await asyncio.sleep(rng.uniform(1, 5))
        if number in hosts.addresses:
            hosts.processes[number].kill()
            kills += 1


@pytest.mark.long
@pytest.mark.usefixtures("executed")  # starts and ends are the point
@pytest.mark.timeout(1200)
async def test_three_hosts_that_are_killed_every_three_seconds_end_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEPLOYMENTS", raising=False)
    monkeypatch.setenv("JOURNAL_SECONDS", "0.2")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"prompt": "number {n}"}}\n' for n in range(ROWS)))
    told: list[str] = []
    limits = {"requests_per_minute": 600, "tokens_per_minute": 0}
    options = StackOptions(workers=3, simulator=limits)
    async with (
        stack(options, told.append) as running,
        BlobServiceClient.from_connection_string(running.storage) as storage,
        events(running.bus, "prompts/rows.jsonl") as arriving,
    ):
        await drop(storage.get_container_client("prompts"), file, {})
        killing = [
            asyncio.create_task(kill_every_three_seconds(running.hosts, n, random.Random(n)))
            for n in (1, 2, 3)
        ]
        last = [each async for each in arriving][-1].event
        assert all(each.done() for each in killing), "it ended before they were killed often"
        assert last.type == "job.completed"
        assert last.data.results is not None
        await results.download(storage, last.data.results, tmp_path)
    kills = sum("ended with status -9: starting it again" in line for line in told)
    assert kills == 3 * KILLS
    lines = [
        int(json.loads(line)["id"].rpartition("-")[2])
        for name in ("output.jsonl", "errors.jsonl")
        for line in (tmp_path / name).open()
    ]
    assert sorted(lines) == list(range(1, ROWS + 1))
