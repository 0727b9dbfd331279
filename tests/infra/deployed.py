"""What azd deploys: each resource with its values, for a usual environment and for one that sets
all that may be set.

    python -m tests.infra.deployed

writes `deployed.txt` and `deployed-with-all.txt`, the latter as what is other than in the former. A
test holds them against the templates, so that each change of a template shows what it changes.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.infra.evaluate import REFUSED, Deployment, leaves
from tests.infra.resources import Templates
from tests.infra.rules import identity_problems

LAYERS = ("infra/service", "infra/events")
USUAL = Path(__file__).with_name("deployed.txt")
WITH_ALL = Path(__file__).with_name("deployed-with-all.txt")

# What azd knows in an environment, by the names that the parameters' files have.
ENVIRONMENT: Mapping[str, str] = {
    "AZURE_ENV_NAME": "prod",
    "AZURE_LOCATION": "westeurope",
    "AZURE_PRINCIPAL_ID": "{who deploys}",
    "AZURE_PRINCIPAL_TYPE": "User",
    "DEPLOYMENTS": '[{"name": "mini"}]',
}
ALL: Mapping[str, str] = {
    **ENVIRONMENT,
    "ALERT_EMAIL": "team@example.com",
    "ALWAYS_READY": '[{"name": "function:jobs", "instanceCount": 1}]',
    "BUDGET_START": "2026-12-01",
    "INSTANCE_MEMORY": "4096",
    "KEEP_INPUT_DAYS": "40",
    "KEEP_RESULT_DAYS": "7",
    "KEY_SETTINGS": '["MINI_KEY"]',
    "LIMITS": '{"TELEMETRY": "", "SHARD_SECONDS": "60"}',
    "LOCK_STORAGE": "true",
    "MAXIMUM_INSTANCES": "50",
    "MONTHLY_BUDGET": "100",
    "NIGHTLY_SCHEDULE": "0 0 2 * * *",
    "OPERATORS": "{a group}",
    "PRIVATE_NETWORK": "true",
    "ROUTES": '{"phi3": ["mini"]}',
    "STORAGE_REDUNDANCY": "Standard_GZRS",
    "TENANTS": '{"blue": {"weight": 2}}',
}


# A layer's folder, what it makes, and what it puts out.
Layer = tuple[str, Deployment, dict[str, Any]]


def deploy(
    templates: Templates, files: Mapping[str, str], environment: Mapping[str, str]
) -> Iterator[Layer]:
    """Each layer as azd deploys it. Raises one of REFUSED."""
    known = dict(environment)
    for layer in LAYERS:
        main = templates[f"{layer}/main.bicep"]
        told = json.loads(files[f"{layer}/main.parameters.json"])["parameters"]
        given = {}
        for name, each in told.items():
            value = known.get(each["value"].removeprefix("${").removesuffix("}"))
            if value is not None and name in main.params:
                text = main.params[name].type == "string"
                given[name] = value if text else json.loads(value)
        deployment = Deployment(templates, files, main, given)
        outputs = deployment.run()
        yield layer, deployment, outputs
        known |= outputs


def table(layers: Iterable[Layer]) -> str:
    """What is deployed, as text."""
    lines: list[str] = []
    for layer, deployment, outputs in layers:
        lines += [f"# {layer}", *sorted(deployment.order)]
        for made in sorted(deployment.made, key=lambda each: (each.type, each.name)):
            lines += ["", f"{made.type} {made.name}"]
            lines += [f"  {name}: {value}" for name, value in leaves(made.body)]
        lines += ["", *(f"output {name}: {value}" for name, value in sorted(outputs.items())), ""]
    return "\n".join(lines)


def difference(usual: str, other: str) -> str:
    """What another table has other than the usual one, each with the resource that it is of."""
    lines = list(difflib.unified_diff(_whole(usual), _whole(other), lineterm="", n=0))
    return "\n".join(line for line in lines[2:] if not line.startswith("@@")) + "\n"


def _whole(table: str) -> list[str]:
    """A table's lines, each of which says of what resource it is."""
    lines, of = [], ""
    for line in table.splitlines():
        of = line if line and not line.startswith(" ") else of
        lines.append(f"{of} |{line}" if line.startswith(" ") else line)
    return [line for line in lines if line]


def tables(usual: Iterable[Layer], other: Iterable[Layer]) -> dict[Path, str]:
    """What the files are to say."""
    told = table(usual)
    return {USUAL: told, WITH_ALL: difference(told, table(other))}


def problems(templates: Templates, files: Mapping[str, str]) -> Iterator[str]:
    """Where what is deployed is other than the tables say."""
    try:
        usual = list(deploy(templates, files, ENVIRONMENT))
        other = list(deploy(templates, files, ALL))
    except REFUSED as error:
        yield f"what is deployed cannot be told: {error!r}"
        return
    for _, deployment, outputs in (*usual, *other):
        yield from identity_problems(deployment.made, outputs)
    for path, found in tables(usual, other).items():
        told = path.read_text("utf-8")
        if told != found:
            for line in difference(told, found).splitlines():
                yield f"{path.name}: {line}: make it anew (python -m tests.infra.deployed)"


if __name__ == "__main__":
    from tests.infra import project

    sources = project.sources()
    parsed = project.templates(sources)
    made = (deploy(parsed, sources, environment) for environment in (ENVIRONMENT, ALL))
    for name, content in tables(*made).items():
        name.write_text(content, "utf-8")
