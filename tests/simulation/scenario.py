"""What a seed makes of a world: files and their rows, workers, users, faults."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

RowKind = Literal[
    "chat", "embedding", "invalid", "duplicate", "unknown", "refused", "filtered", "poison"
]
Act = Literal["cancel", "pause", "resume", "announce", "overwrite", "delete", "kill", "drain"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an input file; its `prompt` names file, version and line, so it is like no other."""

    line: int
    kind: RowKind
    custom_id: str
    prompt: str

    @property
    def asked(self) -> bool:
        """Whether an endpoint is to see it at all."""
        return self.kind not in ("invalid", "duplicate", "unknown")


@dataclass(frozen=True, slots=True)
class Version:
    """One content of a file."""

    name: str
    data: bytes
    rows: tuple[Row, ...]


def version(
    name: str, number: int, kinds: Sequence[RowKind], *, gaps: Sequence[int] = ()
) -> Version:
    """A file with these rows, and a blank line before each row that `gaps` names."""
    lines: list[bytes] = []
    rows: list[Row] = []
    for at, kind in enumerate(kinds):
        if at in gaps:
            lines.append(b"")
        line = len(lines) + 1
        earlier = next((row.custom_id for row in rows if row.kind != "invalid"), None)
        known = kind if kind != "duplicate" or earlier is not None else "chat"
        custom_id = earlier if known == "duplicate" and earlier else f"r{line}"
        row = Row(line, known, custom_id, f"{name}/{number}/{line}/{known}")
        rows.append(row)
        lines.append(_line(row))
    return Version(name, b"\n".join(lines) + b"\n", tuple(rows))


def _line(row: Row) -> bytes:
    if row.kind == "invalid":
        return b'{"prompt": "no end'
    body: dict[str, object] = {"custom_id": row.custom_id}
    if row.kind == "embedding":
        body["input"] = row.prompt
    else:
        body["prompt"] = row.prompt
    if row.kind == "unknown":
        body["model"] = "nobody"
    return json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class Doing:
    """Something that a user or an operator does at a time; `which` picks a file or a worker."""

    at: float
    act: Act
    which: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when; times are virtual seconds."""

    begin: float
    end: float

    def __contains__(self, now: float) -> bool:
        return self.begin <= now < self.end


@dataclass(frozen=True, slots=True)
class Scripted:
    """A fault at the first call of a kind with this in its name; a freeze lasts for `seconds`.

    Or what a user does at that moment.
    """

    kind: str
    name: str
    fault: str = "nothing"
    seconds: float = 0.0
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that is decided before a world begins. Rates are chances for one call."""

    seed: int = 0
    files: tuple[Version, ...] = ()
    queued: bool = False
    workers: int = 1
    slots: int = 2
    shard_rows: int = 7
    window: int = 2
    completion_window: str = "24h"
    shard_seconds: float = 120.0
    journal_seconds: float = 3.0
    slice_seconds: float = 240.0
    lock_seconds: float = 60.0
    max_deliveries: int = 10
    max_concurrency: int | None = None
    requests_per_minute: float | None = None
    append_blocks: int = 50_000
    latency: float = 1.0
    skews: tuple[float, ...] = (0.0,)
    doings: tuple[Doing, ...] = ()
    faults_until: float = 0.0
    kill: float = 0.0
    freeze: float = 0.0
    lose: float = 0.0
    repeat: float = 0.0
    unlock: float = 0.0
    drop: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    lost_answer: float = 0.0
    storms: tuple[Span, ...] = ()
    outages: tuple[Span, ...] = ()
    storage_out: tuple[Span, ...] = ()
    bus_out: tuple[Span, ...] = ()
    no_runs: tuple[Span, ...] = ()
    most_deliveries: int = 5_000
    script: tuple[Scripted, ...] = ()


_USUAL: Sequence[RowKind] = ("chat",) * 12 + ("embedding",) * 4
_ODD: Sequence[RowKind] = ("invalid", "duplicate", "unknown", "refused", "filtered")


def _kinds(rng: Random, count: int, *, poison: bool) -> list[RowKind]:
    odd = rng.choice((0.0, 0.0, 0.2))
    kinds = [rng.choice(_ODD if rng.random() < odd else _USUAL) for _ in range(count)]
    if poison and kinds:
        kinds[rng.randrange(count)] = "poison"
    return kinds


