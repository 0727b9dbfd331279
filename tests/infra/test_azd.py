"""azd takes every command that a document or a workflow gives it, and knows all of azure.yaml."""

import copy
import json
from typing import Any

import pytest

from tests.infra import az, azd

KNOWS: dict[str, Any] = json.loads(azd.KNOWN.read_text("utf-8"))
TOLD = azd.documents()


def wrong(calls: list[azd.Call]) -> list[str]:
    """What azd would not take of these calls."""
    found = []
    for words, flags in calls:
        command = azd.command_of(words, KNOWS["commands"])
        if command is None:
            found.append(f"there is no azd {words}")
            continue
        found += [f"azd {command} has no {flag}" for flag in flags - {*KNOWS["commands"][command]}]
    return found


@pytest.mark.parametrize("name", TOLD)
def test_the_commands_are_ones_that_azd_takes(name: str) -> None:
    assert wrong(TOLD[name]) == []


def test_the_workflow_and_the_documents_are_among_them() -> None:
    assert {"azure.md", "runbook.md", "telemetry.md", "deploy.yml"} <= TOLD.keys()


@pytest.mark.parametrize(
    "command",
    ["azd provison", "azd up --all", "azd env get-values X", "azd deploy --no-promt", "azd login"],
)
def test_a_mistake_in_a_command_is_found(command: str) -> None:
    assert wrong(list(az.calls(command, "azd"))) != []


def test_azure_yaml_says_nothing_that_azd_does_not_read() -> None:
    assert azd.strangers(azd.azure_yaml(), KNOWS["properties"]) == []


def test_a_mistake_in_azure_yaml_is_found() -> None:
    told = copy.deepcopy(azd.azure_yaml())
    told["infra"]["layers"][0]["folder"] = told["infra"]["layers"][0].pop("path")
    told["service"] = told["services"]
    found = azd.strangers(told, KNOWS["properties"])
    assert sorted(found) == ["infra.layers.folder", "service"]
