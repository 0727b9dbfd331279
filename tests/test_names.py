"""One name for one thing, functions that fit on a screen, and paths that lead somewhere."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.test_layering import COMMAND_LINE, LOCAL, PRODUCTION, ROOT, tracked

# What a reader can hold in his head: lines of a function and of a module.
LONGEST_FUNCTION, LONG_FUNCTION, MOST_LONG, MEDIAN_LINES = 60, 40, 3, 7
LONGEST_MODULE = 400


def trees(modules: dict[str, Path]) -> dict[str, ast.Module]:
    return {name: ast.parse(file.read_text("utf-8")) for name, file in modules.items()}


def classes(tree: ast.Module) -> Iterator[str]:
    """The types that a module defines, aliases included."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from (name for name in names if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name))


def worlds() -> dict[str, dict[str, Path]]:
    """Where a name has one meaning: the service, and each of the stand-ins for others' services."""
    found = {"service": {**PRODUCTION, **COMMAND_LINE}}
    for name, file in LOCAL.items():
        room = name.split(".")[1] if name.count(".") > 1 else "local"
        found.setdefault(room, {})[name] = file
    return found


@pytest.mark.parametrize("world", worlds())
def test_no_type_is_defined_twice(world: str) -> None:
    where = defaultdict(list)
    for module, tree in trees(worlds()[world]).items():
        for name in classes(tree):
            where[name].append(module)
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


def test_functions_and_modules_are_short() -> None:
    lines, measured = {}, {**PRODUCTION, **COMMAND_LINE}
    for module, tree in trees(measured).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines[f"{module}.{node.name}, {node.lineno}"] = node.end_lineno - node.lineno + 1
    long = {name: size for name, size in lines.items() if size > LONG_FUNCTION}
    assert len(long) <= MOST_LONG, long
    assert max(lines.values()) <= LONGEST_FUNCTION, long
    assert median(lines.values()) <= MEDIAN_LINES
    sizes = {name: len(file.read_text("utf-8").splitlines()) for name, file in measured.items()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_MODULE} == {}


# -- paths ------------------------------------------------------------------------------------

TOPS = ("workers", "schemas", "phi3batch", "local", "tests", "docs", "samples", "benchmarks")
FILES = [file.relative_to(ROOT).as_posix() for file in tracked()]
FOLDERS = {parent.as_posix() for file in FILES for parent in Path(file).parents}
# Made by the service or by its user: no files of this repository.
MADE = {
    *("name.jsonl", "name.options.json", "output.jsonl", "output.2.jsonl", "errors.jsonl"),
    *("manifest.json", "manifest.2.json"),
    *("events.jsonl", "verdict.json", "state.json", "job.json", "local.settings.json"),
    *("plan.jsonl",),
}
PATH = re.compile(r"[\w./-]+")
KNOWN_END = re.compile(r"\.(py|md|jsonl?|toml|txt|svg)$")


def paths(text: str) -> Iterator[str]:
    """What stands between backticks or in a map, and looks like a path of this repository."""
    quoted = re.findall(r"`([^`\n]+)`", text)
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    mapped = [word for block in blocks for word in block.split() if word.startswith(TOPS)]
    for word in (*quoted, *mapped):
        name = word.rstrip("/:")
        ours = name.split("/")[0] in TOPS and "/" in word
        if not PATH.fullmatch(name) or name in MADE or name.startswith("/"):
            continue
        if ours or KNOWN_END.search(name):
            yield name


def leads_somewhere(path: str) -> bool:
    return path in FOLDERS or any(f"/{file}".endswith(f"/{path}") for file in FILES)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".md")])
def test_paths_in_documents_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert [path for path in paths(text) if not leads_somewhere(path)] == []


@pytest.mark.parametrize(
    "tree", [PRODUCTION, LOCAL, COMMAND_LINE], ids=["production", "local", "phi3batch"]
)
def test_paths_in_docstrings_lead_somewhere(tree: dict[str, Path]) -> None:
    lost = {}
    for module, file in tree.items():
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for path in paths(ast.get_docstring(node) or ""):
                    if not leads_somewhere(path):
                        lost[path] = module
    assert lost == {}


# -- sentences --------------------------------------------------------------------------------

# How sentences began that have no noun for a subject: "False: it stood already."
NO_SUBJECT = re.compile(
    r"(?:^|[.!?]\s+)((?:True|False|None|\d+)(?::| where| while| unless| if)\s.*"
    r"|(?:Gives|Tells)\s.*)"
)


def docstrings(tree: ast.Module) -> Iterator[str]:
    """All texts that stand as statements: those of modules, types, functions and names."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


@pytest.mark.parametrize(
    "tree", [PRODUCTION, LOCAL, COMMAND_LINE], ids=["production", "local", "phi3batch"]
)
def test_sentences_of_docstrings_have_a_subject(tree: dict[str, Path]) -> None:
    lacking = {}
    for module, file in tree.items():
        for text in docstrings(ast.parse(file.read_text("utf-8"))):
            if found := NO_SUBJECT.search(text):
                lacking[found[1]] = module
    assert lacking == {}


def test_the_checks_find_what_they_are_for() -> None:
    found = list(paths("`core/shares.py`, `workers/core` and `/v1/x`\n```\nworkers/old/ x\n```\n"))
    assert found == ["core/shares.py", "workers/core", "workers/old"]
    assert not any(leads_somewhere(path) for path in found)
    faults = ("Swap it. False: it stood.", "Make a call. Gives the outcome.", "None where gone.")
    assert all(NO_SUBJECT.search(text) for text in faults)
    assert not NO_SUBJECT.search("A job; None where it is gone. None of them is a fault.")
    assert list(classes(ast.parse("class A: ...\nLIMIT = 1\nRow = int"))) == ["A", "Row"]
