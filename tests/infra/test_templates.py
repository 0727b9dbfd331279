"""The deployment is one that Azure takes, and the one that this service needs."""

from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from local.stack import BODY_BYTES
from tests.infra import deployed, project, rules
from tests.infra.app_settings import APP
from tests.infra.bicep import literal, member, text

pytestmark = pytest.mark.xdist_group("infra")


def test_nothing_is_wrong_with_the_templates() -> None:
    assert list(project.problems(project.sources())) == []


def test_every_file_of_the_deployment_is_looked_at() -> None:
    found = project.templates(project.sources())
    assert len(found) >= 10
    assert all(each.resources or each.modules for each in found.values())
    kinds = {resource.type for each in found.values() for resource in each.resources.values()}
    assert kinds >= rules.LOCKED.keys()


def test_every_module_is_called_and_every_layer_is_deployed() -> None:
    found = project.templates(project.sources())
    called = {
        f"{each.path.rpartition('/')[0]}/{module.path}"
        for each in found.values()
        for module in each.modules.values()
    }
    layers = {f"{layer}/main.bicep" for layer in deployed.LAYERS}
    assert called | layers == found.keys()
    told = project.sources()["azure.yaml"]
    assert all(f"path: {layer}\n" in told for layer in deployed.LAYERS)


def test_bodies_are_bounded_as_they_are_on_one_machine() -> None:
    connections = project.templates(project.sources())[APP].variables["connections"]
    limit = literal(member(connections, "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"))
    assert limit == str(BODY_BYTES)


def test_the_app_is_the_service_of_azd() -> None:
    found = project.templates(project.sources())[APP]
    assert "'azd-service-name': 'worker'" in text(found.resources["site"].body)
    assert "\n  worker:\n    project: .\n" in project.sources()["azure.yaml"]


# What azd's own schema of azure.yaml (v1.0) says of the parts that are used here.
_NAMED = {"type": "object", "additionalProperties": False}
AZD: dict[str, Any] = {
    **_NAMED,
    "required": ["name", "infra", "services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "metadata": {**_NAMED, "properties": {"template": {"type": "string"}}},
        "requiredVersions": {**_NAMED, "properties": {"azd": {"type": "string"}}},
        "infra": {
            **_NAMED,
            "required": ["layers"],
            "properties": {
                "layers": {
                    "type": "array",
                    "minItems": 2,
                    "items": {
                        **_NAMED,
                        "required": ["name", "path"],
                        "properties": {"name": {"type": "string"}, "path": {"type": "string"}},
                    },
                }
            },
        },
        "services": {
            "type": "object",
            "additionalProperties": {
                **_NAMED,
                "required": ["project", "language", "host"],
                "properties": {
                    "project": {"type": "string"},
                    "language": {"enum": ["python", "py"]},
                    "host": {"enum": ["function"]},
                },
            },
        },
    },
}


def test_azure_yaml_is_one_that_azd_takes() -> None:
    yaml = YAML(typ="safe")
    told = yaml.load(project.sources()["azure.yaml"])
    jsonschema.validate(told, AZD)
    assert [layer["path"] for layer in told["infra"]["layers"]] == list(deployed.LAYERS)
    broken = yaml.load(project.sources()["azure.yaml"].replace("layers:", "layer:"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, AZD)
