"""How each service refuses: statuses, bodies and headers over the wire, time in the test's hand."""

import asyncio
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from local.endpoint import Rule, Settings
from local.endpoint.profiles import LIMITS, PROFILES, ProfileName
from local.endpoint.throttles import Hint, hinted

from .asking import MODEL, UNLIMITED, FakeClock, Reply, asking

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}


async def throttled(profile: ProfileName, times: int = 2, **limits: Any) -> Reply:
    """The last of several replies, the quota being used up before; 13 s of the minute are gone."""
    clock = FakeClock()
    settings = Settings(profile=profile, window=60, **UNLIMITED | limits)
    async with asking(settings, clock) as asker:
        clock.now += 13
        for _ in range(times - 1):
            assert (await asker.post("/v1/chat/completions", CHAT)).status == 200
        return await asker.post("/v1/chat/completions", CHAT)


async def test_serverless_says_retry_after() -> None:
    reply = await throttled("serverless", requests_per_minute=1)
    assert reply.status == 429
    assert reply.headers["retry-after"] == "47"
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert reply.headers["x-ratelimit-reset-requests"] == "47"
    assert "Try again in 47 seconds" in reply.body["error"]["message"]
    tokens = await throttled("serverless", tokens_per_minute=80)
    assert tokens.headers["x-ratelimit-reset-tokens"] == "47"


@pytest.mark.parametrize(
    ("limits", "kind", "wait"),
    [
        ({"requests_per_minute": 1}, "UserByModelByMinute", 47),
        ({"requests_per_day": 1}, "UserByModelByDay", 86_387),
    ],
)
async def test_github_models_names_the_limit(limits: dict[str, int], kind: str, wait: int) -> None:
    reply = await throttled("github-models", **limits)
    assert reply.status == 429
    assert reply.headers["retry-after"] == str(wait)
    assert reply.headers["x-ratelimit-type"] == kind
    assert reply.headers["x-ratelimit-timeremaining"] == str(wait)
    window = 60 if "Minute" in kind else 86_400
    assert reply.body["error"] == {
        "code": "RateLimitReached",
        "message": f"Rate limit of 1 per {window}s exceeded for {kind}. "
        f"Please wait {wait} seconds before retrying.",
        "details": reply.body["error"]["message"],
    }


async def test_a_good_answer_tells_what_is_left() -> None:
    async with asking(Settings(profile="serverless"), FakeClock()) as asker:
        replies = [await asker.chat("hello", max_tokens=50) for _ in range(2)]
        left = [reply.headers["x-ratelimit-remaining-requests"] for reply in replies]
        assert left == ["15", "14"]
        each = replies[0].body["usage"]["prompt_tokens"] + 50
        tokens = replies[1].headers["x-ratelimit-remaining-tokens"]
        assert int(tokens) == 200_000 - 2 * each


async def test_many_clients_together_get_no_more_than_the_quota() -> None:
    clock = FakeClock()
    settings = Settings(profile="serverless", requests_per_minute=620, tokens_per_minute=0)
    async with asking(settings, clock) as asker:
        for second in range(1, 4):
            replies = await asyncio.gather(*(asker.chat(str(i)) for i in range(40)))
            assert sum(reply.status == 200 for reply in replies) == 10
            assert asker.endpoint.stats()["admitted"] == 10 * second
            clock.now += 1
        assert asker.endpoint.stats()["rejected"] == {"requests": 90}


async def test_github_models_lets_a_concurrent_request_come_back_at_once() -> None:
    settings = Settings(profile="github-models", max_concurrency=1, latency=0.3)
    async with asking(settings) as asker:
        replies = await asyncio.gather(asker.chat("a"), asker.chat("b"))
        refused = max(replies, key=lambda reply: reply.status)
        assert sorted(reply.status for reply in replies) == [200, 429]
        assert refused.headers["retry-after"] == "0"
        assert refused.headers["x-ratelimit-type"] == "UserConcurrentRequests"
        assert (await asker.chat("c")).status == 200


async def test_azure_openai_says_milliseconds_and_minus_one() -> None:
    tokens = await throttled("azure-openai", tokens_per_minute=80)
    assert tokens.status == 429
    assert tokens.headers["retry-after-ms"] == "47000"
    assert tokens.headers["x-ratelimit-remaining-tokens"] == "-1"
    assert tokens.headers["x-ratelimit-reset-tokens"] == "47"
    assert tokens.body["error"]["code"] == "429"
    assert "exceeded token rate limit" in tokens.body["error"]["message"]
    calls = await throttled("azure-openai", requests_per_minute=1)
    assert "exceeded call rate limit" in calls.body["error"]["message"]
    assert "apim-request-id" in calls.headers


async def test_a_managed_online_endpoint_gives_no_hint() -> None:
    async with asking(Settings(profile="managed-online", latency=0.3)) as asker:
        replies = await asyncio.gather(*(asker.chat(str(i)) for i in range(3)))
        assert sorted(reply.status for reply in replies) == [200, 200, 429]
        refused = max(replies, key=lambda reply: reply.status)
        assert not {"retry-after", "retry-after-ms"} & {name.lower() for name in refused.headers}


async def test_a_managed_online_endpoint_gives_up_before_a_slow_model() -> None:
    settings = Settings(profile="managed-online", latency=30, request_timeout=0.05)
    async with asking(settings) as asker:
        assert (await asker.chat()).status == 408
        assert asker.endpoint.stats()["rows"]["billed"] == 1
    assert Settings(profile="managed-online").timeout == 5
    assert Settings(profile="serverless").timeout == 0


