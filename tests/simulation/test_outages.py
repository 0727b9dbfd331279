"""What lasts: it begins at a call, meets others until it is over, and counts at each of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.checker import check
from tests.simulation.scenario import Focus, Partition, Scenario, Span, Throttle, version
from tests.simulation.shrinking import as_it_happened
from tests.simulation.sites import LASTING, Fault
from tests.simulation.world import World, live

FILES = tuple(version(f"f{at}.jsonl", 1, ("chat",) * 12) for at in range(2))
WORLD = Scenario(files=FILES, workers=2, shard_rows=4, latency=2.0, journal_seconds=1.0)
RECEIPT = "create state/jobs/*/receipts/#"
SPAN = Span(2.0, 12.0)


def met(world: World) -> dict[Fault, set[str]]:
    """The sites at which something struck that lasts, by its name."""
    found: dict[Fault, set[str]] = {}
    for (site, fault), times in world.faults.struck.items():
        assert times
        found.setdefault(fault, set()).add(site)
    return found


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_begins_where_it_is_aimed_and_meets_others_too(fault: Fault) -> None:
    aimed = replace(WORLD, focuses=(Focus(RECEIPT, fault, 1.0, 8),))
    world = live(aimed, keep=True)
    assert check(world) == []
    assert list(met(world)) == [fault]
    assert RECEIPT in met(world)[fault]
    # A throttled name is one; a service that is away is so for all that is asked of it.
    named = all(site.endswith("/receipts/#") for site in met(world)[fault])
    assert named is (fault == "throttled")
    assert live(as_it_happened(world), keep=True).log == world.log


@pytest.mark.parametrize(
    ("away", "fault", "kinds"),
    [
        ({"outages": (SPAN,)}, "outage", {"ask"}),
        ({"bus_out": (SPAN,)}, "outage", {"send", "take_dead"}),
        ({"partitions": (Partition(0, "endpoint", SPAN),)}, "cut off", {"ask"}),
        ({"throttles": (Throttle("/journal/", 0.9, SPAN),)}, "throttled", {"create_append"}),
    ],
)
def test_what_lasts_is_counted_by_its_own_name(
    away: dict[str, Any], fault: Fault, kinds: Sequence[str]
) -> None:
    world = live(replace(WORLD, **away))
    assert check(world) == []
    assert list(met(world)) == [fault]
    assert {site.partition(" ")[0] for site in met(world)[fault]} & set(kinds)
