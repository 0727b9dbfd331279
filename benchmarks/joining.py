"""`python -m benchmarks.joining`: what `validate` and a join cost, by rows."""

import argparse
import io
import json
import tempfile
import time
import tracemalloc
from pathlib import Path

from phi3batch.checking import Checker, rules_for
from phi3batch.results import OUTPUT, Results
from phi3batch.tasks import Naming
from schemas.jobs import JobOptions

NAMING = Naming(("answer",))
ANSWER = "An answer of some words. " * 8


def requests(rows: int) -> bytes:
    """A file of prompts."""
    lines = ({"custom_id": f"review-{row}", "prompt": ANSWER} for row in range(rows))
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def write_results(folder: Path, rows: int) -> None:
    """The answers to them."""
    message = {"role": "assistant", "content": ANSWER}
    response = {"status_code": 200, "body": {"choices": [{"index": 0, "message": message}]}}
    with (folder / OUTPUT).open("w", encoding="utf-8") as file:
        for row in range(rows):
            line = {"custom_id": f"review-{row}", "line": row + 1, "response": response}
            file.write(json.dumps(line | {"error": None}) + "\n")


def main() -> None:
    """Print CPU time and memory for each row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joining", description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    rows: int = parser.parse_args().rows
    file = io.BytesIO(requests(rows))
    started = time.process_time()
    for _ in Checker(rules_for(JobOptions())).refusals(file):
        pass
    checked = time.process_time()
    print(f"validate: {rows / (checked - started):,.0f} rows a second of CPU")
    with tempfile.TemporaryDirectory() as name:
        write_results(Path(name), rows)
        started = time.process_time()
        with Results([Path(name)], NAMING) as results:
            for row in range(rows):
                results.answer(f"review-{row}")
        print(f"join: {rows / (time.process_time() - started):,.0f} rows a second of CPU")
        tracemalloc.start()
        with Results([Path(name)], NAMING):
            print(f"join: {tracemalloc.get_traced_memory()[0] / rows:.0f} bytes held for each row")


if __name__ == "__main__":
    main()
