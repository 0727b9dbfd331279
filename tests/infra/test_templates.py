"""The deployment is one that Azure takes, and the one that this service needs."""

import pytest

from local.stack import BODY_BYTES
from tests.infra import project, rules
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
    layers = {f"{layer}/main.bicep" for layer in project.LAYERS}
    assert called | layers == found.keys()
    told = project.sources()["azure.yaml"]
    assert all(f"path: {layer}\n" in told for layer in project.LAYERS)


def test_bodies_are_bounded_as_they_are_on_one_machine() -> None:
    connections = project.templates(project.sources())[APP].variables["connections"]
    limit = literal(member(connections, "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"))
    assert limit == str(BODY_BYTES)


def test_the_app_is_the_service_of_azd() -> None:
    found = project.templates(project.sources())[APP]
    assert "'azd-service-name': 'worker'" in text(found.resources["site"].body)
    assert "\n  worker:\n    project: .\n" in project.sources()["azure.yaml"]
