"""Who guesses keys is refused sooner than he guesses, and nobody else is."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.client import KEYS, Client
from tests.doubles.service import bench
from tests.simulation.virtual_time import run
from workers.api.guessing import FREE_GUESSES, GUESS_SECONDS, Guesses, address_of


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"client-ip": "20.1.2.3:50123"}, "20.1.2.3"),
        ({"client-ip": "20.1.2.3", "x-forwarded-for": "9.9.9.9"}, "20.1.2.3"),
        # What a caller makes up stands before what the front end knows.
        ({"x-forwarded-for": "1.1.1.1, 8.8.8.8,20.1.2.3:443"}, "20.1.2.3"),
        ({"client-ip": "[2a01:111:f100:2000::a]:443"}, "2a01:111:f100:2000::/64"),
        ({"client-ip": "2a01:111:f100:2000:1:2:3:4"}, "2a01:111:f100:2000::/64"),
        ({"client-ip": "[::ffff:20.1.2.3]:443"}, "20.1.2.3"),
        ({"client-ip": "nobody"}, ""),
        ({"client-ip": "x" * 10_000}, ""),
        ({}, ""),
    ],
)
def test_an_address_is_what_the_front_end_says(headers: dict[str, str], address: str) -> None:
    assert address_of(headers) == address


@given(st.text(max_size=80), st.text(max_size=80))
def test_nothing_that_a_header_says_is_kept_but_an_address(client: str, forwarded: str) -> None:
    assert len(address_of({"client-ip": client, "x-forwarded-for": forwarded})) < 50


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 20.0)), max_size=300)


@given(STEPS)
def test_no_address_guesses_more_than_it_may(steps: list[tuple[str, float]]) -> None:
    guesses, now = Guesses(), 1000.0
    taken: dict[str, list[float]] = {}
    for address, pause in steps:
        now += pause
        if guesses.wrong(address, now) is None:
            taken.setdefault(address, []).append(now)
    for times in taken.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                most = FREE_GUESSES + (times[last] - times[first]) / GUESS_SECONDS
                assert last - first + 1 <= most + 1e-6


@given(STEPS)
def test_who_waits_as_he_is_told_may_guess(steps: list[tuple[str, float]]) -> None:
    guesses, now = Guesses(), 1000.0
    for address, pause in steps:
        now += pause
        if (wait := guesses.wrong(address, now)) is not None:
            assert 0.0 < wait <= GUESS_SECONDS
            now += wait + 1e-6
            assert guesses.wrong(address, now) is None


def test_memory_is_bounded_however_many_addresses_come() -> None:
    guesses = Guesses(most=100)
    for number in range(10_000):
        assert guesses.wrong(f"10.0.{number >> 8}.{number & 255}", float(number)) is None
    assert len(guesses) == 100


def test_a_clock_that_steps_back_blocks_nobody_for_longer() -> None:
    guesses = Guesses()
    assert guesses.wrong("a", 1_000_000.0) is None
    wait = guesses.wrong("a", 0.0)
    assert wait is not None
    assert wait <= GUESS_SECONDS
    assert guesses.wrong("a", wait + 1e-6) is None


FROM = {"client-ip": "20.1.2.3:50123"}


def test_wrong_keys_of_an_address_are_answered_429_and_right_ones_as_ever() -> None:
    async def story(_: Random) -> None:
        async with bench(api_keys=KEYS) as service:
            wrong, right = Client(service, "guess"), Client(service)
            for _guess in range(FREE_GUESSES):
                assert (await wrong.ask("GET", "/v1/files", headers=FROM))[0] == 401
            reply = await wrong.call("GET", "/v1/files", headers=FROM)
            assert reply.code == 429
            assert 1 <= int(reply.headers["retry-after"]) <= GUESS_SECONDS
            assert reply.headers["x-should-retry"] == "false"
            # A right key of the same address, a wrong one of another, and none at all.
            assert (await right.ask("GET", "/v1/files", headers=FROM))[0] == 200
            other = {"client-ip": "20.1.2.4:1"}
            assert (await wrong.ask("GET", "/v1/files", headers=other))[0] == 401
            none = {**FROM, "authorization": ""}
            assert (await wrong.ask("GET", "/v1/files", headers=none))[0] == 401
            service.elapsed += GUESS_SECONDS
            assert (await wrong.ask("GET", "/v1/files", headers=FROM))[0] == 401
            assert (await wrong.ask("GET", "/v1/files", headers=FROM))[0] == 429

    run(story)
