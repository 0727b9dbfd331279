"""A fault that lasts is told where it begins and where it ends, and not in between."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import Outage

LOG = logging.getLogger("tests.outages")


class Lines(logging.Handler):
    """What an outage logs."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@pytest.fixture
def lines() -> Lines:
    return Lines()


def outage(lines: Lines) -> Outage:
    LOG.handlers[:] = [lines]
    return Outage(LOG, "Blob Storage")


def test_two_minutes_of_faults_are_two_lines(lines: Lines) -> None:
    storage = outage(lines)
    for second in range(120):
        storage.failed("503 ServerBusy", second)
    storage.passed(125)
    storage.passed(130)
    storage.passed(200)
    assert lines.told == [
        "Blob Storage is out of order: 503 ServerBusy",
        "Blob Storage is in order again: it failed for 119 s",
    ]


@given(st.lists(st.tuples(st.booleans(), st.floats(min_value=0.0, max_value=30.0)), max_size=60))
def test_begin_and_end_alternate_and_no_end_comes_within_the_quiet(
    calls: list[tuple[bool, float]],
) -> None:
    lines = Lines()
    storage, now, last = outage(lines), 0.0, float("-inf")
    for failed, pause in calls:
        now += pause
        before = len(lines.told)
        if failed:
            storage.failed("away", now)
            last = now
        else:
            storage.passed(now)
            ended = len(lines.told) > before
            assert not ended or now - last >= Outage.QUIET
    begins = ["out of order" in line for line in lines.told]
    assert begins == [at % 2 == 0 for at in range(len(begins))]
