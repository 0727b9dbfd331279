"""What goes wrong between workers and services: what befalls a call, and what a message.

Chance is drawn here alone, from a source of its own, and each fault is kept as a `Mishap`: a world
that is given those instead of chances is the same world.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.billing import RUN
from tests.simulation.process import Blow, Process
from tests.simulation.scenario import Doing, Mishap, Partition, Service, Span, Throttle
from tests.simulation.sites import HANDLERS_ONLY, LASTING, Fault, about, faults_of, site

if TYPE_CHECKING:
    from tests.simulation.world import World

Befalls = Callable[[Process, str, str], Fault | None]
"""What befalls a process's call, by its kind and by what it is about; None: nothing."""


@dataclass(slots=True)
class _Awaited:
    """A mishap of the script, and how many of its calls are still to come, its own included."""

    mishap: Mishap
    left: int


class Faults:
    """The faults of one world: those of its script first, then those that chance draws.

    `mishaps` are all that struck, `struck` counts them by site, `last_at` is when the last one did.
    """

    def __init__(self, world: "World", others: Befalls | None) -> None:
        self._world = world
        self._scenario = world.scenario
        self._rng = Random(world.scenario.seed ^ 0x5EED)
        self._others: Befalls = others or self._by_chance
        self._script = [_Awaited(mishap, mishap.nth) for mishap in world.scenario.script]
        self._calls: Counter[tuple[str, str]] = Counter()
        self._menus: dict[tuple[str, str, bool], list[tuple[float, Fault]]] = {}
        self._outages: dict[Service, list[Span]] = {
            "bus": [*world.scenario.bus_out],
            "storage": [*world.scenario.storage_out],
            "endpoint": [*world.scenario.outages],
            "receiver": [],
        }
        self._cuts = [*world.scenario.partitions]
        self._throttles = [*world.scenario.throttles]
        self.mishaps: list[Mishap] = []
        self.struck: Counter[tuple[str, Fault]] = Counter()
        self.last_at = 0.0

    # -- calls

    def befalls(self, process: Process, kind: str, name: str) -> Blow | None:
        """What befalls this call."""
        what = about(name)
        self._calls[kind, what] += 1
        blow = self._scripted(kind, name, what)
        if blow is None:
            drawn = self._others(process, kind, what)
            blow = Blow(drawn, self._seconds(drawn)) if drawn else None
        run = RUN.get()
        if blow is None or blow.fault is None:
            return None
        if blow.fault == "bug" and run is not None and run.closing:
            return None  # a bug in what writes the end itself has no end to be written
        self._struck(Mishap(kind, f"={what}", blow.fault, self._calls[kind, what], blow.seconds))
        if blow.fault in LASTING:
            self._begin(blow, process, kind, what)
            return None
        self.struck[site(kind, what), blow.fault] += 1
        return blow

    def _struck(self, mishap: Mishap) -> None:
        self.mishaps.append(mishap)
        self.last_at = self._world.now
        self._world.liveness.disturbed()

    def stormed(self) -> None:
        """A call had 429: the storm itself is the scenario's, and known from the start."""
        self.struck["ask", "storm"] += 1

    def _scripted(self, kind: str, name: str, what: str) -> Blow | None:
        found = None
        for awaited in self._script:
            mishap = awaited.mishap
            if mishap.kind != kind or not _is_about(mishap.about, name, what):
                continue
            awaited.left -= 1
            if awaited.left == 0 and mishap.act is not None:
                self._world.users.do(Doing(self._world.now, mishap.act))
            elif awaited.left == 0 and mishap.fault is not None and found is None:
                seconds = mishap.seconds
                found = Blow(
                    mishap.fault, self._seconds(mishap.fault) if seconds is None else seconds
                )
        return found

    def _by_chance(self, process: Process, kind: str, what: str) -> Fault | None:
        run = RUN.get()
        for focus in self._scenario.focuses:
            if focus.site != site(kind, what) or (run is None and focus.fault in HANDLERS_ONLY):
                continue
            if focus.fault in LASTING and self._away(process, kind, what):
                continue
            often = self.struck[focus.site, focus.fault]
            if often < focus.most and self._rng.random() < focus.chance:
                return focus.fault
        if self._world.now >= self._scenario.faults_until:
            return None
        menu = self._menus.get((kind, what, run is not None))
        if menu is None:
            menu = self._menu(faults_of(kind, what), handled=run is not None)
            self._menus[kind, what, run is not None] = menu
        chance = self._rng.random()
        if not menu or chance >= menu[-1][0]:
            return None
        return next(fault for most, fault in menu if chance < most)

    def _menu(self, faults: Sequence[Fault], *, handled: bool) -> list[tuple[float, Fault]]:
        chances = self._scenario.chances
        fitting = [
            fault
            for fault in faults
            if fault in chances and (handled or fault not in HANDLERS_ONLY)
        ]
        # An endpoint's answers get lost more often than those of storage.
        often = 8.0 if faults == faults_of("ask", "") else 1.0
        rates = [chances[each] * (often if each == "lose after" else 1.0) for each in fitting]
        return list(zip(accumulate(rates), fitting, strict=True))

    def _seconds(self, fault: Fault) -> float:
        """How long a fault lasts: a place stays empty, a process frozen, a caller waits."""
        if fault.startswith("kill"):
            return self._rng.choice((0.0, 5.0, 40.0))
        if fault.startswith("freeze"):
            return self._rng.choice((10.0, 35.0, 70.0, 200.0))
        if fault == "delay":
            return self._rng.choice((1.0, 20.0, 200.0))
        if fault == "busy":
            return self._rng.uniform(0.0, 1.0)
        if fault in LASTING:
            return self._rng.choice((2.0, 10.0, 40.0))
        return self._rng.uniform(5.0, 25.0) if fault == "slow" else self._rng.uniform(0.5, 5.0)

    @property
    def met(self) -> set[str]:
        """The sites that were called or delivered, whether something befell them or not."""
        return {site(kind, what) for kind, what in self._calls}

    # -- services

    def out(self, process: Process, kind: str, name: str) -> Fault | None:
        """Why a call does not come to its service, for whomever that is so; None: it does."""
        what = about(name)
        away = self._away(process, kind, what)
        if away is not None:
            self.struck[site(kind, what), away] += 1
            self.last_at = self._world.now
        return away

    def _away(self, process: Process, kind: str, what: str) -> Fault | None:
        now, service = self._world.now, service_of(kind)
        if any(now in span for span in self._outages[service]):
            return "outage"
        if any(
            now in cut.span and cut.service == service and cut.place == process.place
            for cut in self._cuts
        ):
            return "cut off"
        return "throttled" if service == "storage" and self._throttled(kind, what) else None

    def _throttled(self, kind: str, what: str) -> bool:
        """503 by prefix or account; no chance is drawn, so that a call less changes no other."""
        for throttle in self._throttles:
            if self._world.now in throttle.span and throttle.prefix in what:
                nth = self._calls[kind, what]
                drawn = zlib.crc32(f"{self._scenario.seed} {kind} {what} {nth}".encode())
                if drawn < throttle.chance * 2**32:
                    return True
        return False

    def _begin(self, blow: Blow, process: Process, kind: str, what: str) -> None:
        """From this call on, a service is out for a while."""
        span, service = Span(self._world.now, self._world.now + blow.seconds), service_of(kind)
        if blow.fault == "outage":
            self._outages[service].append(span)
        elif blow.fault == "cut off":
            self._cuts.append(Partition(process.place, service, span))
        else:
            self._throttles.append(Throttle(what, 1.0, span))
        self._world.liveness.disturbed(until=span.end)

    # -- deliveries

    def befalls_delivery(self, queue: str, message: str) -> Blow | None:
        """What befalls a delivery: its lock ends early, or it is lost."""
        what = about(f"{queue} {message}")
        self._calls["deliver", what] += 1
        scripted = self._scripted("deliver", what, what)
        if scripted is not None:
            return scripted
        on = self._world.now < self._scenario.faults_until
        if on and self._rng.random() < self._scenario.unlock:
            seconds = self._rng.uniform(0.0, 5.0)
            nth = self._calls["deliver", what]
            self._struck(Mishap("deliver", f"={what}", "lose after", nth, seconds))
            return Blow("lose after", seconds)
        return None

    def unlocked(self, queue: str) -> None:
        """A delivery's lock was taken away, before its handler was done with it."""
        self.struck[site("deliver", queue), "unlock"] += 1


def _is_about(about: str, name: str, what: str) -> bool:
    if about.startswith("="):
        return about[1:] == what
    return about in what or about in name


def service_of(kind: str) -> Service:
    """Which service a kind of call goes to."""
    if kind == "ask":
        return "endpoint"
    if kind == "post":
        return "receiver"
    return "bus" if kind in ("send", "take_dead", "reach") else "storage"
