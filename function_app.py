"""The function app: wires triggers to workers, and does nothing else.

Nothing is read or connected at import, so that the host can index it anywhere; the parts of a
process are made at its first invocation and live as long as it does.
"""

from datetime import UTC, datetime

import azure.functions as func
from azurefunctions.extensions.bindings import blob

from workers.api.dashboard import page
from workers.api.http import AnyReply, HttpCall, repeated_in
from workers.ports import Received
from workers.service import BLOBS, BUS, OneService
from workers.service.background import each_in_turn

# Bodies are other people's: as text, one that is not UTF-8 would fail before it is read here.
BINARY = func.DataType.BINARY

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

service = OneService()
drain = service.drain


@app.blob_trigger(
    "file", path="prompts/{name}", connection=BLOBS, source=func.BlobSource.EVENT_GRID
)
async def prompts(file: blob.BlobClient) -> None:
    """A file was dropped; its content never travels through the binding."""
    running = await service()
    await running.doors.announce(file.container_name, file.blob_name)


@app.service_bus_queue_trigger("message", BUS, "jobs", data_type=BINARY)
async def jobs(message: func.ServiceBusMessage) -> None:
    """A job request, a BlobCreated event, or a step of a job."""
    await (await service()).inbox.jobs(_received(message))


@app.service_bus_queue_trigger("message", BUS, "shards", data_type=BINARY)
async def shards(message: func.ServiceBusMessage) -> None:
    """A shard to run."""
    await (await service()).inbox.shards(_received(message))


@app.service_bus_queue_trigger("message", BUS, "jobs/$DeadLetterQueue", data_type=BINARY)
async def dead_jobs(message: func.ServiceBusMessage) -> None:
    """A message that `jobs` gave up."""
    await (await service()).inbox.dead_jobs(_received(message))


@app.service_bus_queue_trigger("message", BUS, "shards/$DeadLetterQueue", data_type=BINARY)
async def dead_shards(message: func.ServiceBusMessage) -> None:
    """A message that `shards` gave up."""
    await (await service()).inbox.dead_shards(_received(message))


@app.service_bus_queue_trigger("message", BUS, "webhooks", data_type=BINARY)
async def webhooks(message: func.ServiceBusMessage) -> None:
    """A tenant's receiver to be told that a job has ended."""
    await (await service()).inbox.webhooks.run(_received(message))


@app.service_bus_queue_trigger("message", BUS, "webhooks/$DeadLetterQueue", data_type=BINARY)
async def dead_webhooks(message: func.ServiceBusMessage) -> None:
    """A message that `webhooks` gave up."""
    await (await service()).inbox.webhooks.dead(_received(message))


@app.timer_trigger("timer", schedule="%NIGHTLY_SCHEDULE%")
async def nightly(timer: func.TimerRequest) -> None:
    """Announce the new files of the nightly container."""
    await (await service()).nightly.run()


@app.timer_trigger("timer", schedule="0 */5 * * * *")
async def sweep(timer: func.TimerRequest) -> None:
    """Help jobs that have not moved, dead letters, files and a night that were forgotten; delete
    what is due.
    """
    running = await service()
    await each_in_turn(
        running.sweeper.run,
        running.inbox.drain_dead,
        running.nightly.resume,
        running.drops.run,
        running.retention.run,
    )


# Keys are looked at by the door itself: those of the host travel in no header that clients know.
@app.route(
    "{door:regex(^(v1|openai)$)}/{*path}",
    methods=list(func.HttpMethod),
    auth_level=func.AuthLevel.ANONYMOUS,
)
async def openai(req: func.HttpRequest) -> func.HttpResponse:
    """The OpenAI Batch API."""
    path = f"{req.route_params['door']}/{req.route_params.get('path') or ''}"
    return _answer(await (await service()).openai.answer(_call(req, path)))


# Files without data: what they ask for needs a key.
@app.route("dashboard/{*path}", methods=list(func.HttpMethod), auth_level=func.AuthLevel.ANONYMOUS)
async def dashboard(req: func.HttpRequest) -> func.HttpResponse:
    """The page that shows jobs and deployments."""
    return _answer(page.answer(_call(req, req.route_params.get("path") or "")))


@app.route("{*path}", methods=list(func.HttpMethod))
async def api(req: func.HttpRequest) -> func.HttpResponse:
    """Jobs over HTTP; what is not known is answered too."""
    path = req.route_params.get("path") or ""
    return _answer(await (await service()).api.answer(_call(req, path)))


def _call(req: func.HttpRequest, path: str) -> HttpCall:
    return HttpCall(
        method=req.method,
        path=f"/{path}",
        query=req.params,
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
        repeated=repeated_in(req.url),
    )


def _answer(reply: AnyReply) -> func.HttpResponse:
    return func.HttpResponse(
        reply.data,
        status_code=reply.code,
        # As a mimetype it would be given a second charset.
        headers={**reply.headers, "Content-Type": reply.content_type},
    )


def _received(message: func.ServiceBusMessage) -> Received:
    # Names and values may come as bytes, and deliveries are counted from 1 here.
    properties = {_text(k): _text(v) for k, v in message.application_properties.items()}
    return Received(
        body=message.get_body(),
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        deliveries=message.delivery_count or 1,
        properties=properties,
        enqueued=_seconds(message.enqueued_time_utc),
    )


def _seconds(moment: datetime | None) -> float | None:
    # It has no zone where the host gives none.
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() if moment else None


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
