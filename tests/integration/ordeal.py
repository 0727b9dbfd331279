"""What is done to a running job, and what may have been billed twice for it.

The promise: per crash at most the rows in flight and those that no journal had yet. Which those are
is read from the journals at each crash, so that nothing depends on how fast the machine is.
"""

import json
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local.endpoint import Settings, completion, row_key
from tests.integration.processes import CHAT_MODEL, CONFIG, usual_deployments
from tests.integration.results import Results, journaled
from tests.integration.user import User, chats

AT_ONCE = 8
LATENCY = 0.2
JOURNAL_SECONDS = 1.0
LOCK = "PT10S"

SIMULATOR = Settings(profile="openai", latency=LATENCY, mean_tokens=8)
SETTINGS = {"JOURNAL_SECONDS": str(JOURNAL_SECONDS)}


def config() -> dict[str, Any]:
    """Config.json with short locks, so that what a killed worker held comes back sooner."""
    given: dict[str, Any] = json.loads(CONFIG.read_text())
    for queue in given["UserConfig"]["Namespaces"][0]["Queues"]:
        queue["Properties"]["LockDuration"] = LOCK
    return given


def deployments(url: str) -> list[dict[str, Any]]:
    """The usual ones, with few calls at once."""
    return [each | {"max_concurrency": AT_ONCE} for each in usual_deployments(url)]


def rows_of(count: int) -> list[dict[str, Any]]:
    """Rows of which no two ask the same."""
    return chats(count, "ordeal", model=CHAT_MODEL, max_tokens=16)


def keys_of(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The key under which the endpoint counts each row, by custom_id."""
    return {row["custom_id"]: row_key(row["messages"][0]["content"]) for row in rows}


@dataclass
class Ordeal:
    """One job of a user, and the harm that was done to its workers."""

    user: User
    job: str
    keys: Mapping[str, str]
    crashes: int = 0
    safe: dict[str, int] = field(default_factory=dict)
    exposed: Counter[str] = field(default_factory=Counter)

    async def kill(self, worker: int) -> None:
        """SIGKILL: no hand-back, no goodbye. It is started again."""
        self.user.processes.hosts.processes[worker].kill()
        await self.note_crash()

    async def stop(self, worker: int) -> None:
        """SIGSTOP: it holds what it holds, until others take it for dead."""
        self.user.processes.hosts.processes[worker].send_signal(signal.SIGSTOP)
        await self.note_crash()

    def resume(self, worker: int) -> None:
        """SIGCONT: it wakes up and knows of nothing."""
        self.user.processes.hosts.processes[worker].send_signal(signal.SIGCONT)

    async def restart_storage(self) -> None:
        """Azurite ends, as on a machine that is shut down, and is back with what it had."""
        await self.user.processes.azurite.stop()
        await self.user.processes.azurite.start()

    async def restart_bus(self) -> None:
        """The broker is killed, and is back with what it had promised to keep."""
        await self.user.processes.broker.kill()
        await self.user.processes.broker.start()

    async def note_crash(self) -> None:
        """A worker has just been killed or stopped: what is in no journal may be asked again.

        Rows in a journal now must stay at what they were billed.

        Only each shard's latest attempt is safe: one that was frozen may journal after its
        successor has read, and what it says so late is paid twice.
        """
        self.crashes += 1
        latest: dict[str, set[str]] = {}
        journaled_keys: set[str] = set()
        for name, journal in sorted((await journaled(self.user.storage, self.job)).items()):
            keys = {self.keys[line["text"]["custom_id"]] for line in journal if "row" in line}
            latest[name.rpartition("/")[0]] = keys
            journaled_keys |= keys
        billed = self.user.processes.billed()
        for key in set().union(*latest.values()):
            self.safe.setdefault(key, billed[key])
        self.exposed.update(billed.keys() - journaled_keys)

    async def leases_held(self) -> int:
        """How many shards somebody has a lease on now."""
        container = self.user.storage.get_container_client("state")
        found = container.list_blobs(f"jobs/{self.job}/leases/")
        return len([blob async for blob in found if blob.lease.state == "leased"])

    def billed_twice(self) -> int:
        """How many calls were billed beyond one for each row."""
        billed = self.user.processes.billed()
        return sum(billed[key] - 1 for key in self.keys.values())

    def billed_without_cause(self) -> int:
        """How many calls were billed beyond one for each row and one for each crash it met."""
        billed = self.user.processes.billed()
        return sum(max(0, billed[key] - 1 - self.exposed[key]) for key in self.keys.values())

    def check(self, results: Results, rows: list[dict[str, Any]]) -> None:
        """Every row once and in order, rightly answered; billed twice within the bound."""
        results.check(len(rows))
        assert results.errors == []
        assert results.answers() == {
            row["custom_id"]: completion(
                SIMULATOR.seed, CHAT_MODEL, row["messages"], max_tokens=16, mean_tokens=8
            ).text
            for row in rows
        }
        billed = self.user.processes.billed()
        assert billed.keys() >= set(self.keys.values())
        again = {
            name: (self.safe[key], billed[key])
            for name, key in self.keys.items()
            if billed[key] > self.safe.get(key, billed[key])
        }
        assert not again, f"rows were asked again though a journal had them: {again}"
        # In flight at a crash, and billed when the journals had been read.
        assert self.billed_without_cause() <= self.crashes * AT_ONCE, f"{self.crashes} crashes"


async def job_of(user: User, source: str) -> str:
    """The job of an input, once it is planned."""
    job = (await user.job(source, "job.in_progress", "job.progress")).status.job
    assert job is not None
    return job


def answered(user: User) -> int:
    """How many calls were answered so far."""
    count: int = user.processes.endpoint.stats()["answered"]
    return count