def _doings(rng: Random, files: int) -> list[Doing]:
    acts: list[Doing] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        act: Act = rng.choice(("cancel", "pause", "resume", "pause"))
        acts.append(Doing(rng.uniform(0, 60), act, rng.randrange(files)))
    if any(doing.act == "pause" for doing in acts) and rng.random() < 0.7:
        acts.append(Doing(rng.uniform(60, 400), "resume", 0))
        acts.append(Doing(rng.uniform(60, 400), "resume", 1))
    again = (0.0, rng.uniform(0, 60), rng.uniform(100, 900))
    acts += [Doing(rng.choice(again), "announce") for _ in range(rng.choice((0, 0, 1, 2)))]
    if rng.random() < 0.12:
        input_act: Act = rng.choice(("overwrite", "delete"))
        acts.append(Doing(rng.uniform(0, 60), input_act, rng.randrange(files)))
    if rng.random() < 0.25:
        last: Act = rng.choice(("kill", "drain"))
        acts.append(Doing(rng.uniform(0, 60), last, rng.randrange(3)))
    return sorted(acts, key=lambda doing: doing.at)


def _span(rng: Random, chance: float, lengths: Sequence[float]) -> tuple[Span, ...]:
    if rng.random() >= chance:
        return ()
    begin = rng.uniform(0, 60)
    return (Span(begin, begin + rng.choice(lengths)),)


def scenario(seed: int) -> Scenario:
    """The scenario of a seed: up to 20 rows, 3 shards a file, 3 workers, and any mix of faults."""
    rng = Random(seed)
    workers = rng.randint(1, 3)
    poison = rng.random() < 0.08
    counts = [rng.randint(1, 20)] if rng.random() < 0.8 else [rng.randint(1, 9), rng.randint(1, 9)]
    files = tuple(
        version(
            f"f{at}.jsonl",
            1,
            _kinds(rng, count, poison=poison and at == 0),
            gaps=[rng.randrange(count)] if rng.random() < 0.1 else (),
        )
        for at, count in enumerate(counts)
    )
    rate = rng.choice((0.0, 0.3, 1.0, 1.0, 2.0))
    zombies = 6.0 if rng.random() < 0.15 else 1.0
    skew = rng.choice((0.0, 0.0, 5.0, 120.0))
    return Scenario(
        seed=seed,
        files=files,
        queued=rng.random() < 0.3,
        workers=workers,
        slots=rng.randint(1, 3),
        shard_rows=rng.randint(-(-max(counts) // 3), 8),
        window=rng.randint(1, 3),
        completion_window=rng.choice(("24h", "24h", "24h", "30m", "90s", "20s")),
        shard_seconds=rng.choice((5.0, 20.0, 120.0)),
        journal_seconds=rng.choice((1.0, 3.0)),
        slice_seconds=rng.choice((0.001, 240.0, 240.0)),
        lock_seconds=rng.choice((30.0, 60.0)),
        max_deliveries=rng.choice((2, 4, 10)),
        max_concurrency=rng.choice((None, 1, 2, 4)),
        requests_per_minute=rng.choice((None, None, None, None, 30.0, 600.0)),
        append_blocks=rng.choice((5, 50_000, 50_000, 50_000)),
        latency=rng.choice((0.1, 1.0, 1.0, 4.0)),
        skews=tuple(rng.uniform(-skew, skew) for _ in range(3)),
        doings=tuple(_doings(rng, len(files))),
        faults_until=rng.choice((60.0, 400.0, 900.0)),
        kill=0.004 * rate,
        freeze=0.004 * rate * zombies,
        lose=0.008 * rate,
        repeat=0.02 * rate,
        unlock=0.03 * rate,
        drop=0.01 * rate,
        double=0.03 * rate,
        delay=0.03 * rate,
        lost_answer=0.03 * rate,
        storms=_span(rng, 0.15, (10.0, 60.0, 300.0)),
        outages=_span(rng, 0.15, (10.0, 60.0, 600.0)),
        storage_out=_span(rng, 0.08, (5.0, 40.0, 120.0)),
        bus_out=_span(rng, 0.08, (5.0, 40.0, 120.0)),
    )
