"""A small app that has every kind of trigger, and tells a recorder (HTTP) what it was given."""

import asyncio
import json
import os

import aiohttp
import azure.functions as func
from azurefunctions.extensions.bindings import blob

app = func.FunctionApp()


async def tell(what: str, **facts: object) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.post(os.environ["RECORDER"], json={"what": what, **facts}) as response,
    ):
        return await response.text()


@app.blob_trigger(
    arg_name="client",
    path="prompts/{name}",
    connection="AzureWebJobsStorage",
    source=func.BlobSource.EVENT_GRID,
)
async def dropped(client: blob.BlobClient) -> None:
    await tell("dropped", container=client.container_name, name=client.blob_name)


@app.service_bus_queue_trigger(
    arg_name="message", queue_name="%JOBS_QUEUE%", connection="ServiceBusConnection"
)
async def queued(message: func.ServiceBusMessage, context: func.Context) -> None:
    answer = await tell(
        "queued",
        body=message.get_body().decode(),
        message_id=message.message_id,
        delivery=message.delivery_count,
        properties=message.application_properties,
        correlation_id=message.correlation_id,
        enqueued=message.enqueued_time_utc.isoformat() if message.enqueued_time_utc else None,
        function=context.function_name,
        trace=context.trace_context.trace_parent,
        process=os.getpid(),
    )
    if answer == "raise":
        raise ValueError("as the recorder wishes")
    if answer == "wait":
        await asyncio.Event().wait()
    if answer.startswith("sleep "):
        await asyncio.sleep(float(answer.split()[1]))
    await tell("queued end", message_id=message.message_id)


@app.service_bus_queue_trigger(
    arg_name="message",
    queue_name="jobs/$DeadLetterQueue",
    connection="ServiceBusConnection",
    data_type=func.DataType.BINARY,
)
async def dead(message: func.ServiceBusMessage) -> None:
    await tell("dead", body=message.get_body().hex(), reason=message.dead_letter_reason)


@app.timer_trigger(arg_name="timer", schedule="%TIMER_SCHEDULE%")
async def ticked(timer: func.TimerRequest) -> None:
    await tell("ticked", past_due=timer.past_due, request=type(timer).__name__)


@app.route(route="jobs/{id}", methods=["GET", "POST"])
async def job(req: func.HttpRequest) -> func.HttpResponse:
    facts = {
        "id": req.route_params["id"],
        "verbose": req.params.get("verbose"),
        "body": req.get_body().decode(),
    }
    if facts["id"] == "fail":
        raise ValueError("as asked")
    return func.HttpResponse(json.dumps(facts), status_code=202, mimetype="application/json")


@app.route(route="health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health(req: func.HttpRequest) -> str:
    return "well"


@app.route(route="files/{*path}", methods=["GET"])
def file(req: func.HttpRequest) -> str:
    return f"path {req.route_params.get('path')}"


async def drain() -> None:
    await tell("drain")
