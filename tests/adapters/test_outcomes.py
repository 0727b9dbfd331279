"""Each fault an endpoint can have gives the outcome it must, in every contract."""

import asyncio
from typing import Any

import pytest

from local.endpoint import Limits, Rule, Settings, When
from local.endpoint.faults import Fault
from local.endpoint.profiles import ProfileName
from local.endpoint.throttles import Hint
from schemas.deployments import EndpointKind
from schemas.outcomes import Limit, Outcome, OutcomeKind
from tests.adapters.clients import EMBED, KINDS, SEED, asking, simulated, written

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
STREAMED = CHAT | {"stream": True}

# Fault, outcome, its code (None: the service's own), whether it may have been billed.
FAULTS: list[tuple[Fault, OutcomeKind, str | None, bool]] = [
    ("http_400", "bad_request", None, False),
    ("http_401", "auth", None, False),
    ("http_403", "auth", None, False),
    ("http_404", "gone", None, False),
    ("http_408", "transient", None, True),
    ("http_410", "gone", None, False),
    ("http_413", "bad_request", None, False),
    ("http_422", "bad_request", None, False),
    ("http_424", "transient", None, True),
    ("http_429", "throttled", None, False),
    ("http_500", "transient", None, True),
    ("http_502", "transient", "http_502", True),
    ("http_503", "transient", None, True),
    ("http_504", "transient", "http_504", True),
    ("html_200", "transient", "unreadable_answer", True),
    ("reset_before", "transient", "connection_lost", True),
    ("reset_after", "transient", "connection_lost", True),
    ("truncated_body", "transient", "connection_lost", True),
    ("content_filter_400", "content_filter", "content_filter", True),
]
OPENAI_SHAPED: list[tuple[Fault, OutcomeKind, str | None, bool]] = [
    ("empty_choices", "transient", "empty_answer", True),
    ("content_filter_200", "content_filter", "content_filter", True),
    ("missing_usage", "ok", None, True),
    ("stream_error", "transient", "reported_error", True),
]


def faulty(fault: Fault, profile: ProfileName = "openai", **rule: Any) -> Settings:
    rules = (Rule(fault=fault, **rule),)
    return Settings(
        profile=profile, seed=SEED, key="the-key-of-the-tests", faults=rules, max_concurrency=0
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "outcome", "code", "billed"), FAULTS)
async def test_each_fault_gives_its_outcome_in_each_contract(
    kind: EndpointKind, fault: Fault, outcome: OutcomeKind, code: str | None, billed: bool
) -> None:
    async with simulated(kind, faulty(fault)) as (endpoint, simulator):
        got = await endpoint.ask("chat", CHAT)
        assert simulator.stats()["received"] == 1, "the client repeats nothing by itself"
    assert (got.kind, got.billed) == (outcome, billed)
    assert code is None or got.code == code
    assert got.code
    assert got.message
    assert got.body is None


@pytest.mark.parametrize("kind", ["model-inference", "openai", "azure-openai"])
@pytest.mark.parametrize(("fault", "outcome", "code", "billed"), OPENAI_SHAPED)
async def test_successes_that_are_none(
    kind: EndpointKind, fault: Fault, outcome: OutcomeKind, code: str | None, billed: bool
) -> None:
    async with simulated(kind, faulty(fault)) as (endpoint, _):
        got = await endpoint.ask("chat", CHAT)
    assert (got.kind, got.code, got.billed) == (outcome, code, billed)
    if fault == "missing_usage":
        assert got.usage is None


@pytest.mark.parametrize("profile", ["serverless", "github-models", "managed-online", "openai"])
@pytest.mark.parametrize(("fault", "outcome", "code", "billed"), FAULTS)
async def test_each_service_words_its_refusals_differently_and_means_the_same(
    profile: ProfileName, fault: Fault, outcome: OutcomeKind, code: str | None, billed: bool
) -> None:
    async with simulated("model-inference", faulty(fault, profile)) as (endpoint, _):
        got = await endpoint.ask("chat", CHAT)
    assert (got.kind, got.billed) == (outcome, billed)


