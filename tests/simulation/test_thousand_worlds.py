"""The worlds of `test_world.py` up to the thousandth."""

import pytest

from tests.simulation.seeds import assert_in_order, chunks, named


@pytest.mark.parametrize("seeds", chunks(range(100, 1000), 50), ids=named)
def test_every_row_comes_out_once_in_a_thousand_worlds(seeds: range) -> None:
    assert_in_order(seeds)
