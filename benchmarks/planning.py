"""How fast, and in how much memory, does a file of 1 GB become a plan?

    python -m benchmarks.planning [--megabytes 1000] [--rounds 5]
    python -m benchmarks.planning --decisions

Generates GSM8K questions as OpenAI batch rows, about 490 bytes each, into an Azurite of its own on
disk. Intake then plans the file in a process of its own, over real storage, from the event to the
first messages: it reads, parses and validates every row, and looks for duplicates. Beside it, in
the same run, stands what nobody can do without: reading the same ranges. A round is one of both, in
turns the one and the other first; the median of the rounds' ratios counts, for a machine that does
other work changes its pace between rounds. Beside it
the decisions alone, with slices in memory, by stage and by kind of rows, which is all that
--decisions measures. Ends with status 1 where planning is below both 250 MB/s and 0.9 of reading,
or needs 250 MB.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from azure.storage.blob.aio import BlobServiceClient

from local.azurite import azurite
from schemas.deployments import Deployment, Task
from schemas.jobs import Job, JobOptions
from schemas.tenants import DEFAULT_TENANT
from workers.adapters.blobs import connect_blobs
from workers.intake.doors import Doors
from workers.intake.estimates import Estimates
from workers.intake.estimating import QuotaEstimator
from workers.intake.intake import Intake
from workers.intake.pieces import Scanner, answer_weight
from workers.intake.planning import Draft
from workers.intake.plans import Plans
from workers.intake.scanning import pieces_of, slices_of
from workers.jobs.history import History
from workers.jobs.index import JobIndex
from workers.jobs.months import MonthlyBudgets
from workers.jobs.outbox import Outbox
from workers.jobs.rejections import Rejections
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.ports import BlobRef, Blobs, OutMessage
from workers.ports.telemetry import Telemetry
from workers.quota.health import HealthBoard
from workers.rows.blocks import Block
from workers.rows.fast_path import UsualRows
from workers.rows.reading import RowRules
from workers.service import memory
from workers.settings import Settings
from workers.shards.calls import WEIGHT_OF_PRIORITY

LEAST_RATE = 250.0
LEAST_RATIO = 0.9
MOST_MEMORY = 250.0
QUESTIONS = Path(__file__).parent.parent / "samples/gsm8k-test.jsonl"
FILE = BlobRef("prompts", "large.jsonl")
MODEL = "Phi-3-mini-4k-instruct"
RULES = RowRules.of(JobOptions(), max_line_bytes=4 * 1024 * 1024)

Slices = list[bytes]


def rows(size: int) -> Iterator[bytes]:
    """Blocks of rows, `size` bytes in all or a little more."""
    asked = [orjson.loads(line)["question"] for line in QUESTIONS.read_bytes().splitlines()]
    written = number = 0
    while written < size:
        block = bytearray()
        for question in asked:
            number += 1
            block += orjson.dumps(_row(number, question), option=orjson.OPT_APPEND_NEWLINE)
        written += len(block)
        yield bytes(block)


def _row(number: int, question: str) -> dict[str, Any]:
    system = {"role": "system", "content": "Answer with the number alone."}
    body = {
        "model": MODEL,
        "messages": [system, {"role": "user", "content": question}],
        "max_tokens": 256,
        "temperature": 0,
    }
    return {
        "custom_id": f"gsm8k-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }


class Anywhere:
    """Routes on which every model is served."""

    def cannot(self, task: Task, model: str, among: Container[str] | None = None) -> str | None:
        return None

    async def preflight(self, task: Task, model: str) -> str | None:
        return None


class Counted:
    """A bus that counts its messages."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, entity: str, messages: Any) -> None:
        assert all(isinstance(message, OutMessage) for message in messages)
        self.sent += len(messages)

    async def take_dead(self, queue: str, handle: Any, most: int) -> int:
        return 0

    async def reach(self, queue: str) -> None:
        pass


