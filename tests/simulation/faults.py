"""What goes wrong between workers and services: what befalls a call, and what a message."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from tests.doubles.faults import EFFECTS
from tests.simulation.process import EPOCH, Process
from tests.simulation.scenario import Doing
from workers.ports import OutMessage

if TYPE_CHECKING:
    from tests.simulation.world import World

Befalls = Callable[[Process, str, str], str | None]
"""What befalls a process's call, by its kind and by what it is about; None: nothing."""


class Faults:
    """The faults of one world: those of its script first, then those that chance draws."""

    def __init__(self, world: "World", others: Befalls | None) -> None:
        self._world = world
        self._scenario = world.scenario
        self._rng = world.rng
        self._others: Befalls = others or self._by_chance
        self._script = list(world.scenario.script)
        self._freeze_for: dict[str, float] = {}
        self.injected = 0

    @property
    def _on(self) -> bool:
        return self._world.now < self._scenario.faults_until

    # -- calls

    def befalls(self, process: Process, kind: str, name: str) -> str | None:
        """What befalls this call."""
        for scripted in self._script:
            if scripted.kind == kind and scripted.name in name:
                self._script.remove(scripted)
                if scripted.act is not None:
                    self._world.users.do(Doing(self._world.now, scripted.act))
                    break
                self._freeze_for[process.name] = scripted.seconds
                return scripted.fault
        return self._others(process, kind, name)

    def _by_chance(self, _process: Process, kind: str, _name: str) -> str | None:
        if not self._on:
            return None
        chances, chance = self._scenario, self._rng.random()
        menu = (("kill", chances.kill), ("freeze", chances.freeze), ("lose", chances.lose))
        for fault, rate in menu:
            if chance < rate:
                if fault == "lose" and kind == "ask":
                    return None
                self.injected += 1
                return f"{fault} {'before' if chance < rate / 2 else 'after'}"
            chance -= rate
        if chance < chances.repeat and kind in EFFECTS:
            self.injected += 1
            return "repeat"
        return None

    def latency(self) -> float:
        """How long a call takes."""
        chance = self._rng.random()
        if chance < 0.7:
            return 0.0
        return self._scenario.latency * (0.05 if chance < 0.97 else self._rng.uniform(0.1, 1.0))

    def patience(self) -> float:
        """How long a caller waits for an answer that does not come."""
        return self._rng.uniform(0.5, 5.0)

    def unreachable(self, kind: str) -> bool:
        """Whether the service that a call goes to is out."""
        spans = self._scenario.bus_out if kind == "send" else self._scenario.storage_out
        return any(self._world.now in span for span in spans)

    # -- processes

    def frozen_for(self, process: Process) -> float:
        """How long a process that freezes now stands still."""
        some = self._rng.choice((10.0, 35.0, 70.0, 200.0))
        return self._freeze_for.pop(process.name, some)

    def restart_after(self) -> float:
        """How long the place of a process that died stays empty."""
        return self._rng.choice((0.0, 5.0, 40.0))

    # -- messages

    def on_the_way(self, entity: str, message: OutMessage) -> list[OutMessage]:
        """What becomes of a message to a queue: it may be lost, doubled or delayed."""
        scenario = self._scenario
        if not self._on or entity not in ("jobs", "shards"):
            return [message]
        chance = self._rng.random()
        # Until a job is marked as open, a request lives in its message alone.
        marked = orjson.loads(message.body).get("type") in ("shard", "finish", "expire")
        if chance < scenario.drop and marked:
            self._world.trace("bus", "loses", message.message_id)
            return []
        if chance < scenario.drop + scenario.double:
            return [message, message]
        if chance < scenario.drop + scenario.double + scenario.delay:
            at = max(message.at or 0.0, EPOCH + self._world.now)
            return [replace(message, at=at + self._rng.choice((1.0, 20.0, 200.0)))]
        return [message]

    def unlocked_after(self) -> float | None:
        """When a delivery that begins now loses its lock though its handler lives; None: never."""
        if self._on and self._rng.random() < self._scenario.unlock:
            return self._rng.uniform(0.0, 5.0)
        return None
