"""The whole service over the doubles: production parts, an endpoint and a host in memory.

`Bench.settle` plays the Functions host until no message is left that can be had now. A handler
that raises fails the test: handlers raise for bugs only.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from schemas.deployments import Deployment, Task
from schemas.outcomes import Outcome, Usage
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.bus import Delivery, MemoryBus
from tests.doubles.webhooks import MemoryReceiver
from workers.api.http import HttpCall, JsonReply
from workers.inbox import Received
from workers.jobs.outbox import JOBS, SHARDS, STATUS, WEBHOOKS
from workers.ports import (
    BlobRef,
    Blobs,
    Bus,
    EndpointInfo,
    OutMessage,
    SignedTokens,
    Transfers,
    WebhookSender,
)
from workers.ports.telemetry import SILENT, Telemetry
from workers.service import compose
from workers.settings import Settings

EPOCH = 1_800_000_000.0
MODEL = "phi-3-mini"
DEPLOYMENT = Deployment(
    name="phi", kind="model-inference", url="http://127.0.0.1:1", model=MODEL, auth="none"
)


class Answering:
    """An endpoint that answers every call; `asked` holds the calls in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[Task, Mapping[str, Any]]] = []

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        await asyncio.sleep(0)
        self.asked.append((task, body))
        usage = Usage(7, 0 if task.endswith("embeddings") else 5)
        return Outcome("ok", 200, _answer(task, body), usage, request_id="r", billed=True)

    async def info(self) -> EndpointInfo | None:
        return None

    @property
    def prompts(self) -> list[Any]:
        """The last turn of every chat asked."""
        return [body["messages"][-1]["content"] for task, body in self.asked if task == "chat"]


