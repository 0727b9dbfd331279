"""A file that is no JSON Lines is refused as a whole, in a word."""

import gzip
import json
from itertools import chain
from typing import Any

import pytest

from schemas.jobs import JobOptions
from workers.intake.formats import what_it_is
from workers.intake.pieces import Scanner
from workers.intake.planning import JUDGED_ROWS, Survey
from workers.rows.reading import RowRules

RULES = RowRules.of(JobOptions(), max_line_bytes=4096)
ROWS: list[dict[str, Any]] = [{"prompt": f"p{number}"} for number in range(1500)]
CSV = "id,prompt\n" + "".join(f'{number},"a, b"\n' for number in range(1500))
ARRAY = json.dumps(ROWS)
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS)

FOREIGN = {
    "a CSV": (CSV.encode(), "this is a CSV"),
    "a CSV of one row": (b"\xef\xbb\xbfid;prompt\r\n1;p\r\n", "this is a CSV"),
    "tabs": (b"id\tprompt\n1\tp", "this is a CSV"),
    "one JSON array": (ARRAY.encode(), "this is one JSON array"),
    "one short JSON array": (b'[{"prompt": "p"}]', "this is one JSON array"),
    "a printed JSON array": (json.dumps(ROWS, indent=2).encode(), "this is one JSON array"),
    "printed objects": (json.dumps(ROWS[0], indent=2).encode(), "no object stands on one line"),
    "Python dicts": (b"{'prompt': 'p'}\n{'prompt': \"it's\"}\n", "as Python or JavaScript print"),
    "a printed Python dict": (b"{\n 'prompt': 'p'}", "as Python or JavaScript print"),
    "JavaScript": (b'{prompt: "p"}\n', "as Python or JavaScript print"),
    "an object that only begins": (b"{", "no object stands on one line"),
    "an array on each line": (b"[1,2]\n[3]", "this is a JSON array on each line"),
    "an array whose items are arrays": (b"[[1],\n[2]]", "this is one JSON array"),
    "Latin-1": ('{"prompt":"\xe9"}\n'.encode("latin-1") * 1500, "this is not UTF-8"),
    "printed objects beyond ASCII": (
        json.dumps({"prompt": "é" * 40_000}, indent=1, ensure_ascii=False).encode(),
        "no object stands on one line",
    ),
    "UTF-16": (LINES.encode("utf-16"), "this is UTF-16"),
    "UTF-16 without a mark": (LINES.encode("utf-16-be"), "this is UTF-16"),
    "UTF-16 the other way": (LINES.encode("utf-16-le"), "this is UTF-16"),
    "gzip": (gzip.compress(LINES.encode(), mtime=0), "this is a gzip file"),
    "HTML": (b"<!DOCTYPE html>\n<html>\n</html>", "HTML"),
    "prose": (b"Why?\n\nBecause.", "no row of it is a JSON object"),
    "texts": (b'"Why?"\n"Because."', "no row of it is a JSON object"),
}


def surveyed(data: bytes) -> tuple[Survey, Scanner]:
    survey, scanner = Survey(), Scanner(RULES)
    for start in range(0, len(data), 10_000):
        for _, _, row in chain(*scanner.feed(data[start : start + 10_000])):
            survey.note(row)
    for _, _, row in chain(*scanner.close()):
        survey.note(row)
    survey.close()
    return survey, scanner


@pytest.mark.parametrize(("data", "word"), FOREIGN.values(), ids=list(FOREIGN))
def test_a_file_that_is_no_json_lines_is_told_in_a_word(data: bytes, word: str) -> None:
    survey, scanner = surveyed(data)
    assert survey.is_foreign
    assert word in what_it_is(scanner.head)


@pytest.mark.parametrize(
    "row",
    [
        b'{"prompt": "p"}',
        b'{"question": "no request, but an object"}',
        b'{"error": {"code": "x"}, "raw": "a line that was no object"}',
        b'{"prompt": "' + b"x" * 5000 + b'"}',
    ],
    ids=["a request", "another object", "a line of errors", "a line too long"],
)
def test_one_object_among_the_first_thousand_rows_is_enough(row: bytes) -> None:
    lines = [b"no JSON"] * (JUDGED_ROWS - 1)
    for place in (0, 500, JUDGED_ROWS - 1):
        assert not surveyed(b"\n".join([*lines[:place], row, *lines[place:]]))[0].is_foreign
    assert surveyed(b"\n".join([b"no JSON"] * JUDGED_ROWS + [row]))[0].is_foreign


def test_a_file_without_rows_is_not_foreign() -> None:
    assert not surveyed(b"\n \n")[0].is_foreign
