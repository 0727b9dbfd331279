"""Each rule of the protocol matters: a world in which it is broken goes wrong, and is noticed."""

import warnings

import pytest

from tests.simulation.checker import check
from tests.simulation.mutations import MUTATIONS, Mutation, caught, find
from tests.simulation.world import live


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_noticed_by_its_world(mutation: Mutation) -> None:
    # The world with the rule kept is in order: it is the mutation that is noticed.
    assert check(live(mutation.scenario)) == []
    if not caught(mutation):
        # Code that makes one call more or less makes another world of each seed.
        seed = find(mutation, range(400))
        assert seed is not None, f"unnoticed: {mutation.rule}"
        warnings.warn(f"{mutation.name} is noticed by seed {seed} now: name it", stacklevel=1)
