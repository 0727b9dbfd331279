"""A world that fails is told by the few faults that it takes."""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.simulation import __main__ as command
from tests.simulation import lies, seeds
from tests.simulation.checker import check
from tests.simulation.scenario import Scenario, version
from tests.simulation.shrinking import as_it_happened, as_test, shrunk
from tests.simulation.swarm import scenario
from tests.simulation.world import World, live


def _forgetful(world: Scenario) -> World:
    return live(world, storage=lies.JournalsUnread)


@pytest.mark.parametrize("seed", [5, 11, 24])
def test_a_world_is_the_same_when_its_mishaps_are_told_instead_of_drawn(seed: int) -> None:
    drawn = live(scenario(seed), keep=True)
    told = live(as_it_happened(drawn), keep=True)
    assert drawn.faults.mishaps
    assert told.log == drawn.log


def _busy(seed: int) -> Scenario:
    """A short file whose workers are killed often, among much that does no harm."""
    return Scenario(
        seed=seed,
        files=(version("a.jsonl", 1, ["chat"] * 30),),
        workers=2,
        latency=4.0,
        faults_until=600.0,
        chances={"kill before": 0.02, "repeat": 0.05, "slow": 0.05, "double": 0.05, "busy": 0.02},
    )


def test_of_many_mishaps_few_are_left() -> None:
    # A rule that a single crash at the right moment shows to be broken.
    busy = next(world for world in map(_busy, range(20)) if check(_forgetful(world)))
    assert len(live(busy).faults.mishaps) > 10
    small = shrunk(busy, lives=_forgetful)
    assert small is not None
    assert len(small.script) + len(small.doings) <= 10
    with pytest.raises(AssertionError):
        _pasted(small, _forgetful)
    _pasted(small, live)


def _pasted(world: Scenario, lives: Callable[[Scenario], World]) -> None:
    """Run what is printed of a world, with what stands above it in a file of tests."""
    header = (
        "from tests.simulation.checker import check\n"
        "from tests.simulation.scenario import *\n"
        "from tests.simulation.world import live\n"
    )
    names: dict[str, object] = {}
    exec(header, names)
    names["live"] = lives
    exec(as_test(world), names)
    test = names[f"test_the_world_of_seed_{world.seed}"]
    assert callable(test)
    test()


def test_what_is_left_is_a_test_that_can_be_pasted() -> None:
    _pasted(as_it_happened(live(scenario(11))), live)


def test_a_world_in_order_has_nothing_to_be_shrunk() -> None:
    assert shrunk(Scenario()) is None


def _wrong(seed: int) -> seeds.Seen:
    return seeds.Seen(seed, ("a row is lost",), "", 9, 9, 9, Counter(), frozenset())


def test_whoever_is_told_of_a_seed_is_told_of_the_shrinker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(seeds, "see", _wrong)
    with pytest.raises(AssertionError, match="--seed K --shrink prints a test"):
        seeds.assert_in_order(range(3))
    monkeypatch.setattr(command, "see_all", lambda these, **_: map(_wrong, these))
    assert command.many(range(7, 8), 1, covered=False) == 1
    assert "--seed 7 --shrink prints a test" in capsys.readouterr().out
