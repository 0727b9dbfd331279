"""How often did each fault strike at each call site?"""

from collections import Counter
from collections.abc import Iterator, Set

from tests.simulation.sites import APART, FAMILIES, LASTING, SITES, Fault, faults_at

# In fewer worlds than these, that a pair never was hit says nothing.
ENOUGH_WORLDS = 10_000

FAULTS: tuple[Fault, ...] = (
    *(fault for family in FAMILIES.values() for fault in family),
    *LASTING,
    *APART,
)

Struck = Counter[tuple[str, Fault]]


def pairs() -> Iterator[tuple[str, Fault]]:
    """Every fault that can strike at every site of the code."""
    for place in SITES:
        for fault in faults_at(place):
            yield place, fault


def missing(struck: Struck) -> list[tuple[str, Fault]]:
    """The pairs that never were hit."""
    return [pair for pair in pairs() if not struck[pair]]


def unknown(met: Set[str]) -> list[str]:
    """Sites that code has and the list has not: whoever adds a call adds its site."""
    return sorted(met - set(SITES))


def impossible(struck: Struck) -> list[tuple[str, Fault]]:
    """The pairs that were hit at sites of the list and that the table has no place for."""
    return sorted(pair for pair in set(struck) - set(pairs()) if pair[0] in SITES)


def gaps(struck: Struck, met: Set[str], worlds: int) -> list[str]:
    """What is wrong with what so many worlds came to, a line each."""
    never = missing(struck) if worlds >= ENOUGH_WORLDS else []
    return [
        *(f"NEVER HIT: {fault} at {place}" for place, fault in never),
        *(f"UNKNOWN SITE: {place}" for place in unknown(met)),
        *(f"UNKNOWN PAIR: {fault} at {place}" for place, fault in impossible(struck)),
    ]


def table(struck: Struck) -> Iterator[str]:
    """A line for each site, with a column for each fault; a dot where it cannot strike."""
    wide = max(map(len, SITES))
    yield " " * wide + " ".join(f"{fault.replace(' ', '-'):>13}" for fault in FAULTS)
    for place in SITES:
        able = faults_at(place)
        cells = [str(struck[place, fault]) if fault in able else "." for fault in FAULTS]
        yield f"{place:<{wide}}" + " ".join(f"{cell:>13}" for cell in cells)
    found = [struck[pair] for pair in pairs()]
    yield f"{len(found)} pairs, the rarest hit {min(found)} times"
