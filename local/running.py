"""`python -m local run FILE`: from the drop to the results, with everything started and stopped."""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
from azure.storage.blob.aio import BlobServiceClient
from rich.console import Console

from local import results, settings
from local.azurite import FolderInUseError
from local.dropping import drop
from local.following import Arrived, Asker, Events, events
from local.interrupts import Interrupts
from local.keys import HEADER, function_key
from local.progress import Display, display
from local.reporting import GOES_ON, INTERRUPTED, exit_status, report, report_events
from local.runs import Record, Run, reopen, run_of
from local.stack import PROJECT, Stack, StackOptions, failed, stack
from local.stack_arguments import add_stack_arguments, simulator_of
from local.usage import Parser
from schemas.jobs import TERMINAL, parse_options
from schemas.status import JobStatus
from workers.settings import read_settings

CONTAINER = "prompts"
OUT = Path("out")
DATA = PROJECT / ".local"
ASK_EVERY = 0.5
TIMEOUT = aiohttp.ClientTimeout(total=5)


def main(arguments: list[str]) -> int:
    """Run the command, and return its exit status.

    It is 0 when the job completed, 1 when it did not, 2 for wrong usage, 130 when interrupted, and
    3 when the job completed and no row succeeded, or with `--strict` one did not.
    """
    given = _arguments(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        status, interrupted = asyncio.run(_run(given, console))
    except FolderInUseError as error:
        return failed(ExceptionGroup("", [error]))
    except BaseExceptionGroup as group:
        return failed(group)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"interrupted: everything is stopped; {GOES_ON}", file=sys.stderr)
        return INTERRUPTED
    return exit_status(status, strict=given.strict, interrupted=interrupted)


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m local run", description=__doc__)
    add = parser.add_argument
    add("file", type=_file, metavar="FILE", help="a .jsonl file of prompts")
    add("--options", type=read_options, default={}, metavar="JSON|FILE", help="the job's options")
    add("--out", type=Path, metavar="DIR", help="where results go, alone (default: out/JOB)")
    add("--strict", action="store_true", help="exit with 3 where a row failed")
    add("--again", action="store_true", help="forget an earlier run of the same, and ask all anew")
    add("--data", type=Path, default=DATA, help="where runs lie until they are done (.local)")
    add_stack_arguments(parser)
    given = parser.parse_args(arguments)
    parser.writable(given.out or OUT)
    parser.writable(given.data)
    given.run = run_of(given.data, given.file, given.options, _endpoints())
    record = None if given.again else given.run.record
    own = record is not None and given.out is not None and record.results == given.out.resolve()
    if given.out and not own and (found := results.lie_in(given.out)):
        parser.error(f"{given.out} holds {', '.join(found)} already: name a folder of its own")
    return given


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return path


def read_options(given: str) -> dict[str, Any]:
    """Options as JSON or in a file. Errors: `ArgumentTypeError`.

    Checked here already: the service would refuse them only once everything is started.
    """
    try:
        raw: dict[str, Any] = json.loads(_options_text(given) or "{}")
        parse_options(raw)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    except OSError as error:
        reason = f"cannot read {error.filename}: {error.strerror}"
        raise argparse.ArgumentTypeError(reason) from error
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return raw


def _options_text(given: str) -> str:
    """The options themselves, or those in a file: FILE, or @FILE as curl has it."""
    if given.startswith("@") or (given and not given.lstrip().startswith(("{", "["))):
        return Path(given.removeprefix("@")).read_text("utf-8-sig")
    return given


def _endpoints() -> list[str]:
    """Who is asked: what a simulator has answered must not pass for a real endpoint's answer."""
    given = settings.read(PROJECT) | dict(os.environ)
    if not given.get("DEPLOYMENTS"):
        return ["simulated"]
    return [f"{each.url} {each.model}" for each in read_settings(given).deployments]


def _completed(run: Run) -> Record | None:
    record = run.record
    return record if record is not None and record.state == "completed" else None


def _tell_known(given: argparse.Namespace, known: Record, console: Console) -> JobStatus:
    """The same was asked before, of the same, and answered."""
    folder: Path = (given.out or known.results).resolve()
    if folder != known.results:
        results.copy(known.results, folder)
    manifest = results.manifest(folder)
    status = JobStatus(
        job=known.job,
        state=manifest.state,
        counts=manifest.counts,
        tokens=manifest.tokens,
        cost=manifest.cost,
    )
    console.print("it completed before: nothing is asked (--again asks all anew)", markup=False)
    report(console, status, folder)
    return status


