"""The service that commands are tried with, one for each module of tests."""

from collections.abc import Iterator

import pytest

from tests.cli.serving import Failing, Served, serving


@pytest.fixture(scope="module")
def endpoint() -> Failing:
    return Failing()


@pytest.fixture(scope="module")
def running(endpoint: Failing) -> Iterator[Served]:
    with serving(endpoint) as served:
        yield served
