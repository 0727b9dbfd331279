"""What a seed makes of a world: files and their rows, workers, users, and a swarm of faults.

Each seed draws which families of faults are on and how strong each is, so that some worlds have
nothing but lost answers, and others everything at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import inf
from random import Random

from tests.simulation import caps
from tests.simulation.circumstances import made_for
from tests.simulation.scenario import (
    Act,
    Doing,
    Focus,
    Partition,
    RowKind,
    Scenario,
    Span,
    Throttle,
    version,
)
from tests.simulation.sites import APART, FAMILIES, RATES, SITES, Fault, faults_at

CAPPED = 0.3
"""The part of the worlds whose jobs are capped."""
MONTHLY = 0.5
"""The part of those in which the jobs of the month are capped together."""

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
    if rng.random() < 0.06:
        odd_act: Act = rng.choice(("misname", "squat", "discard"))
        acts.append(Doing(rng.uniform(0, 60), odd_act))
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


def _chances(rng: Random) -> dict[Fault, float]:
    """Which families of faults are on, and how strong each is: some worlds have but one."""
    share = rng.choice((0.0, 0.25, 0.5, 1.0, 1.0))
    families = [name for name in FAMILIES if rng.random() < share]
    if rng.random() < 0.2:
        families = [rng.choice(list(FAMILIES))]
    chances: dict[Fault, float] = {}
    for name in families:
        strength = 2.0 ** rng.uniform(-2.0, 2.5)
        chances |= {fault: strength * RATES[fault] for fault in FAMILIES[name]}
    # However many there are: a world in which nothing succeeds shows nothing.
    most = 0.2 / max(0.2, sum(chances.values()))
    return {fault: chance * most for fault, chance in chances.items()}


_PAIRS = tuple(
    (place, fault) for place in SITES for fault in faults_at(place) if fault not in APART
)


# What leaves a call its effect strikes but once where a call is made once: it is drawn more often.
_ONCE: frozenset[Fault] = frozenset({"slow", "lose after", "late", "double", "delay"})
# So is what strikes where few worlds come, or come but once.
_RARE: Mapping[str, int] = {
    # Met in worlds whose month is capped, and aimed at there.
    "state/budgets/": 0,
    "/journal/#/*-#": 6,
    "/verdict.json": 4,
    "/duplicates": 5,
    "/planning": 4,
    "job.expir": 6,
    "job.failing": 6,
    "job.cancel": 4,
    "job.completed": 4,
    "job.fail": 4,
    "job.paused": 6,
    "job.resumed": 7,
    "create state/quota/": 5,
    "create": 3,
    "results/": 3,
    "state/open/": 3,
    "take_dead": 3,
    "job.": 4,
    ":announce:": 2,
    "prompts/": 2,
    "/rejected/": 2,
    "/samples": 2,
    "state/quota/": 2,
}


def _weight(place: str, fault: Fault) -> int:
    rarity = next((times for part, times in _RARE.items() if part in place), 1)
    return rarity * (2 if fault in _ONCE else 1)


_WEIGHTS = tuple(accumulate(_weight(*pair) for pair in _PAIRS))


_OF_MONTHS = [pair for pair in _PAIRS if "state/budgets/" in pair[0]]


def _focuses(rng: Random) -> tuple[Focus, ...]:
    pairs = rng.choices(_PAIRS, cum_weights=_WEIGHTS, k=rng.choice((0, 1, 2, 3, 4, 5)))
    return tuple(Focus(*pair, rng.choice((0.5, 1.0, 1.0)), 8) for pair in pairs)


def _partitions(rng: Random, workers: int) -> tuple[Partition, ...]:
    return tuple(
        Partition(rng.randrange(workers), rng.choice(("storage", "bus", "endpoint")), span)
        for span in _span(rng, 0.15, (5.0, 40.0, 120.0, 700.0))
    )


_PREFIXES = ("", "state/jobs/", "/journal/", "/leases/", "state.json", "results/", "state/quota/")


def _throttles(rng: Random) -> tuple[Throttle, ...]:
    return tuple(
        Throttle(rng.choice(_PREFIXES), rng.choice((0.1, 0.5, 0.9)), span)
        for span in _span(rng, 0.1, (5.0, 60.0, 300.0))
    )


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
    skew = rng.choice((0.0, 0.0, 5.0, 120.0))
    endless = rng.random() < 0.04
    drawn = Scenario(
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
        faults_until=inf if endless else rng.choice((60.0, 400.0, 900.0)),
        endless=endless,
        chances=_chances(rng),
        unlock=rng.choice((0.0, 0.0, 0.01, 0.05)),
        focuses=_focuses(rng),
        partitions=_partitions(rng, workers),
        throttles=_throttles(rng),
        storms=_span(rng, 0.15, (10.0, 60.0, 300.0)),
        outages=_span(rng, 0.15, (10.0, 60.0, 600.0)),
        storage_out=_span(rng, 0.08, (5.0, 40.0, 120.0)),
        bus_out=_span(rng, 0.08, (5.0, 40.0, 120.0)),
    )
    for focus in drawn.focuses:
        drawn = made_for(drawn, focus.site, rng)
    # Of a die of its own: what else a seed decides is as it was.
    own = Random(f"purse {seed}")
    if own.random() < CAPPED and not drawn.options:
        rows = max(len(file.rows) for file in drawn.files)
        drawn = replace(drawn, options=caps.drawn(own, rows))
        month = Random(f"month {seed}")
        if month.random() < MONTHLY:
            drawn = replace(drawn, **caps.drawn_month(month, drawn.options, rows, len(files)))
            aimed = Focus(*month.choice(_OF_MONTHS), month.choice((0.5, 1.0, 1.0)), 8)
            drawn = replace(drawn, focuses=(*drawn.focuses, aimed))
    return drawn
