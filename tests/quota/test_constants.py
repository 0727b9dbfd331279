"""Every constant of dispatch and quota stands in docs/pacing.md, as it is in the code."""

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = [
    file
    for room in ("dispatch", "quota")
    for file in sorted((ROOT / "workers" / room).glob("*.py"))
    if file.name != "__init__.py"
]
ROW = re.compile(r"^\| `([a-z_]+\.[A-Za-z_.]+)` \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", re.MULTILINE)


def named(body: list[ast.stmt]) -> Iterator[str]:
    """Names of the constants that these statements assign."""
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        for target in targets:
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(name, ast.Name) and name.id.isupper():
                    yield name.id


def figures(name: str, value: object) -> Iterator[tuple[str, float]]:
    """The numbers of a constant; those of a mapping each by its key."""
    if isinstance(value, int | float):
        yield name, float(value)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from figures(f"{name}.{key}", each)


def in_code() -> dict[str, float]:
    found: dict[str, float] = {}
    for file in FILES:
        tree = ast.parse(file.read_text("utf-8"))
        module: Any = importlib.import_module(f"workers.{file.parent.name}.{file.stem}")
        for name in named(tree.body):
            found |= figures(f"{file.stem}.{name}", getattr(module, name))
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                for name in named(node.body):
                    value = getattr(getattr(module, node.name), name, None)
                    found |= figures(f"{file.stem}.{node.name}.{name}", value)
    return found


def in_table(text: str) -> list[tuple[str, str, str, str]]:
    return [(name, value.strip(), unit, why) for name, value, unit, why in ROW.findall(text)]


def number(told: str) -> float:
    above, _, below = told.replace(",", "").partition("/")
    return float(above) / float(below or 1)


TABLE = in_table((ROOT / "docs" / "pacing.md").read_text("utf-8"))


def test_each_constant_stands_in_the_table_once() -> None:
    names = [name for name, *_ in TABLE]
    assert len(in_code()) > 50
    assert sorted(names) == sorted(in_code())


@pytest.mark.parametrize(("name", "value", "unit", "why"), TABLE, ids=[row[0] for row in TABLE])
def test_the_table_says_what_the_code_does(name: str, value: str, unit: str, why: str) -> None:
    assert number(value) == pytest.approx(in_code()[name], rel=1e-9)
    assert unit.strip()
    assert why.strip()


def test_a_row_that_is_wrong_or_missing_is_found() -> None:
    code = in_code()
    rows = in_table("| `breaker.TRIP` | 0.7 | part | because |\n| `breaker.GONE` | 1 | s | no |\n")
    assert number(rows[0][1]) != code["breaker.TRIP"]
    assert rows[1][0] not in code
    assert {"retries.UNTOLD.day", "pacing.Headroom.GAIN", "shares.LEAST_TURN"} <= set(code)
