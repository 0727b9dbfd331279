"""Thirty days of one service: files by day and by night, and all that befalls a service meanwhile.

Workers of 0.1.0 begin it. They are upgraded after a week, rolled back a day later, and upgraded
again; from then on they are replaced each week. Keys are rotated, first at the endpoint and an hour
later in the settings; of two deployments one is removed; what is older than a week is deleted, as
by a lifecycle rule of the storage account. Faults are rarer than in other worlds, and never end.

Once a day, when nothing is open, the books are closed: all jobs of the day are checked as the jobs
of other worlds are, and what is known of their calls and events is forgotten.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from tests.simulation import virtual_time
from tests.simulation.checker import check_all
from tests.simulation.host import QUEUES
from tests.simulation.process import Process
from tests.simulation.releases import Change, MixedHost, MixedWorld, Release, Story
from tests.simulation.scenario import RowKind, Scenario, Span, version
from tests.simulation.sites import RATES
from tests.simulation.world import quiet, small
from workers.ports import BlobRef
from workers.settings import Settings

HOUR = 3600.0
DAY = 24 * HOUR
WORKERS = 3
NIGHT = 2 * HOUR
KEPT_SECONDS = 7 * DAY
STRENGTH = 0.2
"""How often faults strike, of how often they do in other worlds."""

_KINDS: Sequence[RowKind] = ("chat",) * 9 + ("embedding", "invalid", "filtered")
_OUTAGES = ("outages", "storms", "storage_out", "bus_out")


@dataclass(frozen=True, slots=True)
class Calendar:
    """How long it lasts, how many files a day has, and on which days what is done."""

    days: int = 30
    files: int = 100
    upgrades: Sequence[int] = (7, 9, 14, 21, 28)
    rollback: int = 8
    rotation: int = 11
    removal: int = 17


SHORT = Calendar(days=3, files=12, upgrades=(1, 2), rollback=1, rotation=1, removal=2)


def _spans(rng: Random, days: int) -> dict[str, tuple[Span, ...]]:
    """Services that are away for minutes, every other day."""
    spans: dict[str, tuple[Span, ...]] = dict.fromkeys(_OUTAGES, ())
    for day in range(0, days, 2):
        kind, at = rng.choice(_OUTAGES), day * DAY + rng.uniform(0, DAY)
        spans[kind] += (Span(at, at + rng.choice((30.0, 300.0, 1800.0))),)
    return spans


def scenario(seed: int, calendar: Calendar) -> Scenario:
    """Three workers, and faults for as long as files come."""
    rng = Random(f"month {seed}")
    drawn = Scenario(
        seed=seed,
        workers=WORKERS,
        slots=8,
        shard_rows=3,
        skews=(0.0, 20.0, -20.0),
        chances={fault: STRENGTH * rate for fault, rate in RATES.items()},
        faults_until=calendar.days * DAY,
        most_deliveries=1_000_000,
        most_lives=100_000,
    )
    away = _spans(rng, calendar.days)
    return replace(
        drawn,
        outages=away["outages"],
        storms=away["storms"],
        storage_out=away["storage_out"],
        bus_out=away["bus_out"],
    )


def story(calendar: Calendar) -> Story:
    """Which release runs when: all workers are replaced within the hour, one after the other."""
    told: list[tuple[float, Release]] = [
        (day * DAY + 9 * HOUR, "this") for day in calendar.upgrades
    ]
    told.append((calendar.rollback * DAY + 15 * HOUR, "0.1.0"))
    # What settings say holds for workers that start.
    told += [(day * DAY + 11 * HOUR, "this") for day in (calendar.rotation, calendar.removal)]
    changes = [
        Change(at + place * 600.0, place, release, gently=place != 1)
        for at, release in sorted(told)
        for place in range(WORKERS)
    ]
    first: Release = "0.1.0"
    return Story(first, "this", (first,) * WORKERS, tuple(changes), frozenset())


class MonthHost(MixedHost):
    """A host whose sweeper's timer does all that production's does, and with a nightly timer."""

    def swept(self, process: Process) -> Sequence[Callable[[], Awaitable[object]]]:
        return *super().swept(process), process.nightly.resume, process.retention.run

    def walk(self, process: Process) -> None:
        """The nightly timer fires on a worker."""
        process.spawn(self._walked(process))

    async def _walked(self, process: Process) -> None:
        with self.handling(process):
            await process.nightly.run()
        self._world.moved.set()


class MonthWorld(MixedWorld):
    """A world that lives for a month.

    `closed` are the jobs whose books are closed, `books` on how many days they were, and `deleted`
    counts the jobs of which nothing but their end is left.
    """

    def __init__(self, calendar: Calendar, seed: int, rng: Random) -> None:
        self.calendar = calendar
        super().__init__(scenario(seed, calendar), story(calendar), rng)
        self.host: MonthHost = MonthHost(self)
        self._plan = Random(f"files {seed}")
        self._files: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self.closed: set[str] = set()
        self.wrong: list[str] = []
        self.books = self.deleted = 0
        self._day = 0

    # -- what is done to it

    async def _begin(self) -> None:
        self._set(("phi", "phi-b"))
        await super()._begin()
        for day in range(self.calendar.days):
            self.later(day * DAY, self._begin_day, day)
        self._at(self.calendar.rotation, 10, self._rotate_at_the_endpoint)
        self._at(self.calendar.rotation, 10.9, self._rotate_in_the_settings)
        self._at(self.calendar.removal, 10, self.service.gone.add, "phi-b")
        self._at(self.calendar.removal, 10.9, self._set, ("phi",))
        self.later(HOUR, self._each_hour)

    def _at(self, day: int, hour: float, act: Callable[..., None], *args: object) -> None:
        self.later(day * DAY + hour * HOUR, act, *args)

    def _set(self, names: tuple[str, ...]) -> None:
        only = self.settings.deployments[0]
        several = tuple(only.model_copy(update={"name": name}) for name in names)
        self.settings: Settings = self.settings.model_copy(update={"deployments": several})

    def _rotate_at_the_endpoint(self) -> None:
        self.service.key = 2

    def _rotate_in_the_settings(self) -> None:
        self.service.given_key = 2

    def _begin_day(self, day: int) -> None:
        rng = self._plan
        for n in range(self.calendar.files):
            kinds = [rng.choice(_KINDS) for _ in range(rng.randint(1, 6))]
            nightly = n % 3 == 0
            at = rng.uniform(0.0, NIGHT) if nightly else rng.uniform(0.0, DAY)
            self.later(at, self._leave, f"d{day}-{n}.jsonl", kinds, nightly)
        self.later(NIGHT, self._walk)
        self.later(rng.uniform(0.0, DAY), self._announce_old)

    def _leave(self, name: str, kinds: Sequence[RowKind], nightly: bool) -> None:
        self._files[name] = self.now
        self.spawn(self._left(name, kinds, "nightly" if nightly else "prompts"))

    async def _left(self, name: str, kinds: Sequence[RowKind], container: str) -> None:
        with self.held_open():
            await self.users.write(version(name, 1, kinds), container=container)
            if container == "prompts":
                await self.users.announce(name)

    def _walk(self) -> None:
        able = self.host.able
        if able:
            self.host.walk(able[self._plan.randrange(len(able))])
        else:
            self.later(60.0, self._walk)

    def _announce_old(self) -> None:
        """A file that lies where it lay, though its job's folder is gone, is announced again."""
        old = [name for name, at in self._files.items() if self.now - at > KEPT_SECONDS + DAY]
        if old:
            self.spawn(self.users.announce(self._plan.choice(old)))

    # -- books

    def _each_hour(self) -> None:
        if self.now < self.calendar.days * DAY:
            self.later(HOUR, self._each_hour)
        if self.now > (self._day + 1) * DAY and self._at_rest():
            self._day = int(self.now // DAY)
            self.books += 1
            self.close_books()
            self._delete_what_is_old()

    def _at_rest(self) -> bool:
        waiting = any(self.bus.waiting(queue) for queue in QUEUES if queue != "jobs")
        open_ = self.records.open_markers() or self.host.busy or self.attempts.owing()
        return not (waiting or open_)

    def close_books(self) -> None:
        """Check all jobs that have ended, and forget how they came to it."""
        jobs = [job for job in self.records.jobs() if job not in self.closed]
        self.wrong += check_all(self, jobs)
        self.closed.update(jobs)
        self._due |= dict.fromkeys(jobs, self.now + KEPT_SECONDS)
        for known in (self.billing.runs, self.service.calls, self.told, self.faults.mishaps):
            known.clear()
        self.bus.published["job-status"].clear()
        self.observers.forget(jobs)
        self.watching.forget(jobs)

    def _delete_what_is_old(self) -> None:
        """What a lifecycle rule deletes: what was kept for a week."""
        for job in [job for job, at in self._due.items() if at <= self.now]:
            del self._due[job]
            self.deleted += 1
            for container, folder in (
                ("results", self.records.results_of(job)),
                ("state", f"jobs/{job}/"),
            ):
                for ref in self.blobs.blobs.below(container, folder):
                    del self.blobs.blobs[ref]

    def missed(self) -> list[str]:
        """Files of which no job came."""
        left = [BlobRef("prompts", name) for name in self._files]
        ended = self.blobs.blobs.below("state", "done/")
        return [] if len(left) == len(ended) else [f"{len(left)} files, {len(ended)} ends"]


def live(calendar: Calendar, seed: int = 0) -> MonthWorld:
    """A month, with its books closed; `wrong` says what is."""

    async def lived(rng: Random) -> MonthWorld:
        world = MonthWorld(calendar, seed, rng)
        await world.run()
        world.close_books()
        world.wrong += [*world.found, *world.missed()]
        return world

    with small(scenario(seed, calendar)), quiet():
        return virtual_time.run(lived, seed)
