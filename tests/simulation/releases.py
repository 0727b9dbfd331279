"""Two releases side by side: worlds whose workers are upgraded, rolled back and upgraded again.

All workers run the code of this version. What stands between them and the services makes an older
or a later release of one: 0.1.0 reads and writes with the schemas that it had, and sets aside what
it cannot read; a release to come says more in every document and message than this version knows,
and gives some jobs the schema version after the newest. Nothing that it said may get lost by
workers of this version.

    python -m tests.simulation.releases --seeds 1000 [--start S]
    python -m tests.simulation.releases --seed K --trace
"""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import IO, Any, Final, Literal, TypeVar

import orjson

from schemas.versions import NEWEST_VERSION
from tests.doubles.faults import FaultyBlobs
from tests.golden import first_release
from tests.simulation import swarm, virtual_time
from tests.simulation.billing import RUN
from tests.simulation.checker import check
from tests.simulation.host import DROPS, Host
from tests.simulation.process import Process, ProcessBlobs
from tests.simulation.scenario import Scenario
from tests.simulation.world import World, quiet, small
from workers.ports import BlobRef, Blobs, OutMessage, Received, Stored
from workers.ports.errors import NewerVersion

Release = Literal["0.1.0", "this", "next"]
T = TypeVar("T")

TO_COME: Final = NEWEST_VERSION + 1
NEWEST_OF: Final[Mapping[Release, int]] = {"0.1.0": 1, "this": NEWEST_VERSION, "next": TO_COME}
LATER: Final = "later"
WORD: Final = "sunshine"
LAST_AT: Final = 900.0


@dataclass(frozen=True, slots=True)
class Change:
    """The worker in a place is replaced by one of another release; `gently` is a drain."""

    at: float
    place: int
    release: Release
    gently: bool


@dataclass(frozen=True, slots=True)
class Story:
    """Which release runs where and when, and which files' jobs the older one would break."""

    first: Release
    last: Release
    begin: tuple[Release, ...]
    changes: tuple[Change, ...]
    broken: frozenset[str]


def _pair(rng: Random) -> tuple[Release, Release]:
    pairs: Sequence[tuple[Release, Release]] = (("0.1.0", "this"), ("this", "next"))
    return rng.choice(pairs)


def story(seed: int, world: Scenario) -> Story:
    """An upgrade, a rollback and an upgrade, one worker after the other, at any moments."""
    rng = Random(f"releases {seed}")
    first, last = _pair(rng)
    begin = tuple(rng.choice((first, last)) for _ in range(world.workers))
    phases: list[tuple[float, Release]] = [(rng.uniform(0, 60), last)]
    if rng.random() < 0.7:
        phases.append((rng.uniform(60, 240), first))
    phases.append((rng.uniform(310, LAST_AT - 60), last))
    changes = [
        Change(at + rng.uniform(0, 60), place, release, rng.random() < 0.5)
        for at, release in phases
        for place in range(world.workers)
        # Not all are reached each time, but in the end.
        if at == phases[-1][0] or rng.random() < 0.7
    ]
    broken = frozenset(file.name for file in world.files if rng.random() < 0.5)
    return Story(first, last, begin, tuple(sorted(changes, key=lambda each: each.at)), broken)


def scenario(seed: int) -> Scenario:
    """A world of the swarm with at least two workers, whose faults end."""
    drawn = swarm.scenario(seed)
    if "0.1.0" in _pair(Random(f"releases {seed}")):
        drawn = _for_the_first(drawn)
    return replace(
        drawn,
        workers=max(drawn.workers, 2),
        faults_until=min(drawn.faults_until, LAST_AT),
        endless=False,
    )


def _for_the_first(drawn: Scenario) -> Scenario:
    """A world that 0.1.0 can live in: it refuses options that ask for a cap before there is a job,
    and cannot say in a state that results have other names than usual.
    """
    return replace(
        drawn,
        options={},
        month_cap=None,
        doings=tuple(doing for doing in drawn.doings if doing.act != "squat"),
        script=tuple(mishap for mishap in drawn.script if mishap.act != "squat"),
    )


def golden_name(ref: BlobRef) -> str | None:
    """What a document is called among the golden files; None for what is none."""
    folder, *parts = ref.name.split("/")
    if ref.container != "state":
        return None
    if folder == "open":
        return "open.json"
    if folder != "jobs" or len(parts) < 2:
        return None
    name = "receipt.json" if parts[1] == "receipts" else parts[1]
    # A plan is lines of one width, which nobody ever writes again.
    return name if name in first_release.DOCUMENTS and name != "plan.jsonl" else None


