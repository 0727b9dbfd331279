"""`python -m local run FILE`: from the drop to the results, with everything started and stopped."""

import argparse
import asyncio
import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import aiohttp
from azure.storage.blob.aio import BlobServiceClient
from rich.console import Console

from local import results
from local.dropping import drop
from local.following import Arrived, Events, events, status_of
from local.hosts import Hosts
from local.progress import Display, describe, display
from local.stack import Stack, StackOptions, failed, stack
from local.usage import Parser, add_stack_arguments, simulator_of
from schemas.jobs import TERMINAL, JobStatus, parse_options

CONTAINER = "prompts"
OUT = Path("out")
ASK_EVERY = 0.5
ANSWERS_SHOWN = 2
INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """0 when the job completed, 1 when it did not, 2 for wrong usage."""
    given = _arguments(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        status = asyncio.run(_run(given, console))
    except BaseExceptionGroup as group:
        return failed(group)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted: everything that was started is stopped", file=sys.stderr)
        return INTERRUPTED
    if status.state != "completed":
        reason = f": {status.reason.message}" if status.reason else ""
        print(f"error: the job {status.state or 'was rejected'}{reason}", file=sys.stderr)
        return 1
    return 0


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m local run", description=__doc__)
    add = parser.add_argument
    add("file", type=_file, metavar="FILE", help="a .jsonl file of prompts")
    add("--options", type=_options, default={}, metavar="JSON", help="the job's options")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where results go: a folder without any (default: out/JOB)",
    )
    add_stack_arguments(parser)
    given = parser.parse_args(arguments)
    parser.writable(given.out or OUT)
    if given.out and (found := results.lie_in(given.out)):
        parser.error(f"{given.out} holds {', '.join(found)} already: name a folder of its own")
    return given


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return path


def _options(text: str) -> dict[str, Any]:
    """Checked here already: the service would refuse them only once everything is started."""
    try:
        raw: dict[str, Any] = json.loads(text or "{}")
        parse_options(raw)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return raw


async def _run(given: argparse.Namespace, console: Console) -> JobStatus:
    own = cast("asyncio.Task[Any]", asyncio.current_task())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, own.cancel)

    def tell(line: str) -> None:
        console.print(line, markup=False)

    options = StackOptions(
        workers=given.workers,
        profile=given.profile,
        simulator=simulator_of(given),
        verbose=given.verbose,
    )
    tell(f"starting storage, Service Bus and {given.workers} function host(s)")
    async with stack(options, tell) as running:
        tell(
            "asking the endpoints that DEPLOYMENTS names"
            if running.endpoint is None
            else "asking a simulated endpoint: set DEPLOYMENTS to ask real ones"
        )
        return await _job(given, running, console)


async def _job(given: argparse.Namespace, running: Stack, console: Console) -> JobStatus:
    """Drop the file, follow its job to the end, fetch and show what it left."""
    file: Path = given.file
    async with (
        BlobServiceClient.from_connection_string(running.storage) as storage,
        events(running.bus, f"{CONTAINER}/{file.name}") as arriving,
    ):
        await drop(storage.get_container_client(CONTAINER), file, given.options)
        with display(console) as shown:
            shown.tell(f"dropped {file.name} into the container {CONTAINER}")
            last = await _follow(arriving, running.hosts, shown)
        status = last.event.data
        folder = given.out or OUT / (status.job or "rejected")
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        if status.results:
            await results.download(storage, status.results, folder)
        results.write_events([each.raw for each in arriving.arrived], folder)
    _report(console, status, arriving, folder)
    return status


async def _follow(arriving: Events, hosts: Hosts, shown: Display) -> Arrived:
    """Show the job until its last event; between events its status is asked for over HTTP."""
    asking: asyncio.Task[None] | None = None
    try:
        async for arrived in arriving:
            if arrived.last:
                return arrived
            shown.show(arrived.event.data)
            if asking is None and arrived.event.data.job:
                asking = asyncio.create_task(_ask(arrived.event.data.job, hosts, shown))
    finally:
        if asking is not None:
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
    raise AssertionError("events end with a last one")


async def _ask(job: str, hosts: Hosts, shown: Display) -> None:
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            for address in list(hosts.addresses.values())[:1]:
                status = await status_of(session, address, job)
                # How it ended is told once, by its last event.
                if status is not None and status.state not in TERMINAL:
                    shown.show(status)
            await asyncio.sleep(ASK_EVERY)


def _report(console: Console, status: JobStatus, arriving: Events, folder: Path) -> None:
    def tell(line: str = "") -> None:
        console.print(line, markup=False)

    tell(f"{describe(status)} · {arriving.arrived[-1].after:.1f} s")
    tell()
    source = f", from the blobs {status.results}/" if status.results else ""
    tell(f"results in {folder}/{source}")
    for custom_id, answer in results.first_answers(folder, ANSWERS_SHOWN):
        tell(f"  {custom_id}: {answer}")
    tell()
    tell("status events, in order of arrival")
    for each in arriving.arrived:
        tell(f"  {each.after:7.2f} s  {each.event.type}{_progress_of(each.event.data)}")


def _progress_of(status: JobStatus) -> str:
    counts = status.counts
    return f"  {counts.done:,} of {counts.total:,} rows" if counts and counts.total else ""
