"""What the commands do with arguments, options, results: the parts that start nothing."""

import hashlib
import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob.aio import BlobServiceClient
from rich.console import Console

from local import results, running
from local.__main__ import main
from local.azurite import Azurite
from local.dropping import MAX_METADATA, metadata_for
from local.progress import describe, display
from local.staying import PORTS
from phi3batch.verifying import verify
from schemas.money import Cost
from schemas.results import Counts, Manifest, Tokens
from schemas.status import JobStatus
from workers.intake.announcements import metadata_options

SAMPLE = str(Path(__file__).parents[2] / "samples" / "every-dialect.jsonl")
FREE_PORTS = [each for name in PORTS for each in (f"--{name}-port", "0")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command given, known are run, up, host, verify"),
        (["walk"], "'walk' given"),
        (["run"], "FILE"),
        (["run", "no-such.jsonl"], "no-such.jsonl is not a file"),
        (["run", SAMPLE, "--options", "{"], "not JSON"),
        (["run", SAMPLE, "--options", "@none.json"], "cannot read none.json: No such file"),
        (["run", SAMPLE, "--options", "[]"], "have to be a JSON object"),
        (["run", SAMPLE, "--options", '{"max_token": 5}'], "max_tokens"),
        (["run", SAMPLE, "--workers", "0"], "must be 1 to 64"),
        (["run", SAMPLE, "--workers", "three"], "must be 1 to 64"),
        (["run", SAMPLE, "--latency", "-1"], "must be 0 to 3600 seconds"),
        (["run", SAMPLE, "--requests-per-minute", "-4"], "0 means unlimited"),
        (["run", SAMPLE, "--out", SAMPLE], f"cannot write into {SAMPLE}: File exists"),
        (["up", "--data", SAMPLE, *FREE_PORTS], f"cannot write into {SAMPLE}: File exists"),
        (["up", *FREE_PORTS, "--bus-port", "65536"], "must be 0 to 65535"),
        (["run", SAMPLE, "--profile", "unknown"], "invalid choice"),
        (["verify", "no-such-folder"], "no-such-folder has no manifest.json"),
        (["verify", SAMPLE], "has no manifest.json that can be read: Not a directory"),
    ],
)
def test_wrong_usage_is_status_2_and_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: Any = main(arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert captured.out == ""


def test_a_port_that_is_taken_is_told_before_anything_starts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit) as ended:
            main(["up", *FREE_PORTS, "--http-port", port])
    assert ended.value.code == 2
    assert f"port {port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["output.jsonl", "errors.jsonl", "manifest.json", "events.jsonl"])
def test_a_folder_that_holds_results_is_refused_and_stays_as_it_was(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # As in rerunning out1/errors.jsonl with --out out1.
    (tmp_path / name).write_text('{"prompt": "paid for"}')
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path / name), "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert f"{tmp_path} holds {name} already: name a folder of its own" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"prompt": "paid for"}'


def test_options_travel_in_metadata_the_way_the_service_reads_them() -> None:
    options = {"template": {"prompt": "{q} ÿ>?"}, "max_tokens": 5}
    metadata = metadata_for(options)
    assert metadata is not None
    assert metadata_options(metadata) == options
    assert metadata_for({}) == {}
    assert metadata_for({"system_prompt": "x" * MAX_METADATA}) is None


@pytest.mark.parametrize("form", ["@{}", "{}"])
def test_options_may_lie_in_a_file(tmp_path: Path, form: str) -> None:
    options = {"system_prompt": "under $50, \"so\" 'quoted'"}
    file = tmp_path / "options.json"
    file.write_text(json.dumps(options), "utf-8-sig")
    assert running.read_options(form.format(file)) == options
    assert running.read_options(json.dumps(options)) == options


def test_a_status_is_described_in_one_line() -> None:
    status = JobStatus(
        job="j",
        state="in_progress",
        counts=Counts(total=1319, succeeded=700, failed=4, invalid=1),
        tokens=Tokens(prompt=60_000, completion=1_234),
        cost=Cost(currency="USD", counted="0.008442"),
        running=9,
        rate=16.04,
        basis="quota",
        seconds_left=38.4,
        waiting={"reason": "quota", "deployment": "east", "since": "now"},
    )
    assert describe(status) == (
        "in_progress · 714 of 1,319 rows · 700 succeeded · 5 failed · "
        "16.0 rows/s allowed · 61,234 tokens · 0.008442 USD · "
        "0:00:38 left · waiting for quota of east"
    )
    assert describe(JobStatus(job=None, state=None)) == "rejected"


@pytest.mark.parametrize("terminal", [False, True])
def test_what_to_do_about_a_wait_is_told_once_beside_the_line(terminal: bool) -> None:
    written = io.StringIO()
    waiting = {"reason": "budget", "message": "cancel the job", "since": "now"}
    paused = JobStatus(job="j", state="paused", waiting=waiting)
    with display(Console(file=written, force_terminal=terminal, width=120)) as shown:
        shown.show(paused)
        shown.show(paused.model_copy(update={"rate": 1.0}))
    assert "waiting for budget" in written.getvalue()
    assert written.getvalue().count("it waits: cancel the job") == 1


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"choices": [{"message": {"content": "hello"}}]}, "hello"),
        ({"choices": [{"text": "there"}]}, "there"),
        (
            {"data": [{"embedding": [0.1, 0.2]}, {"embedding": [0.3, 0.4]}]},
            "an embedding of 2 numbers, 2 in this row",
        ),
    ],
)
def test_answers_are_shown_whatever_their_kind(body: dict[str, Any], shown: str) -> None:
    assert results.answer_of(body) == shown