class Speaker:
    """How the worker in one place reads and writes; `release` may change with its next life."""

    def __init__(self, world: "MixedWorld", release: Release) -> None:
        self._world = world
        self.release = release

    def reads(self, name: str, data: bytes) -> bytes:
        """A document or message as the worker's code sees it. Raises NewerVersion."""
        if self.release == "0.1.0":
            try:
                return first_release.again(name, data)
            except first_release.SetAside:
                raise NewerVersion(name, NEWEST_VERSION) from None
            except first_release.Refused as refused:
                self._world.fault_found(f"0.1.0 cannot read what it should: {refused}")
                raise NewerVersion(name, NEWEST_VERSION) from None
        if self.release == "next":
            told = orjson.loads(data)
            return orjson.dumps({**told, "schema_version": min(self._version(told), 2)})
        return data

    def writes(self, name: str, job: str, data: bytes) -> bytes:
        """What the worker stores in the place of what its code says."""
        if self.release == "0.1.0":
            return first_release.again(name, data)
        told = orjson.loads(data)
        if name in ("job.json", "open.json") and told["name"] in self._world.story.broken:
            self._break(job)
        if job in self._world.broken and self._world.story.last == self.release:
            told["schema_version"] = self._world.broken[job]
        return orjson.dumps(self._more(name, told) if self.release == "next" else told)

    def _break(self, job: str) -> None:
        """Whoever pins it decides for good whether the older release may touch a job."""
        newer = self.release == self._world.story.last
        if newer and self._world.records.of_job(job, "job.json") is None:
            version = TO_COME if self.release == "next" else NEWEST_VERSION
            self._world.broken.setdefault(job, version)

    def _more(self, name: str, told: dict[str, Any]) -> dict[str, Any]:
        before = told.get(LATER, {}).get("times", 0)
        told[LATER] = {"times": before + 1}
        if name == "receipt.json":
            told["counts"][LATER] = 1
        waiting = told.get("waiting") if name == "state.json" else None
        if waiting and waiting["reason"] != "budget":  # what that means, both releases know
            waiting |= {"reason": WORD, LATER: True}
        return told

    @staticmethod
    def _version(told: Mapping[str, Any]) -> int:
        return int(told.get("schema_version", 1))


class SpokenBlobs(FaultyBlobs):
    """Storage as a worker of one release reads and writes it."""

    def __init__(self, inner: Blobs, speaker: Speaker, world: "MixedWorld") -> None:
        super().__init__(inner, lambda *_: None)
        self._speaker = speaker
        self._world = world

    async def _do(self, kind: str, ref: BlobRef, call: Callable[[], Awaitable[T]]) -> T:
        return await call()

    async def read(self, ref: BlobRef) -> Stored:
        stored = await super().read(ref)
        name = golden_name(ref)
        if name is None:
            return stored
        return replace(stored, data=self._speaker.reads(name, stored.data))

    async def create(self, ref: BlobRef, data: bytes | IO[bytes], **given: Any) -> str:
        name = golden_name(ref)
        if name is not None and isinstance(data, bytes):
            data = self._speaker.writes(name, ref.name.split("/")[1], data)
        return await super().create(ref, data, **given)

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        name = golden_name(ref)
        if name is None:
            return await super().replace(ref, data, etag)
        before = self._world.records.stored(ref.container, ref.name) or b"{}"
        if data == before:
            return await super().replace(ref, data, etag)  # it says nothing of its own
        written = self._speaker.writes(name, ref.name.split("/")[1], data)
        fresh = await super().replace(ref, written, etag)
        release = self._speaker.release
        if orjson.loads(before).get("schema_version", 1) > NEWEST_OF[release]:
            self._world.fault_found(f"{release} changed {ref.name}, which it cannot read")
        if release != "0.1.0":
            for lost in _lost(orjson.loads(before), orjson.loads(written)):
                self._world.fault_found(f"{ref.name} lost what a later release said: {lost}")
        return fresh


def _lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """What of a state is gone though nothing made it untrue."""
    lost = [] if LATER not in before or LATER in after else [LATER]
    if before.get("counts", {}).get(LATER, 0) > after.get("counts", {}).get(LATER, 0):
        lost.append(f"counts.{LATER}")
    if before.get("schema_version", 1) > after.get("schema_version", 1):
        lost.append("schema_version")
    return lost


