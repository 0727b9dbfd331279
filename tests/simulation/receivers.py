"""A receiver of webhooks in a world: it refuses what comes until it is mended."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from schemas.webhooks import Reception, Webhook

if TYPE_CHECKING:
    from tests.simulation.world import World

HOOK = Webhook("https://receiver.example/hook", (b"k" * 32,))


class Receiver:
    """What the receiver of all jobs of a world is told."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.told: dict[str, list[dict[str, Any]]] = {}

    def takes(self, headers: Mapping[str, str], body: bytes) -> Reception:
        """Its answer: 503 until it is mended."""
        if self._world.now < self._world.scenario.receiver_mended:
            return Reception(503)
        event = json.loads(body)
        if headers["webhook-id"] != event["id"]:
            self._world.fault_found(f"a webhook has two ids: {headers['webhook-id']}")
        self.told.setdefault(event["data"]["id"].removeprefix("batch_"), []).append(event)
        return Reception(200)

    def faults(self, job: str, state: str) -> Iterator[str]:
        """What is wrong with what was told of a job that has ended."""
        events = self.told.get(job, [])
        if not events:
            yield "its webhook was never told"
        if any(event != events[0] for event in events):
            yield "its webhooks differ"
        if any(event["type"] != f"batch.{state}" for event in events):
            yield f"its webhook does not say that it is {state}"
