"""What a seed makes of a world: files and their rows, workers, users, faults."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.simulation.sites import Fault

Service = Literal["storage", "bus", "endpoint", "receiver"]
RowKind = Literal[
    "chat", "embedding", "invalid", "duplicate", "unknown", "refused", "filtered", "poison"
]
Act = Literal[
    "cancel",
    "pause",
    "resume",
    "announce",
    "overwrite",
    "delete",
    "kill",
    "drain",
    "misname",  # a file is asked for that never was
    "squat",  # somebody writes files of his own where results are to be
    "discard",  # blocks that wait for their commit are gone, as after a week
]


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
class Mishap:
    """A fault at the nth call of a kind with this in its name, or what a user does at that moment.

    An `about` that begins with `=` is the whole of it. `seconds` is how long it lasts; None: as
    long as chance has it.
    """

    kind: str
    about: str
    fault: Fault | None = None
    nth: int = 1
    seconds: float | None = None
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """The worker in this place cannot reach a service; others can."""

    place: int
    service: Service
    span: Span


@dataclass(frozen=True, slots=True)
class Throttle:
    """503 Server Busy for calls to names with this prefix in them (all of them: the account)."""

    prefix: str
    chance: float
    span: Span


@dataclass(frozen=True, slots=True)
class Focus:
    """A site at which one fault strikes far more often than elsewhere, up to so many times.

    It strikes whenever the site is met, also when all other faults are over.
    """

    site: str
    fault: Fault
    chance: float
    most: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that is decided before a world begins.

    With `webhooks` there is a receiver, which refuses all until it is mended. An `endless` one is
    ended while things still go wrong, and judged for safety alone.
    """

    seed: int = 0
    files: tuple[Version, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    month_cap: float | None = None
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
    endless: bool = False
    chances: Mapping[Fault, float] = field(default_factory=dict)
    unlock: float = 0.0
    focuses: tuple[Focus, ...] = ()
    partitions: tuple[Partition, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    storms: tuple[Span, ...] = ()
    outages: tuple[Span, ...] = ()
    storage_out: tuple[Span, ...] = ()
    bus_out: tuple[Span, ...] = ()
    no_runs: tuple[Span, ...] = ()
    webhooks: bool = False
    receiver_mended: float = 0.0
    most_deliveries: int = 5_000
    most_lives: int = 200
    script: tuple[Mishap, ...] = ()
