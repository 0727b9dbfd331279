"""Who may know whom, which modules decide without I/O, and what no file may say."""

import ast
import re
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each room of `workers/` (a folder or a file beside them) and the rooms that it may import.
# Everybody may know `schemas`; what is not named is forbidden.
KNOWS: dict[str, frozenset[str]] = {
    room: frozenset(known.split())
    for room, known in {
        "clock": "",
        "ports": "",
        "rows": "",
        "settings": "ports",
        "quota": "ports",
        "dispatch": "ports quota rows.packing rows.sizes",
        "jobs": "clock ports rows.reasons rows.writing",
        "webhooks": "",
        "files": "jobs ports",
        "intake": "jobs ports rows settings",
        "shards": "dispatch jobs ports rows settings",
        "api": "files intake jobs ports quota settings",
        "adapters": "ports rows.packing",
        "inbox": "intake jobs ports shards webhooks",
        "sweeper": "intake jobs ports shards",
        "service": "adapters api clock dispatch files inbox intake jobs ports quota "
        "rows settings shards sweeper",
    }.items()
}
MOST_PAIRS = 48

# The modules that decide: no I/O, no await, no clock, environment or randomness of their own.
DECIDES = (
    "schemas",
    "workers.rows",
    "workers.api.http",
    "workers.api.matching",
    "workers.api.routing",
    "workers.api.access",
    "workers.api.guessing",
    "workers.api.asking",
    "workers.api.openapi",
    "workers.api.openai.operations",
    "workers.api.openai.forms",
    "workers.api.openai.shapes",
    "workers.files.names",
    "workers.jobs.lifecycle",
    "workers.jobs.beginning",
    "workers.jobs.pauses",
    "workers.jobs.helping",
    "workers.jobs.endings",
    "workers.jobs.events",
    "workers.jobs.pace",
    "workers.jobs.advice",
    "workers.jobs.report",
    "workers.jobs.charts",
    "workers.jobs.comparison",
    "workers.jobs.series",
    "workers.jobs.costs",
    "workers.jobs.budget",
    "workers.intake.fitting",
    "workers.intake.formats",
    "workers.intake.pieces",
    "workers.intake.planning",
    "workers.intake.estimating",
    "workers.intake.quota_time",
    "workers.quota.book",
    "workers.quota.shares",
    "workers.quota.weights",
    "workers.quota.allowance",
    "workers.quota.cubic",
    "workers.quota.deference",
    "workers.quota.pacing",
    "workers.dispatch.fair_queue",
    "workers.dispatch.breaker",
    "workers.dispatch.concurrency",
    "workers.dispatch.retries",
    "workers.dispatch.token_estimates",
    "workers.dispatch.lane",
    "workers.shards.suspicion",
    "workers.webhooks",
)
# What a decision may use: nothing that reads a clock, an environment, a file or a socket; of time
# zones their tables, once.
_PURE = """
__future__ abc array base64 binascii bisect collections collections.abc dataclasses datetime decimal
difflib enum functools hashlib heapq html hmac ipaddress itertools json math operator re statistics
struct types typing urllib.parse msgspec msgspec.json orjson numpy pydantic pydantic.json_schema
random python_multipart.exceptions python_multipart.multipart zoneinfo
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
LOCAL = modules("local")
COMMAND_LINE = modules("phi3batch")
KNOWN = {**PRODUCTION, **LOCAL, **COMMAND_LINE}
# What of the service the command line applies itself; its wheel holds no more.
SHARED_RULES = (
    "schemas",
    "workers.rows",
    "workers.intake.pieces",
    "workers.intake.planning",
    "workers.intake.quota_time",
    "workers.intake.fitting",
    "workers.dispatch.token_estimates",
    "workers.intake.formats",
)


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
                yield member if member in KNOWN else source


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def room_of(module: str) -> str | None:
    """The room of `workers/` that a module lies in."""
    parts = module.split(".")
    return parts[1] if parts[0] == "workers" and len(parts) > 1 else None


def allowed(module: str, name: str) -> bool:
    """Whether a module may import another of this repository."""
    room, other = room_of(module), room_of(name)
    if within(name, ("schemas",)):
        return True
    if room is None:
        # The function app composes nothing itself: it takes the service and the shapes it needs.
        return module == "function_app" and other in ("service", "ports", "api")
    if other is None:
        return name == "workers"
    known = KNOWS[room]
    return other == room or other in known or name.removeprefix("workers.") in known


@pytest.mark.parametrize("module", PRODUCTION)
def test_each_room_knows_only_whom_it_may(module: str) -> None:
    for name in imports(module, PRODUCTION[module]):
        assert not within(name, ("local", "tests", "benchmarks")), f"{module} imports {name}"
        if within(name, ("schemas", "workers", "function_app")):
            assert allowed(module, name), f"{module} imports {name}"


def test_few_rooms_know_each_other_and_none_in_a_circle() -> None:
    graph: dict[str, set[str]] = {room: set() for room in KNOWS}
    for module, file in PRODUCTION.items():
        if room := room_of(module):
            others = {room_of(name) for name in imports(module, file)} - {room, None}
            graph[room] |= {other for other in others if other is not None}
    assert len(list(TopologicalSorter(graph).static_order())) == len(KNOWS)
    assert sum(map(len, graph.values())) <= MOST_PAIRS


@pytest.mark.parametrize(
    "tree", [PRODUCTION, LOCAL, COMMAND_LINE], ids=["production", "local", "phi3batch"]
)
def test_no_modules_import_each_other_in_a_circle(tree: dict[str, Path]) -> None:
    graph = {
        module: {name for name in imports(module, file) if name in tree and name != module}
        for module, file in tree.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(tree)


@pytest.mark.parametrize(
    "module",
    [name for name in PRODUCTION if within(name, DECIDES) and name != "schemas.__main__"],
)
def test_decisions_do_no_io(module: str) -> None:
    file = PRODUCTION[module]
    for name in imports(module, file):
        assert name in PURE or within(name, DECIDES) or name == "workers.jobs", f"{module}: {name}"
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


@pytest.mark.parametrize("decides", DECIDES)
def test_every_module_that_decides_is_there(decides: str) -> None:
    assert decides in PRODUCTION


@pytest.mark.parametrize("module", COMMAND_LINE)
def test_the_command_line_knows_the_rules_of_the_service_and_nothing_of_azure(module: str) -> None:
    for name in imports(module, COMMAND_LINE[module]):
        assert not within(name, ("local", "tests", "benchmarks", "azure", "aiohttp")), name
        assert within(name, SHARED_RULES) or not within(name, ("workers", "function_app")), name


def test_what_stands_in_for_azure_knows_no_test() -> None:
    for module, file in LOCAL.items():
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