def _answer(task: Task, body: Mapping[str, Any]) -> dict[str, Any]:
    if task == "chat":
        message = {"role": "assistant", "content": f"asked with {len(body['messages'])} turns"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {"object": "chat.completion", "choices": [choice]}
    if task == "completions":
        choice = {"index": 0, "finish_reason": "stop", "text": "and so on"}
        return {"object": "text_completion", "choices": [choice]}
    several = isinstance(body["input"], list) and not isinstance(body["input"][0], int)
    count = len(body["input"]) if several else 1
    vectors = [{"object": "embedding", "index": at, "embedding": [0.5]} for at in range(count)]
    return {"object": "list", "data": vectors, "model": MODEL}


class Bench:
    """One process of the service. `blobs` and `bus` are what storage and Service Bus hold.

    `elapsed` are seconds by which its clock is ahead: time that a test lets pass.
    """

    def __init__(
        self,
        *,
        blobs: Blobs,
        bus: Bus,
        settings: Settings,
        endpoint: Answering,
        transfers: Transfers,
        rng: Random,
        tokens: SignedTokens | None = None,
        receiver: WebhookSender | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self.blobs, self.bus = blobs, bus
        self.settings, self.endpoint = settings, endpoint
        self.elapsed = 0.0
        self.receiver = MemoryReceiver()
        self.service = compose(
            settings,
            blobs,
            bus,
            {each.name: endpoint for each in settings.deployments},
            transfers=transfers,
            tokens=tokens,
            webhooks=receiver or self.receiver,
            ledger=None,
            clock=self.clock,
            rng=rng,
            telemetry=telemetry,
        )
        self.store, self.doors = self.service.store, self.service.doors
        self.inbox, self.runner = self.service.inbox, self.service.runner
        self.sweeper, self.api = self.service.sweeper, self.service.api
        self.openai = self.service.openai
        self.dispatcher = self.service.dispatcher

    def clock(self) -> float:
        """Seconds since the epoch, as far as the loop's time goes."""
        return EPOCH + self.elapsed + asyncio.get_running_loop().time()

    # -- what users do

    async def drop(
        self,
        data: bytes,
        name: str = "in.jsonl",
        *,
        container: str = "prompts",
        options: object = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Upload a file, with options in its metadata; gives its ETag. The event is up to you."""
        if options is not None:
            encoded = base64.urlsafe_b64encode(json.dumps(options).encode()).decode()
            metadata = {"options": encoded.rstrip("=")}
        ref = BlobRef(container, name)
        await self.blobs.delete(ref)
        return await self.blobs.create(ref, data, metadata=metadata)

    async def announce(self, name: str = "in.jsonl", container: str = "prompts") -> None:
        """The blob trigger fires."""
        await self.doors.dropped(container, name, repeated=False)

    async def run(self, data: bytes, name: str = "in.jsonl", **dropping: Any) -> "Ended":
        """A dropped file, from its upload to the end of its job."""
        await self.drop(data, name, **dropping)
        await self.announce(name, dropping.get("container", "prompts"))
        await self.settle()
        return await self.ended()

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> JsonReply:
        """A program asks over HTTP."""
        data = b"" if body is None else json.dumps(body).encode()
        reply = await self.api.answer(HttpCall(method, path, query, headers or {}, data))
        assert isinstance(reply, JsonReply), reply
        return reply

    async def say(self, body: bytes | object, **properties: str) -> None:
        """A back end sends a message to `jobs`."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        name = hashlib.sha256(data).hexdigest()[:32]
        await self.bus.send(JOBS, [OutMessage(data, message_id=name, properties=properties)])

    # -- what the host does

    async def settle(self, stop: Callable[[Delivery], bool] | None = None) -> None:
        """Deliver until nothing is left that can be had now, or until `stop` says so."""
        handlers: dict[str, Callable[[Received], Awaitable[None]]] = {
            JOBS: self.inbox.jobs,
            SHARDS: self.inbox.shards,
            WEBHOOKS: self.inbox.webhooks.run,
        }
        assert isinstance(self.bus, MemoryBus)
        while delivery := next(filter(None, map(self.bus.receive, handlers)), None):
            if stop is not None and stop(delivery):
                self.bus.abandon(delivery)
                return
            await handlers[delivery.queue](received(delivery))
            self.bus.complete(delivery)

    async def deliver(self, queue: str, body: bytes) -> None:
        """One message to a handler, past the queue."""
        handler = self.inbox.jobs if queue == JOBS else self.inbox.shards
        await handler(Received(body, message_id="m"))

    # -- what is to be seen

    @property
    def events(self) -> list[dict[str, Any]]:
        """All status events, in order."""
        assert isinstance(self.bus, MemoryBus)
        return [json.loads(message.body) for message in self.bus.published[STATUS]]

    async def ended(self) -> "Ended":
        """The job that ended last. The test fails where none has."""
        # Of very many jobs, only the last one's events are read.
        assert isinstance(self.bus, MemoryBus)
        events = (json.loads(message.body) for message in reversed(self.bus.published[STATUS]))
        final = next((event for event in events if event["data"].get("ended")), None)
        assert final, f"no job ended: {[event['type'] for event in self.events]}"
        container, _, folder = final["data"]["results"].partition("/")
        files = [
            (await self.blobs.read(BlobRef(container, f"{folder}/{name}"))).data
            for name in ("output.jsonl", "errors.jsonl", "manifest.json")
        ]
        return Ended(final, *files)


class Ended:
    """What a job left. It is whole: one line for each row, in order, and sums that agree."""

    def __init__(self, event: Mapping[str, Any], output: bytes, errors: bytes, manifest: bytes):
        self.event = event
        self.state: str = event["data"]["state"]
        self.reason: Mapping[str, str] = event["data"].get("reason", {})
        self.counts: Mapping[str, int] = event["data"]["counts"]
        self.folder: str = event["data"]["results"]
        self.errors_file = errors
        self.output: list[dict[str, Any]] = [json.loads(line) for line in output.splitlines()]
        self.errors: list[dict[str, Any]] = [json.loads(line) for line in errors.splitlines()]
        self.manifest: dict[str, Any] = json.loads(manifest)
        self._check(output, errors)

    def _check(self, output: bytes, errors: bytes) -> None:
        kinds = ("succeeded", "failed", "invalid", "cancelled", "expired")
        assert self.manifest["counts"] == self.counts
        assert sum(self.counts[kind] for kind in kinds) == self.counts["total"]
        assert len(self.output) == self.counts["succeeded"]
        assert len(self.output) + len(self.errors) == self.counts["total"]
        codes: dict[str, dict[str, Any]] = {}
        for row in self.errors:
            known = codes.setdefault(row["error"]["code"], {"rows": 0, "line": row["line"]})
            known["rows"] += 1
            if known["line"] not in (None, row["line"]) and len(known.get("more", ())) < 4:
                known.setdefault("more", []).append(row["line"])
        assert self.manifest["codes"] == codes
        for name, data in (("output", output), ("errors", errors)):
            end = 0
            for part in self.manifest[name]["parts"]:
                piece = data[end : end + part["length"]]
                assert part["offset"] == end
                assert part["sha256"] == hashlib.sha256(piece).hexdigest()
                end += part["length"]
            assert end == len(data) == self.manifest[name]["length"]
        for rows in (self.output, self.errors):
            numbers = [_line(row) for row in rows]
            assert numbers == sorted(set(numbers))

    def lines(self) -> list[int]:
        """Line numbers of the rows that have their line."""
        return sorted(_line(row) for row in (*self.output, *self.errors))

    def error(self, line: int) -> dict[str, Any]:
        """The error row of a line."""
        return next(row for row in self.errors if row["line"] == line)

    def code(self, line: int) -> str:
        """What is wrong with a line."""
        return str(self.error(line)["error"]["code"])


def _line(row: Mapping[str, Any]) -> int:
    # A row whose own line is not known is named by its shard's first line and its place there.
    return sum(int(part) for part in row["id"].rsplit("-", 1)[-1].split("+"))


def received(delivery: Delivery) -> Received:
    message = delivery.message
    return Received(
        body=message.body,
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        deliveries=delivery.delivery_count,
        properties=message.properties,
    )


@asynccontextmanager
async def bench(
    *,
    blobs: Blobs | None = None,
    bus: MemoryBus | None = None,
    endpoint: Answering | None = None,
    transfers: Transfers | None = None,
    tokens: SignedTokens | None = None,
    receiver: WebhookSender | None = None,
    rng: Random | None = None,
    telemetry: Telemetry = SILENT,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """A process over the doubles, with settings of one's own."""
    memory = MemoryBlobs(lambda: EPOCH + asyncio.get_running_loop().time())
    made = Bench(
        blobs=blobs or memory,
        transfers=transfers or (blobs if isinstance(blobs, MemoryBlobs) else memory),
        rng=rng or Random(0),
        tokens=tokens,
        receiver=receiver,
        telemetry=telemetry,
        bus=bus or MemoryBus(lambda: EPOCH + asyncio.get_running_loop().time()),
        settings=Settings(**{"deployments": (DEPLOYMENT,), **settings}),
        endpoint=endpoint or Answering(),
    )
    shares = asyncio.create_task(made.dispatcher.run())
    try:
        yield made
    finally:
        shares.cancel()
        await asyncio.gather(shares, return_exceptions=True)
