"""What do rows become, and at what price? A run of a peer, and one of this service."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.peers.circumstances import Circumstances, expected
from benchmarks.peers.environments import HOME, Peer
from benchmarks.throughput import MODEL, body
from benchmarks.whole_job import site
from schemas.results import OutputRow

PATIENCE: Final = 400.0
"""Seconds after which a program is stopped; what it has not answered is lost."""
LOOK_EVERY: Final = 0.1
QUOTAS: Final = ("requests", "tokens", "day", "concurrency")
# They look for nothing outside, and tell nobody that they run.
ENVIRONMENT: Final = {
    "PATH": os.environ["PATH"],
    "HOME": str(HOME.absolute()),
    "OPENAI_API_KEY": "none",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TELEMETRY_ENABLED": "0",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
}


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it. A row is `lost` unless its own answer is kept. `took` is from the rows on
    disk to their answers, `setup` what came before; both in seconds, as is `processor`. `refused`
    and `calls` are as the endpoint counted them; `memory` is bytes of the process and its children.
    """

    lost: int
    took: float
    setup: float
    refused: int
    calls: int
    processor: float
    memory: int
    finished: bool = True


def theirs(peer: Peer, rows: int, where: Circumstances) -> Run:
    """A peer's program, as a process of its own."""
    asked, answered = (HOME / f"{peer.program}.{name}" for name in ("rows.jsonl", "answers.jsonl"))
    asked.write_text("".join(json.dumps(body(row)) + "\n" for row in range(rows)))
    answered.unlink(missing_ok=True)
    python, module = peer.python(), f"benchmarks.peers.programs.{peer.program}"
    with where.endpoint() as url, (HOME / f"{peer.program}.log").open("wb") as log:
        started = time.time()
        told = (f"{url}/v1", MODEL, str(where.requests_per_minute), asked, answered)
        with subprocess.Popen(
            [python, "-m", module, *told], stdout=log, stderr=log, env=ENVIRONMENT
        ) as process:
            memory = _watched(process, started + PATIENCE)
        with urllib.request.urlopen(f"{url}/simulator/stats") as response:
            stats = json.load(response)
    lines = _lines(answered)
    times = lines.pop() if lines and "ended" in lines[-1] else None
    return Run(
        lost=rows - _kept((line["row"], line["text"]) for line in lines),
        took=times["ended"] - times["began"] if times else time.time() - started,
        setup=times["began"] - started if times else 0.0,
        refused=_refused(stats),
        calls=stats["received"],
        processor=times["processor"] if times else 0.0,
        memory=memory,
        finished=times is not None,
    )


def _watched(process: subprocess.Popen[bytes], until: float) -> int:
    """The most bytes that a process and its children had, until they end or are stopped."""
    most = 0
    while process.poll() is None:
        if time.time() > until:
            process.kill()
        try:
            root = psutil.Process(process.pid)
            family = [root, *root.children(recursive=True)]
            most = max(most, sum(each.memory_info().rss for each in family))
        except psutil.NoSuchProcess:
            continue
        time.sleep(LOOK_EVERY)
    return most


def _refused(stats: Mapping[str, Any]) -> int:
    """The 429s; what was rejected otherwise is no matter of pace."""
    return sum(count for cause, count in stats["rejected"].items() if cause in QUOTAS)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _kept(answers: Iterable[tuple[int, str | None]]) -> int:
    """How many rows have their own answer."""
    return len({row for row, text in answers if text == expected(row)})


async def ours(rows: int, where: Circumstances) -> Run:
    """This service whole: from the dropped file to the event that its results are there."""
    lines = [json.dumps(body(row)).encode() + b"\n" for row in range(rows)]
    with where.endpoint() as url:
        started = time.monotonic()
        elsewhere = (url, where.settings(url))
        async with site(1, "serverless", {}, elsewhere=elsewhere) as running:
            setup = time.monotonic() - started
            (host,) = running.running.hosts.processes.values()
            used = sum(psutil.Process(host.pid).cpu_times()[:2])
            done = await running.do("peers.jsonl", lines)
            processor = sum(psutil.Process(host.pid).cpu_times()[:2]) - used
            results = (done.status and done.status.results) or ""
            container, _, folder = results.partition("/")
            output = running.storage.get_blob_client(container, f"{folder}/output.jsonl")
            told = await (await output.download_blob()).readall()
    answers = map(OutputRow.model_validate_json, told.splitlines())
    return Run(
        lost=rows - _kept((each.line - 1, _text(each)) for each in answers),
        took=done.whole,
        setup=setup,
        refused=_refused(done.stats),
        calls=done.stats["received"],
        processor=processor,
        memory=done.memory,
    )


def _text(row: OutputRow) -> str:
    return str(row.response.body["choices"][0]["message"]["content"])
