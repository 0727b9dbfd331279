"""Interactive calls beside a batch are served as if it were not there, or nearly."""

from tests.simulation.interactive import START, STOP, Beside, Seen, beside


def refused(seen: Seen) -> float:
    return seen.refused / seen.calls


def test_ours_does_less_harm_than_clients_that_cannot_see_others() -> None:
    kinds: tuple[Beside, ...] = ("alone", "naive", "aimd", "ours", "ours, both")
    alone, naive, aimd, ours, both = map(beside, kinds)
    assert both.failed == 0
    assert both.p99() <= 1.1 * alone.p99()
    assert refused(both) <= refused(aimd)
    assert refused(both) <= 0.25 * refused(ours) <= 0.25 * refused(naive)
    # And gets more done than the one that feels its way.
    assert both.batch_rate(START + 5.0, STOP) >= aimd.batch_rate(START + 5.0, STOP)


def test_it_gives_way_within_seconds_and_comes_back_by_itself() -> None:
    seen = beside("ours, yielding")
    assert seen.batch_rate(20.0, START) >= 26.0
    assert seen.batch_rate(START + 1.0, START + 3.0) <= 22.0
    assert seen.batch_rate(STOP + 10.0, STOP + 20.0) >= 26.0


def test_a_reserve_is_left_at_all_times() -> None:
    seen = beside("ours, reserve")
    assert 23.0 <= seen.batch_rate(20.0, START) <= 24.0
    assert seen.batch_rate(START, STOP) <= 24.0
