"""Each rule of the protocol matters: a world in which it is broken goes wrong, and is noticed."""

import re
import warnings

import pytest

from tests.simulation.checker import check
from tests.simulation.mutations import MUTATIONS, Mutation, caught, find
from tests.simulation.observers import Observers
from tests.simulation.world import live


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_is_noticed_by_its_world(mutation: Mutation) -> None:
    # The world with the rule kept is in order: it is the mutation that is noticed.
    assert check(live(mutation.scenario)) == []
    found = caught(mutation)
    # A mutation that does not fit the code any more would be noticed whatever it breaks.
    assert not [fault for fault in found if re.search("(Type|Attribute|Name)Error", fault)]
    if not found:
        # Code that makes one call more or less makes another world of each seed.
        seed = find(mutation, range(400))
        assert seed is not None, f"unnoticed: {mutation.rule}"
        warnings.warn(f"{mutation.name} is noticed by seed {seed} now: name it", stacklevel=1)


@pytest.mark.parametrize(
    "mutation", [each for each in MUTATIONS if each.by_observers], ids=lambda each: each.name
)
def test_some_are_noticed_only_by_those_who_look_while_a_job_runs(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert caught(mutation)
    monkeypatch.setattr(Observers, "faults", lambda *_: ())
    assert not caught(mutation)
