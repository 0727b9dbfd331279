"""The commands as they are typed: what they print, write and end with."""

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3batch.__main__ import main
from phi3batch.statuses import MEANINGS
from tests.cli.test_joining import run
from workers.intake import planning

PROJECT = Path(__file__).parents[2]
REVIEWS = "key,text\na,Great phone\nb,\nc,Awful\n"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    (path := tmp_path / "reviews.csv").write_text(REVIEWS)
    return path


def ended(*arguments: str) -> int:
    """The exit status, of wrong usage too; it is one that the command's help names."""
    try:
        status = main(arguments)
    except SystemExit as usage:
        return int(str(usage.code))
    known = MEANINGS.get(arguments[0]) or MEANINGS.get(" ".join(arguments[:2]))
    assert known is None or status in known, (arguments, status)
    return status


def test_validate_tells_every_bad_line_and_the_errors_by_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ['{"prompt": "hi"}', "{", '{"prompt": " "}', '{"prompt": "hi", "id": 1}'] * 2
    (path := tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert ended("validate", str(path), "-O", "max_tokens=5") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == [f"line {n}" for n in (2, 3, 6, 7, 8)]
    assert lines[5] == "8 rows: 3 can be asked (3 chat), 5 cannot"
    assert lines[6:9] == ["  2 invalid_json", "  2 invalid_row", "  1 duplicate_custom_id"]
    assert sum(line.startswith('  {"custom_id"') for line in lines) == 3
    assert ended("validate", str(path), "--json", "-O", "on_duplicate=number") == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["line"] for each in told[:-1]] == [2, 3, 6, 7]
    assert told[-1]["codes"] == {"invalid_json": 2, "invalid_row": 2}
    assert len(told[-1]["first"]) == 3


