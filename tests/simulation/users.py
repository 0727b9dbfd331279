"""Users and operators: they upload files, announce them, cancel, pause, resume, stop workers."""

import asyncio
import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation.host import DROPS
from tests.simulation.process import Process
from tests.simulation.scenario import Act, Doing, Version, version
from workers.api.http import HttpCall
from workers.ports import BlobRef, OutMessage
from workers.ports.errors import BlobExists

if TYPE_CHECKING:
    from tests.simulation.world import World

NOWHERE = 90
"""Files from this number on are asked for by mistake: they never were."""


class Users:
    """What people do.

    `accepted` holds (job, act) of what they were told to be accepted, `misnamed` what they asked
    for though it never was, `announced` how often they told of each file.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._writes: dict[str, int] = {}
        self.accepted: list[tuple[str, str]] = []
        self.misnamed: set[str] = set()
        self.announced = Counter[str]()

    async def write(self, file: Version, *, container: str = "prompts") -> None:
        """Put a file into a container, over what is there."""
        ref = BlobRef(container, file.name)
        await self._world.blobs.delete(ref)
        etag = await self._world.blobs.create(ref, file.data)
        self._world.records.versions[etag] = file
        self._world.records.current[file.name] = etag
        if options := self._world.scenario.options:
            beside = BlobRef("prompts", file.name.replace(".jsonl", ".options.json"))
            with contextlib.suppress(BlobExists):
                await self._world.blobs.create(beside, json.dumps(options).encode())

    async def announce(self, name: str) -> None:
        """Tell of a file as it is now; users' own messages do not get lost on the way."""
        etag = self._world.records.current.get(name)
        if etag is None:
            return
        self.announced[name] += 1
        if self._world.scenario.queued:
            await self._request(name)
        else:
            event = {"container": "prompts", "name": name, "etag": etag}
            message = OutMessage(json.dumps(event).encode(), f"drop {name}")
            await self._world.bus.send(DROPS, [message])
        self._world.moved.set()

    async def _request(self, name: str) -> None:
        body = json.dumps({"container": "prompts", "name": name}).encode()
        await self._world.bus.send("jobs", [OutMessage(body, f"request {name}")])
        self._world.moved.set()

    def do(self, doing: Doing) -> None:
        """Begin to do something now."""

        held = contextlib.ExitStack()
        held.enter_context(self._world.held_open())

        async def act() -> None:
            with held:
                await self._does(doing)
            self._world.liveness.disturbed()

        self._world.spawn(act())

    async def _does(self, doing: Doing) -> None:
        self._world.trace("user", doing.act, doing.which)
        able = self._world.host.alive
        if doing.act in ("kill", "drain"):
            if able:
                self._stop(able[doing.which % len(able)], gently=doing.act == "drain")
            return
        names = [file.name for file in self._world.scenario.files]
        name = names[doing.which % len(names)]
        if doing.act == "announce":
            await self.announce(name)
        elif doing.act == "delete":
            self._world.records.current.pop(name, None)
            await self._world.blobs.delete(BlobRef("prompts", name))
        elif doing.act in ("squat", "discard"):
            job = self._job_of(name)
            if job is not None:
                await self._meddle(self._world.records.results_of(job), doing.act)
        elif doing.act == "misname":
            nowhere = f"f{NOWHERE + doing.which}.jsonl"
            self.misnamed.add(nowhere)
            await self._request(nowhere)
        elif doing.act == "overwrite":
            self._writes[name] = self._writes.get(name, 1) + 1
            await self.write(version(name, self._writes[name], ("chat",) * 3))
            await self.announce(name)
        elif able:
            job = self._job_of(name)
            process = able[self._world.rng.randrange(len(able))]
            if job is not None:
                process.spawn(self._acts(process, job, doing.act))
                await asyncio.sleep(0)  # it has begun, and holds the world open itself

    async def _meddle(self, folder: str, act: Act) -> None:
        blobs = self._world.blobs
        for name in ("errors.jsonl", "output.jsonl", "manifest.json"):
            ref = BlobRef("results", f"{folder}/{name}")
            if act == "discard":
                blobs.staged_blocks.pop(ref, None)
            else:
                with contextlib.suppress(BlobExists):
                    await blobs.create(ref, b"mine\n")

    def _job_of(self, name: str) -> str | None:
        records = self._world.records
        return next((job for job in records.jobs() if records.file_of(job).name == name), None)

    def _stop(self, process: Process, *, gently: bool) -> None:
        if gently and not process.frozen:
            self._world.host.drain(process)
        else:
            self._world.host.kill(process)

    async def _acts(self, process: Process, job: str, act: str) -> None:
        with self._world.host.handling(process):
            reply = await process.api.answer(HttpCall("POST", f"/api/jobs/{job}/{act}"))
            self._world.trace("user", act, job, reply.code)
            if reply.code == 202:
                self.accepted.append((job, act))
