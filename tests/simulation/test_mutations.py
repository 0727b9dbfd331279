"""Each rule of the protocol matters: a world in which it is broken goes wrong, and is noticed."""

import pytest

from tests.simulation.checker import check
from tests.simulation.mutations import MUTATIONS, Mutation, caught
from tests.simulation.world import live


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_noticed_by_its_seed(mutation: Mutation) -> None:
    assert caught(mutation), f"unnoticed: {mutation.rule}"
    # The same world with the rule kept is in order: it is the mutation that was noticed.
    assert check(live(mutation.scenario)) == []