@pytest.mark.parametrize("fault", ["truncated_body", "truncated_stream", "reset_after"])
@pytest.mark.parametrize("kind", ["model-inference", "openai", "azure-openai"])
async def test_a_stream_that_was_cut_off_is_not_a_result(kind: EndpointKind, fault: Fault) -> None:
    async with simulated(kind, faulty(fault)) as (endpoint, _):
        got = await endpoint.ask("chat", STREAMED)
    code = "connection_lost" if fault == "reset_after" else "truncated_stream"
    assert (got.kind, got.code, got.billed, got.body) == ("transient", code, True, None)


async def test_an_error_within_a_stream_is_not_a_result() -> None:
    async with simulated("openai", faulty("stream_error")) as (endpoint, _):
        got = await endpoint.ask("chat", STREAMED)
    assert (got.kind, got.status, got.billed) == ("transient", 200, True)


@pytest.mark.parametrize("fault", ["hang", "drip"])
@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_no_call_outlives_its_deadline(fault: Fault, body: dict[str, Any]) -> None:
    async with simulated("openai", faulty(fault), timeout=0.2) as (endpoint, _):
        began = asyncio.get_running_loop().time()
        got = await asyncio.wait_for(endpoint.ask("chat", body), 10)
        took = asyncio.get_running_loop().time() - began
    assert (got.kind, got.code, got.billed) == ("timeout", "deadline", True)
    assert 0.2 <= took < 5


async def test_what_could_not_be_reached_was_not_billed() -> None:
    async with asking("openai", "http://127.0.0.1:9") as endpoint:
        got = await endpoint.ask("chat", CHAT)
    assert (got.kind, got.code, got.billed) == ("transient", "connect_failed", False)


@pytest.mark.parametrize(
    ("inner", "outcome", "billed"),
    [
        (400, "bad_request", False),
        (413, "bad_request", False),
        (422, "bad_request", False),
        (429, "throttled", False),
        (404, "transient", True),
        (408, "transient", True),
        (500, "transient", True),
    ],
)
async def test_what_a_container_answered_decides(
    inner: int, outcome: OutcomeKind, billed: bool
) -> None:
    settings = faulty("http_424", "managed-online", inner_status=inner)
    async with simulated("aml-score", settings) as (endpoint, _):
        got = await endpoint.ask("chat", CHAT)
    assert (got.kind, got.status, got.billed) == (outcome, 424, billed)


