"""How does each service say "later"? Its 429, and the hint of how long to wait. Pure.

The figures come from the quota that stood against the request; a script may ask for any hint.
"""

from email.utils import formatdate
from math import ceil, isfinite
from typing import Literal

import orjson

from .contracts import Ask
from .limits import Exceeded
from .profiles import ProfileName
from .refusals import Refusal, error

Hint = Literal[
    "none",
    "retry-after",
    "retry-after-date",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "reset-requests",
    "reset-tokens",
    "timeremaining",
    "message",
    "garbled",
]

_OPERATIONS = {
    "chat": "ChatCompletions_Create",
    "completions": "Completions_Create",
    "embeddings": "Embeddings_Create",
    "image-embeddings": "ImageEmbeddings_Create",
}
# GitHub Models limits no tokens a minute; the name is what it would be called if it did.
_GITHUB_TYPES = {
    "requests": "UserByModelByMinute",
    "tokens": "UserByModelByMinuteTokens",
    "day": "UserByModelByDay",
    "concurrency": "UserConcurrentRequests",
}


def throttled(profile: ProfileName, ask: Ask, exceeded: Exceeded) -> Refusal:
    """A quota is exhausted: 429, with the hint that this service gives, if it gives one."""
    return _THROTTLED[profile](ask, exceeded)


def _throttled_serverless(ask: Ask, exceeded: Exceeded) -> Refusal:
    wait = _seconds(exceeded)
    unit = "tokens" if exceeded.cause == "tokens" else "requests"
    headers = {
        "retry-after": str(wait),
        f"x-ratelimit-reset-{unit}": str(wait),
        f"x-ratelimit-remaining-{unit}": str(max(0, exceeded.limit - exceeded.used)),
    }
    message = f"Rate limit of {unit} is exceeded. Try again in {wait} seconds."
    return error("serverless", 429, "too_many_requests", message, headers=headers)


def _throttled_github(ask: Ask, exceeded: Exceeded) -> Refusal:
    wait = _seconds(exceeded) if exceeded.cause != "concurrency" else 0
    kind = _GITHUB_TYPES[exceeded.cause]
    message = (
        f"Rate limit of {exceeded.limit} per {exceeded.window}s exceeded for {kind}. "
        f"Please wait {wait} seconds before retrying."
    )
    headers = {
        "retry-after": str(wait),
        "x-ratelimit-type": kind,
        "x-ratelimit-timeremaining": str(wait),
    }
    return error("github-models", 429, "RateLimitReached", message, headers=headers)


def _throttled_managed(ask: Ask, exceeded: Exceeded) -> Refusal:
    return Refusal(
        429, orjson.dumps({"error": {"code": "429", "message": "Too many pending requests"}})
    )


def _throttled_azure(ask: Ask, exceeded: Exceeded) -> Refusal:
    wait = _seconds(exceeded)
    unit = "token" if exceeded.cause == "tokens" else "call"
    message = (
        f"Requests to the {_OPERATIONS[ask.task]} Operation under Azure OpenAI API have exceeded "
        f"{unit} rate limit of your current AIServices S0 pricing tier. "
        f"Please retry after {wait} seconds."
    )
    resource = "tokens" if unit == "token" else "requests"
    headers = {
        "retry-after": str(wait),
        "retry-after-ms": str(max(1, round(1000 * exceeded.wait))),
        f"x-ratelimit-reset-{resource}": str(wait),
        f"x-ratelimit-remaining-{resource}": "0" if unit == "call" else "-1",
    }
    return error("azure-openai", 429, "429", message, headers=headers)


def _throttled_openai(ask: Ask, exceeded: Exceeded) -> Refusal:
    kind = "tokens" if exceeded.cause == "tokens" else "requests"
    unit = {"tokens": "tokens per min (TPM)", "day": "requests per day (RPD)"}.get(
        exceeded.cause, "requests per min (RPM)"
    )
    message = (
        f"Rate limit reached for {ask.model} on {unit}: Limit {exceeded.limit}, Used "
        f"{exceeded.used}, Requested {exceeded.asked}. Please try again in {exceeded.wait:.3f}s."
    )
    headers = {f"x-ratelimit-reset-{kind}": f"{exceeded.wait:.3f}s"}
    return error("openai", 429, "rate_limit_exceeded", message, headers=headers)


_THROTTLED = {
    "serverless": _throttled_serverless,
    "github-models": _throttled_github,
    "managed-online": _throttled_managed,
    "azure-openai": _throttled_azure,
    "openai": _throttled_openai,
}


def hinted(profile: ProfileName, hint: Hint, seconds: float, now: float) -> Refusal:
    """A 429 with one hint of the caller's choice; `now` is Unix time, for the HTTP date."""
    says = f" Please retry after {ceil(seconds)} seconds." if hint == "message" else ""
    headers = hint_headers(hint, seconds, now)
    return error(profile, 429, "RateLimitReached", f"Rate limit reached.{says}", headers=headers)


def hint_headers(hint: Hint, seconds: float, now: float) -> dict[str, str]:
    """The headers of one kind of hint; none for a hint in words or for none at all."""
    whole, millis = str(ceil(seconds)), str(round(1000 * seconds))
    match hint:
        case "retry-after":
            return {"retry-after": whole}
        case "retry-after-date":
            return {"retry-after": formatdate(now + seconds, usegmt=True)}
        case "retry-after-ms" | "x-ms-retry-after-ms":
            return {hint: millis}
        case "reset-requests":
            return {"x-ratelimit-reset-requests": whole, "x-ratelimit-remaining-requests": "0"}
        case "reset-tokens":
            return {"x-ratelimit-reset-tokens": whole, "x-ratelimit-remaining-tokens": "-1"}
        case "timeremaining":
            kind = _GITHUB_TYPES["requests"]
            return {"x-ratelimit-type": kind, "x-ratelimit-timeremaining": whole}
        case "garbled":
            return {"retry-after": "soon", "x-ratelimit-reset-tokens": "", "retry-after-ms": "-1"}
        case "none" | "message":
            return {}


def _seconds(exceeded: Exceeded) -> int:
    return max(1, ceil(exceeded.wait)) if isfinite(exceeded.wait) else 0
