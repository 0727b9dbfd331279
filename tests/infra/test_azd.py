"""azd takes every command that a document or a workflow gives it, and knows all of azure.yaml."""

import copy
import json
from typing import Any

import pytest

from tests.infra import az, azd

KNOWS: dict[str, Any] = json.loads(azd.KNOWN.read_text("utf-8"))
TOLD = azd.documents()


# How many words a command has to be told, where it is not none.
LEAST = {"env get-value": 1, "env set": 2}


def wrong(calls: list[az.Call]) -> list[str]:
    """What azd would not take of these calls."""
    found = []
    for call in calls:
        command = azd.command_of(call.words, KNOWS["commands"])
        if command is None:
            found.append(f"there is no azd {call.words}")
            continue
        known, told = KNOWS["commands"][command], call.words[len(command.split()) :]
        found += [f"azd {command} has no {flag}" for flag in call.flags.keys() - {*known["flags"]}]
        if not LEAST.get(command, 0) <= len(told) <= known["most"]:
            found.append(f"azd {command} is told {told}")
    return found


@pytest.mark.parametrize("name", TOLD)
def test_the_commands_are_ones_that_azd_takes(name: str) -> None:
    assert wrong(TOLD[name]) == []


def test_the_workflow_and_the_documents_are_among_them() -> None:
    assert {"azure.md", "runbook.md", "telemetry.md", "deploy.yml"} <= TOLD.keys()


@pytest.mark.parametrize(
    "command",
    [
        *("azd provison", "azd up --all", "azd env get-values X", "azd deploy --no-promt"),
        *("azd login", "azd env set", "azd env set NAME", "azd env get-value"),
        *("azd provision service extra", "sudo azd login", "if azd provison; then :; fi"),
    ],
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
