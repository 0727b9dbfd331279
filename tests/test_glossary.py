"""The glossary's words live where it says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINES = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \| `([\w/.]+)`(?: `(\w+)`)? \|$",
    (ROOT / "docs/glossary.md").read_text("utf-8"),
    re.MULTILINE,
)


def test_every_line_says_what_and_where() -> None:
    rows = (ROOT / "docs/glossary.md").read_text("utf-8").splitlines()
    entries = [row for row in rows if row.startswith("| ") and not row.startswith("| word ")]
    assert len(entries) == len(LINES) >= 30
    words = [word for word, *_ in LINES]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(("word", "meaning", "file", "name"), LINES, ids=lambda part: part[:12])
def test_a_word_lives_where_it_is_said_to(word: str, meaning: str, file: str, name: str) -> None:
    assert meaning[0].isupper(), word
    assert meaning.endswith("."), word
    defined = {
        node.name
        for node in ast.parse((ROOT / file).read_text("utf-8")).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not name or name in defined, f"{word}: {file} defines no {name}"
