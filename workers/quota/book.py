"""The ledger that worker processes share, as a document: one for the quota of each deployment.

Blob `quota/{deployment}.json` in the state container. Times are seconds of the storage service's
clock (HTTP `Date`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from workers.quota.pacing import Headroom
from workers.quota.weights import Tenants

VERSION = 1


@dataclass(frozen=True, slots=True)
class Holder:
    """One process in the ledger. `wants` is the part of the quota it could use, 0 to 1.

    `jobs` are the weights of the jobs it asks, `tenants` whose those are that are not the
    default's, `waiting` as how many its calls of each count that wait; `weight`, the sum of the
    weights, counts where they are not known. `drawn` is how many requests of the book's day it was
    given. `unknown`, here and below, is what a later version says of it, which stays as it is.
    """

    weight: float
    wants: float
    share: float
    since: float
    expires: float
    seated: bool = True
    jobs: Mapping[str, float] = field(default_factory=dict)
    tenants: Tenants = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    drawn: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Day:
    """How many of a day's requests have been given out. `date` is days since 1970, UTC."""

    date: int = 0
    given: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Book:
    """The ledger of one deployment: blob `quota/{deployment}.json`."""

    holders: Mapping[str, Holder] = field(default_factory=dict)
    requests: float = Headroom.START
    tokens: float = Headroom.START
    day: Day = Day()
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> bytes:
        """The document as it is stored."""
        holders = {name: _plain(held) for name, held in self.holders.items()}
        own = {**_plain(self), "holders": holders, "day": _plain(self.day)}
        return orjson.dumps({"version": VERSION, **own})

    @classmethod
    def load(cls, data: bytes) -> "Book | None":
        """The document as it was read; None for one of a newer version, which must be left alone.

        A document that cannot be understood counts as empty: leases heal that within LEASE.
        """
        try:
            raw: dict[str, Any] = orjson.loads(data)
            if raw["version"] != VERSION:
                return None
            day = raw["day"]
            return cls(
                {name: _holder(entry) for name, entry in raw["holders"].items()},
                float(raw["requests"]),
                float(raw["tokens"]),
                Day(int(day["date"]), int(day["given"]), _unknown(Day, day)),
                _unknown(cls, raw),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a process asks of the ledger.

    `rate` is how many whole requests a second the quota has, 0 where they are not limited, and
    `start` the headroom that a new ledger begins with. `requests` and `tokens` are the factors by
    which its own has changed since it last asked;
    `day` is how many requests of the day it would like to be given, `drawn` how many it knows to
    have been given (when it leaves: how many of them it has used).
    """

    weight: float
    wants: float
    seats: int = 64
    rate: int = 0
    start: float = Headroom.START
    requests: float = 1.0
    tokens: float = 1.0
    day: int = 0
    drawn: Day = Day()
    per_day: int | None = None
    jobs: Mapping[str, float] = field(default_factory=dict)
    tenants: Tenants = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)


def _holder(entry: Mapping[str, Any]) -> Holder:
    return Holder(
        weight=float(entry["weight"]),
        wants=float(entry["wants"]),
        share=float(entry["share"]),
        since=float(entry["since"]),
        expires=float(entry["expires"]),
        seated=bool(entry["seated"]),
        # Earlier workers, who may write the same blob, do not know these.
        jobs={str(job): float(weight) for job, weight in entry.get("jobs", {}).items()},
        tenants={
            str(job): (str(tenant), float(weight))
            for job, (tenant, weight) in entry.get("tenants", {}).items()
        },
        waiting={str(job): max(0, calls) for job, calls in entry.get("waiting", {}).items()},
        drawn=int(entry.get("drawn", 0)),
        unknown=_unknown(Holder, entry),
    )


def _unknown(kind: type[Book | Day | Holder], entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: entry[name] for name in entry.keys() - {*kind.__slots__, "version"}}


def _plain(what: Book | Day | Holder) -> dict[str, Any]:
    known = {slot: getattr(what, slot) for slot in what.__slots__ if slot != "unknown"}
    return {**known, **what.unknown}
