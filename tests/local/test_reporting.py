"""What is said of a job that has ended: nothing that went wrong looks right."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from local.reporting import exit_status, report
from schemas.jobs import Reason
from schemas.results import Counts
from schemas.status import JobStatus

from .test_run import UNLIMITED, run_here

REASON = Reason(code="invalid_options", message="mend them")


@pytest.mark.parametrize(
    ("state", "counts", "strict", "status", "said"),
    [
        ("completed", Counts(total=500, succeeded=500), True, 0, ""),
        ("completed", Counts(total=500, succeeded=498, failed=1, invalid=1), False, 0, ""),
        (
            "completed",
            Counts(total=500, succeeded=498, failed=1, invalid=1),
            True,
            3,
            "error: 2 of 500 rows failed",
        ),
        ("completed", Counts(total=2, failed=2), False, 3, "error: every row failed"),
        ("failed", Counts(), False, 1, "error: the job failed: mend them"),
        ("cancelled", Counts(total=1, cancelled=1), False, 1, "error: the job was cancelled"),
        ("expired", Counts(total=1, expired=1), False, 1, "error: the job expired"),
        ("rejected", None, False, 1, "error: the job was rejected"),
    ],
)
def test_the_exit_status_tells_how_the_rows_fared(  # noqa: PLR0917
    state: str,
    counts: Counts | None,
    strict: bool,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = REASON if state == "failed" else None
    job = JobStatus.model_validate({"state": state, "counts": counts, "reason": reason})
    assert exit_status(job, strict=strict, interrupted=False) == status
    assert capsys.readouterr().err.strip() == said


def test_errors_are_told_by_code_with_the_first_line_of_each(tmp_path: Path) -> None:
    errors = [("content_filter", 3), ("timeout", 5), ("timeout", 9)] + [
        (f"code_{n}", n) for n in range(20, 32)
    ]
    lines = (
        json.dumps({"error": {"code": code, "message": f"line {line}: change it"}}) + "\n"
        for code, line in errors
    )
    (tmp_path / "errors.jsonl").write_text("".join(lines))
    counts = Counts(total=20, succeeded=5, failed=15)
    written = io.StringIO()
    report(
        Console(file=written, soft_wrap=True),
        JobStatus(state="completed", counts=counts),
        tmp_path,
    )
    told = written.getvalue().splitlines()
    assert told[0].startswith("completed, 15 of 20 failed")
    assert told[1] == "  2 timeout: line 5: change it"
    assert told[2] == "  1 content_filter: line 3: change it"
    assert told[11] == "  4 with other codes"


def test_a_strict_run_with_rows_that_failed_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    rows = ({"prompt": "hello"}, {"prompt": "x" * 100_000}, {"prompt": "hi", "temperature": 99})
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    options = (str(file), *UNLIMITED, "--data", str(tmp_path / "data"), "--out", str(out))
    assert run_here(*options, "--strict") == 3
    told = capsys.readouterr()
    assert told.err == "error: 2 of 3 rows failed\n"
    assert "completed, 2 of 3 failed · 3 of 3 rows" in told.out
    assert ": line 3: " in told.out
    too_long, _ = map(json.loads, (out / "errors.jsonl").read_text().splitlines())
    assert too_long["error"]["code"] == "context_length_exceeded"
    assert "than the 4096 that phi-3-mini can read" in too_long["error"]["message"]
    (use,) = json.loads((out / "manifest.json").read_text())["use"].values()
    assert use["calls"] == 2, "a row beyond the model's context is refused unasked"
    assert run_here(*options) == 0
    told = capsys.readouterr()
    assert "it completed before: nothing is asked" in told.out
    assert "completed, 2 of 3 failed · 3 of 3 rows" in told.out
