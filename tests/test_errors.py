"""A fault that lasts is told where it begins, every ten minutes, and where it ends."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.adapters import bus_errors, storage_errors
from workers.ports.errors import BlobExists, Outage, Unavailable

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
        "[OUT_OF_ORDER] Blob Storage is out of order: 503 ServerBusy",
        "[IN_ORDER] Blob Storage is in order again: it failed for 119 s",
    ]


def test_a_fault_that_stays_is_told_every_ten_minutes(lines: Lines) -> None:
    east = outage(lines)
    for second in range(1_500):
        east.failed("401", second)
    assert len(lines.told) == 3
    assert set(lines.told) == {"[OUT_OF_ORDER] Blob Storage is out of order: 401"}
    east.passed(1_520)
    east.failed("503", 1_521)
    assert "[IN_ORDER]" in lines.told[3]
    assert "503" in lines.told[4], "a new fault does not wait for the last one's ten minutes"


def test_a_fault_lasts_for_the_calls_that_it_met_not_until_the_last_one_timed_out(
    lines: Lines,
) -> None:
    storage = outage(lines)
    storage.passed(9)
    for second in range(10, 56):
        storage.failed("no answer", second + 30, second)
    storage.passed(86)
    storage.passed(96)
    assert lines.told[1:] == ["[IN_ORDER] Blob Storage is in order again: it failed for 45 s"]


def test_a_call_of_before_the_last_success_does_not_lengthen_a_fault(lines: Lines) -> None:
    storage = outage(lines)
    storage.passed(20)
    storage.failed("no answer", 30, 0)
    storage.failed("503 ServerBusy", 31)
    storage.passed(50)
    assert lines.told[1:] == ["[IN_ORDER] Blob Storage is in order again: it failed for 11 s"]


Reached = Callable[[], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize(
    "reach",
    [lambda: storage_errors.deadline("c/b", BlobExists), lambda: bus_errors.reached("jobs")],
)
async def test_storage_and_bus_tell_when_a_call_was_made(
    reach: Reached, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    for module in (storage_errors, bus_errors):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(module, "OUTAGE", outage(lines))

    async def fails(made: float, failed: float) -> None:
        now[0] = made
        async with reach():
            now[0] = failed
            raise TimeoutError

    for made, failed in ((0.0, 1.0), (45.0, 75.0)):
        with pytest.raises(Unavailable):
            await fails(made, failed)
    now[0] = 100.0
    async with reach():
        pass
    assert [line.partition(": ")[2] for line in lines.told[1:]] == ["it failed for 45 s"]


@given(st.lists(st.tuples(st.booleans(), st.floats(min_value=0.0, max_value=30.0)), max_size=60))
def test_an_end_follows_a_begin_and_no_end_comes_within_the_quiet(
    calls: list[tuple[bool, float]],
) -> None:
    lines = Lines()
    storage, now, last, times = outage(lines), 0.0, float("-inf"), list[float]()
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
        if len(lines.told) > before:
            times.append(now)
    begins = ["out of order" in line for line in lines.told]
    assert all(begins[:1])
    for at in range(1, len(begins)):
        assert begins[at] or begins[at - 1], "an end follows an end"
        repeated = begins[at] and begins[at - 1]
        assert not repeated or times[at] - times[at - 1] >= Outage.REPEAT
