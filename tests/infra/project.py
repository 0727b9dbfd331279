"""The deployment's files, and everything that is asked of them at once."""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.infra import deployed, rules
from tests.infra.app_settings import settings_problems
from tests.infra.bicep import Template, parse
from tests.infra.entities import entity_problems
from tests.infra.names import name_problems
from tests.infra.resources import resource_problems
from tests.infra.roles import role_problems
from tests.infra.wiring import module_problems, parameter_problems
from workers.settings import Settings

ROOT = Path(__file__).parents[2]
CONFIG = "Config.json"
WORKBOOK = "infra/service/workbook.json"


@cache
def sources() -> Mapping[str, str]:
    """The files that say what is deployed and how, by their paths."""
    paths = [*ROOT.glob("infra/**/*"), ROOT / "azure.yaml", *ROOT.glob(".github/**/*.yml")]
    found = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in paths
        if path.is_file()
    }
    return found | {CONFIG: (ROOT / CONFIG).read_text("utf-8")}


@cache
def _parsed(path: str, source: str) -> Template:
    return parse(path, source)


@cache
def _by_itself(path: str, source: str) -> tuple[str, ...]:
    """What is wrong with a file, whatever the others say."""
    template = _parsed(path, source)
    return (*template.faults, *name_problems(template))


def templates(files: Mapping[str, str]) -> dict[str, Template]:
    """The Bicep files among these. A file that did not change is parsed once."""
    return {path: _parsed(path, each) for path, each in files.items() if path.endswith(".bicep")}


@cache
def settings_read() -> frozenset[str]:
    """The settings that the service reads: the names in its module of settings."""
    tree = ast.parse((ROOT / "workers/settings.py").read_text("utf-8"))
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(
        name
        for name in constants
        if isinstance(name, str) and re.fullmatch(r"[A-Z]+(_[A-Z]+)*", name)
    )


@cache
def app_source() -> str:
    return (ROOT / "function_app.py").read_text("utf-8")


def functions() -> set[str]:
    """The names of the app's functions."""
    return set(re.findall(r"^async def (\w+)\(", app_source(), re.MULTILINE))


def watched() -> str:
    """The container whose blobs the app's blob trigger is told of."""
    (path,) = re.findall(r'path="(\w+)/\{name\}"', app_source())
    return str(path)


def containers() -> dict[str, object]:
    """What the service takes where nothing is set, by the names that infra/ gives them."""
    told = Settings.model_fields
    return {
        "inputContainers": list(told["input_containers"].default),
        "nightlyContainer": told["nightly_container"].default,
        "filesContainer": told["files_container"].default,
        "resultsContainer": told["results_container"].default,
        "stateContainer": told["state_container"].default,
    }


def problems(files: Mapping[str, str]) -> Iterator[str]:
    """Everything that is wrong with a deployment."""
    found = templates(files)
    for template in found.values():
        yield from _by_itself(template.path, files[template.path])
        for symbol, resource in template.resources.items():
            yield from resource_problems(found, template, symbol, resource)
        for symbol, module in template.modules.items():
            yield from module_problems(found, template, symbol, module)
    yield from rules.key_problems(files)
    yield from rules.locking_problems(found)
    yield from role_problems(found)
    yield from entity_problems(found, files[CONFIG])
    yield from settings_problems(found, set(settings_read()), functions())
    yield from rules.container_problems(found, containers())
    yield from rules.event_problems(found, watched())
    yield from rules.metric_problems(found, files[WORKBOOK])
    yield from rules.lifecycle_problems(found, files)
    yield from deployed.problems(found, files)
    before: dict[str, object] = {}
    for layer in deployed.LAYERS:
        main = found[f"{layer}/main.bicep"]
        yield from parameter_problems(main, files[f"{layer}/main.parameters.json"], before)
        before |= main.outputs
