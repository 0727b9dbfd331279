"""What do rows become in other programs that ask a model in bulk, and how long do they take?

    python -m benchmarks.peers [--rows 2000] [--only litellm curator openai ours]

Each program asks the same rows of the same simulated endpoint, 100 at once, told the quota where it
can be told: without a limit (answers after 200 ms), at 50 requests a second judged second by second
(429 beyond), and with 2% of the calls failing (half 503, half a connection that ends). The others
are run as their documents show, in environments of their own below .local/peers, which the first
run makes; this service runs whole, from the dropped file to its results, with its storage and its
bus on the same cores. Printed: rows without an answer, seconds from the first row handed over to
the last answer, the time before that, refusals, calls a row and the asking process's peak memory.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.throughput import MODEL, body, child
from benchmarks.whole_job import site

HOME: Final = Path(".local/peers")
PROGRAMS: Final = Path(__file__).with_name("peer_programs")
PACKAGES: Final[Mapping[str, str]] = {
    "litellm": "litellm==1.110.0",
    "curator": "bespokelabs-curator==0.1.31",
    "openai": "openai==3.57.0",
}
OURS: Final = "ours"
ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": "none", "TELEMETRY_ENABLED": "0"}
# Seconds after which a program is stopped, and what it has not answered is lost.
PATIENCE: Final = 400.0


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the endpoint does. `requests_per_minute` 0: no limit."""

    name: str
    requests_per_minute: int = 0
    faults: Mapping[str, float] | None = None

    @property
    def simulator(self) -> dict[str, Any]:
        limits: dict[str, Any] = {
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": 0,
            "window": 1,
            "latency": 0.2,
        }
        return limits | ({"faults": dict(self.faults)} if self.faults else {})

    @property
    def arguments(self) -> list[str]:
        """The same, on the command line of the simulator."""
        given = ["--profile", "serverless"]
        for name, value in self.simulator.items():
            said = json.dumps(value) if name == "faults" else str(value)
            given += [f"--{name.replace('_', '-')}", said]
        return given


ALL: Final = (
    Circumstances("no limit"),
    Circumstances("50 requests a second", requests_per_minute=3_000),
    Circumstances("2% faults", faults={"http_503": 0.01, "reset_after": 0.01}),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What a program did. `memory` is in bytes."""

    lost: int
    took: float
    setup: float
    refused: int
    calls: int
    memory: int


def python_of(program: str) -> Path:
    """The interpreter of a program's own environment, which is made unless it is there."""
    home = HOME / program
    if not (home / PACKAGES[program]).exists():
        venv.create(home, with_pip=True, clear=True)
        python = str(home / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGES[program]], check=True)
        (home / PACKAGES[program]).touch()
    return home / "bin" / "python"


def theirs(program: str, rows: int, where: Circumstances) -> Run:
    """A program as a process of its own, asked for all rows."""
    python = python_of(program).absolute()
    asked, answered = HOME / "rows.jsonl", HOME / f"{program}.answers.jsonl"
    asked.write_text("".join(json.dumps(body(row)) + "\n" for row in range(rows)))
    answered.unlink(missing_ok=True)
    with child("local.endpoint", *where.arguments) as url:
        started = time.time()
        process = subprocess.Popen(
            [
                *(python, PROGRAMS / f"{program}_program.py", f"{url}/v1", MODEL),
                *(asked, answered, str(where.requests_per_minute)),
            ],
            stdout=(HOME / f"{program}.log").open("wb"),
            stderr=subprocess.STDOUT,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(HOME.absolute()),
                "OPENAI_API_KEY": "none",
                "TELEMETRY_ENABLED": "0",
            },
        )
        memory = _watched(process, started + PATIENCE)
        stats = json.loads(urllib.request.urlopen(f"{url}/simulator/stats").read())
    times, found = _answers(answered)
    return Run(
        lost=rows - found,
        took=times["ended"] - times["began"] if times else time.time() - started,
        setup=times["began"] - started if times else 0.0,
        refused=sum(stats["rejected"].values()),
        calls=stats["received"],
        memory=memory,
    )


def _watched(process: subprocess.Popen[bytes], until: float) -> int:
    """The most memory that a process and its children had, until they end or are stopped."""
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
        time.sleep(0.2)
    return most


def _answers(file: Path) -> tuple[dict[str, float] | None, int]:
    """When a program began and ended, as its last line says, and how many rows it answered."""
    if not file.exists():
        return None, 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    times = lines.pop() if lines and "ended" in lines[-1] else None
    return times, len({line["row"] for line in lines if line["text"]})


async def ours(rows: int, where: Circumstances) -> Run:
    lines = [json.dumps(body(row)).encode() + b"\n" for row in range(rows)]
    started = time.monotonic()
    async with site(1, "serverless", where.simulator) as running:
        setup = time.monotonic() - started
        done = await running.do("peers.jsonl", lines)
    if done.status is None or done.status.counts is None:
        raise SystemExit("the job has no counts")
    return Run(
        lost=rows - done.status.counts.succeeded,
        took=done.whole,
        setup=setup,
        refused=sum(done.stats["rejected"].values()),
        calls=done.stats["received"],
        memory=done.memory,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--only", nargs="+", choices=[*PACKAGES, OURS], default=[*PACKAGES, OURS])
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    lost = [_compared(where, asked.rows, asked.only) for where in ALL]
    return 1 if any(lost) else 0


def _compared(where: Circumstances, rows: int, programs: Sequence[str]) -> int:
    """Print a table; gives the rows that this service lost."""
    print(f"\n{where.name}: {rows} rows", flush=True)
    print("program   lost  seconds  before   429s  calls/row  memory", flush=True)
    lost = 0
    for program in programs:
        if program == OURS:
            run = asyncio.run(ours(rows, where))
            lost = run.lost
        else:
            run = theirs(program, rows, where)
        print(
            f"{program:<9} {run.lost:>4} {run.took:>8.1f} {run.setup:>7.1f} {run.refused:>6} "
            f"{run.calls / rows:>10.3f} {run.memory / 2**20:>4.0f} MiB",
            flush=True,
        )
    return lost


if __name__ == "__main__":
    sys.exit(main())
