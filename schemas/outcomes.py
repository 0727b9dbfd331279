"""What became of one call to an endpoint, whatever its contract."""

from dataclasses import dataclass
from typing import Any, Literal

OutcomeKind = Literal[
    "ok",  # an answer that counts
    "throttled",  # the service asks to come back later; nothing was billed
    "transient",  # a fault that may pass: 408, 424, 5xx, resets, unreadable answers
    "timeout",  # no complete answer before the deadline of the call
    "content_filter",  # refused for its content: never retried, never stops a batch
    "bad_request",  # the row itself is wrong: never retried
    "auth",  # key or role: stops the deployment, not the row
    "gone",  # the deployment does not exist (any more): stops the deployment, not the row
]

Limit = Literal["requests", "tokens", "concurrency", "day"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the endpoint counted them (OpenAI `usage`)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call's end.

    `body` is the answer in OpenAI's shape (chat.completion, text_completion or list of embeddings),
    whatever the contract; vectors in it may be the bytes that came. `code` and `message` say what
    went wrong and what to do, without keys or prompts. `billed` tells whether the service may have
    charged for the call. `retry_after` is seconds. `limit` names the limit behind a `throttled`.
    `remaining_requests` and `remaining_tokens` are what the service says is left of a window.
    """

    kind: OutcomeKind
    status: int | None = None
    body: dict[str, Any] | None = None
    usage: Usage | None = None
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    limit: Limit | None = None
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    billed: bool = False