async def test_openai_says_it_in_words() -> None:
    reply = await throttled("openai", requests_per_minute=1)
    assert reply.status == 429
    assert reply.body["error"]["code"] == "rate_limit_exceeded"
    assert "Limit 1, Used 1, Requested 1. Please try again in 47." in reply.body["error"]["message"]
    assert reply.headers["x-ratelimit-reset-requests"] == "47.000s"


@pytest.mark.parametrize(
    ("profile", "status", "code"),
    [
        ("serverless", 413, "tokens_limit_reached"),
        ("github-models", 413, "tokens_limit_reached"),
        ("azure-openai", 400, "context_length_exceeded"),
        ("openai", 400, "context_length_exceeded"),
        ("managed-online", 424, "model_error"),
    ],
)
async def test_an_oversize_request(profile: ProfileName, status: int, code: str) -> None:
    reply = await throttled(profile, 1, max_tokens_per_request=50)
    assert (reply.status, reply.body["error"]["code"]) == (status, code)


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_wrong_key_is_refused_and_a_right_one_is_not(profile: ProfileName) -> None:
    async with asking(Settings(profile=profile, key="right")) as asker:
        wrong: list[dict[str, str]] = [{}, {"authorization": "Bearer wrong"}, {"api-key": "wrong"}]
        for headers in wrong:
            reply = await asker.post("/v1/chat/completions", CHAT, headers)
            assert reply.status == 401
            assert b"right" not in reply.raw
        right = [{"authorization": "Bearer right"}, {"api-key": "right"}]
        for headers in right:
            assert (await asker.post("/v1/chat/completions", CHAT, headers)).status == 200
        assert (await asker.get("/info")).status == 401
        assert asker.endpoint.stats()["rejected"] == {"auth": 4}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/chat/completions", 400, "unknown_model"),
        ("/v1/chat/completions", 404, "model_not_found"),
        ("/openai/deployments/nope/chat/completions?api-version=1", 404, "DeploymentNotFound"),
        (f"/openai/deployments/{MODEL}/chat/completions", 404, "404"),
        ("/nowhere", 404, "404"),
    ],
)
async def test_what_is_not_served_is_not_found(path: str, status: int, code: str) -> None:
    async with asking(Settings(profile="openai")) as asker:
        reply = await asker.post(path, CHAT | {"model": "nope"})
        assert (reply.status, reply.body["error"]["code"]) == (status, code)
        assert asker.endpoint.stats()["admitted"] == 0


async def test_a_model_that_cannot_do_the_task() -> None:
    async with asking() as asker:
        body = {"input": "a", "model": MODEL}
        assert (await asker.post("/embeddings", body)).status == 404
        assert (await asker.post("/v1/embeddings", body)).status == 400


async def test_a_bad_request_in_the_words_of_each_contract() -> None:
    bad = CHAT | {"foo": 1}
    async with asking() as asker:
        reply = await asker.post("/chat/completions", bad)
        assert reply.status == 422
        assert reply.body["detail"]["loc"] == ["body", "foo"]
        passed = await asker.post("/chat/completions", bad, {"extra-parameters": "pass-through"})
        assert passed.status == 200
        azure = f"/openai/deployments/{MODEL}/chat/completions?api-version=1"
        assert (await asker.post(azure, bad)).status == 400
        scored = await asker.post("/score", {"input_data": {"input_string": []}})
        assert scored.status == 424
        assert scored.headers["ms-azureml-model-error-statuscode"] == "400"
        assert (await asker.post("/v1/chat/completions", b"{")).status == 400
        assert (await asker.post("/v1/chat/completions", b"[]")).status == 400
        assert (await asker.get("/v1/chat/completions")).status == 405


@pytest.mark.parametrize(
    ("hint", "header", "value"),
    [
        ("retry-after", "retry-after", "3"),
        ("retry-after-ms", "retry-after-ms", "2500"),
        ("x-ms-retry-after-ms", "x-ms-retry-after-ms", "2500"),
        ("reset-requests", "x-ratelimit-reset-requests", "3"),
        ("reset-tokens", "x-ratelimit-reset-tokens", "3"),
        ("timeremaining", "x-ratelimit-timeremaining", "3"),
    ],
)
async def test_each_kind_of_hint_alone(hint: Hint, header: str, value: str) -> None:
    async with asking(Settings(faults=(Rule(fault="http_429", hint=hint, seconds=2.5),))) as asker:
        reply = await asker.chat()
        waits = {"retry-after", "retry-after-ms", "x-ms-retry-after-ms"}
        resets = {"x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"}
        hints = (waits | resets | {"x-ratelimit-timeremaining"}) & {
            k.lower() for k in reply.headers
        }
        assert (reply.status, hints, reply.headers[header]) == (429, {header}, value)


def test_hints_that_are_a_date_words_or_nothing() -> None:
    date = hinted("serverless", "retry-after-date", 30, 1_000_000.0).headers["retry-after"]
    assert parsedate_to_datetime(date).timestamp() == 1_000_030
    words: Any = hinted("serverless", "message", 30, 0)
    assert b"Please retry after 30 seconds." in words.body
    garbled = hinted("openai", "garbled", 30, 0).headers
    assert garbled["retry-after"] == "soon"
    nothing = hinted("openai", "none", 30, 0)
    assert not nothing.headers
    assert b"30" not in nothing.body


def test_the_limits_of_the_services_are_their_published_ones() -> None:
    assert LIMITS["serverless"].requests_per_minute == 1_000
    assert LIMITS["serverless"].tokens_per_minute == 200_000
    assert LIMITS["github-models"].requests_per_day == 150
    changed = Settings(profile="github-models", requests_per_minute=0).limits
    assert (changed.requests_per_minute, changed.requests_per_day) == (0, 150)