def test_validate_is_silent_of_what_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path := tmp_path / "a.jsonl").write_text('{"prompt": "hi", "model": "m"}')
    assert ended("validate", str(path)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1 rows: 1 can be asked (1 chat), 0 cannot"


def test_validate_foresees_a_file_of_too_many_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of such rows asks for so many vectors that a shard holds no second one."""
    monkeypatch.setattr(planning, "MAX_SHARDS", 3)
    row = json.dumps({"input": ["text"] * 2048, "model": "m"})
    path = tmp_path / "a.jsonl"
    for rows, status in ((3, 0), (5, 1)):
        path.write_text("\n".join(f'{row[:-1]}, "id": {number}}}' for number in range(rows)))
        assert ended("validate", str(path)) == status
        told = capsys.readouterr().out
        assert ("(file_too_large): its rows need more than 3 shards" in told) is bool(status)
        assert ("split the file before line 4" in told) is bool(status)
        assert ended("validate", str(path), "--json") == status
        summary = json.loads(capsys.readouterr().out)
        assert summary["requests"] == rows
        assert summary["too_large"] == (planning.too_many_shards(4) if status else None)


def test_validate_of_a_table_names_rows_by_their_ids(
    reviews: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviews.write_text(REVIEWS + f"d, \n{'e' * 513},Again\n")
    tasks = ("--prompt", "Sum up: {text}", "--as", "sum", "--model", "m", "--embed", "text")
    assert ended("validate", str(reviews), *tasks, "--id-column", "key", "--json") == 1
    *bad, summary = map(json.loads, capsys.readouterr().out.splitlines())
    found = [(each["row"], each["column"], each["custom_id"], each["code"]) for each in bad]
    assert found == [
        (2, "sum", "b#sum", "template_field"),
        (2, "embedding", "b#embedding", "template_field"),
        (4, "embedding", "d#embedding", "invalid_row"),
        (5, "sum", None, "no_id"),
        (5, "embedding", None, "no_id"),
    ]
    assert bad[0]["message"].startswith("the template's field 'text' is null or missing")
    assert bad[-1]["message"] == "its id is empty, or has more than 512 characters"
    assert (summary["rows"], summary["requests"], summary["refused"]) == (10, 5, 5)
    assert summary["tasks"] == {"chat": 3, "embeddings": 2}
    assert summary["first"][0]["body"]["model"] == "m"
    assert ended("validate", str(reviews), *tasks, "--id-column", "key") == 1
    told = "row 2, column sum: the template's field 'text'"
    assert capsys.readouterr().out.startswith(told)


@pytest.mark.slow
def test_no_command_waits_for_numpy_before_it_needs_it() -> None:
    code = "import sys, phi3batch.__main__; print('numpy' in sys.modules)"
    told = subprocess.check_output([sys.executable, "-c", code], cwd=PROJECT, text=True)
    assert told == "False\n"


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_none_that_the_service_takes(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path := tmp_path / "e.jsonl").write_text(content)
    assert ended("validate", str(path)) == 1
    assert "no rows: the service fails such a batch (empty_file)" in capsys.readouterr().out


def test_up_says_what_to_do_where_only_the_command_line_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "local"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "local", None)
    assert ended("up") == 2
    assert "the local stack is not installed here: clone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["validate", "FILE"], "is a table: say what is asked of each row"),
        (["validate", "FILE", "--as", "x"], "stands behind the --prompt, --embed or --template it"),
        (["validate", "FILE", "--model", "x"], "for all rows say -O model=MODEL"),
        (["files", "ls", "--nothing"], "unrecognized arguments: --nothing (see phi3batch files ls"),
        (["validate", "FILE", "--embed", "txt"], "has no column 'txt': it has 'key', 'text'"),
        (["validate", "FILE", "--embed", "text", "--as", "key"], "has a column 'key' already"),
        (
            ["validate", "FILE", "--template", "{}", "--as", "key"],
            "name another with --as NAME, behind the --prompt, --embed or --template that it is of",
        ),
        (["validate", "FILE", "--embed", "text", "--id-column", "k"], "has no column 'k'"),
        (["validate", "FILE", "--prompt", "{text", "--embed", "text"], "names no field"),
        (["validate", "FILE", "--embed", "text", "-O", "temprature=1"], "'temperature'"),
        (["validate", "FILE", "--embed", "text", "-O", 'template={"a":1}'], "say --template"),
        (["validate", "none.csv", "--embed", "text"], "none.csv: no such file"),
        (["validate", ".", "--embed", "text"], "a folder"),
        (["validate", "FILE", "--template", "@none.json"], "none.json: No such file"),
        (["validate", "FILE", "--template", "[]"], "has to be a JSON object"),
        *(
            ([command, "rows.jsonl", "-O", 'template={"prompt":"{"}'], "option template: ")
            for command in ("validate", "estimate")
        ),
        (["validate", "FILE", "--options", "{"], "not JSON"),
        *(
            (["estimate", "FILE", "--prices", prices], "write READ,WRITTEN")
            for prices in ("1", "1,x", "1,-2", "nan,1", "1,inf", "0,1e999999999", "0e999999999,1")
        ),
        (["validate", "FILE", "--context", "x"], "MODEL=TOKENS"),
        (["validate"], "required: FILE"),
        (["results", ".", "--join", "FILE"], "holds no results"),
        (["results", ".", "--join", "FILE", "--to", "a.parquet"], "call it *.csv"),
        (["validate", "FILE", "--nothing"], "unrecognized arguments: --nothing"),
        (["nothing"], "invalid choice"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    reviews: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert ended(*(str(reviews) if each == "FILE" else each for each in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err


def requests_of(table: Path, *arguments: str, folder: Path) -> None:
    """The results of a table whose requests the service has run."""
    from phi3batch.arguments import parser
    from phi3batch.inputs import prepared

    given = parser().parse_args(["validate", str(table), *arguments])
    with prepared(given, given.file) as file:
        folder.mkdir()
        run(file.path.read_bytes(), folder)
        assert file.naming is not None
        metadata = file.naming.as_metadata()
    files = {name: described(folder / f"{name}.jsonl") for name in ("output", "errors")}
    answered, refused = (files[name]["rows"] for name in ("output", "errors"))
    manifest = {
        "job": "j",
        "state": "completed",
        "input": {},
        "options": {"metadata": metadata},
        "counts": {"total": answered + refused, "succeeded": answered, "failed": refused},
        "tokens": {},
        "created": "",
        "started": None,
        "finished": "",
        "seconds": 0,
        "use": {},
        **files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def described(path: Path) -> dict[str, Any]:
    """A result file of one part, as a manifest has it."""
    data = path.read_bytes()
    whole = {"length": len(data), "rows": data.count(b"\n")}
    part = {"shard": 0, "offset": 0, "sha256": hashlib.sha256(data).hexdigest(), **whole}
    return {"name": path.name, "parts": [part], **whole}


def test_a_csv_comes_back_with_the_answers_of_each_row(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = ("--prompt", "Label: {text}", "--as", "label", "--embed", "text", "--id-column", "key")
    requests_of(reviews, *tasks, folder=tmp_path / "out")
    assert ended("results", str(tmp_path / "out"), "--join", str(reviews)) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'reviews.answers.csv'}\n"
    assert err == "2 of 3 rows answered; missing: 2 template_field\n"
    assert (tmp_path / "reviews.answers.csv").read_text().splitlines() == [
        "key,text,label,label_error,embedding,embedding_error",
        f'a,Great phone,Label: Great phone,,"{written(numbers("Great phone"))}",',
        "b,,,template_field,,template_field",
        f'c,Awful,Label: Awful,,"{written(numbers("Awful"))}",',
    ]


def numbers(text: str) -> list[float]:
    return [float(ord(char)) for char in text]


def written(vector: list[float]) -> str:
    return json.dumps(vector, separators=(",", ":"))


def test_a_parquet_comes_back_with_vectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reviews.parquet"
    pq.write_table(pa.table({"id": [7, 8], "text": ["hi", None]}), path)
    requests_of(path, "--embed", "text", folder=tmp_path / "out")
    target = tmp_path / "joined.parquet"
    command = ("results", str(tmp_path / "out"), "--join", str(path), "--to", str(target))
    assert ended(*command, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "table": str(target),
        "rows": 2,
        "whole": 1,
        "errors": {"template_field": 1},
    }
    assert pq.read_table(target).to_pylist() == [
        {"id": 7, "text": "hi", "embedding": numbers("hi"), "embedding_error": None},
        {"id": 8, "text": None, "embedding": None, "embedding_error": "template_field"},
    ]


def test_a_table_of_others_gets_no_answers(reviews: Path, tmp_path: Path) -> None:
    requests_of(reviews, "--embed", "text", "--id-column", "key", folder=tmp_path / "out")
    other = tmp_path / "other.csv"
    other.write_text("key,text\nx,y\n")
    assert ended("results", str(tmp_path / "out"), "--join", str(other)) == 2
    assert not (tmp_path / "other.answers.csv").exists()


@pytest.mark.parametrize(
    ("content", "rows"),
    [(REVIEWS, 3), ('{"text": "a"}\n{"text": "b"}\n', 2), ("text\nalone\n", 1)],
)
def test_standard_input_is_a_table_of_any_format(
    content: str, rows: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    ended("validate", "-", "--prompt", "{text}", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == rows


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("completion", shell) == 0
    script = capsys.readouterr().out
    assert "validate" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_commands_options_and_choices(tmp_path: Path) -> None:
    (script := tmp_path / "phi3batch.bash").write_text(completion("bash"))

    def completed(*words: str) -> list[str]:
        asked = " ".join(words)
        ask = f"""
            source {script}
            COMP_WORDS=({asked} "") COMP_CWORD={len(words)} COMP_LINE={asked!r}
            COMP_WORDS[{len(words)}]=""
            _shtab_phi3batch "" "" {words[-1]}
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert {"submit", "watch", "results"} <= set(completed("phi3batch"))
    assert {"bash", "zsh"} <= set(completed("phi3batch", "completion"))
    assert set(completed("phi3batch", "submit", "--format")) == {"csv", "tsv", "parquet", "jsonl"}


def completion(shell: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "phi3batch", "completion", shell],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("name", ["secret.jsonl", "secret.csv"])
@pytest.mark.parametrize("command", ["validate", "estimate", "submit"])
def test_a_file_that_may_not_be_read_is_told_by_its_name(
    command: str,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (path := tmp_path / name).write_text("text\n")
    opened = Path.open

    def refused(self: Path, *arguments: Any, **named: Any) -> Any:
        # Whoever runs the tests may be one who is refused nothing.
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setenv("PHI3BATCH_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PHI3BATCH_KEY", "key")
    asked = ("--prompt", "{text}") if name.endswith("csv") else ()
    assert ended(command, str(path), *asked) == 2
    assert capsys.readouterr().err == f"error: {path}: Permission denied\n"


def test_a_disk_that_is_full_is_told_by_the_file_that_did_not_fit(tmp_path: Path) -> None:
    (table := tmp_path / "a.csv").write_text("text\n" + "word\n" * 50_000)
    # A file has at most so many blocks of 1 KiB; Python makes an error of the signal.
    ask = f"{sys.executable} -m phi3batch validate {table} --prompt {{text}}"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 64; {ask}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: {tmp_path}")
    assert done.stderr.endswith("a.jsonl: File too large\n")


def test_who_has_read_enough_ends_it_quietly(tmp_path: Path) -> None:
    (path := tmp_path / "a.jsonl").write_text("{}\n" + "{\n" * 20_000)
    command = f"{sys.executable} -m phi3batch validate {path} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout.startswith("line 1:")