async def plan(blobs: Blobs, turn: int) -> int:
    """Intake, from the event to the first messages; gives the number of rows planned."""
    deployment = Deployment(
        name="p", kind="openai", url="http://127.0.0.1", model=MODEL, auth="none"
    )
    settings = Settings(deployments=(deployment,), state_container=f"state{turn}")
    store = JobStore(
        blobs,
        state_container=settings.state_container,
        results_container=settings.results_container,
    )
    bus = Counted()
    rng = random.Random(0)
    outbox = Outbox(bus, results_container=settings.results_container, clock=time.time, rng=rng)
    telemetry = Telemetry()
    transitions = Transitions(store, outbox, History(store), rng=rng, telemetry=telemetry)
    index = JobIndex(store)
    rejections = Rejections(index, outbox, settings.tenants, clock=time.time)
    estimator = QuotaEstimator(settings.deployments, settings.routes, settings.default_models)
    board = HealthBoard(blobs, settings.state_container)
    estimates = Estimates(
        *(store, Anywhere(), estimator, board, settings.tenants, WEIGHT_OF_PRIORITY),
        hours=settings.priority_hours,
        clock=time.time,
    )
    intake = Intake(
        store,
        transitions,
        outbox,
        index,
        rejections,
        telemetry=telemetry,
        months=MonthlyBudgets(store, rng=rng),
        plans=Plans(store, Anywhere(), estimates, settings, clock=time.time, rng=rng),
        settings=settings,
        clock=time.time,
    )
    doors = Doors(
        *(store, outbox, index, rejections, intake),
        telemetry=telemetry,
        settings=settings,
        clock=time.time,
    )
    await doors.dropped(*FILE, repeated=False)
    [(_, entry)], _ = await index.page((DEFAULT_TENANT,), 1)
    held = await store.state(entry.id)
    assert held is not None
    assert held.state.state == "in_progress"
    assert bus.sent >= held.state.window
    return held.state.counts.total


async def read(blobs: Blobs, turn: int) -> int:
    """The reference: the same ranges, and nothing done with them; gives their bytes."""
    info = await blobs.head(FILE)
    job = Job(
        id="reference",
        door="drop",
        container=FILE.container,
        name=FILE.name,
        etag=info.etag,
        size=info.size,
        options=JobOptions(),
        priority="normal",
        created=0.0,
        expires=0.0,
        window=1,
        max_line_bytes=1024,
        results="none",
    )
    return sum([len(piece) async for piece in pieces_of(blobs, job)])


async def measured(what: str, connection: str, turn: int) -> dict[str, float]:
    """One round, in this process, whose memory is managed as a worker's is."""
    memory.tune()
    async with connect_blobs(connection, None, None) as blobs:
        await blobs.ensure_containers([f"state{turn}"])
        size = (await blobs.head(FILE)).size
        start, cpu = time.perf_counter(), time.process_time()
        found = await (plan if what == "plan" else read)(blobs, turn)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "found": found,
        "rate": size / seconds / 1e6,
        "cpu_rate": size / cpu / 1e6,
        "peak": peak_bytes() / 1e6,
    }


def peak_bytes() -> int:
    """The most memory that this process had at a time, as Linux counts it.

    Not ru_maxrss: that begins with what the parent had.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status: measure on Linux")


def round_of(what: str, connection: str, turn: int) -> dict[str, float]:
    """One round, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.planning", "--round", what, connection, str(turn)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    print(
        f"{what:5} {result['rate']:6.0f} MB/s   {result['cpu_rate']:6.0f} MB per CPU second   "
        f"peak {result['peak']:4.0f} MB",
        flush=True,
    )
    return result


async def upload(connection: str, size: int) -> None:
    async with BlobServiceClient.from_connection_string(
        connection, max_block_size=32 * 1024 * 1024, max_single_put_size=32 * 1024 * 1024
    ) as service:
        for name in (FILE.container, "results"):
            await service.create_container(name)
        await service.get_blob_client(*FILE).upload_blob(rows(size))


def split(slices: Slices) -> None:
    """Where the lines of slices begin."""
    for each in slices:
        Block(each, 0, len(each))


def decode(slices: Slices) -> None:
    """And what usual rows hold."""
    reader = UsualRows(RULES, answer_weight)
    for each in slices:
        block, at = Block(each, 0, len(each)), 0
        while at < len(block) and (usual := reader.read(block, at)):
            at += len(usual.models)


def scan(slices: Slices) -> None:
    """And the rows that are not usual, sizes, and where each row lies."""
    scanner = Scanner(RULES)
    for each in slices:
        for _ in scanner.feed(each):
            pass


def draft(slices: Slices, rules: RowRules = RULES) -> None:
    """And shards, kinds and repeated custom_ids."""
    scanner, made = Scanner(rules), Draft(1_000_000_000)
    for each in slices:
        for found in scanner.feed(each):
            made.add(found)
    made.close()
    made.finder.candidates()


