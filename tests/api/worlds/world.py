"""One seed's world, from its first call to its last: what is left must hold."""

import asyncio
import json
import logging
from dataclasses import dataclass
from random import Random
from typing import Any

from schemas.jobs import TERMINAL
from tests.api.worlds.network import Network, Program, now
from tests.api.worlds.records import KnownBatch, Records
from tests.api.worlds.users import KEPT, User
from tests.simulation import virtual_time

USERS = ("app", "app", "blue")
ACTIONS = 9
TICK = 300.0
LONG = 4 * 86_400.0


@dataclass(frozen=True, slots=True)
class Came:
    """What a world has come to."""

    wrong: tuple[str, ...]
    calls: int
    kills: int
    batches: int
    files: int


class _Bugs(logging.Handler):
    """What the service itself says that should never happen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "_BUG]" in record.getMessage():
            self.said.append(record.getMessage())


def live(seed: int) -> Came:
    """The world of a seed."""
    bugs = _Bugs()
    logger = logging.getLogger("workers")
    logger.addHandler(bugs)
    try:
        came = virtual_time.run(_lived, seed)
    finally:
        logger.removeHandler(bugs)
    return Came((*came.wrong, *bugs.said), came.calls, came.kills, came.batches, came.files)


async def _lived(rng: Random) -> Came:
    network = Network(rng)
    records = {"app": Records("app"), "blue": Records("blue")}
    sharing = asyncio.create_task(network.worker.dispatcher.run())
    timers = asyncio.create_task(_timers(network))
    async with asyncio.TaskGroup() as group:
        for key in USERS:
            mine, others = records[key], records["blue" if key == "app" else "app"]
            group.create_task(User(network, mine, others).live(ACTIONS))
    timers.cancel()
    await asyncio.gather(timers, return_exceptions=True)
    network.be_calm()
    for each in records.values():
        await _End(network, each).check()
    await _cleared(network, records)
    sharing.cancel()
    return Came(
        wrong=tuple(wrong for each in records.values() for wrong in each.wrong),
        calls=network.calls,
        kills=network.kills,
        batches=sum(len(each.batches) for each in records.values()),
        files=sum(len(each.files) for each in records.values()),
    )


async def _timers(network: Network) -> None:
    while True:
        await asyncio.sleep(network.rng.uniform(0.0, TICK))
        doing = network.rng.randrange(4)
        if doing == 0:
            await network.worker.sweeper.run()
        elif doing == 1:
            await network.delete_what_is_due()
        else:
            await network.worker.settle(lambda _: network.rng.random() < 0.15)


class _End:
    """What one tenant finds when nothing goes wrong any more."""

    def __init__(self, network: Network, records: Records) -> None:
        self._network = network
        self._records = records
        self._program = Program(network, records.key)

    async def check(self) -> None:
        """Hold all that is there against all that was answered."""
        batches = await self._ended()
        made: dict[str, Any] = {}
        for each in batches:
            operation = each["metadata"]["op"]
            self._records.check(operation not in made, f"{operation} has made two batches")
            made[operation] = each
        for batch in self._records.batches:
            told = made.pop(batch.operation, None)
            if batch.id is not None:
                found = told and told["id"]
                self._records.check(found == batch.id, f"{batch.id} was granted: {found}")
            if told is not None:
                await self._check_batch(batch, told)
        self._records.check(not made, f"nobody has asked for {list(made)}")
        await self._check_files()

    async def _ended(self) -> list[Any]:
        """All batches at their end."""
        for _ in range(12):
            await self._network.worker.sweeper.run()
            await self._network.worker.settle()
            if not self._network.memory.blobs.below("state", "open/"):
                break
            await asyncio.sleep(400.0)
        _, told = await self._program.ask("GET", "/v1/batches", limit="100")
        left = [each["id"] for each in told["data"] if each["status"] not in TERMINAL]
        self._records.check(not left, f"batches do not end: {left}")
        return list(told["data"])

    async def _check_batch(self, batch: KnownBatch, told: Any) -> None:
        wanted = [json.loads(line)["custom_id"] for line in batch.file.data.splitlines()]
        counts, total = told["request_counts"], len(wanted)
        fine = counts["total"] == total and told["status"] == "completed"
        if batch.cancelled and told["status"] == "cancelled":
            return
        self._records.check(
            fine and counts["completed"] == total, f"{told['id']} is {told['status']}: {counts}"
        )
        reply = await self._program.call("GET", f"/v1/files/{told['output_file_id']}/content")
        expired = batch.results == "perhaps" and now() > told["completed_at"] + KEPT
        if batch.results == "gone" or expired:
            self._records.check(reply.code == 404, f"results are read that are gone: {reply.code}")
        elif batch.results == "there":
            got = [json.loads(line)["custom_id"] for line in reply.data.splitlines()]
            self._records.check(got == wanted, f"{told['id']} has answered {got}")

    async def _check_files(self) -> None:
        _, told = await self._program.ask("GET", "/v1/files")
        found = [each["id"] for each in told["data"]]
        self._records.check(len(found) == len(set(found)), "a file is listed twice")
        for file in self._records.files:
            stands = file.stands(now())
            if stands != "perhaps":
                told = f"{file.id}, which is {stands}, is listed: {file.id in found}"
                self._records.check((file.id in found) == (stands == "there"), told)
        for one in found:
            content = await self._program.content(one)
            known = self._records.file(one)
            sent = self._records.sent if known is None else [known.data]
            self._records.check(content in sent, f"{one} holds what nobody has sent")
            await self._program.ask("DELETE", f"/v1/files/{one}")


async def _cleared(network: Network, records: dict[str, Records]) -> None:
    """Everything has been deleted, and days later nothing is left of it."""
    await asyncio.sleep(LONG)
    for _ in range(2):
        await network.delete_what_is_due()
    left = [
        f"{ref.container}/{ref.name}"
        for ref in network.memory.blobs
        if ref.container == "files"
        or ref.name.startswith(("files/", "uploads/", "creations/", "due/", "open/"))
    ]
    records["app"].check(not left, f"nobody deletes {left}")
