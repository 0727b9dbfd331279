"""`python -m local up`: everything running, for tools of one's own, until Ctrl-C."""

import argparse
import asyncio
import signal
from pathlib import Path

from rich.console import Console

from local.stack import PROJECT, Stack, StackOptions, failed, stack
from local.usage import Parser, add_stack_arguments, port, simulator_of

GUIDE = """\
storage       {storage}
Service Bus   {bus}
endpoint      {endpoint}
HTTP          {http}/api/jobs
data          {data}

Drop a file (options: base64url JSON in the metadata key `options`):
  az storage blob upload --container-name prompts --name my.jsonl --file my.jsonl \\
    --connection-string "{storage}"
or:
  from azure.storage.blob import BlobClient
  BlobClient.from_connection_string("{storage}",
                                    "prompts", "my.jsonl").upload_blob(open("my.jsonl", "rb"))
Enqueue a file that lies in an input container:
  from azure.servicebus import ServiceBusClient, ServiceBusMessage
  with ServiceBusClient.from_connection_string("{bus}") as client:
      with client.get_queue_sender("jobs") as sender:
          sender.send_messages(ServiceBusMessage('{{"container": "inputs", "name": "my.jsonl"}}'))
Run the files in `nightly` now:
  curl -X POST -H "Content-Type: application/json" -d "{{}}" {http}/admin/functions/nightly
Look at the jobs; cancel, pause or resume one:
  curl {http}/api/jobs
  curl -X POST {http}/api/jobs/JOB/cancel
Status events are in the subscriptions `all` and `ended` of the topic `job-status`.

Ctrl-C stops everything; what is in the queues and containers stays for the next time."""


def main(arguments: list[str]) -> int:
    """0 when stopped by Ctrl-C or SIGTERM, 1 when it cannot run, 2 for wrong usage."""
    parser = Parser(prog="python -m local up", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=PROJECT / ".local", help="where it is kept (default .local)")
    for name, whose in (("storage", "Azurite"), ("bus", "Service Bus"), ("http", "the first host")):
        text = f"of {whose}; 0 (default) takes a free one"
        add(f"--{name}-port", type=port, default=0, metavar="PORT", help=text)
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
    )
    console = Console(highlight=False, soft_wrap=True)
    async with stack(options, lambda line: console.print(line, markup=False)) as running:
        console.print(await _guide(running, given.data), markup=False)
        await stop.wait()
        console.print("stopping", markup=False)


async def _guide(running: Stack, data: Path) -> str:
    return GUIDE.format(
        storage=running.storage,
        bus=running.bus,
        endpoint=running.endpoint or "as DEPLOYMENTS says",
        http=await running.hosts.up(),
        data=data,
    )
