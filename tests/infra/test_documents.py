"""What the operators' documents say of the deployment is so."""

import json
import re
from typing import get_args

import pytest

from schemas.results import WaitReason
from tests.infra import az, project
from tests.infra.app_settings import MAIN
from tests.infra.bicep import literal, member, text
from tests.test_readme import names, section, table

DOCS = {
    name: (project.ROOT / "docs" / name).read_text("utf-8") for name in ("azure.md", "runbook.md")
}
AZURE, RUNBOOK = DOCS["azure.md"], DOCS["runbook.md"]
EVENTS = project.sources()["infra/events/main.parameters.json"]
ALERTS = "infra/service/alerts.bicep"


def parameters() -> dict[str, str]:
    """The parameters of the first layer by the variables that azd takes them from."""
    told = json.loads(project.sources()["infra/service/main.parameters.json"])["parameters"]
    return {each["value"][2:-1]: name for name, each in told.items()}


def test_the_parameters_are_the_real_ones_with_their_defaults() -> None:
    main = project.templates(project.sources())[MAIN]
    rows = table(section(AZURE, "Parameters"))
    told = {name: row[1].strip("`") for row in rows for name in names(row[0])}
    known = {name: each for name, each in parameters().items() if not name.startswith("AZURE_")}
    assert told.keys() == known.keys()
    for name, default in told.items():
        node = main.params[known[name]].default
        found = "" if node is None else literal(node) if node.type == "string" else text(node)
        assert (found or "") == default, name


@pytest.mark.parametrize("name", DOCS)
def test_what_is_set_and_read_of_the_environment_is_there(name: str) -> None:
    outputs = project.templates(project.sources())[MAIN].outputs
    assert set(re.findall(r"azd env get-value (\w+)", DOCS[name])) <= outputs.keys()
    assert set(re.findall(r"azd env set (\w+)", DOCS[name])) - {"NAME"} <= parameters().keys()
    for output in outputs.keys() - {"AZURE_RESOURCE_GROUP"}:
        assert output in AZURE + RUNBOOK or output in EVENTS, f"nobody uses {output}"


@pytest.mark.parametrize("name", DOCS)
def test_no_remedy_sets_what_holds_anyway(name: str) -> None:
    main = project.templates(project.sources())[MAIN]
    for variable, value in re.findall(r"azd env set ([A-Z_]+) ([^`\n]+)", DOCS[name]):
        if variable == "NAME":
            continue
        node = main.params[parameters()[variable]].default
        default = "" if node is None else literal(node) if node.type == "string" else text(node)
        # Instances that are always ready are billed until somebody says that none are to be.
        assert variable == "ALWAYS_READY" or value.strip("'") != default, variable


def test_a_second_region_gets_the_parameters_of_the_first() -> None:
    (carried,) = re.findall(r"for name in ([A-Z_ ]+);", section(RUNBOOK, "A region is lost"))
    least = {"DEPLOYMENTS", "ROUTES", "TENANTS", "LIMITS", "NIGHTLY_SCHEDULE", "OPERATORS"}
    assert least <= set(carried.split()) <= parameters().keys()
    assert "KEY_SETTINGS" not in carried, "its secrets are not there yet"


def test_a_secret_is_there_before_a_setting_refers_to_it() -> None:
    keys = section(AZURE, "Keys of endpoints, and of your users")
    assert keys.index("az keyvault secret set") < keys.index("azd env set KEY_SETTINGS")
    assert keys.index("azd env set KEY_SETTINGS") < keys.index("azd provision")


def alerts() -> set[str]:
    """The names of the alerts, loops unrolled."""
    template = project.templates(project.sources())[ALERTS]
    queries = [text(node) for node in template.variables["queries"].named_children]
    found = {name for query in queries for name in re.findall(r"name: '([\w-]+)'", query)}
    for symbol in ("deadLetters", "stuck", "lostEvents"):
        body = template.resources[symbol].body
        around = text(body.parent or body)
        loop = re.match(r"for \w+ in \[(.+?)\]:", around.lstrip("[ \n"))
        told = text(member(body, "name")).strip("'")
        for value in re.findall(r"'(\w+)'", loop[1]) if loop else [""]:
            found.add(re.sub(r"\$\{.+\}", value.lower(), told))
    return found


def test_the_alerts_are_the_real_ones() -> None:
    rows = table(section(AZURE, "Alerts"))
    assert {name for row in rows for name in names(row[0])} == alerts()


def test_the_runbook_knows_each_thing_that_a_job_waits_for() -> None:
    rows = table(section(RUNBOOK, "A job stands still"))
    assert {name for row in rows for name in names(row[0])} >= {*get_args(WaitReason), "latency"}


# What a command needs though its help does not say so: one flag of each group.
NEEDS = {
    "storage blob upload": ["-c --container-name --blob-url", "-f --file --data"],
    "storage blob delete": ["-c --container-name --blob-url", "-n --name --blob-url"],
}
# What is looked for in an answer, whose form no help tells.
ANSWERS = {
    "account show": {"id"},
    "functionapp keys list": {"functionKeys.default"},
    "functionapp keys set": {"value"},
    "functionapp show": {"id"},
    "identity show": {"principalId"},
    "rest": {"tables[0].rows"},
    "servicebus queue show": {"countDetails"},
    "storage blob list": {"[].name"},
}


def wrong(document: str) -> list[str]:
    """The calls of `az` in a document that azure-cli would not take."""
    known = json.loads(az.KNOWN.read_text("utf-8"))
    found = []
    for call in az.commands(document):
        name = call.command
        if name not in known:
            found.append(f"there is no az {name}")
            continue
        strange = call.flags.keys() - az.GLOBAL - {*known[name]["flags"]}
        found += [f"az {name} has no {flag}" for flag in strange]
        needs = known[name]["required"] + NEEDS.get(name, [])
        if "--ids" in known[name]["flags"]:
            needs += ["-g --resource-group --ids", "-n --name --ids"]
        found += [
            f"az {name} wants {each}"
            for each in needs
            if call.flags.keys().isdisjoint(each.split())
        ]
        for spelt, values in known[name]["values"].items():
            for flag in call.flags.keys() & set(spelt.split()):
                if (value := call.flags[flag] or "") not in values and "$" not in value:
                    found.append(f"az {name} takes no {flag} {value}")
        if (query := call.flags.get("--query")) and query not in ANSWERS.get(name, ()):
            found.append(f"nobody has looked whether az {name} answers {query}")
    return found


@pytest.mark.parametrize("name", az.documents())
def test_the_commands_are_ones_that_azure_cli_takes(name: str) -> None:
    assert wrong(az.documents()[name]) == []


@pytest.mark.parametrize(
    "command",
    [
        "az storage blob uplaod -n x",
        "az identity create -g x -n y --principal z",
        "KEY=$(az functionapp keys list -n y --query functionKeys.default -o tsv)",
        "az functionapp keys list -g x -n y --query functionKey.default",
        "az storage blob upload --account-name x --auth-mode logon -c c -f f",
        "az storage blob upload --account-name x --auth-mode login -f f",
        "az rest --method psot --url x",
        "az functionapp show -n y",
        "sudo az functionapp show -n y",
        "timeout 5 az functionapp show -n y",
        "if az functionapp show -n y; then :; fi",
    ],
)
def test_a_mistake_in_a_command_is_found(command: str) -> None:
    assert wrong(f"```sh\n{command}\n```\n") != []


def test_commands_are_found_where_they_stand() -> None:
    assert len(list(az.commands(AZURE))) > 10
    assert len(list(az.commands(RUNBOOK))) > 10
