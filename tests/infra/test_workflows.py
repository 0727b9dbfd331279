"""The workflows are ones that GitHub takes, and hold no secret."""

import re
from pathlib import Path

import pytest
from check_jsonschema import main as check  # type: ignore[import-untyped]
from click.testing import CliRunner

from tests.infra import deployed, project

WORKFLOWS = sorted((project.ROOT / ".github/workflows").glob("*.yml"))


def refused(schema: str, *files: Path) -> str:
    """What is wrong with these files by a schema of check-jsonschema's own; empty: nothing."""
    ran = CliRunner().invoke(check, ["--builtin-schema", schema, *map(str, files)])
    return ran.output if ran.exit_code else ""


def test_the_workflows_are_workflows() -> None:
    assert len(WORKFLOWS) == 2
    assert refused("vendor.github-workflows", *WORKFLOWS) == ""


def test_updates_are_looked_for() -> None:
    assert refused("vendor.dependabot", project.ROOT / ".github/dependabot.yml") == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [("runs-on: ubuntu-latest", "run-on: ubuntu-latest"), ("id-token: write", "id-token: yes")],
)
def test_a_mistake_in_a_workflow_is_found(tmp_path: Path, old: str, new: str) -> None:
    text = (project.ROOT / ".github/workflows/deploy.yml").read_text("utf-8")
    assert old in text
    broken = tmp_path / "deploy.yml"
    broken.write_text(text.replace(old, new))
    assert refused("vendor.github-workflows", broken) != ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_workflow_holds_a_secret_or_may_more_than_it_needs(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "secrets." not in text
    (permissions,) = re.findall(r"^permissions:\n((?:  .+\n)+)", text, re.MULTILINE)
    allowed = (
        {"contents: read", "id-token: write"} if path.name == "deploy.yml" else {"contents: read"}
    )
    assert {line.strip() for line in permissions.splitlines()} == allowed


def test_what_the_workflows_run_is_there() -> None:
    text = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    makefile = (project.ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"make (\w[\w-]*)", text):
        assert f"\n{target}:" in makefile
    (layers,) = re.findall(r"layer: \[(.+)\]", text)
    assert [f"infra/{each.strip()}" for each in layers.split(",")] == list(deployed.LAYERS)
    assert {"make lint", "make test"} <= set(re.findall(r"make \w+", text))
