"""Each log line that somebody may have to act on has a code, and docs/logs.md says what to do."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.test_layering import PRODUCTION, ROOT
from tests.test_readme import names, table

LEVELS = frozenset({"warning", "error", "exception", "critical"})
CODE = re.compile(r"\[([A-Z]+(?:_[A-Z]+)*)\] ")
LISTED = [
    name for row in table((ROOT / "docs/logs.md").read_text("utf-8")) for name in names(row[0])
]


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Where a file logs what is to be acted on, and how the line begins."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        if not isinstance(called, ast.Attribute) or called.attr not in LEVELS:
            continue
        if not ast.unparse(called.value).endswith("log"):
            continue
        assert isinstance(node, ast.Call)
        first = node.args[0]
        yield node.lineno, str(first.value) if isinstance(first, ast.Constant) else ""


def said() -> Counter[str]:
    """The codes in the code."""
    found: Counter[str] = Counter()
    for module, file in PRODUCTION.items():
        for number, line in lines(file):
            code = CODE.match(line)
            assert code, (
                f"{module}, line {number}: begin it with a code, and list it in docs/logs.md"
            )
            found[code[1]] += 1
    return found


def test_each_line_has_a_code_of_its_own_which_the_document_explains() -> None:
    found = said()
    assert found
    assert [code for code, times in found.items() if times > 1] == []
    assert set(found) - set(LISTED) == set()


def test_the_document_lists_no_code_that_nobody_says() -> None:
    assert len(LISTED) == len(set(LISTED))
    assert set(LISTED) - set(said()) == set()


def test_a_line_without_a_code_is_found(tmp_path: Path) -> None:
    file = tmp_path / "odd.py"
    file.write_text('log.warning("[A_CODE] x %s", 1)\nself._log.error("none")\nlog.info("fine")\n')
    assert [bool(CODE.match(line)) for _, line in lines(file)] == [True, False]
