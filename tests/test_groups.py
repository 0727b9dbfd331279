"""Tests that share what their module starts stay in one process, where pytest and xdist fit."""

import pytest


@pytest.mark.xdist_group("together")
def test_groups_are_kept_together(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("all tests are in one process, or go where there is room")
    assert request.node.nodeid.endswith("@together")
