"""A service that lives for a month, or for three days that have all that a month has."""

import time

import pytest

from schemas.listing import Done
from tests.simulation import month
from workers.jobs.store import JobStore


def test_three_days_lose_nothing() -> None:
    world = month.live(month.SHORT)
    assert world.wrong == []
    assert len(world.closed) == 3 * month.SHORT.files
    assert world.books > 0
    assert world.host.lives > 5 * month.WORKERS


def test_a_job_whose_end_nobody_remembers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def end(store: JobStore, done: Done) -> None:
        await store.close(done.id)

    monkeypatch.setattr(JobStore, "end", end)
    wrong = month.live(month.SHORT).wrong
    assert any(fault.startswith("nobody remembers") for fault in wrong)


@pytest.mark.long
def test_a_month_loses_nothing() -> None:
    began = time.process_time()
    world = month.live(month.Calendar())
    assert world.wrong == []
    assert len(world.closed) == 3000
    assert world.deleted > 1500
    assert world.service.refused["auth"] > 10
    assert world.service.refused["gone"] > 0
    assert time.process_time() - began < 120.0
