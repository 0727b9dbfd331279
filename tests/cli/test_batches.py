"""The commands against the doors: the SDK, a port, and the service in memory."""

import hashlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from phi3batch import service as connecting
from phi3batch.checking import MAX_LINE_BYTES
from phi3batch.commands.estimate import cost
from phi3batch.fetching import fetch_report
from schemas.budgets import MonthBudget
from schemas.estimates import JobEstimate
from schemas.estimating import EstimateGroup
from schemas.hours import Hours
from schemas.jobs import JobOptions
from schemas.listing import month_of
from schemas.money import MILLION, Price, amount
from schemas.tenants import Tenant
from tests.cli.serving import Failing, Served, serving
from tests.cli.test_commands import ended
from tests.doubles.service import DEPLOYMENT, MODEL
from workers.ports import BlobRef
from workers.ports.errors import Unavailable

PROJECT = Path(__file__).parents[2]
PROMPTS = '{"prompt": "hi"}\n{"prompt": "you"}\n'
# Shells have what they start in the background, as these tests may be, ignore Ctrl-C.
AS_FROM_A_TERMINAL = """
import signal, sys
from phi3batch.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
REVIEWS = "key,text\na,Great phone\nb,\nc,Awful\n"
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def served(running: Served, endpoint: Failing, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("PHI3BATCH_URL", running.url)
    monkeypatch.setenv("PHI3BATCH_KEY", "app")
    running.calls.clear()
    running.held, running.polls, running.cut, endpoint.word = False, 0, 0, "bad"
    return running


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (path := tmp_path / "my.jsonl").write_text(PROMPTS)
    return path


def submitted(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert ended("submit", *arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("batch_")
    assert out.count("\n") == 1
    return out.strip()


def test_three_commands_from_a_csv_to_its_answers(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table := prompts.with_name("reviews.csv")).write_text(REVIEWS)
    tasks = ("--prompt", "Label: {text}", "--as", "label", "--embed", "text", "--id-column", "key")
    assert ended("submit", str(table), *tasks, "--meta", "team=blue") == 0
    out, err = capsys.readouterr()
    batch = out.strip()
    assert "not everything can be asked: 2 template_field" in err
    assert f"{table} is {batch}; follow it with: phi3batch watch {batch}" in err
    assert ended("watch", batch, "--interval", "0.01") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{batch} completed · 6 of 6 rows · 4 succeeded · 2 failed · ")
    assert ended("results", batch, "--join", str(table)) == 0
    assert capsys.readouterr().out == f"{table.with_name('reviews.answers.csv')}\n"
    assert table.with_name("reviews.answers.csv").read_text().splitlines() == [
        "key,text,label,label_error,embedding,embedding_error",
        "a,Great phone,asked with 1 turns,,[0.5],",
        "b,,,template_field,,template_field",
        "c,Awful,asked with 1 turns,,[0.5],",
    ]
    assert sorted(each.name for each in (prompts.parent / batch).iterdir()) == [
        "errors.jsonl",
        "manifest.json",
        "output.jsonl",
        "report.html",
    ]


def test_a_bad_row_harms_no_other_and_the_status_says_so_where_wanted(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text(PROMPTS + "{\n")
    assert ended("submit", str(prompts), "--watch", "--interval", "0.01") == 0
    assert "2 succeeded · 1 failed" in capsys.readouterr().out
    assert ended("submit", str(prompts), "--watch", "--interval", "0.01", "--strict") == 3
    capsys.readouterr()
    assert ended("submit", str(prompts), "--watch", "-O", "on_invalid=fail") == 1
    assert "invalid_json" in capsys.readouterr().out


def test_where_no_row_is_answered_the_status_is_3(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "bad"}\n')
    batch = submitted(capsys, str(prompts))
    assert ended("watch", batch) == 3
    assert ended("results", batch) == 3
    assert (prompts.parent / batch / "errors.jsonl").exists()


def test_a_retry_asks_what_is_missing_and_both_join_together(
    served: Served, endpoint: Failing, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table := prompts.with_name("t.csv")).write_text("text\ngood\nbad\n")
    first = submitted(capsys, str(table), "--prompt", "{text}", "-O", "max_tokens=7")
    endpoint.word = ""
    assert ended("retry", first, "--watch", "--interval", "0.01", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["metadata"]["retry_of"] == first
    assert again["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert served.service.endpoint.asked[-1][1]["max_tokens"] == 7
    assert ended("results", first, again["id"], "-o", "out", "--join", str(table), "--json") == 0
    assert json.loads(capsys.readouterr().out)["whole"] == 2
    assert (Path("out") / first / "errors.jsonl").exists()
    assert ended("retry", again["id"], "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["id"] is None
    assert "no row without an answer" in err
    assert ended("retry", first) == 0
    assert f"{again['id']} has asked these rows again already\n" in capsys.readouterr().err


def test_rows_that_no_request_could_be_made_of_count_as_all_others(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table := prompts.with_name("s.csv")).write_text("id,text\na,\nb,x\n,y\n")
    ask = ("submit", str(table), "--prompt", "{text}", "--watch", "--interval", "0.01", "--strict")
    assert ended(*ask, "--json") == 3
    batch = json.loads(capsys.readouterr().out)
    assert batch["request_counts"] == {"total": 3, "completed": 1, "failed": 2}
    assert ended("retry", batch["id"]) == 0
    out, err = capsys.readouterr()
    assert (out, "no request could be made" in err) == ("", True)
    assert ended("results", batch["id"], "--join", str(table)) == 0
    told = "1 of 3 rows answered; missing: 1 template_field, 1 no_id\n"
    assert capsys.readouterr().err.endswith(told)


def test_a_retry_asks_again_only_what_can_be_asked(
    served: Served, endpoint: Failing, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table := prompts.with_name("s.csv")).write_text("id,text\na,\nb,bad\nc,good\n")
    first = submitted(capsys, str(table), "--prompt", "{text}")
    endpoint.word = ""
    assert ended("retry", first, "--watch", "--interval", "0.01", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert ended("results", first, again["id"], "--join", str(table), "--json") == 0
    assert json.loads(capsys.readouterr().out)["errors"] == {"template_field": 1}


def test_a_table_without_ids_gives_answers_to_the_table_that_was_submitted_alone(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table := prompts.with_name("t.csv")).write_text("text\none\ntwo\n")
    batch = submitted(capsys, str(table), "--prompt", "{text}")
    assert ended("results", batch, "--join", str(table)) == 0
    table.write_text("text\ntwo\none\n")
    assert ended("results", batch, "--join", str(table)) == 2
    assert "is not the table that was submitted, or not in its order" in capsys.readouterr().err
    table.write_text("text,row\ntwo,2\none,1\n")
    assert ended("results", batch, "--join", str(table), "--id-column", "row") == 0
    assert ended("results", batch, "--join", str(table), "--id-column", "nope") == 2
    assert "has no column 'nope': it has 'text', 'row'" in capsys.readouterr().err


def test_a_retry_of_a_dropped_file_asks_for_whatever_its_rows_ask_for(
    served: Served, endpoint: Failing, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its job has no endpoint: the one that its batch tells, which needs some, is no rule."""
    row = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings"}
    line = json.dumps(row | {"body": {"model": MODEL, "input": "bad"}}).encode()
    dropped = served.run(served.service.run(line))
    first = f"batch_{dropped.manifest['job']}"
    endpoint.word = ""
    assert ended("retry", first, "--watch", "--interval", "0.01", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


def test_a_retry_takes_options_in_the_place_of_those_of_the_first(
    served: Served, endpoint: Failing, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "hi"}\n' * 9)
    caps = ("-O", "max_tokens=7", "-O", "max_total_tokens=150", "-O", "temperature=0.5")
    first = submitted(capsys, str(prompts), *caps)
    assert ended("show", first, "--json") == 0
    counts = json.loads(capsys.readouterr().out)["request_counts"]
    assert counts["failed"] > 0, "the cap has no room for all"

    def again(*given: str) -> dict[str, Any]:
        assert ended("retry", first, "--watch", "--interval", "0.01", "--json", *given) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    new = again("-O", "max_total_tokens=9000", "--options", '{"on_budget": "pause"}')
    assert new["request_counts"] == {
        "total": counts["failed"], "completed": counts["failed"], "failed": 0
    }  # fmt: skip
    assert new["metadata"] == {"file": "my.jsonl", "retry_of": first}
    asked = served.service.endpoint.asked[-1][1]
    assert (asked["max_tokens"], asked["temperature"]) == (7, 0.5)
    assert ended("show", new["id"], "--json") == 0
    told = json.loads(capsys.readouterr().out)["phi3"]
    assert told["budget"]["max_total_tokens"] == 9000
    new = again("-O", "max_total_tokens=null", "-O", 'metadata={"why": "room"}')
    assert new["request_counts"]["failed"] == 0
    assert new["metadata"] == {"file": "my.jsonl", "why": "room", "retry_of": first}
    served.calls.clear()
    assert ended("retry", first, "-O", "max_total_tokens=9000", "-O", "max_tokens=8") == 0
    assert "max_tokens: the requests that were made keep their own" in capsys.readouterr().err
    served.calls.clear()
    assert ended("retry", first, "-O", "max_totl_tokens=9000") == 2
    assert "did you mean 'max_total_tokens'?" in capsys.readouterr().err
    assert served.calls == []


def test_a_retry_with_a_cap_that_nothing_bounds_is_not_sent(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "bad"}\n')
    first = submitted(capsys, str(prompts))
    served.calls.clear()
    assert ended("retry", first, "-O", "max_total_tokens=9000") == 2
    assert "need max_tokens in every row that generates" in capsys.readouterr().err
    assert not [call for call in served.calls if call.method == "POST"]
    assert ended("retry", first, "-O", "max_total_tokens=9000", "-O", "max_tokens=5") == 0


@pytest.mark.parametrize("cap", ["max_cost=1", "max_total_tokens=9000"])
def test_a_capped_batch_whose_rows_nothing_bounds_is_not_sent(
    cap: str, served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bounded = '{"prompt": "hi", "max_tokens": 9}\n'
    prompts.write_text(bounded * 3 + '\n{"input": "embed this"}\n{"prompt": "hi"}\n')
    assert ended("submit", str(prompts), "-O", cap) == 2
    words = (
        "max_cost, max_total_tokens and a tenant's cap by month need max_tokens in every row that "
        "generates: give it here, or as an option for all (-O max_tokens=N)\n"
    )
    assert capsys.readouterr().err == f"error: my.jsonl, line 6: {words}"
    (table := prompts.with_name("t.csv")).write_text("text\na\nb\n")
    tasks = ("--embed", "text", "--prompt", "{text}")
    assert ended("submit", str(table), *tasks, "-O", cap) == 2
    assert capsys.readouterr().err == f"error: t.csv, row 1, column answer: {words}"
    assert not [call for call in served.calls if call.method == "POST"]
    tokens = "max_total_tokens=9000"
    for given in ((str(table), *tasks[:2]), (str(table), *tasks, "-O", "max_tokens=5")):
        submitted(capsys, *given, "-O", tokens)
    prompts.write_text(bounded * 3)
    submitted(capsys, str(prompts), "-O", tokens)


def test_a_retry_of_a_batch_with_all_the_metadata_it_may_have(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "bad"}\n')
    full = [word for number in range(15) for word in ("--meta", f"key{number}=x")]
    first = submitted(capsys, str(prompts), *full)
    assert ended("retry", first, "--json") == 0
    out, err = capsys.readouterr()
    assert sorted(json.loads(out)["metadata"]) == sorted(["file", *(f"key{n}" for n in range(15))])
    assert f"the metadata of {first} are full" in err


def test_options_and_metadata_reach_the_job(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("-O", "system_prompt=Be brief.", "--options", '{"completion_window": "2h"}')
    batch = submitted(capsys, str(prompts), *options, "--meta", "a=b=c")
    assert ended("show", batch, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["completion_window"], shown["metadata"]) == (
        "2h",
        {"file": "my.jsonl", "a": "b=c"},
    )
    assert served.service.endpoint.asked[-1][1]["messages"][0]["content"] == "Be brief."
    assert ended("show", batch) == 0
    told = capsys.readouterr().out
    assert f"{batch} completed · 2 of 2 rows" in told
    assert "b=c" in told


def test_lists_are_columns_or_json(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [submitted(capsys, str(prompts)) for _ in range(2)]
    assert ended("ls", "--limit", "2") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "STATUS", "ROWS", "FAILED", "CREATED", "ABOUT"]
    assert {line.split()[0] for line in lines} == set(ids)
    assert all(line.endswith("  file=my.jsonl") for line in lines)
    assert head.index("STATUS") == lines[0].index("completed")
    assert ended("ls", "--status", "failed", "--limit", "2", "--json") == 0
    none = ("", "none of the latest 2 batches is failed\n")
    assert tuple(capsys.readouterr()) == none
    assert ended("files", "ls", "--json", "--limit", "1") == 0
    file = json.loads(capsys.readouterr().out)
    assert (file["filename"], file["bytes"]) == ("my.jsonl", len(PROMPTS))
    assert ended("files", "rm", file["id"]) == 0
    assert capsys.readouterr().out == f"{file['id']} deleted\n"
    assert ended("files", "rm", file["id"], "--json") == 1
    assert capsys.readouterr().err == f"error: {file['id']}: there is no such file\n"


def test_pause_resume_and_cancel(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.polls = 1000
    batch = submitted(capsys, str(prompts))
    assert ended("pause", batch) == 0
    assert f"{batch} paused" in capsys.readouterr().out
    assert ended("ls", "--status", "paused", "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == batch
    assert ended("resume", batch) == 0
    assert ended("cancel", batch, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == "cancelling"
    served.polls = 0
    assert ended("watch", batch, "--interval", "0.01") == 1
    assert f"{batch} cancelled" in capsys.readouterr().out
    assert ended("show", batch.removeprefix("batch_")) == 0, "by the job's id, as /api tells it"
    told, *lines = capsys.readouterr().out.splitlines()
    assert told == f"{batch} cancelled · 0 of 2 rows · 0 succeeded · 2 got no answer"
    times = [line.split()[0] for line in lines if line.endswith("Z")]
    assert times == ["created", "in_progress", "cancelling", "finalizing", "cancelled", "expires"]
    assert ended("pause", batch) == 1
    assert "takes no pause" in capsys.readouterr().err
    assert ended("events", batch) == 0
    types = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert types[0] == "batch.validating"
    assert types[2:4] == ["batch.paused", "batch.resumed"]
    assert types[-1] == "batch.cancelled"


def test_what_one_batch_refuses_keeps_no_other_from_it(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.polls = 1000
    batch = submitted(capsys, str(prompts))
    assert ended("cancel", "nope", batch) == 1
    out, err = capsys.readouterr()
    assert (out.split()[0], err) == (batch, "error: nope: there is no such batch\n")
    served.polls = 0
    assert ended("watch", batch, "--interval", "0.01") == 1
    capsys.readouterr()
    assert ended("resume", batch) == 1
    assert capsys.readouterr().err.startswith(f"error: {batch} is cancelled ")


@pytest.mark.parametrize(
    "arguments", [("show", ""), ("watch", ""), ("results", ""), ("cancel", "../x"), ("retry", "")]
)
def test_what_is_no_id_is_asked_of_nobody(
    served: Served, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert ended(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert served.calls == []


def test_nothing_is_sent_where_one_file_is_wrong(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.with_name("empty.csv").write_text("")
    assert ended("submit", "my.jsonl", "empty.csv", "--prompt", "{prompt}", "--watch") == 2
    assert "empty.csv is empty" in capsys.readouterr().err
    many = [word for number in range(17) for word in ("--meta", f"key{number}=x")]
    for wrong, told in [
        (many, "--meta: 17 are given, 16 are the most"),
        (["--meta", "phi3batch=x"], "name yours otherwise"),
        (["--meta", "k=1", "--meta", "k=2"], "--meta k is given twice"),
        (["--meta", f"k={'x' * 513}"], "--meta k: a name has 1 to 64 characters"),
        (["-O", "completion_window=1y"], "not a completion window"),
    ]:
        assert ended("submit", "my.jsonl", *wrong) == 2
        assert told in capsys.readouterr().err
    assert served.calls == []


def test_a_file_that_no_batch_is_made_of_goes_again_and_the_others_are_tried(
    served: Served,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts.with_name("other.jsonl").write_text('{"prompt": "hi"}\n')
    for name in ("inputs", "commands.submit"):  # as of a service that is older than this
        monkeypatch.setattr(f"phi3batch.{name}.parse_options", lambda _: JobOptions())
    assert ended("submit", "my.jsonl", "other.jsonl", "-O", "newer=1") == 2
    err = capsys.readouterr().err
    assert "error: my.jsonl: " in err
    assert "error: other.jsonl: " in err
    assert len([call for call in served.calls if call.method == "DELETE"]) == 2


def test_results_that_expire_are_asked_for_as_any_option(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "bad"}\n')
    batch = submitted(capsys, str(prompts), "-O", "output_expires_after=3600")
    assert ended("retry", batch) == 0
    creations = [c for c in served.calls if (c.method, c.path) == ("POST", "/v1/batches")]
    wanted = {"anchor": "created_at", "seconds": 3600}
    assert [json.loads(c.body).get("output_expires_after") for c in creations] == [wanted] * 2


def test_results_replace_nothing_that_is_not_theirs(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (submitted(capsys, str(prompts)) for _ in range(2))
    assert ended("results", one, "-o", "home") == 0
    kept = Path("home/manifest.json").read_bytes()
    assert ended("results", two, "-o", "home") == 2
    assert f"home holds the results of {one}" in capsys.readouterr().err
    assert Path("home/manifest.json").read_bytes() == kept
    Path("mine").mkdir()
    Path("mine/output.jsonl").write_text("mine")
    assert ended("results", two, "-o", "mine") == 2
    assert Path("mine/output.jsonl").read_text() == "mine"


def test_a_batch_is_a_batch_whatever_lies_here(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (submitted(capsys, str(prompts)) for _ in range(2))
    assert ended("results", one) == 0
    assert ended("results", one, "-o", "elsewhere") == 0
    assert ended("results", one, two, "-o", "both", "--json") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines()[-2:])
    assert first["folder"] == f"both/{one}"
    told = {"rows": 2, "succeeded": 2, "errors": {}, "report": f"both/{two}/report.html"}
    assert second == {"batch": two, "folder": f"both/{two}", **told}
    assert all((Path("both") / each / "output.jsonl").exists() for each in (one, two))


def test_the_report_comes_home_beside_the_results_and_is_told(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = submitted(capsys, str(prompts))
    for _ in ("fetched", "found here"):
        assert ended("results", batch) == 0
        assert f"how it went: {batch}/report.html" in capsys.readouterr().err.splitlines()
    report = (Path(batch) / "report.html").read_text()
    assert report.startswith("<!doctype html>")
    assert batch.removeprefix("batch_") in report


@pytest.mark.parametrize("about", ["<!doctype html>\nmine", "<!doctype html>\n<p>of {id}"])
def test_the_report_replaces_no_page_of_another(
    about: str, served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = submitted(capsys, str(prompts))
    mine = about.format(id=batch)
    names = ["report.html", f"{batch}.report.html"]
    for taken in (names[:1], names):
        (home := Path(f"home{len(taken)}")).mkdir()
        for name in taken:
            (home / name).write_text(mine)
        page = home / [*names, f"{batch}.2.report.html"][len(taken)]
        for _ in ("fetched", "found here"):
            assert ended("results", batch, "-o", str(home)) == 0
            assert f"how it went: {page}" in capsys.readouterr().err
        assert ended("results", str(home)) == 0
        assert f"how it went: {page}" in capsys.readouterr().err
        assert {(home / name).read_text() for name in taken} == {mine}
        assert batch.removeprefix("batch_") in page.read_text()
        assert len(list(home.iterdir())) == len(taken) + 3


def test_no_report_is_written_where_the_name_is_a_folders_or_cannot_be_read(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = submitted(capsys, str(prompts))
    Path("home/report.html").mkdir(parents=True)
    Path(f"home/{batch}.report.html").symlink_to("nowhere")
    for _ in ("fetched", "found here"):
        assert ended("results", batch, "-o", "home") == 0
        assert f"how it went: home/{batch}.2.report.html" in capsys.readouterr().err
    assert not Path("home/nowhere").exists()


def test_a_report_that_cannot_be_had_is_told_and_asked_for_again(
    served: Served,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = submitted(capsys, str(prompts))
    monkeypatch.setattr("time.sleep", lambda _: None)
    blobs, read = served.service.blobs, served.service.blobs.read

    async def away(ref: BlobRef, *args: Any) -> Any:
        if ref.name.endswith("report.html"):
            raise Unavailable("storage is away")
        return await read(ref, *args)

    monkeypatch.setattr(blobs, "read", away)
    for _ in ("fetched", "found here"):
        assert ended("results", batch) == 0
        told = f"{batch}: the results are here, but not their report: "
        assert told in capsys.readouterr().err
    monkeypatch.setattr(blobs, "read", read)
    assert ended("results", batch) == 0
    assert f"how it went: {batch}/report.html" in capsys.readouterr().err
    for name in ("PHI3BATCH_URL", "PHI3BATCH_KEY"):
        monkeypatch.delenv(name)
    (Path(batch) / "report.html").unlink()
    assert ended("results", batch) == 0, "nobody can be asked, and nothing else is missing"
    assert "report" not in capsys.readouterr().err


def test_a_report_that_does_not_come_is_not_waited_for_long(
    prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "_REPORT_SECONDS", 0.1)
    monkeypatch.setattr(connecting, "LOOKS", 0)
    monkeypatch.setenv("PHI3BATCH_KEY", "app")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PHI3BATCH_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert fetch_report("batch_x", prompts.parent) is None
    assert "the results are here, but not their report: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "status"), [("\n", 0), ("a,b\n" * 1_100, 3)], ids=["empty_file", "not_jsonl"]
)
def test_of_no_row_nothing_is_missing_and_of_those_that_were_not_read_everything(
    content: str, status: int, served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = submitted(capsys, str(prompts))
    prompts.write_text(content)
    batch = submitted(capsys, str(prompts))
    assert ended("results", batch) == ended("results", f"./{batch}") == status
    (empty := prompts.with_name("empty.csv")).write_text("id,text\n")
    assert ended("results", whole, "--join", str(empty)) == 0


def test_results_come_home_where_there_is_no_report(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = submitted(capsys, str(prompts))
    folder = served.service.events[-1]["data"]["results"].removeprefix("results/")
    served.run(served.service.blobs.delete(BlobRef("results", f"{folder}/report.html")))
    assert ended("results", batch, "--json") == 0
    assert json.loads(capsys.readouterr().out)["report"] is None
    assert sorted(each.name for each in Path(batch).iterdir()) == ["manifest.json", "output.jsonl"]


def test_show_tells_caps_and_what_to_do_at_one(
    prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts.write_text('{"prompt": "hi"}\n' * 60)
    caps = ("-O", "max_cost=0.0001", "-O", "max_total_tokens=20000", "-O", "on_budget=pause")
    with serving(deployments=(QUICK,)) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        batch = submitted(capsys, str(prompts), *caps, "-O", "max_tokens=9")
        assert ended("watch", batch, "--timeout", "0.1", "--interval", "0.05") == 124
        capsys.readouterr()
        assert ended("show", batch) == 0
        told = {
            name.strip(): text
            for name, text in re.findall(r"^  (.*?)  +(.*)$", capsys.readouterr().out, re.MULTILINE)
        }
        assert ended("show", batch, "--json") == 0
        more = json.loads(capsys.readouterr().out)["phi3"]
        assert ended("cancel", batch) == 0
        assert ended("watch", batch, "--interval", "0.01") == 1
        capsys.readouterr()
        assert ended("retry", batch, "--json") == 0
        assert json.loads(capsys.readouterr().out)["id"].startswith("batch_"), "as `to go on` says"
    budget = more["budget"]
    assert told["cost"].endswith(f", at most {more['cost']['at_most']} for all calls")
    spent, reserved = budget["cost_spent"], budget["cost_reserved"]
    assert reserved == "0.000000"
    assert told["max_cost"] == f"0.000100 USD, of which {spent} are spent"
    assert float(spent) > 0
    assert told["max_total_tokens"].startswith(f"20,000, of which {budget['tokens_spent']} are")
    assert told["waits"].startswith("the cap leaves no room for the next call: cancel the job")
    assert told["to go on"].startswith(f"phi3batch cancel {batch}, which keeps what is done, then ")


def test_a_joined_table_replaces_neither_its_table_nor_a_better_one(
    served: Served, endpoint: Failing, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table := prompts.with_name("t.csv")).write_text("id,text\n1,good\n2,bad\n")
    first = submitted(capsys, str(table), "--prompt", "{text}")
    assert ended("results", first, "--join", "t.csv", "--to", "t.csv") == 2
    assert "--to would replace the table t.csv itself" in capsys.readouterr().err
    assert ended("results", first, "--join", "t.csv") == 0
    good = (joined := Path("t.answers.csv")).read_bytes()
    endpoint.word = ""
    capsys.readouterr()
    assert ended("retry", first) == 0
    again = capsys.readouterr().out.strip()
    assert ended("results", again, "--join", "t.csv") == 2
    assert f"join both, as phi3batch results {first} {again} --join" in capsys.readouterr().err
    Path("other.csv").write_text("id,text\n8,x\n9,y\n")
    assert ended("results", first, "--join", "other.csv", "--to", str(joined)) == 2
    assert "no row of other.csv is among these results" in capsys.readouterr().err
    assert joined.read_bytes() == good
    assert not list(Path().glob(".*.part"))


def test_results_are_not_fetched_before_the_end(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.polls = 1000
    batch = submitted(capsys, str(prompts))
    for command in ("results", "retry"):
        assert ended(command, batch) == 1
        assert f"{batch} is in_progress" in capsys.readouterr().err
    assert ended("watch", batch, "--timeout", "0.1", "--interval", "0.05") == 124
    told = f"--timeout has passed: it goes on without you; come back with: phi3batch watch {batch}"
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert ended("pause", batch) == 0
    assert ended("watch", batch, "--timeout", "0.1", "--interval", "0.05") == 124
    told = f"--timeout has passed: it is paused; come back with: phi3batch watch {batch}"
    assert capsys.readouterr().err.splitlines()[-1] == told


def test_a_retry_of_what_expired_says_that_its_window_is_the_same(
    prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        served.polls = 1000
        batch = submitted(capsys, str(prompts), "-O", "completion_window=1h")
        assert ended("pause", batch) == 0
        served.service.elapsed += 3700.0
        served.run(served.service.sweeper.run())
        served.polls = 0
        assert ended("watch", batch, "--interval", "0.01") == 1
        assert f"{batch} expired" in capsys.readouterr().out
        assert ended("retry", batch) == 0
        out, err = capsys.readouterr()
        told = f"{out.strip()} has the window of 1h that did not suffice; for a longer one, "
        assert f"{told}cancel it, then: phi3batch retry {batch} -O completion_window=...\n" in err
        assert ended("retry", batch, "-O", "completion_window=24h") == 0
        assert "suffice" not in capsys.readouterr().err


def test_what_was_changed_on_its_way_is_told(
    served: Served,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = submitted(capsys, str(prompts))
    whole = connecting.BatchService.download

    def changed(self: connecting.BatchService, file_id: str, target: Path) -> None:
        whole(self, file_id, target)
        target.write_bytes(target.read_bytes().replace(b"asked", b"faked"))

    monkeypatch.setattr(connecting.BatchService, "download", changed)
    assert ended("results", batch) == 1
    assert "the bytes of shard 0 are not those that were written" in capsys.readouterr().err


def test_a_download_that_breaks_off_is_begun_again(
    served: Served,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connecting, "_PAUSES", (0.0, 0.0))
    batch = submitted(capsys, str(prompts))
    served.cut = 3
    assert ended("results", batch) == 1
    told = f"error: {Path(batch) / 'output.jsonl'}: its download breaks off"
    assert capsys.readouterr().err.startswith(told)
    assert [each.name for each in Path(batch).iterdir()] == ["manifest.json"], "no half file"
    served.cut = 2
    assert ended("results", batch) == 0
    assert (served.cut, len((Path(batch) / "output.jsonl").read_bytes().splitlines())) == (0, 2)


def test_results_that_did_not_come_home_whole_are_fetched_again(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = submitted(capsys, str(prompts))
    assert ended("results", batch) == 0
    whole = (output := Path(batch) / "output.jsonl").read_bytes()
    served.calls.clear()
    assert ended("results", batch) == 0
    assert served.calls == [], "they lie here"
    for damage in (whole[:-1], b""):
        output.write_bytes(damage)
        assert ended("results", batch) == 0
        assert output.read_bytes() == whole
    (Path(batch) / "manifest.json").unlink()
    assert ended("results", batch) == 0
    assert (Path(batch) / "manifest.json").exists()
    Path(batch).rename("mine")
    Path("mine/output.jsonl").write_bytes(b"")
    assert ended("results", "mine") == 2
    assert "mine is not what was written" in capsys.readouterr().err


def test_a_table_with_repeated_ids_is_not_sent(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table := prompts.with_name("t.csv")).write_text("id,text\n1,a\n2,\n2,b\n")
    for more in ((), ("-O", "on_duplicate=number")):
        for command in ("submit", "validate", "estimate"):
            assert ended(command, str(table), "--prompt", "{text}", *more) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert "row 3: an earlier row has its id, '2': name a column" in err
    assert served.calls == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PHI3BATCH_KEY": "wrong"}, (4, "`phi3batch keys new` has printed")),
        ({"PHI3BATCH_URL": "URL/stray"}, (1, "not as this service does: is PHI3BATCH_URL")),
        ({"PHI3BATCH_KEY": ""}, (2, "set PHI3BATCH_KEY, or OPENAI_API_KEY")),
        ({"PHI3BATCH_URL": ""}, (2, "set PHI3BATCH_URL, or OPENAI_BASE_URL")),
        ({"PHI3BATCH_URL": "http://127.0.0.1:9"}, (1, "is the service up, as by `phi3batch up`")),
    ],
)
def test_who_is_not_let_in_is_told_why(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    expected: tuple[int, str],
) -> None:
    status, told = expected
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("URL", served.url))
    monkeypatch.setattr(connecting, "RETRIES", 0)
    assert ended("ls") == status
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert "wrong" not in err


def test_whoever_looks_is_told_soon_that_nobody_is_there(
    prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHI3BATCH_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PHI3BATCH_KEY", "app")
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    for command in (["ls"], ["submit", str(prompts)], ["show", "batch_x"]):
        slept.clear()
        assert ended(*command) == 1
        assert len(slept) == connecting.LOOKS


def test_the_sdks_own_settings_are_taken(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PHI3BATCH_URL", "PHI3BATCH_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "app")
    assert ended("ls", "--limit", "1") == 0


def test_ctrl_c_leaves_the_batch_running_and_says_how_to_come_back(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.polls = 100_000
    batch = submitted(capsys, str(prompts))
    with subprocess.Popen(
        [sys.executable, "-c", AS_FROM_A_TERMINAL, "watch", batch, "--interval", "0.05"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    ) as watching:
        assert watching.stderr is not None
        assert "in_progress" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert (out, err.count("\n")) == ("", 1)
    assert err == f"Ctrl-C: it goes on without you; come back with: phi3batch watch {batch}\n"
    assert not [call for call in served.calls if call.path.endswith("/cancel")]
    served.polls = 0
    assert ended("watch", batch, "--interval", "0.01") == 0


def test_a_key_is_shown_once_and_its_hash_is_what_the_setting_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from schemas.access import parse_api_keys
    from workers.api.access import caller_of

    assert ended("keys", "new", "nightly", "--tenant", "blue", "--days", "30") == 0
    out, err = capsys.readouterr()
    key = out.strip()
    (entry,) = parse_api_keys(f"[{err.splitlines()[-1]}]")
    caller = caller_of({"authorization": f"Bearer {key}"}, [entry], 0)
    assert caller is not None
    assert (caller.name, caller.tenant) == ("nightly", "blue")
    assert entry.expires is not None
    assert key not in err
    assert ended("keys", "new", "no name") == 2


def test_a_receiver_is_told_once_more(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = submitted(capsys, str(prompts))
    assert ended("watch", batch, "--interval", "0.01") == 0
    capsys.readouterr()
    assert ended("webhooks", "replay", batch, "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == batch
    posts = [each for each in served.service.receiver.posts if batch in each.body.decode()]
    assert len(posts) == 2
    assert posts[0].body == posts[1].body
    assert ended("webhooks", "replay", "batch_20261125T220000Z-0123456789abcdef") == 1
    assert "there is no such batch" in capsys.readouterr().err


def test_a_secret_is_one_that_the_setting_takes(capsys: pytest.CaptureFixture[str]) -> None:
    from schemas.webhooks import signing_key

    assert ended("webhooks", "secret") == 0
    out, err = capsys.readouterr()
    key = signing_key(out.strip())
    assert key is not None
    assert len(key) == 32
    assert out.strip() not in err


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "PHI3BATCH_URL", "PHI3BATCH_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nobody")
def test_an_estimate_reckons_time_and_cost(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("--requests-per-minute", "1", "--prices", "1,2", "-O", "max_tokens=500000")
    assert ended("estimate", str(prompts), *limits, "--json") == 0
    # Of prompts of 2 and 3 bytes, and 4 tokens around each; an answer may have 8 tokens.
    assert json.loads(capsys.readouterr().out) == {
        "requests": 2,
        "refused": 0,
        "codes": {},
        "unlimited": 0,
        "prompt_tokens": [9, 10],
        "completion_tokens": [16, 1_000_000],
        "basis": "arguments",
        "seconds": [120.0, pytest.approx(120 / 0.9 + 30, abs=0.1)],
        "cost": {"currency": None, "least": "0.000041", "most": "2.000010"},
        "caps": [],
        "fails": [],
    }
    assert ended("estimate", str(prompts), *limits) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "tokens of prompts: from 9 to 10, of answers: from 16 to 1,000,000; estimated on this "
        "machine, as the service does when it plans the file",
        "from 0:02:00 to 0:02:43 under these quotas",
        "from 0.000041 to 2.000010 at these prices",
    ]
    assert ended("estimate", str(prompts)) == 0
    assert "time: set PHI3BATCH_URL" in capsys.readouterr().out


@pytest.mark.parametrize("limit", [10**15 + 1, 2**63])
@pytest.mark.usefixtures("nobody")
def test_an_estimate_is_told_whatever_rows_ask_for(
    limit: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "endless.jsonl"
    file.write_text(json.dumps({"prompt": "x", "max_tokens": limit}) + "\n")
    assert ended("estimate", str(file), "--tokens-per-minute", "1") == 0
    told = capsys.readouterr().out
    assert "of answers: from 8 to 1,000,000,000,000,000;" in told
    assert re.search(r"^from 0:12:00 to 999999999 days, 23:59:59 under", told, re.M)


@pytest.mark.parametrize(
    ("given", "most"),
    [
        # 5 tokens of a prompt, and 1 of an answer.
        ("0,0.4", "0.000001"),
        ("0.1,0.5", "0.000001"),
        ("0.1,0.500001", "0.000002"),
        ("0.1,0.7", "0.000002"),
        ("199999999999999.999999,0.000006", "1000000000.000001"),
    ],
)
@pytest.mark.usefixtures("nobody")
def test_what_it_costs_is_rounded_up_as_the_service_does(
    given: str, most: str, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "hi", "max_tokens": 1}\n')
    caps = ("-O", "max_cost=0.000001")
    status = ended("estimate", str(prompts), "--prices", given, *caps, "--json")
    told = json.loads(capsys.readouterr().out)
    assert status == (1 if told["fails"] else 0)
    assert (told["prompt_tokens"][1], told["completion_tokens"][1]) == (5, 1)
    assert told["cost"]["most"] == most
    price = Price(**dict(zip(("input", "output"), given.split(","), strict=True)), currency="USD")
    pinned = price.pinned
    assert pinned is not None
    assert most == amount(-(-pinned.of(5, 1) // MILLION))


LONG = {"prompt": "x" * MAX_LINE_BYTES}


@pytest.mark.parametrize(
    ("row", "options"),
    [(LONG, {}), ({"word": "x" * 1_500_000}, {"template": {"prompt": "{word}" * 8}})],
    ids=["line_too_long", "request_too_large"],
)
def test_no_cap_is_said_to_have_room_for_rows_that_another_limit_lets_in(
    row: dict[str, str],
    options: dict[str, Any],
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"word": "hi"} if options else {"prompt": "hi"}, row]
    prompts.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    capped = {**options, "max_tokens": 9, "max_total_tokens": 9_000}
    tenants = {"default": Tenant(max_cost_per_month=0.5)}
    told = []
    with serving(deployments=(QUICK,), tenants=tenants) as served:
        for more in ({}, {"max_cost": "0.4"}):
            monkeypatch.setenv("PHI3BATCH_URL", served.url)
            monkeypatch.setenv("PHI3BATCH_KEY", "app")
            given = (str(prompts), "--options", json.dumps(capped | more), "--json")
            for whose in ((), ("--requests-per-minute", "1")):
                assert ended("estimate", *given, *whose) == 0
                found = json.loads(capsys.readouterr().out)
                assert (found["requests"], found["refused"]) == (1, 1)
                told.append({each["cap"]: each["fits"] for each in found["caps"]})
    tokens, cost = ({name: "perhaps"} for name in ("max_total_tokens", "max_cost"))
    assert told == [
        {**tokens, "max_cost_per_month": "perhaps"},
        tokens,
        # A month reserves what a job may cost, whatever its file holds.
        {**cost, **tokens, "max_cost_per_month": "yes"},
        {**cost, **tokens},
    ]


@pytest.mark.usefixtures("nobody")
def test_an_estimate_says_whether_caps_have_room(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str, status: int = 0) -> list[str]:
        given = ("-O", "max_tokens=100", "-O", "max_total_tokens=997", *arguments)
        assert ended("estimate", str(prompts), *given) == status
        lines = capsys.readouterr().out.splitlines()
        last = "not to be sent as it is: max_cost has no room for it"
        assert (lines[-1] == last) == (status == 1)
        return [line for line in lines if line.startswith("max_")]

    tokens = "max_total_tokens 997: it fits, by this estimate"
    assert told("-O", "max_cost=1") == [
        "max_cost 1.000000: perhaps it fits, by this estimate",
        tokens,
    ]
    prices = ("--prices", "1000,2000")
    lines = told("-O", "max_cost=0.040", *prices, status=1)
    assert lines[0].startswith("max_cost 0.040000: it does not fit")
    assert told("-O", "max_cost=0.041", *prices)[0].startswith("max_cost 0.041000: perhaps it fits")
    assert told("-O", "max_cost=1.197", *prices)[0].startswith("max_cost 1.197000: it fits")


def test_an_estimate_says_when_hours_begin(
    prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Hours(hours="22:00-06:00", time_zone="UTC")
    with serving(deployments=(QUICK,), priority_hours={"low": night}) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        clock = served.service.clock

        async def make_it_noon() -> None:
            served.service.elapsed += (43_200.0 - clock()) % 86_400.0

        served.run(make_it_noon())
        assert ended("estimate", str(prompts), "-O", "priority=low", "-O", "max_tokens=9") == 0
        low = capsys.readouterr().out
        short = ("-O", "priority=low", "-O", "max_tokens=9", "-O", "completion_window=9h")
        assert ended("estimate", str(prompts), *short) == 1
        late = "what may answer opens after its completion_window of 9h has ended"
        assert f"not to be sent as it is: {late}\n" in capsys.readouterr().out
        assert ended("estimate", str(prompts), "-O", "max_tokens=9") == 0
    assert re.search(r"^nothing is asked for (9:59:5\d|10:00:00): then hours begin$", low, re.M)
    assert re.search(r"^from 0:00:00 to 10:00:[23]\d under the service's quotas", low, re.M)
    assert "hours begin" not in capsys.readouterr().out


def test_an_estimate_says_where_hours_never_meet(
    prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Hours(hours="22:00-06:00", time_zone="UTC")
    day = QUICK.model_copy(update={"hours": "08:00-12:00", "time_zone": "UTC"})
    with serving(deployments=(day,), priority_hours={"low": night}) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        assert ended("estimate", str(prompts), "-O", "priority=low", "-O", "max_tokens=9") == 1
    told = capsys.readouterr().out
    assert told.endswith("is: what may answer is never open at the hours of its priority\n")
    assert "nothing that may answer is ever open at the hours of this priority: " in told
    assert "from 0:00:00" not in told


@pytest.mark.usefixtures("nobody")
def test_an_estimate_of_nothing_says_why_there_is_nothing(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended("estimate", str(prompts), "-O", "max_cost=1") == 1
    nothing = "nothing to reckon: `phi3batch validate` says what is wrong with each row"
    assert capsys.readouterr().out.splitlines() == [
        "0 requests, 2 rows that cannot be asked: 2 max_tokens_missing",
        nothing,
        "not to be sent as it is: 2 requests name no max_tokens, which a cap needs of each",
    ]
    prompts.write_text("{\n")
    assert ended("estimate", str(prompts)) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        nothing,
        "not to be sent as it is: nothing in it can be asked",
    ]


@pytest.mark.parametrize(
    ("options", "word", "fails"),
    [
        (("max_tokens=9", "max_cost=0.5"), "it fits", None),
        (("max_tokens=9", "max_cost=0.6"), "it does not fit", "max_cost_per_month has no room"),
        # What is more than the whole month waits for no room.
        (
            ("max_tokens=9", "max_cost=0.6", "on_budget=pause"),
            "it does not fit; it would not fit the whole month either, so the batch fails at once",
            "max_cost_per_month has no room for it",
        ),
        (
            ("max_tokens=1000000", "on_budget=pause"),
            "it does not fit; it would not fit the whole month either, so the batch fails at once",
            "max_cost_per_month has no room for it",
        ),
        (("max_tokens=9",), "it fits", None),
        (("max_tokens=1000000",), "it does not fit", "max_cost_per_month has no room for it"),
        # A month caps what names no max_tokens as well: the batch would fail.
        (
            (),
            "perhaps it fits; name a max_cost, for without one the most that rows can cost is "
            "reserved",
            "2 requests name no max_tokens, which a cap needs of each",
        ),
    ],
)
def test_an_estimate_says_what_the_month_has_left(
    options: tuple[str, ...],
    word: str,
    fails: str | None,
    *,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenants = {"default": Tenant(max_cost_per_month=0.5)}
    given = [each for option in options for each in ("-O", option)]
    with serving(deployments=(QUICK,), tenants=tenants) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        assert ended("estimate", str(prompts), *given) == (1 if fails else 0)
    lines = capsys.readouterr().out.splitlines()
    if fails:
        assert lines.pop().startswith(f"not to be sent as it is: {fails}")
    assert lines[-1] == f"max_cost_per_month 0.500000, and 0.500000 of it is left: {word}"
    assert any("2 requests name no max_tokens" in line for line in lines) is (not options)


@pytest.mark.parametrize(
    ("options", "word", "fails"),
    [
        (("max_cost=0.5",), "", True),
        (("max_cost=0.5", "on_budget=pause"), "; the batch waits until there is room", False),
        (("max_cost=0.500001", "on_budget=pause"), "; it would not fit the whole month", True),
        # What it would reserve is not told: it may be more than the whole month.
        (("on_budget=pause",), "; the batch waits until there is room, or fails at once", False),
    ],
)
def test_a_batch_waits_for_a_month_that_has_room_for_it_as_a_whole(
    options: tuple[str, ...],
    word: str,
    *,
    fails: bool,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [each for option in ("max_tokens=9", *options) for each in ("-O", option)]
    with serving(
        deployments=(QUICK,), tenants={"default": Tenant(max_cost_per_month=0.5)}
    ) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")

        async def spend_all() -> None:
            month = month_of(served.service.clock())
            spent = MonthBudget(spent=500_000 * MILLION).model_dump_json().encode()
            await served.service.blobs.create(BlobRef("state", f"budgets/default/{month}"), spent)

        served.run(spend_all())
        assert ended("estimate", str(prompts), *given) == (1 if fails else 0)
    lines = capsys.readouterr().out.splitlines()
    assert (lines.pop() if fails else "") in (
        "",
        "not to be sent as it is: max_cost_per_month has no room for it",
    )
    line = f"max_cost_per_month 0.500000, and 0.000000 of it is left: it does not fit{word}"
    assert lines[-1].startswith(line)


@pytest.mark.usefixtures("nobody")
def test_one_request_without_a_limit_is_told_as_one(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "hi"}\n')
    assert ended("estimate", str(prompts), "-O", "max_cost=1") == 1
    assert "1 request names no max_tokens, which a cap needs of each" in capsys.readouterr().out


def test_an_estimate_says_where_a_cap_needs_a_price(
    prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(deployments=(QUICK.model_copy(update={"price": None}),)) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        assert ended("estimate", str(prompts), "-O", "max_tokens=9", "-O", "max_cost=1") == 1
        lines = capsys.readouterr().out.splitlines()
        assert ended("estimate", str(prompts), "-O", "max_tokens=9") == 0
    unknown = (
        "cost: not known, for a deployment that may answer has no price; name yours by --prices"
    )
    why = f"max_cost needs a price of input and output in DEPLOYMENTS for {MODEL!r}"
    assert lines[-3:] == [
        unknown,
        f"max_cost 1.000000: the batch would fail: {why}",
        f"not to be sent as it is: {why}",
    ]
    assert not any("no deployment" in line for line in lines)
    assert capsys.readouterr().out.splitlines()[-1] == unknown


def test_a_cost_at_prices_of_ones_own_is_rounded_up_as_the_service_does() -> None:
    groups = [
        EstimateGroup(task="chat", requests=1, prompt_tokens=float(n), answer_tokens=(1.0, 3.0))
        for n in (1, 2)
    ]
    # 3 x 0.13 + 2 x 0.52 = 1.43 millionths, and 3 x 0.13 + 6 x 0.52 = 3.51.
    assert cost(groups, (Decimal("0.13"), Decimal("0.52"))) == {
        "currency": None,
        "least": "0.000002",
        "most": "0.000004",
    }


@pytest.mark.usefixtures("nobody")
def test_embeddings_share_calls_and_nobody_knows_how_many(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"input": "hi"}\n' * 9)
    assert ended("estimate", str(prompts), "--requests-per-minute", "1") == 0
    assert "of answers: 0; estimated" in capsys.readouterr().out
    assert ended("estimate", str(prompts), "--requests-per-minute", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] == [0.0, 9 * 60 / 0.9 + 30]
    assert found["completion_tokens"] == [0, 0]


@pytest.mark.usefixtures("nobody")
def test_an_estimate_says_where_quotas_take_longer_than_the_window(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text('{"prompt": "hi", "max_tokens": 9}\n' * 200)
    slow = ("--requests-per-minute", "20")
    assert ended("estimate", str(prompts), *slow, "-O", "completion_window=90s") == 1
    why = r"its quotas take 0:10:00 at least, and its completion_window is 90s\n$"
    assert re.search(f"not to be sent as it is: {why}", capsys.readouterr().out)
    assert ended("estimate", str(prompts), *slow, "-O", "completion_window=1h") == 0


QUICK = DEPLOYMENT.model_copy(
    update={
        "requests_per_minute": 600_000.0,
        "tokens_per_minute": 30_000_000.0,
        "price": Price(input="0.13", output="0.52", currency="USD"),
    }
)
ASKED = [
    *[{"prompt": "How far is the Moon?", "max_tokens": 9}] * 3,
    {"messages": [{"role": "user", "content": "Grüße!"}], "model": MODEL},
    *[{"input": f"words to embed {at}"} for at in range(7)],
]
QUESTIONS = (PROJECT / "samples/gsm8k-test.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    ("lines", "off"),
    [
        (list(map(json.dumps, ASKED)), 0.0),
        (QUESTIONS[:999], 0.0),
        # The plan measures ever fewer of more rows.
        (QUESTIONS, 0.02),
    ],
    ids=["mixed", "all-measured", "sampled"],
)
def test_an_estimate_is_what_the_plan_says_of_the_same_file(
    lines: list[str],
    off: float,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts.write_text("\n".join(lines))
    template = {"messages": [{"role": "user", "content": "{question}"}]}
    options = {"template": template, "max_tokens": 64} if len(lines) > len(ASKED) else {}
    given = (str(prompts), "--options", json.dumps(options))
    with serving(deployments=(QUICK,)) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        assert ended("estimate", *given, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        job = submitted(capsys, *given).removeprefix("batch_")
        store = served.service.store
        kept = served.run(store.find(JobEstimate, store.ref(job, "estimate.json")))
    assert kept is not None
    assert (kept.rows, found["refused"]) == (found["requests"], 0) == (len(lines), 0)
    assert kept.seconds is not None
    assert kept.cost is not None
    told = [*kept.prompt_tokens, *kept.completion_tokens, *kept.seconds]
    told += [float(kept.cost.least), float(kept.cost.most)]
    ends = [*found["prompt_tokens"], *found["completion_tokens"], *found["seconds"]]
    ends += [float(found["cost"]["least"]), float(found["cost"]["most"])]
    assert ends == pytest.approx(told, rel=off, abs=0)
    assert found["cost"]["currency"] == kept.cost.currency


def test_an_estimate_asks_the_service_for_its_quotas(
    served: Served, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts.write_text(PROMPTS + '{"prompt": "hi", "model": "gpt-9"}\n')
    assert ended("estimate", str(prompts)) == 1
    told = capsys.readouterr().out
    assert told.endswith("not to be sent as it is: no deployment answers chat by gpt-9\n")
    assert "3 requests, 0 rows that cannot be asked" in told
    assert "no quota of the service bounds it" not in told
    assert "no deployment of the service answers chat by gpt-9" in told
    (call,) = served.calls
    assert "hi" not in call.body.decode(), "no prompt is sent"
    capped = ("-O", "model=gpt-9", "-O", "max_cost=1", "-O", "max_tokens=9")
    assert ended("estimate", str(prompts), *capped) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "max_cost 1.000000: nobody can tell, for not all of it would be answered",
        "not to be sent as it is: no deployment answers chat by gpt-9",
    ]


def test_an_estimate_of_requests_without_a_model_says_to_name_one(
    prompts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = QUICK.model_copy(update={"name": "other", "model": "phi-4"})
    with serving(deployments=(QUICK, other)) as served:
        monkeypatch.setenv("PHI3BATCH_URL", served.url)
        monkeypatch.setenv("PHI3BATCH_KEY", "app")
        assert ended("estimate", str(prompts)) == 1
        lines = capsys.readouterr().out.splitlines()
        assert ended("estimate", str(prompts), "-O", "model=phi-4") == 0
        assert "no deployment" not in capsys.readouterr().out
    assert lines[2] == (
        "no deployment of the service answers chat requests that name no model; name a model that "
        "GET /v1/models tells of, by -O model=MODEL"
    )


def test_large_files_go_in_parts_with_their_md5(
    served: Served,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connecting, "IN_ONE_PIECE", 1)
    batch = submitted(capsys, str(prompts))
    paths = [call.path.rpartition("/")[2] for call in served.calls]
    assert paths[:2] + paths[3:] == ["models", "uploads", "complete", "batches"]
    (completed,) = [call for call in served.calls if call.path.endswith("/complete")]
    assert json.loads(completed.body)["md5"] == hashlib.md5(PROMPTS.encode()).hexdigest()
    assert ended("watch", batch) == 0


def test_a_terminal_shows_one_line_that_is_gone_at_the_end(served: Served, prompts: Path) -> None:
    served.polls = 4
    ours, theirs = pty.openpty()
    command = ("submit", str(prompts), "--watch", "--interval", "0.1")
    with subprocess.Popen(
        [sys.executable, "-m", "phi3batch", *command],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "TERM": "xterm", "COLUMNS": "200"},
    ) as watching:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # as the end of a terminal is told
            while piece := os.read(ours, 65536):
                said += piece
    os.close(ours)
    assert watching.returncode == 0
    text = said.decode()
    assert "in_progress · 0 of 2 rows" in text
    last = text.rpartition("\x1b[2K")[2]
    assert last.startswith("batch_")
    assert last.endswith("completed · 2 of 2 rows · 2 succeeded · 24 tokens\r\n")
    assert "\x1b[?25h" in text, "the cursor is back"
