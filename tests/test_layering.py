"""Imports point one way, decisions do no I/O, and no file says what it must not."""

import ast
import re
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each layer may import the layers before it, and its own as long as there is no cycle.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("schemas",),
    ("workers.core",),
    ("workers.ports", "workers.errors"),
    (
        "workers.clock",
        "workers.settings",
        "workers.jobs.store",
        "workers.shards.spool",
        "workers.shards.journal",
        "workers.shards.lease",
        "workers.jobs.transitions",
        "workers.dispatch.admission",
        "workers.dispatch.call",
        "workers.dispatch.routing",
        "workers.quota.ledger",
        "workers.quota.rounds",
        "workers.dispatch.waiting",
        "workers.dispatch.dispatcher",
    ),
    (
        "workers.intake.announcements",
        "workers.intake.scanning",
        "workers.intake.verdicts",
        "workers.shards.calls",
        "workers.shards.attempt",
        "workers.shards.attending",
        "workers.intake.intake",
        "workers.shards.runner",
        "workers.jobs.finisher",
    ),
    ("workers.sweeper", "workers.inbox", "workers.api.jobs"),
    ("workers.service",),
    ("function_app",),
)
ADAPTERS = "workers.adapters"
# They know what they implement and, of the decisions, how packed answers are taken apart.
OF_ADAPTERS = ("schemas", "workers.ports", "workers.errors", "workers.rows.packing", ADAPTERS)

# What a decision may use: nothing that reads a clock, an environment, a file or a socket.
_PURE = """
__future__ abc array base64 bisect collections collections.abc dataclasses datetime difflib enum
functools hashlib heapq itertools json math operator re statistics struct typing urllib.parse
msgspec msgspec.json orjson numpy pydantic random
"""
PURE = frozenset(_PURE.split())
IMPURE_CALLS = frozenset({"now", "utcnow", "today", "open", "print", "input", "uuid4", "sleep"})


def modules(*roots: str) -> dict[str, Path]:
    found = {}
    for root in roots:
        path = ROOT / root
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


PRODUCTION = modules("schemas", "workers", "function_app.py")


def imports(module: str, file: Path) -> Iterator[str]:
    """Full names of what a module imports, of a package's members too."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                up = node.level - (file.name == "__init__.py")
                package = module.split(".")[: len(module.split(".")) - up]
                source = ".".join([*package, source]).rstrip(".")
            for alias in node.names:
                member = f"{source}.{alias.name}"
                yield member if member in PRODUCTION else source


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def layer(module: str) -> int:
    for rank, packages in enumerate(LAYERS):
        if within(module, packages):
            return rank
    raise AssertionError(f"{module} is in no layer: give it one in LAYERS")


@pytest.mark.parametrize("module", PRODUCTION)
def test_imports_point_one_way(module: str) -> None:
    for name in imports(module, PRODUCTION[module]):
        assert not within(name, ("local", "tests", "benchmarks")), f"{module} imports {name}"
        if not within(name, ("schemas", "workers", "function_app")) or name == "workers":
            continue
        if within(module, (ADAPTERS,)):
            assert within(name, OF_ADAPTERS), f"{module} imports {name}"
        elif within(name, (ADAPTERS,)):
            assert module == "workers.service", f"{module} imports {name}"
        elif module != "workers":
            assert layer(name) <= layer(module), f"{module} imports {name}"


def test_there_are_no_cycles() -> None:
    graph = {
        module: {name for name in imports(module, file) if name in PRODUCTION and name != module}
        for module, file in PRODUCTION.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(PRODUCTION)


@pytest.mark.parametrize(
    "module", [name for name in PRODUCTION if within(name, ("workers.core", "schemas"))]
)
def test_decisions_do_no_io(module: str) -> None:
    file = PRODUCTION[module]
    if module == "schemas.__main__":
        return
    for name in imports(module, file):
        assert name in PURE or within(name, ("schemas", "workers.core")), f"{module}: {name}"
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await)), f"{module} awaits"
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"], f"{module} rolls dice"
        if isinstance(node, ast.Import):
            assert all(alias.name != "random" for alias in node.names), f"{module} rolls dice"
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in IMPURE_CALLS, f"{module}, line {node.lineno}: {name}()"


def test_only_the_wiring_and_what_stands_in_for_azure_see_adapters() -> None:
    for module, file in modules("local").items():
        for name in imports(module, file):
            assert not within(name, ("tests", "benchmarks")), f"{module} imports {name}"


# Written so that this file does not hold them itself.
UNWANTED = re.compile(
    r"/wor[k]/|/roo[t]/|\.\./share[d]|/hom[e]/[a-z]|pypi\.or[g]|npmjs\.or[g]|debian\.or[g]"
    r"|\bcla[u]de\b|anthr[o]pic|\bTO[D]O\b|\bFIXM[E]\b",
    re.IGNORECASE,
)


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_tracked_file_says_what_it_must_not() -> None:
    files = tracked()
    assert files
    for file in files:
        if not file.is_file():
            continue
        text = file.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.split("\n"), 1):
            found = UNWANTED.search(line)
            assert found is None, f"{file.relative_to(ROOT)}, line {number}: {found}"