@pytest.mark.parametrize(
    "hint",
    [
        "retry-after",
        "retry-after-date",
        "retry-after-ms",
        "x-ms-retry-after-ms",
        "reset-requests",
        "reset-tokens",
        "timeremaining",
        "message",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_each_hint_of_when_to_come_back_is_read(kind: EndpointKind, hint: Hint) -> None:
    async with simulated(kind, faulty("http_429", hint=hint, seconds=37)) as (endpoint, _):
        got = await endpoint.ask("chat", CHAT)
    assert got.kind == "throttled"
    assert got.retry_after == pytest.approx(37, abs=2)


async def test_no_hint_is_none() -> None:
    async with simulated("openai", faulty("http_429", hint="none")) as (endpoint, _):
        assert (await endpoint.ask("chat", CHAT)).retry_after is None


@pytest.mark.parametrize("profile", ["serverless", "github-models", "azure-openai", "openai"])
@pytest.mark.parametrize(
    ("quota", "limit"),
    [({"requests_per_minute": 1}, "requests"), ({"tokens_per_minute": 30}, "tokens")],
)
async def test_the_limit_behind_a_429_is_named(
    profile: ProfileName, quota: dict[str, int], limit: Limit
) -> None:
    got = await refused(profile, quota)
    assert (got.kind, got.limit) == ("throttled", limit)


@pytest.mark.parametrize(
    ("profile", "limit"),
    [
        ("github-models", "day"),
        ("openai", "day"),
        # They speak of requests only, and a long wait alone is no proof of a day.
        ("serverless", "requests"),
        ("azure-openai", "requests"),
    ],
)
async def test_a_days_limit_is_one_that_is_called_so(profile: ProfileName, limit: Limit) -> None:
    got = await refused(profile, {"requests_per_day": 1})
    assert (got.kind, got.limit) == ("throttled", limit)


async def refused(profile: ProfileName, quota: dict[str, int]) -> Outcome:
    unlimited: dict[str, Any] = dict.fromkeys(Limits.__slots__, 0)
    settings = Settings(profile=profile, **(unlimited | {"window": 60} | quota))
    async with simulated("model-inference", settings) as (endpoint, _):
        return [await endpoint.ask("chat", CHAT) for _ in range(2)][-1]


@pytest.mark.parametrize("profile", ["github-models", "managed-online"])
async def test_too_many_at_once_is_told_from_too_many_a_minute(profile: ProfileName) -> None:
    settings = Settings(profile=profile, latency=0.2, max_concurrency=1, key=None)
    kind: EndpointKind = "aml-score" if profile == "managed-online" else "model-inference"
    async with simulated(kind, settings) as (endpoint, _):
        both = await asyncio.gather(endpoint.ask("chat", CHAT), endpoint.ask("chat", CHAT))
    assert sorted(each.kind for each in both) == ["ok", "throttled"]
    throttled = next(each for each in both if each.kind == "throttled")
    assert throttled.limit == "concurrency"
    assert throttled.retry_after in (0.0, None)


@pytest.mark.parametrize("profile", ["serverless", "github-models", "managed-online", "openai"])
async def test_a_row_that_is_too_long_is_the_rows_fault_and_says_so(profile: ProfileName) -> None:
    settings = Settings(profile=profile, max_tokens_per_request=10, max_concurrency=0)
    async with simulated("model-inference", settings) as (endpoint, _):
        got = await endpoint.ask("chat", CHAT)
    assert got.kind == "bad_request"
    assert got.retry_after is None
    if profile != "managed-online":
        assert got.message is not None
        assert "at most 10 tokens" in got.message


@pytest.mark.parametrize("fault", ["short_embeddings", "shuffled_embeddings"])
async def test_no_input_gets_the_vector_of_another(fault: Fault) -> None:
    body = {"input": ["a", "b", "c", "d"]}
    async with simulated("openai", model=EMBED) as (endpoint, simulator):
        good = await endpoint.ask("embeddings", body)
        simulator.set_faults(Rule(fault=fault))
        got = await endpoint.ask("embeddings", body)
    if fault == "short_embeddings":
        assert (got.kind, got.code, got.billed) == ("transient", "embeddings_mismatch", True)
    else:
        assert written(got.body) == written(good.body)


async def test_three_bad_rows_among_a_thousand_cost_nobody_else_anything() -> None:
    marks = {
        "BADROW": Rule(fault="http_422", when=When(contains="BADROW")),
        "BIGROW": Rule(fault="http_413", when=When(contains="BIGROW")),
        "EVILROW": Rule(fault="content_filter_400", when=When(contains="EVILROW")),
    }
    texts = [f"question {n}" for n in range(1000)]
    for at, mark in zip((100, 500, 900), marks, strict=True):
        texts[at] = mark
    settings = Settings(profile="openai", seed=SEED, faults=tuple(marks.values()))
    gate = asyncio.Semaphore(64)
    async with simulated("openai", settings) as (endpoint, simulator):

        async def one(text: str) -> OutcomeKind:
            async with gate:
                body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4}
                return (await endpoint.ask("chat", body)).kind

        kinds = await asyncio.gather(*map(one, texts))
        assert simulator.stats()["received"] == 1000
    odd = {at: kind for at, kind in enumerate(kinds) if kind != "ok"}
    assert odd == {100: "bad_request", 500: "bad_request", 900: "content_filter"}


async def test_a_task_whose_path_is_missing_does_not_stop_the_others() -> None:
    rule = Rule(fault="http_404", when=When(task="completions"))
    async with simulated("openai", Settings(profile="openai", faults=(rule,))) as (endpoint, sim):
        unproven = await endpoint.ask("completions", {"prompt": "x"})
        good = await endpoint.ask("chat", CHAT)
        unsupported = await endpoint.ask("completions", {"prompt": "x"})
        sim.set_faults(Rule(fault="http_404"))
        gone = await endpoint.ask("chat", CHAT)
    assert [each.kind for each in (unproven, good, unsupported, gone)] == [
        "gone",
        "ok",
        "bad_request",
        "gone",
    ]
    assert unsupported.code == "task_unsupported"