def test_long_answers_are_shortened_to_one_line() -> None:
    short = results.shortened("a\n" * 500)
    assert len(short) == results.SHOWN_CHARACTERS
    assert "\n" not in short


def write_results(folder: Path, output: str = "output.jsonl") -> Manifest:
    """Two shards with three answers and one error, as a job leaves them."""
    first, second, error = b'{"n":1}\n{"n":2}\n', b'{"n":3}\n', b'{"error":1}\n'
    (folder / output).write_bytes(first + second)
    (folder / "errors.jsonl").write_bytes(error)

    def part(shard: int, offset: int, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        rows = data.count(b"\n")
        length = len(data)
        return {
            "shard": shard,
            "offset": offset,
            "length": length,
            "rows": rows,
            "sha256": digest,
        }

    document = {
        "job": "j",
        "state": "completed",
        "input": {},
        "options": {},
        "counts": {"total": 4, "succeeded": 3, "invalid": 1},
        "tokens": {},
        "created": "2026-01-01T00:00:00Z",
        "started": None,
        "finished": "2026-01-01T00:00:01Z",
        "seconds": 1.0,
        "use": {},
        "output": {
            "name": output,
            "length": len(first + second),
            "rows": 3,
            "parts": [part(0, 0, first), part(1, len(first), second)],
        },
        "errors": {
            "name": "errors.jsonl",
            "length": len(error),
            "rows": 1,
            "parts": [part(1, 0, error)],
        },
    }
    (folder / "manifest.json").write_text(json.dumps(document))
    return Manifest.model_validate(document)


def test_verify_accepts_what_the_manifest_describes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path)
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("verified: 4 rows, 3 in output.jsonl and 1 in")


def test_verify_names_each_difference(tmp_path: Path) -> None:
    manifest = write_results(tmp_path)
    (tmp_path / "output.jsonl").write_bytes(b'{"n":1}\n{"n":2}\n{"n":4}\n')
    assert verify(manifest, tmp_path) == [
        "output.jsonl: the bytes of shard 1 are not those that were written"
    ]
    (tmp_path / "errors.jsonl").unlink()
    assert "errors.jsonl is missing" in verify(manifest, tmp_path)
    (tmp_path / "output.jsonl").write_bytes(b'{"n":1}\n')
    assert "output.jsonl has 8 bytes, not 24" in verify(manifest, tmp_path)


def test_verify_checks_that_counts_reconcile(tmp_path: Path) -> None:
    manifest = write_results(tmp_path)
    lost = manifest.model_copy(update={"counts": Counts(total=5, succeeded=3, invalid=1)})
    assert verify(lost, tmp_path) == ["manifest.json counts 4 rows done of 5"]


def test_verify_fails_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path)
    (tmp_path / "errors.jsonl").write_bytes(b'{"error":2}\n')
    assert main(["verify", str(tmp_path)]) == 1
    assert "shard 1" in capsys.readouterr().err


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_fetched_is_called_as_the_manifest_has_it(
    azurite: Azurite, tmp_path: Path
) -> None:
    """Somebody else has written an output.jsonl and a manifest beside the job's own."""
    job, home, other = tmp_path / "job", tmp_path / "home", tmp_path / "other"
    job.mkdir()
    home.mkdir()
    write_results(job, "output.2.jsonl")
    (job / "output.jsonl").write_bytes(b"another's")
    (job / "manifest.json").rename(job / "manifest.2.json")
    (job / "manifest.json").write_bytes(b"{}")
    (job / "report.html").write_bytes(b"<!doctype html>")
    (home / "output.jsonl").write_bytes(b"of an earlier start")
    async with BlobServiceClient.from_connection_string(azurite.connection_string) as storage:
        container = await storage.create_container("fetched")
        for path in job.iterdir():
            await container.upload_blob(f"in/j/{path.name}", path.read_bytes())
        await results.download(storage, "fetched/in/j", home, "manifest.2.json")
    ours = {"output.2.jsonl", "errors.jsonl", "manifest.json", "report.html"}
    assert {path.name for path in home.iterdir()} == ours == set(results.lie_in(home))
    assert verify(results.manifest(home), home) == []
    results.copy(home, other)
    assert {path.name for path in other.iterdir()} == ours


def test_the_answers_shown_are_the_jobs_own(tmp_path: Path) -> None:
    write_results(tmp_path, "output.2.jsonl")
    line = {"custom_id": "a", "response": {"body": {"choices": [{"text": "mine"}]}}}
    (tmp_path / "output.2.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "output.jsonl").write_text("another's\n")
    assert list(results.first_answers(tmp_path, 1)) == [("a", "mine")]
