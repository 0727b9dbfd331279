"""Worlds that settle a message though its handler never ran: what it asked is done anyway."""

from dataclasses import replace

import pytest

from tests.simulation.checker import check
from tests.simulation.mutations import WITHDRAWN
from tests.simulation.scenario import Doing, Mishap, Scenario, Span, version
from tests.simulation.world import World, live

# The worker that pins a job dies before it marks it anew, while another is about to withdraw it.
DIES_BEHIND_PINNING = replace(
    WITHDRAWN,
    script=(
        *(each for each in WITHDRAWN.script if each.about != "/state.json"),
        Mishap("read", "/open/", "kill before"),
        Mishap("deliver", ":finish:", "lost"),
    ),
)

FILES = (version("f0.jsonl", 1, ("chat",) * 9), version("f1.jsonl", 1, ("chat",) * 2))
PLAIN = Scenario(files=FILES, workers=2, shard_rows=2)


def lived(about: str, scenario: Scenario = PLAIN) -> World:
    """A world that loses the first message of a kind, and has nothing else wrong with it."""
    world = live(replace(scenario, script=(Mishap("deliver", about, "lost"),)), keep=True)
    assert [line for line in world.log or () if " host loses " in line] != []
    assert check(world) == []
    assert len(world.records.jobs()) == len(FILES)
    return world


@pytest.mark.parametrize("about", ["drops drop f0", ":shard:", ":finish:"])
def test_what_a_lost_message_asked_is_done(about: str) -> None:
    lived(about)


def test_a_job_whose_expiry_is_lost_expires() -> None:
    away = (Span(0.0, 10 * 3600.0),)
    lived(":expire", replace(PLAIN, completion_window="1h", outages=away))


def test_a_request_that_is_lost_is_done_when_it_is_sent_again() -> None:
    lived("jobs request f0", replace(PLAIN, queued=True, doings=(Doing(60.0, "announce"),)))


def test_a_job_keeps_its_marker_though_who_pinned_it_dies_before_it_marks_it_anew() -> None:
    world = live(DIES_BEHIND_PINNING, keep=True)
    assert any(" kill " in line for line in world.log or ())
    assert check(world) == []
