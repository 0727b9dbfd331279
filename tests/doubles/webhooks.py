"""A receiver of webhooks in memory, as `workers.ports.WebhookSender` leads to it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from schemas.webhooks import Reception, Webhook
from workers.ports import AddressRule

HOOK = Webhook("https://receiver.example/hook", (b"k" * 32,))
OTHER = Webhook("https://other.example/hook", (b"o" * 32, b"n" * 32))


class Post(NamedTuple):
    """What was sent."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event in it."""
        read: dict[str, Any] = orjson.loads(self.body)
        return read


class MemoryReceiver:
    """Answers with `answers`, one by one, and takes everything after those."""

    def __init__(self, *answers: Reception) -> None:
        self.answers = list(answers)
        self.posts: list[Post] = []

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, rule: AddressRule
    ) -> Reception:
        self.posts.append(Post(url, dict(headers), body))
        return self.answers.pop(0) if self.answers else Reception(200)
