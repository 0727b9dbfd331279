"""When to come back: each form a service uses, which one wins, and what is absurd."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.adapters.endpoints.hints import LONGEST, limit_behind, remaining, retry_after

NOW = 1_700_000_000.0

ORDER = [
    {"retry-after-ms": "1500"},
    {"x-ms-retry-after-ms": "2500"},
    {"retry-after": "3"},
    {"x-ratelimit-timeremaining": "4"},
    {"x-ratelimit-reset-tokens": "5"},
    {"x-ratelimit-reset-requests": "6"},
]
WAITS = [1.5, 2.5, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_first_hint_in_the_order_wins(first: int) -> None:
    headers = {name: value for each in ORDER[first:] for name, value in each.items()}
    assert retry_after(headers, "wait 9 seconds", now=NOW) == WAITS[first]


def test_the_text_is_the_last_resort() -> None:
    assert retry_after({}, "Please wait 9 seconds before retrying", now=NOW) == 9


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("Rate limit of 10 per 60s exceeded. Please wait 46 seconds before retrying.", 46),
        ("Please retry after 6 seconds.", 6),
        ("Please try again in 20s.", 20),
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 120ms.", 0.12),
        ("retry after 250 milliseconds", 0.25),
        ("Retry after 2 minutes", 120),
        ("try again in 1h30m", 5400),
        ("You have sent 20 requests, wait for me", None),
        ("", None),
    ],
)
def test_texts(text: str, wait: float | None) -> None:
    found = retry_after({}, text, now=NOW)
    assert found == (None if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("0", 0),
        ("11000", 11_000),
        ("86400", 86_400),
        ("86401", None),
        ("99999999", None),
        (formatdate(NOW + 2 * LONGEST, usegmt=True), None),
        ("-5", None),
        (formatdate(NOW + 30, usegmt=True), 30),
        (formatdate(NOW - 30, usegmt=True), 0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after_in_seconds_and_as_a_date(value: str, wait: float | None) -> None:
    assert retry_after({"retry-after": value}, "", now=NOW) == wait


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("1m30s", 90),
        ("250ms", 0.25),
        (str(int(NOW) + 12), 12),
        ("7.5", 7.5),
        ("-1", None),
        ("1d", LONGEST),
        ("1d1s", None),
        ("9" * 400 + "h", None),
        (str(int(NOW) + 100_000), None),
    ],
)
def test_reset_headers_as_spans_and_points_in_time(value: str, wait: float | None) -> None:
    assert retry_after({"x-ratelimit-reset-requests": value}, "", now=NOW) == wait


@pytest.mark.parametrize(
    "absurd",
    [
        {"retry-after-ms": "99999999999"},
        {"retry-after": "99999999"},
        {"x-ratelimit-timeremaining": "99999999"},
    ],
)
def test_a_hint_that_cannot_be_true_leaves_the_word_to_the_next(absurd: dict[str, str]) -> None:
    headers = absurd | {"x-ratelimit-reset-requests": "6"}
    assert retry_after(headers, "", now=NOW) == 6
    assert retry_after(absurd, "Please wait 9 seconds", now=NOW) == 9
    assert retry_after(absurd, "Please wait 9999 hours", now=NOW) is None


def test_the_reset_of_the_limit_that_struck_counts() -> None:
    headers = {"x-ratelimit-reset-requests": "50", "x-ratelimit-reset-tokens": "3"}
    assert retry_after(headers, "", now=NOW, limit="requests") == 50
    assert retry_after(headers, "", now=NOW, limit="tokens") == 3


@given(
    st.dictionaries(st.sampled_from([name for each in ORDER for name in each]), st.text()),
    st.text(),
)
def test_nothing_a_server_says_breaks_the_reading(headers: dict[str, str], text: str) -> None:
    found = retry_after(headers, text, now=NOW)
    assert found is None or 0 <= found <= LONGEST
    limit_behind(headers, text, text)


@pytest.mark.parametrize(
    ("told", "left"),
    [("12", 12), ("0", 0), ("-1", None), ("many", None), ("1.5", None), ("", None)],
)
def test_what_is_left_of_a_window_is_a_whole_number_or_not_told(
    told: str, left: int | None
) -> None:
    assert remaining({"x-ratelimit-remaining-requests": told}, "requests") == left
    assert remaining({"x-ratelimit-remaining-requests": told}, "tokens") is None
