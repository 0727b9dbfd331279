"""`python -m local up`: everything running, for tools of one's own, until Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from rich.console import Console

from local.hosts import failure_in
from local.stack import PROJECT, Stack, StackOptions, stack
from local.usage import Parser, add_stack_arguments, simulator_of

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
Look at its job:
  curl {http}/api/jobs

Ctrl-C stops everything; what is in the queues and containers stays for the next time."""


def main(arguments: list[str]) -> int:
    """0 when stopped by Ctrl-C or SIGTERM, 1 when the hosts do not come up."""
    parser = Parser(prog="python -m local up", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=PROJECT / ".local", help="where it is kept (default .local)")
    add("--storage-port", type=int, default=0, help="of Azurite; 0 (default) takes a free one")
    add("--bus-port", type=int, default=0, help="of Service Bus; 0 (default) takes a free one")
    add_stack_arguments(parser)
    given = parser.parse_args(arguments)
    try:
        asyncio.run(_stay(given))
    except BaseExceptionGroup as group:
        failed = failure_in(group)
        if failed is None:
            raise
        print(f"error: {failed}", file=sys.stderr)
        return 1
    return 0


async def _stay(given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = StackOptions(
        workers=given.workers,
        data=given.data,
        storage_port=given.storage_port,
        bus_port=given.bus_port,
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
