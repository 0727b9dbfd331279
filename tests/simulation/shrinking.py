"""A world that fails, made small: which few faults and events does it take?

What chance did to a world is known as a list of mishaps. Left out one after the other, by halves at
first, as long as the same thing goes wrong, few of them are left, and those make a test.
"""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from math import inf
from typing import Any

from tests.simulation.checker import check
from tests.simulation.scenario import Scenario, Version
from tests.simulation.world import World, live

MOST_WORLDS = 600
_LISTS = ("doings", "partitions", "throttles", "storms", "outages", "storage_out", "bus_out")
_PLAIN: tuple[dict[str, Any], ...] = (
    {"skews": (0.0,)},
    {"requests_per_minute": None},
    {"max_concurrency": None},
    {"append_blocks": 50_000},
    {"queued": False},
    {"completion_window": "24h"},
)

Lives = Callable[[Scenario], World]


def as_it_happened(world: World) -> Scenario:
    """The scenario of a world with what befell it in place of chances: its world is the same."""
    acts = tuple(mishap for mishap in world.scenario.script if mishap.act is not None)
    script = (*acts, *world.faults.mishaps)
    return replace(world.scenario, chances={}, focuses=(), unlock=0.0, script=script)


def kind_of(fault: str) -> str:
    """What goes wrong, without the names and numbers of this world."""
    return re.sub(r"[(\[{].*|[0-9]+.*", "", fault.split(":", maxsplit=1)[0])


class Shrinker:
    """Looks for the smallest scenario in which the same thing goes wrong."""

    def __init__(self, wrong: str, lives: Lives) -> None:
        self._wrong = kind_of(wrong)
        self._lives = lives
        self.worlds = 0

    def fails(self, scenario: Scenario) -> bool:
        """Whether the same thing goes wrong in this world too."""
        self.worlds += 1
        return any(kind_of(fault) == self._wrong for fault in check(self._lives(scenario)))

    def shrink(self, scenario: Scenario) -> Scenario:
        """Leave out what it does not take."""
        before = None
        while before != scenario and self.worlds < MOST_WORLDS:
            before = scenario
            scenario = self._fewer_mishaps(scenario)
            scenario = self._simpler(scenario)
        return scenario

    def _fewer_mishaps(self, scenario: Scenario) -> Scenario:
        size = len(scenario.script)
        while size and self.worlds < MOST_WORLDS:
            # The last ones first: what comes before them stays the same.
            for end in range(len(scenario.script), 0, -size):
                script = scenario.script
                fewer = replace(scenario, script=(*script[: max(0, end - size)], *script[end:]))
                scenario = fewer if self.fails(fewer) else scenario
            size //= 2
        return scenario

    def _simpler(self, scenario: Scenario) -> Scenario:
        for name in _LISTS:
            for at in reversed(range(len(getattr(scenario, name)))):
                kept = getattr(scenario, name)
                fewer: dict[str, Any] = {name: (*kept[:at], *kept[at + 1 :])}
                smaller = replace(scenario, **fewer)
                scenario = smaller if self.fails(smaller) else scenario
        for change in _PLAIN:
            smaller = replace(scenario, **change)
            if smaller != scenario and self.fails(smaller):
                scenario = smaller
        return scenario


def shrunk(scenario: Scenario, *, lives: Lives = live) -> Scenario | None:
    """The smallest world in which the first thing wrong with this one is wrong; None: all holds."""
    world = lives(scenario)
    found = check(world)
    if not found:
        return None
    shrinker = Shrinker(found[0], lives)
    known = as_it_happened(world)
    return shrinker.shrink(known if shrinker.fails(known) else scenario)


def as_test(scenario: Scenario) -> str:
    """A test of a world, to be pasted."""
    plain = Scenario()
    told = [
        f"        {field.name}={_told(getattr(scenario, field.name))},"
        for field in fields(scenario)
        if getattr(scenario, field.name) != getattr(plain, field.name)
    ]
    return "\n".join(
        (
            f"def test_the_world_of_seed_{scenario.seed}() -> None:",
            "    scenario = Scenario(",
            *told,
            "    )",
            "    assert check(live(scenario)) == []",
        )
    )


def _told(value: Any) -> str:
    if isinstance(value, Version):
        return _version(value)
    if isinstance(value, tuple):
        return "(" + "".join(f"{_told(each)}, " for each in value).rstrip() + ")"
    return 'float("inf")' if value == inf else repr(value)


def _version(file: Version) -> str:
    lines = [row.line for row in file.rows]
    before = zip((0, *lines), lines, strict=False)
    gaps = tuple(at for at, (earlier, line) in enumerate(before) if line - earlier > 1)
    kinds = tuple(row.kind for row in file.rows)
    return f"version({file.name!r}, 1, {kinds!r}, gaps={gaps!r})"
