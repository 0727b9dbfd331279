"""Which trace, which span, and which shards: what every process comes to by itself."""

from hypothesis import given
from hypothesis import strategies as some

from workers.adapters.telemetry import traces
from workers.adapters.telemetry.traces import MOST_SHARDS, Place

ASKED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNKEPT = f"{ASKED[:-2]}00"
JOB = "20261126T010203Z-0123456789abcdef"


def test_a_job_goes_on_in_the_trace_of_who_asked_for_it() -> None:
    place = traces.of_job(JOB, ASKED)
    assert traces.written(place)[3:35] == ASKED[3:35]
    assert place.span not in (0, int(ASKED[36:52], 16))
    assert traces.parent(ASKED) == Place(int(ASKED[3:35], 16), int(ASKED[36:52], 16))


def test_a_sender_who_keeps_no_span_is_nobodys_parent() -> None:
    # The front end of App Service writes such ones on calls that nobody traces.
    assert traces.of_job(JOB, UNKEPT).trace == int(ASKED[3:35], 16)
    assert traces.parent(UNKEPT) is None
    assert traces.parent(f"00-{'0' * 32}-{'0' * 16}-01") is None
    assert traces.parent(None) is None
    assert traces.parent("whatever somebody has written there") is None


@given(some.text(min_size=1, max_size=64), some.text(min_size=1, max_size=64))
def test_jobs_have_traces_of_their_own_and_always_the_same(one: str, other: str) -> None:
    assert traces.of_job(one, None) == traces.of_job(one, None)
    assert (traces.of_job(one, None) == traces.of_job(other, None)) == (one == other)
    assert all(traces.of_job(one, None))


@given(some.integers(0, 2**128 - 1), some.integers(0, 2**64 - 1))
def test_what_is_written_is_read_again(trace: int, span: int) -> None:
    told = traces.read(traces.written(Place(trace, span)))
    assert told == ((Place(trace, span), True) if trace and span else None)


def test_a_thousand_shards_are_looked_at_whatever_a_job_has() -> None:
    for shards in (1, 100, MOST_SHARDS):
        assert all(traces.looked_at(JOB, shard, shards) for shard in range(shards))
    kept = sum(traces.looked_at(JOB, shard, 40_000) for shard in range(40_000))
    assert 900 < kept < 1100
    other = [traces.looked_at("another", shard, 40_000) for shard in range(40_000)]
    assert other != [traces.looked_at(JOB, shard, 40_000) for shard in range(40_000)]
