"""Hours of the day: over midnight, and where clocks are put forward and back."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.hours import Hours, parse_hours

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "UTC",
    "America/Santiago",
    "Africa/Casablanca",
    "Pacific/Apia",
)
NAMES = ("high", "normal", "low")
NIGHT = Hours(hours="22:00-06:00", time_zone="Europe/Berlin")

minutes = st.integers(0, 1439)
# Any time, and those before clocks are changed in Berlin, New York and on Lord Howe.
times = st.one_of(
    st.floats(1_700_000_000, 1_900_000_000),
    st.sampled_from(
        [
            1_806_192_000.0,
            1_824_940_800.0,
            1_804_982_400.0,
            1_825_545_600.0,
            1_806_796_800.0,
            1_822_521_600.0,
        ]
    ).flatmap(lambda at: st.floats(at - 86400, at + 172800)),
).map(lambda at: float(round(at)))


@st.composite
def some_hours(draw: st.DrawFn) -> Hours:
    begin = draw(st.one_of(minutes, st.integers(90, 200)))
    end = draw(st.one_of(minutes, st.integers(90, 200)).filter(lambda each: each != begin))
    told = "-".join(f"{each // 60:02}:{each % 60:02}" for each in (begin, end))
    return Hours(hours=told, time_zone=draw(st.sampled_from(ZONES)))


def says(hours: Hours, at: float) -> bool:
    """Whether the clock on the wall stands between begin and end."""
    begin, end = hours.hours.split("-")
    local = datetime.fromtimestamp(at, ZoneInfo(hours.time_zone)).strftime("%H:%M")
    return begin <= local < end if begin < end else local >= begin or local < end


def changes_near(hours: Hours, at: float) -> bool:
    """Whether clocks are changed within two days."""
    zone = ZoneInfo(hours.time_zone)
    here = datetime.fromtimestamp(at, zone)
    return len({(here + timedelta(hours=each)).utcoffset() for each in range(-48, 49)}) > 1


@given(some_hours(), times)
def test_it_is_open_while_the_clock_on_the_wall_says_so(hours: Hours, at: float) -> None:
    is_open, until = hours.standing(at)
    assert until > at
    if not changes_near(hours, at):
        assert is_open == says(hours, at)
        assert is_open != says(hours, until)
        assert says(hours, until - 1.0) == is_open


@pytest.mark.parametrize(
    ("hours", "opens", "closes"),
    [
        ("02:00-03:00", "03:00", "04:00"),
        ("02:30-03:00", "03:30", "04:00"),
        ("02:30-03:30", "03:30", "04:30"),
        ("02:30-04:00", "03:30", "04:00"),
    ],
)
def test_hours_that_the_clocks_leave_out_come_later_that_day(
    hours: str, opens: str, closes: str
) -> None:
    berlin = Hours(hours=hours, time_zone="Europe/Berlin")
    at = berlin.opens(datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp())
    times = (at, at + berlin.open_for(at))
    local = [datetime.fromtimestamp(each, ZoneInfo(berlin.time_zone)) for each in times]
    assert [f"{each:%m-%d %H:%M}" for each in local] == [f"03-29 {opens}", f"03-29 {closes}"]


@given(some_hours(), times)
@example(Hours(hours="02:00-03:00", time_zone="Africa/Casablanca"), 1804474800.0)
def test_open_and_closed_follow_each_other(hours: Hours, at: float) -> None:
    """Through any change of clocks: what stands now stands until then, and the other follows."""
    seen = []
    for _ in range(12):
        is_open, until = hours.standing(at)
        assert hours.standing((at + until) / 2) == (is_open, until)
        assert hours.standing(until - 0.001)[0] is is_open
        seen.append(is_open)
        at = until
    assert all(one is not other for one, other in pairwise(seen))


@given(some_hours(), times)
def test_each_day_has_its_hours_whatever_becomes_of_the_clocks(hours: Hours, at: float) -> None:
    begin, end = (60 * int(each[:2]) + int(each[3:]) for each in hours.hours.split("-"))
    usual = 60.0 * ((end - begin) % 1440)
    # Clocks are changed by two hours at most within these ten days, and days are left out nowhere.
    assert hours.open_seconds(at, at + 10 * 86400.0) == pytest.approx(10 * usual, abs=usual + 7200)


@given(some_hours(), times, st.floats(0, 5 * 86400.0), st.floats(1, 86400.0))
def test_time_and_open_seconds_say_the_same(
    hours: Hours, at: float, lasts: float, seconds: float
) -> None:
    through = hours.after(at, seconds)
    assert hours.open_seconds(at, through) == pytest.approx(seconds, abs=0.01)
    middle = at + lasts / 2
    parts = hours.open_seconds(at, middle) + hours.open_seconds(middle, at + lasts)
    assert hours.open_seconds(at, at + lasts) == pytest.approx(parts, abs=0.01)
    assert hours.opens(at) == at or hours.open_seconds(at, hours.opens(at)) == 0.0


def berlin(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("hours", "now", "expected"),
    [
        # In summer 22:00 in Berlin is 20:00 UTC, in winter 21:00.
        ("22:00-06:00", (2026, 7, 1, 19, 59), (False, (2026, 7, 1, 20, 0))),
        ("22:00-06:00", (2026, 7, 1, 20, 0), (True, (2026, 7, 2, 4, 0))),
        ("22:00-06:00", (2026, 12, 1, 4, 59), (True, (2026, 12, 1, 5, 0))),
        ("22:00-06:00", (2026, 12, 1, 5, 0), (False, (2026, 12, 1, 21, 0))),
        # The night of 28 March 2027 has seven of the eight hours, that of 31 October nine.
        ("22:00-06:00", (2027, 3, 27, 21, 0), (True, (2027, 3, 28, 4, 0))),
        ("22:00-06:00", (2027, 10, 30, 20, 0), (True, (2027, 10, 31, 5, 0))),
        # 02:30 is left out on 28 March, and comes twice on 31 October.
        ("02:30-02:45", (2027, 3, 28, 0, 0), (False, (2027, 3, 28, 1, 30))),
        ("02:30-02:45", (2027, 10, 31, 0, 35), (True, (2027, 10, 31, 1, 45))),
        ("02:30-02:45", (2027, 3, 28, 1, 30), (True, (2027, 3, 28, 1, 45))),
        ("22:00-02:30", (2027, 3, 27, 22, 0), (True, (2027, 3, 28, 1, 30))),
        ("18:00-24:00", (2026, 12, 1, 22, 59), (True, (2026, 12, 1, 23, 0))),
    ],
)
def test_the_clock_of_the_place_counts(
    hours: str, now: tuple[int, ...], expected: tuple[bool, tuple[int, ...]]
) -> None:
    found = Hours(hours=hours, time_zone="Europe/Berlin").standing(berlin(*now))
    assert found == (expected[0], berlin(*expected[1]))


@pytest.mark.parametrize(
    "wrong",
    ["22-06", "22:00", "24:00-06:00", "06:00-06:00", "00:00-24:00", "22:60-06:00", " 22:00-06:00"],
)
def test_what_are_no_hours_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="22:00-06:00"):
        Hours(hours=wrong, time_zone="UTC")


@pytest.mark.parametrize("wrong", ["Berlin", "CEST+1", "", "../etc/passwd", "/etc/localtime"])
def test_what_is_no_time_zone_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="Europe/Berlin"):
        Hours(hours="22:00-06:00", time_zone=wrong)


def test_the_setting_says_what_is_wrong_with_it() -> None:
    good = '{"low": {"hours": "22:00-06:00", "time_zone": "Europe/Berlin"}}'
    assert parse_hours("PRIORITY_HOURS", good, NAMES) == {"low": NIGHT}
    assert str(NIGHT) == "22:00-06:00 Europe/Berlin"
    for wrong, said in (
        ("[]", "PRIORITY_HOURS: "),
        ('{"lowest": {}}', "'lowest'"),
        ('{"lowest": {"hours": "22:00-06:00", "time_zone": "UTC"}}', "high, normal, low are"),
        ('{"low": {"hours": "22:00-06:00"}}', "'time_zone'"),
        ('{"low": {"hours": "22:00-06:00", "time_zone": "Berlin"}}', "Europe/Berlin"),
        ('{"low": {"hours": "22:00-06:00", "time_zone": "UTC", "zone": 1}}', "'zone'"),
    ):
        with pytest.raises(ValueError, match="PRIORITY_HOURS") as caught:
            parse_hours("PRIORITY_HOURS", wrong, NAMES)
        assert said in str(caught.value)
