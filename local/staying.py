"""`python -m local up`: everything running, for tools of one's own, until Ctrl-C."""

import argparse
import asyncio
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from local.keys import api_key, function_key
from local.stack import PROJECT, Stack, StackOptions, failed, stack
from local.stack_arguments import add_stack_arguments, simulator_of
from local.usage import Parser, port

GUIDE = """\
storage       {storage}
Service Bus   {service_bus}
endpoint      {endpoint}
Dashboard     {dashboard}
HTTP          {http}/api/jobs (with the header x-functions-key: {function_key})
OpenAI API    {http}/v1 (with the API key {api_key})
data          {data}

Drop a file; options go as base64url JSON into the metadata key `options`:
  from azure.storage.blob import BlobClient
  storage = "{storage}"
  with open("my.jsonl", "rb") as file:
      blob = BlobClient.from_connection_string(storage, "prompts", "my.jsonl")
      blob.upload_blob(file, overwrite=True)
Or enqueue a file that lies in an input container:
  from azure.servicebus import ServiceBusClient, ServiceBusMessage
  bus = "{service_bus}"
  request = '{{"container": "prompts", "name": "my.jsonl", "options": {{"max_tokens": 64}}}}'
  with ServiceBusClient.from_connection_string(bus) as client:
      with client.get_queue_sender("jobs") as sender:
          sender.send_messages(ServiceBusMessage(request))
Results are in the container `results`, in the folder FILE/JOB; fetch them all:
  from pathlib import Path
  from azure.storage.blob import ContainerClient
  storage = "{storage}"
  with ContainerClient.from_connection_string(storage, "results") as results:
      for name in results.list_blob_names():
          Path(name).parent.mkdir(parents=True, exist_ok=True)
          Path(name).write_bytes(results.download_blob(name).readall())
Or with the openai package, unchanged:
  from openai import OpenAI
  client = OpenAI(base_url="{http}/v1", api_key="{api_key}")
  file = client.files.create(file=open("my.jsonl", "rb"), purpose="batch")
  batch = client.batches.create(
      input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
  )
Or from the command line:
  export PHI3BATCH_URL={http} PHI3BATCH_KEY={api_key}
  phi3batch submit my.jsonl --watch
Look at the jobs; cancel, pause or resume one:
  curl -H "x-functions-key: {function_key}" {http}/api/jobs
  curl -H "x-functions-key: {function_key}" -X POST {http}/api/jobs/JOB/cancel
Run the files in `nightly` now:
  curl -H "x-functions-key: {function_key}" -X POST {http}/admin/functions/nightly
Status events are in the subscriptions `all` and `ended` of the topic `job-status`.

Ctrl-C stops everything; what is in the queues and containers stays for the next time."""
ANY_ENDPOINT = "as DEPLOYMENTS says"
# Where Azurite, Service Bus and Core Tools are looked for.
PORTS = {"storage": ("10000", "Azurite"), "bus": ("5672", "Service Bus"), "http": ("7071", "HTTP")}


def main(arguments: list[str]) -> int:
    """The exit status: 0 when stopped by a signal, 1 when it cannot run, 2 for wrong usage."""
    parser = Parser(prog="python -m local up", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=PROJECT / ".local", help="where it is kept (default .local)")
    for name, (default, whose) in PORTS.items():
        text = f"of {whose} (default {default}); 0 takes a free one"
        add(f"--{name}-port", type=port, default=default, metavar="PORT", help=text)
    add("--json", action="store_true", help="one line of JSON once everything is up, for scripts")
    add("--telemetry", action="store_true", help="write traces and metrics to DATA/telemetry")
    add_stack_arguments(parser)
    given = parser.parse_args(arguments)
    parser.writable(given.data)
    try:
        asyncio.run(_stay(given))
    except BaseExceptionGroup as group:
        return failed(group)
    return 0


async def _stay(given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # For a script, standard output holds the one line and nothing else.
    console = Console(highlight=False, soft_wrap=True, stderr=given.json)
    with _watching(given, console) as settings:
        await _run(given, settings, console, stop)


@contextmanager
def _watching(given: argparse.Namespace, console: Console) -> Iterator[Mapping[str, str]]:
    """Receive what the hosts tell, and sum it up at the end; gives the settings that they need."""
    if not given.telemetry:
        yield {}
        return
    # Here and not above: nobody else waits for what it imports.
    from local.collector import collector  # noqa: PLC0415
    from local.summing import summary  # noqa: PLC0415

    folder = given.data / "telemetry"
    with collector(folder) as receiving:
        console.print(f"telemetry     {folder}, from the first export on", markup=False)
        # Not a minute, as elsewhere: somebody looks on.
        often = {"OTEL_METRIC_EXPORT_INTERVAL": "5000"}
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": receiving.url} | often
    console.print(f"telemetry     {folder}", markup=False)
    for line in summary(receiving.collected):
        console.print(line, markup=False)


async def _run(
    given: argparse.Namespace, settings: Mapping[str, str], console: Console, stop: asyncio.Event
) -> None:
    options = StackOptions(
        workers=given.workers,
        blobs=given.data / "azurite",
        messages=given.data / "servicebus.sqlite",
        storage_port=given.storage_port,
        bus_port=given.bus_port,
        http_port=given.http_port,
        profile=given.profile,
        simulator=simulator_of(given),
        verbose=given.verbose,
        key=function_key(given.data),
        api_key=api_key(given.data),
        settings=settings,
    )
    async with stack(options, lambda line: console.print(line, markup=False)) as running:
        where = await _where(running, options)
        if given.json:
            print(json.dumps(where), flush=True)
        else:
            console.print(_guide(where, given.data), markup=False)
        await stop.wait()
        console.print("stopping", markup=False)


async def _where(running: Stack, options: StackOptions) -> dict[str, str | None]:
    """What to connect to, and with which keys; `endpoint` is null where DEPLOYMENTS says it."""
    http = await running.hosts.up()
    return {
        "http": http,
        "dashboard": f"{http}/dashboard#key={options.key}",
        "api_key": options.api_key,
        "function_key": options.key,
        "storage": running.storage,
        "service_bus": running.bus,
        "endpoint": running.endpoint,
    }


def _guide(where: Mapping[str, str | None], data: Path) -> str:
    return GUIDE.format_map({**where, "endpoint": where["endpoint"] or ANY_ENDPOINT, "data": data})
