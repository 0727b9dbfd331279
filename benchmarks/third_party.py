"""A whole job against a server that is not ours: `transformers serve` with a tiny Phi-3.

    python -m benchmarks.third_party [--rows 200] [--workers 2]

The first run makes an environment of its own in .local/third-party (transformers and torch, some
1.5 GB) and a randomly initialised Phi-3 in it. Then the server is started, `python -m local run`
runs a file of mixed rows against it, and what came back is checked: each row once and in order,
rows that the server refuses in errors.jsonl, all others answered by that model. Exit status 1 if
not.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.deployments import Deployment
from workers.adapters.endpoints import connect

HOME = Path(".local/third-party")
PYTHON = HOME / "bin" / "python"
MODEL = HOME / "phi-3-tiny"
PACKAGES = ("transformers[serving]==5.23.0", "torch==2.13.0")

READY_SECONDS = 120.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def prepare() -> None:
    """The environment and the model, unless they are there."""
    if not (HOME / "ready").exists():
        venv.create(HOME, with_pip=True, clear=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (HOME / "ready").touch()
    if not (MODEL / "tokenizer_config.json").exists():
        subprocess.run([PYTHON, "benchmarks/tiny_phi3.py", MODEL], check=True)


@contextmanager
def serving() -> Iterator[str]:
    """The server, ready to answer: its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(HOME / "bin" / "transformers"), "serve", "--device", "cpu"]
    with (HOME / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | OFFLINE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"transformers serve did not become ready: see {HOME / 'server.log'}")


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows in many forms; each 50th has a field that this server refuses with 422."""
    for n in range(count):
        mark = {"custom_id": f"row-{n}"}
        messages = [{"role": "user", "content": f"What is {n} times {n}?"}]
        if n % 50 == 49:
            yield mark | {"messages": messages, "no_such_parameter": True}
        elif n % 5 == 1:
            yield mark | {"messages": messages, "stream": True, "temperature": 0.2}
        elif n % 5 == 2:
            before = [{"role": "system", "content": "Be brief."}, *messages]
            answered = {"role": "assistant", "content": str(n * n)}
            yield mark | {"messages": [*before, answered, {"role": "user", "content": "Why?"}]}
        elif n % 5 == 3:
            body = {"prompt": f"{n} times {n} is", "max_tokens": 8}
            yield mark | {"method": "POST", "url": "/v1/completions", "body": body}
        elif n % 5 == 4:
            body = {"messages": messages, "max_tokens": 8}
            yield mark | {"method": "POST", "url": "/v1/chat/completions", "body": body}
        else:
            yield mark | {"prompt": f"What is {n} times {n}?"}


def run_job(base: str, count: int, workers: int, out: Path) -> None:
    """`python -m local run` over the rows, with the server as the only deployment."""
    model = str(MODEL.resolve())
    deployment = {"name": "third-party", "kind": "openai", "url": base, "model": model}
    limits = {"auth": "none", "tasks": ["chat", "completions"], "max_concurrency": 8}
    file = HOME / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    options = json.dumps({"model": model, "max_tokens": 16})
    command = [sys.executable, "-m", "local", "run", str(file), "--options", options]
    settings = {"DEPLOYMENTS": json.dumps([deployment | limits])}
    started = time.monotonic()
    subprocess.run(
        [*command, "--workers", str(workers), "--again", "--out", str(out)],
        env=os.environ | settings,
        check=True,
    )
    print(f"{count} rows in {time.monotonic() - started:.1f} s")


def check(count: int, out: Path) -> list[str]:
    """What is wrong with the results; nothing if all is well."""
    given = list(rows(count))
    refused = [row["custom_id"] for row in given if "no_such_parameter" in row]
    output, errors = _lines(out / "output.jsonl"), _lines(out / "errors.jsonl")
    answered = [row["custom_id"] for row in given if row["custom_id"] not in refused]
    wrong = []
    if [line["custom_id"] for line in output] != answered:
        wrong.append("output.jsonl does not hold each good row once and in order")
    if [line["custom_id"] for line in errors] != refused:
        wrong.append("errors.jsonl does not hold each refused row once and in order")
    bodies = [line["response"]["body"] for line in output]
    if not all(body["model"].startswith(str(MODEL.resolve())) for body in bodies):
        wrong.append("an answer is not the tiny Phi-3's")
    if not all(body["choices"] and body["usage"]["completion_tokens"] for body in bodies):
        wrong.append("an answer has no choices or no usage")
    return wrong


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def warm_up(base: str) -> None:
    """One call of our client, so that the model is loaded before the job begins."""
    model = str(MODEL.resolve())
    each = Deployment(name="warm-up", kind="openai", url=base, model=model, auth="none")
    async with connect([each]) as endpoints:
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        outcome = await endpoints[each.name].ask("chat", body)
    print(f"one call: {outcome.kind}, {outcome.usage}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    prepare()
    out = HOME / "results"
    shutil.rmtree(out, ignore_errors=True)
    with serving() as base:
        asyncio.run(warm_up(base))
        run_job(base, options.rows, options.workers, out)
    wrong = check(options.rows, out)
    print("\n".join(wrong) or f"all {options.rows} rows are where they belong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