class MixedHost(Host):
    """A host whose workers are replaced by those of another release."""

    def __init__(self, world: "MixedWorld") -> None:
        super().__init__(world)
        self._mixed = world
        for change in world.story.changes:
            world.later(change.at, self._replaced, change)

    def _replaced(self, change: Change) -> None:
        self._mixed.due[change.place] = change.release
        process = self.processes[change.place]
        if process.dead:
            return  # its next life begins as what is due
        if change.gently and not process.frozen:
            self.drain(process)
        else:
            self.kill(process)

    def start(self, place: int) -> None:
        self._mixed.speakers[place] = Speaker(self._mixed, self._mixed.due[place])
        self._mixed.trace("release", place, self._mixed.due[place])
        super().start(place)

    async def _given(self, process: Process, queue: str, message: Received) -> None:
        speaker = self._mixed.speakers[process.place]
        told = {} if queue == DROPS else orjson.loads(message.body)
        name = f"{told.get('type')}.json"
        if name in first_release.DOCUMENTS:
            try:
                body = speaker.reads(name, message.body)
            except NewerVersion:
                self._mixed.set_aside += 1
                body = orjson.dumps({**told, "schema_version": 99})
            message = replace(message, body=body)
        try:
            await super()._given(process, queue, message)
        except NewerVersion:
            if queue != DROPS:
                raise
            self._mixed.set_aside += 1  # as the inbox does with a blob's event


class MixedWorld(World):
    """A world of two releases."""

    def __init__(self, drawn: Scenario, told: Story, rng: Random, *, keep: bool = False) -> None:
        self.story = told
        self.broken: dict[str, int] = {}
        self.speakers: dict[int, Speaker] = {}
        self.due: dict[int, Release] = dict(enumerate(told.begin))
        self.set_aside = 0
        super().__init__(drawn, rng, storage=self._spoken, keep=keep)
        self.host = MixedHost(self)

    def _spoken(self, blobs: Blobs) -> Blobs:
        if isinstance(blobs, ProcessBlobs):
            return SpokenBlobs(blobs, self.speakers[blobs._process.place], self)
        return blobs

    async def sent(self, entity: str, message: OutMessage) -> None:
        """The bus takes a message, as the release of its sender says it."""
        told = json.loads(message.body)
        # What users send goes on as they said it.
        if f"{told.get('type')}.json" in first_release.DOCUMENTS:
            if told["job"] in self.broken:
                told["schema_version"] = self.broken[told["job"]]
            if self._sender() == "next":
                told[LATER] = {"times": 1}
        await super().sent(entity, replace(message, body=orjson.dumps(told)))

    def _sender(self) -> Release | None:
        """The release of whoever handles a message now."""
        run = RUN.get()
        return None if run is None else self.speakers[int(run.process[1:].split(".")[0])].release


def live(seed: int, *, keep: bool = False) -> MixedWorld:
    """Run the world of a seed to its end."""
    drawn = scenario(seed)

    async def lived(rng: Random) -> MixedWorld:
        world = MixedWorld(drawn, story(seed, drawn), rng, keep=keep)
        await world.run()
        return world

    with small(drawn), quiet():
        return virtual_time.run(lived, seed)


def faults(world: MixedWorld) -> Sequence[str]:
    """What is wrong with it; to set messages aside is what the older release is to do."""
    found = [each for each in check(world) if not each.startswith("messages were refused")]
    if world.story.last == "next":
        for job in world.records.jobs():
            found += [f"{each} ({job})" for each in _kept(world, job)]
    return found


def _kept(world: MixedWorld, job: str) -> Sequence[str]:
    """What the state counts for a release to come, receipts of that release have said."""
    state = orjson.loads(world.records.of_job(job, "state.json") or b"{}")
    receipts = [
        orjson.loads(data) for _, data in world.records.below("state", f"jobs/{job}/receipts/")
    ]
    said = sum(receipt["counts"].get(LATER, 0) for receipt in receipts)
    counted = state.get("counts", {}).get(LATER, 0)
    return [] if counted <= said else [f"receipts say {said} of it, the state {counted}"]


def main() -> int:
    """Live these worlds and print what is wrong in them."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.releases")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    asked = parser.parse_args()
    seeds = range(asked.start, asked.start + asked.seeds)
    wrong = 0
    for seed in seeds if asked.seed is None else [asked.seed]:
        world = live(seed, keep=asked.trace)
        found = faults(world)
        wrong += bool(found)
        if asked.trace:
            print(*(world.log or ()), world.story, world.scenario, sep="\n")
        if found:
            print(f"seed {seed}:", *found, sep="\n  ", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
