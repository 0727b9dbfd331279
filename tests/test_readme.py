"""What the README and the documents show is what the code takes."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from local import running, staying
from local.endpoint.faults import read_rules
from schemas.deployments import Deployment, EndpointKind, parse_deployments
from schemas.jobs import JobOptions, parse_options
from schemas.messages import EventType, JobRequest
from schemas.requests import TASK_OF_URL, InputRow
from workers.rows.dialects import dialect_of
from workers.settings import Settings, read_settings

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text("utf-8")
ENDPOINTS = (PROJECT / "docs" / "endpoints.md").read_text("utf-8")
DOCUMENTS = [
    PROJECT / "README.md",
    PROJECT / "samples" / "README.md",
    *sorted((PROJECT / "docs").rglob("*.md")),
]
# Read by the Functions host, the SDKs and the triggers, not by the workers.
HOST_SETTINGS = {"AzureWebJobsStorage", "ServiceBusConnection", "NIGHTLY_SCHEDULE"}
MIB, GIB = 1024**2, 1024**3
DEPLOYMENT = {"name": "n", "kind": "openai", "url": "http://h", "model": "m", "auth": "none"}
TRIED = {"DEPLOYMENTS": json.dumps([DEPLOYMENT])}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def section(text: str, title: str) -> str:
    """From a heading to the next one of its level or above."""
    level, rest = re.split(rf"^(?=#+ {re.escape(title)}$)", text, flags=re.MULTILINE)[1].split(
        " ", 1
    )
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str) -> list[list[str]]:
    """The cells of a section's first table, without its heading."""
    rows = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def shell_values(name: str) -> list[Any]:
    found = re.findall(rf"\b{name}='([^']+)'", "".join(path.read_text() for path in DOCUMENTS))
    assert found
    return [json.loads(value) for value in found]


def test_rows_are_input_rows_and_show_every_dialect() -> None:
    (block,) = blocks(section(README, "Rows"), "jsonl")
    rows = [json.loads(line) for line in block.splitlines()]
    dialects = [dialect_of(row) for row in rows]
    assert set(dialects) == {"batch", "messages", "prompt", "input", "scoring", "other"}
    adapter: TypeAdapter[Any] = TypeAdapter(InputRow)
    for row, dialect in zip(rows, dialects, strict=True):
        if dialect != "other":
            adapter.validate_python(row)


def test_the_urls_are_those_that_rows_may_have() -> None:
    (told,) = re.findall(r"^`url` is (.+?)\.", section(README, "Rows"), re.MULTILINE)
    urls = {url for url in names(told) if url != "/v1"}
    assert urls | {url.removeprefix("/v1") for url in urls} == set(TASK_OF_URL)


def test_the_options_are_the_real_ones_and_the_examples_are_taken() -> None:
    rows = table(section(README, "Options"))
    assert sorted(name for row in rows for name in names(row[0])) == sorted(JobOptions.model_fields)
    (template,) = [row for row in rows if row[0] == "`template`"]
    parse_options({"template": json.loads(names(template[1])[0])})
    (window,) = [row for row in rows if row[0] == "`completion_window`"]
    for value in names(window[1]):
        if value != "expired":
            parse_options({"completion_window": value})
    for value in shell_values("OPTIONS"):
        parse_options(value)


def test_the_settings_are_the_real_ones_with_their_defaults() -> None:
    units = {"4 MiB": str(4 * MIB), "10 GiB": str(10 * GIB)}
    plain = read_settings(TRIED)
    told: set[str] = set()
    for of_names, of_defaults, _ in table(section(README, "Settings")):
        told.update(names(of_names))
        if of_defaults:
            defaults = [each.strip("`") for each in of_defaults.split(", ")]
            values = dict(
                zip(names(of_names), (units.get(each, each) for each in defaults), strict=True)
            )
            assert read_settings(TRIED | values) == plain, of_names
    assert told - HOST_SETTINGS == {name.upper() for name in Settings.model_fields}
    assert told >= HOST_SETTINGS


def test_the_events_are_the_real_ones() -> None:
    assert set(re.findall(r"`(job\.\w+)`", section(README, "Status"))) == set(get_args(EventType))


def test_the_job_request_is_one() -> None:
    (shown,) = re.findall(r"`(\{\"container\".*?\})`", section(README, "Three doors"))
    JobRequest.model_validate(json.loads(shown.replace("{...}", "{}")))
    (shown,) = re.findall(r"request = '(.*?)'\n", staying.GUIDE)
    JobRequest.model_validate(json.loads(shown.format()))


@pytest.mark.parametrize("text", [README, ENDPOINTS], ids=["README", "endpoints"])
def test_deployments_are_deployments(text: str) -> None:
    (block,) = blocks(text, "json")
    assert parse_deployments(block)


def test_the_script_of_faults_is_one() -> None:
    text = (PROJECT / "docs" / "simulator.md").read_text("utf-8")
    for block in blocks(text, "json"):
        assert read_rules(json.loads(block))


def test_deployments_in_commands_are_deployments_too() -> None:
    for value in shell_values("DEPLOYMENTS"):
        assert parse_deployments(json.dumps(value))


def test_the_fields_and_kinds_of_deployments_are_the_real_ones() -> None:
    fields = [name for row in table(section(ENDPOINTS, "DEPLOYMENTS")) for name in names(row[0])]
    assert sorted(fields) == sorted(Deployment.model_fields)
    kinds = {name for row in table(section(ENDPOINTS, "Kinds")) for name in names(row[0])}
    assert kinds == set(get_args(EndpointKind))
    (told,) = re.findall(r"^`kind` is (.+?)\.", README, re.MULTILINE)
    assert set(names(told)) == kinds


def test_the_example_of_local_settings_is_taken() -> None:
    example = json.loads((PROJECT / "local.settings.json.example").read_text())
    (deployment,) = read_settings(example["Values"]).deployments
    assert deployment.price is not None


def test_the_exit_statuses_are_those_of_the_command() -> None:
    assert "0 when the job completed" in str(running.main.__doc__)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor in slugs, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_name_modules_and_files_that_are_there(path: Path) -> None:
    text = path.read_text("utf-8")
    for module in re.findall(r"python -m ([\w.]+)", text):
        as_path = PROJECT / module.replace(".", "/")
        assert as_path.with_suffix(".py").exists() or (as_path / "__main__.py").exists(), module
    for file in re.findall(r"FILE=(\S+)", text):
        assert file == "prompts.jsonl" or (PROJECT / file).exists(), file
