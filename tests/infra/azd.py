"""What azd is told, in the documents, the workflows and azure.yaml, and what azd knows of it.

    python -m tests.infra.azd path/to/azure-dev

reads the help texts and the schema that azd's own repository holds (cli/azd/cmd/testdata and
schemas/v1.0) and writes `azd_knows.json`, so that the tests need neither.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.infra import az

ROOT = Path(__file__).parents[2]
KNOWN = Path(__file__).with_name("azd_knows.json")


def documents() -> dict[str, list[az.Call]]:
    """The calls of azd in each document and workflow."""
    found = {name: list(az.commands(text, "azd")) for name, text in az.documents().items()}
    return {name: calls for name, calls in found.items() if calls}


def command_of(parts: Sequence[str], known: Mapping[str, Any]) -> str | None:
    """The longest command that a call begins with; the words after it are its arguments."""
    names = (" ".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in known), None)


def azure_yaml() -> dict[str, Any]:
    """What azd reads of this project."""
    read: dict[str, Any] = YAML(typ="safe").load(ROOT / "azure.yaml")
    return read


def strangers(told: Mapping[str, Any], known: Mapping[str, list[str]]) -> list[str]:
    """What azure.yaml says that azd has no name for, which it would pass over in silence."""
    places: dict[str, list[Mapping[str, Any]]] = {
        "": [told],
        "metadata": [told["metadata"]],
        "requiredVersions": [told["requiredVersions"]],
        "infra": [told["infra"]],
        "infra.layers": told["infra"]["layers"],
        "services": list(told["services"].values()),
    }
    return [
        f"{place}.{name}".lstrip(".")
        for place, objects in places.items()
        for each in objects
        for name in each.keys() - set(known[place])
    ]


def _help(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((folder / "cli/azd/cmd/testdata").glob("TestUsage-azd-*.snap")):
        text = path.read_text("utf-8")
        usage = re.search(r"^Usage\n +azd ((?:[a-z][a-z-]*(?: |$))+)", text, re.MULTILINE)
        if usage is not None and usage[1].strip() != "help":
            flags = set(re.findall(r"^ +(?:(-\w), )?(--[a-z-]+)", text, re.MULTILINE))
            most = len(
                re.findall(r"<\w+>", text[usage.start() :].splitlines()[1].partition("|")[0])
            )
            told = sorted({flag for pair in flags for flag in pair if flag})
            yield usage[1].strip(), {"flags": told, "most": most}


def _properties(schema: Mapping[str, Any]) -> dict[str, list[str]]:
    top = schema["properties"]
    return {
        "": sorted(top),
        "metadata": sorted(top["metadata"]["properties"]),
        "requiredVersions": sorted(top["requiredVersions"]["properties"]),
        "infra": sorted(top["infra"]["properties"]),
        "infra.layers": sorted(top["infra"]["properties"]["layers"]["items"]["properties"]),
        "services": sorted(top["services"]["additionalProperties"]["properties"]),
    }


def main(folder: Path) -> None:
    """Write what azd knows of what is told to it here."""
    known = dict(_help(folder))
    told = {command_of(call.words, known) for calls in documents().values() for call in calls}
    schema = json.loads((folder / "schemas/v1.0/azure.yaml.json").read_text("utf-8"))
    kept = {name: flags for name, flags in known.items() if name in told}
    lines = [
        *(f"  {json.dumps(name)}: {json.dumps(flags)}" for name, flags in kept.items()),
    ]
    shapes = [f"  {json.dumps(at)}: {json.dumps(each)}" for at, each in _properties(schema).items()]
    KNOWN.write_text(
        '{\n "commands": {\n'
        + ",\n".join(lines)
        + '\n },\n "properties": {\n'
        + ",\n".join(shapes)
        + "\n }\n}\n",
        "utf-8",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