async def _run(given: argparse.Namespace, console: Console) -> tuple[JobStatus, bool]:
    """How the job stands at the end, and whether Ctrl-C ended it."""
    async with given.run.held():
        if not given.again and (known := _completed(given.run)):
            return _tell_known(given, known, console), False
        return await _ask_it(given, console)


async def _ask_it(given: argparse.Namespace, console: Console) -> tuple[JobStatus, bool]:
    interrupts = Interrupts()

    def tell(line: str) -> None:
        console.print(line, markup=False)

    options = StackOptions(
        workers=given.workers,
        blobs=given.run.blobs,
        profile=given.profile,
        simulator=simulator_of(given),
        verbose=given.verbose,
        key=function_key(given.data),
    )
    tell(f"starting storage, Service Bus and {given.workers} function host(s)")
    # Storage is up then, on a folder that nobody else has, and every setting has been read.
    prepare = given.run.begin_anew if given.again else reopen
    async with stack(options, tell, prepare) as running:
        tell(
            "asking the endpoints that DEPLOYMENTS names"
            if running.endpoint is None
            else "asking a simulated endpoint: set DEPLOYMENTS to ask real ones"
        )
        status, folder = await _job(given, running, interrupts, console)
    if status.results and status.job and status.state:
        record = Record(job=status.job, state=status.state, results=folder.resolve())
        await asyncio.to_thread(given.run.note, record)
    else:
        await asyncio.to_thread(given.run.forget)
    return status, interrupts.asked.is_set()


async def _job(
    given: argparse.Namespace, running: Stack, interrupts: Interrupts, console: Console
) -> tuple[JobStatus, Path]:
    """Drop the file, follow its job to the end, fetch and show what it left."""
    file: Path = given.file
    async with (
        BlobServiceClient.from_connection_string(running.storage) as storage,
        events(running.bus, f"{CONTAINER}/{file.name}") as arriving,
    ):
        container = storage.get_container_client(CONTAINER)
        with display(console) as shown:
            if await container.get_blob_client(file.name).exists():
                shown.tell(f"going on with {file.name}, of which some may be answered already")
            else:
                await drop(container, file, given.options)
                shown.tell(f"dropped {file.name} into the container {CONTAINER}")
            interrupts.gentle = True
            key = function_key(given.data)
            shown.tell(f"watch it at {await running.hosts.up()}/dashboard#key={key}")
            headers = {HEADER: key}
            async with aiohttp.ClientSession(timeout=TIMEOUT, headers=headers) as session:
                asker = Asker(session, running.hosts)
                last = await _follow(arriving, asker, shown, interrupts.asked)
        status = last.event.data
        folder = given.out or OUT / (status.job or "rejected")
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        if status.results:
            await results.download(storage, status.results, folder, status.manifest)
        results.write_events([each.raw for each in arriving.arrived], folder)
    report(console, status, folder, arriving.arrived[-1].after)
    report_events(console, arriving.arrived)
    return status, folder


async def _follow(
    arriving: Events, asker: Asker, shown: Display, interrupted: asyncio.Event
) -> Arrived:
    """Show the job until its last event; between events its status is asked for over HTTP."""
    asking: list[asyncio.Task[None]] = []
    try:
        async for arrived in arriving:
            if arrived.last:
                return arrived
            shown.show(arrived.event.data)
            job = arrived.event.data.job
            if job and not asking:
                asking = [
                    asyncio.create_task(_ask(job, asker, shown)),
                    asyncio.create_task(_cancel(job, asker, shown, interrupted)),
                ]
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    raise AssertionError("events end with a last one")


async def _ask(job: str, asker: Asker, shown: Display) -> None:
    while True:
        status = await asker.status(job)
        # How it ended is told once, by its last event.
        if status is not None and status.state not in TERMINAL:
            shown.show(status)
        await asyncio.sleep(ASK_EVERY)


async def _cancel(job: str, asker: Asker, shown: Display, interrupted: asyncio.Event) -> None:
    await interrupted.wait()
    shown.tell("interrupted: bringing home what is done; Ctrl-C again stops at once")
    while not await asker.cancel(job):  # noqa: ASYNC110 - a host may be starting again
        await asyncio.sleep(ASK_EVERY)