def stages(size: int) -> None:
    """What the decisions take of the CPU, in slices that are in memory, up to each stage."""
    data = b"".join(rows(size))
    slices = list(slices_of(data))
    for stage in (split, decode, scan, draft):
        took = min(_cpu_seconds(partial(stage, slices)) for _ in range(5))
        each, rate = took / data.count(b"\n") * 1e6, len(data) / took / 1e6
        print(f"{stage.__name__:6} {each:5.2f} us/row {rate:6.0f} MB per CPU second", flush=True)


def kinds(count: int) -> None:
    """What they take of the CPU for rows of one kind, and so for a file of 10 GiB of them."""
    text = "x" * 106
    batch = {"custom_id": "r", "url": "/v1/chat/completions"}
    chat = {"model": MODEL, "messages": [{"role": "user", "content": text * 3}]}
    template = {"messages": [{"role": "user", "content": "Q: {prompt}"}]}
    cap = {"max_total_tokens": 10**9}
    own: dict[str, Any] = {"top_p": 0.95, "seed": 42}
    stops = {**own, "stop": ["\n\n", "Q:"]}
    schema = {"name": "answer", "schema": {"type": "object", "additionalProperties": False}}
    formed = {"type": "json_schema", "json_schema": schema}
    embed = {"input": text, "encoding_format": "float", "dimensions": 256}
    files: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        ("batch rows", {**batch, "body": chat}, {}),
        ("batch rows, option max_tokens", {**batch, "body": chat}, {"max_tokens": 100}),
        ("long prompt rows", {"prompt": text * 4}, {}),
        ("short prompt rows", {"prompt": text}, {}),
        ("short rows, template", {"prompt": text}, {"template": template}),
        ("short rows, cap", {"prompt": text}, {"max_tokens": 100, **cap}),
        ("batch rows, own top_p, seed, stop", {**batch, "body": {**chat, **stops}}, {}),
        ("short rows, own top_p, seed", {"prompt": text, **own}, {}),
        ("short rows, own, cap", {"prompt": text, **own, "n": 2, "max_tokens": 9}, cap),
        ("short rows, own JSON schema", {"prompt": text, "response_format": formed}, {}),
        ("short rows, own unknown name", {"prompt": text, "category": "arithmetic"}, {}),
        ("short texts to embed, own format", embed, {}),
    )
    for name, row, options in files:
        rules = RowRules.of(JobOptions(model=MODEL, **options), max_line_bytes=4 * 1024 * 1024)
        data = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) * count
        slices = list(slices_of(data))
        took = min(_cpu_seconds(partial(draft, slices, rules)) for _ in range(5))
        rate = len(data) / took
        print(
            f"{name:33} {len(data) // count:4} bytes a row {rate / 1e6:6.1f} MB per CPU second "
            f"{10 * 2**30 / rate:6.0f} CPU seconds for 10 GiB",
            flush=True,
        )


def _cpu_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


async def main(megabytes: int, rounds: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with azurite(Path(folder)) as emulator:
            connection = emulator.connection_string
            await upload(connection, megabytes * 1_000_000)
            made = []
            for turn in range(rounds):
                pair = ("read", "plan") if turn % 2 else ("plan", "read")
                made.append(
                    {
                        what: await asyncio.to_thread(round_of, what, connection, turn)
                        for what in pair
                    }
                )
    rate = max(each["plan"]["rate"] for each in made)
    peak = max(each["plan"]["peak"] for each in made)
    ratio = median(each["plan"]["rate"] / each["read"]["rate"] for each in made)
    print(
        f"planned {megabytes:,} MB, {made[0]['plan']['found']:,.0f} rows: at best {rate:.0f} MB/s, "
        f"{ratio:.2f} of reading alone (median of {rounds} rounds), peak {peak:.0f} MB"
    )
    return 0 if (rate >= LEAST_RATE or ratio >= LEAST_RATIO) and peak < MOST_MEMORY else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decisions", action="store_true", help="without storage")
    parser.add_argument("--round", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.round:
        what, connection, turn = given.round
        print(json.dumps(asyncio.run(measured(what, connection, int(turn)))))
    else:
        stages(100_000_000)
        kinds(100_000)
        if given.decisions:
            sys.exit()
        sys.exit(asyncio.run(main(given.megabytes, given.rounds)))
