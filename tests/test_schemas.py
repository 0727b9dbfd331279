"""The exported contracts are current, and what the service writes and reads keeps to them."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas import __main__ as export
from schemas.jobs import JobOptions, parse_options, window_seconds
from schemas.messages import JOBS_MESSAGE, JobRequest, StatusEvent
from schemas.requests import InputRow, deeper_than
from schemas.results import ErrorRow, Manifest, OutputRow
from schemas.status import JobStatus
from tests.doubles.service import MODEL, bench

SAMPLES = Path(__file__).parent.parent / "samples"


def test_exported_schemas_are_current() -> None:
    """Run `python -m schemas` where this fails."""
    written = {path.name: path.read_text("utf-8") for path in export.FOLDER.glob("*.schema.json")}
    assert written == export.exported()


def test_export_writes_every_contract_and_removes_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "old.schema.json").write_text("{}")
    export.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(export.exported())


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--folder"], 2)])
def test_what_is_no_folder_makes_none(
    arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["schemas", *arguments])
    with pytest.raises(SystemExit) as exited:
        export.main()
    assert exited.value.code == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", export.CONTRACTS)
def test_each_schema_explains_itself(name: str) -> None:
    schema = json.loads(export.exported()[f"{name}.schema.json"])
    assert schema["$schema"] == export.DIALECT
    assert schema["$id"] == f"{name}.schema.json"
    named = [schema, *schema.get("$defs", {}).values()]
    unexplained = [each.get("title") for each in named if each.get("type") == "object"]
    assert all("description" in each for each in named if each.get("type") == "object"), unexplained


def test_samples_are_input_rows() -> None:
    rows: TypeAdapter[Any] = TypeAdapter(InputRow)
    for line in (SAMPLES / "every-dialect.jsonl").read_bytes().splitlines():
        rows.validate_json(line)


async def test_what_a_run_leaves_keeps_to_the_contracts() -> None:
    data = b'{"prompt": "p"}\n{\n{"input": ["a"]}\n{"model": "other", "prompt": "q"}\n'
    async with bench() as service:
        ended = await service.run(data, options={"metadata": {"team": "blue"}})
        for row in ended.output:
            assert OutputRow.model_validate(row).model_dump(mode="json") == row
        for row in ended.errors:
            told = ErrorRow.model_validate(row).model_dump(mode="json")
            assert {name: told[name] for name in row} == row
        manifest = Manifest.model_validate(ended.manifest)
        assert manifest.model_dump(mode="json") == ended.manifest
        await service.say({"container": "prompts", "name": "nowhere.jsonl"})
        await service.settle()
        for event in service.events:
            StatusEvent.model_validate(event)
        reply = await service.ask("GET", f"/api/jobs/{manifest.job}")
        JobStatus.model_validate(reply.body)
        assert reply.code == 200


def test_a_request_needs_no_more_than_container_and_name() -> None:
    request = JOBS_MESSAGE.validate_python({"type": "request", "container": "c", "name": "n"})
    assert isinstance(request, JobRequest)
    with pytest.raises(ValidationError):
        JOBS_MESSAGE.validate_python({"type": "request", "container": "c", "name": "n", "x": 1})


@pytest.mark.parametrize(
    ("window", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("30d", 2_592_000)]
)
def test_windows_are_read(window: str, seconds: int) -> None:
    assert window_seconds(window) == seconds


@pytest.mark.parametrize("window", ["", "0s", "1", "1w", "-1h", "31d", "9999999d", "1h\n", "１h"])
def test_other_windows_are_refused(window: str) -> None:
    with pytest.raises(ValueError, match="completion window"):
        window_seconds(window)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["JSON object"]),
        ("model", ["JSON object"]),
        ({"max_token": 5}, ["unknown option 'max_token'", "'max_tokens'"]),
        ({"sytem_prompt": "x"}, ["'sytem_prompt'", "'system_prompt'"]),
        (
            {"Model": "x", "tempreature": 1},
            ["'Model'", "'model'", "'tempreature'", "'temperature'"],
        ),
        ({"max_tokens": 0}, ["option 'max_tokens'", "at least 1"]),
        ({"max_tokens": "5"}, ["option 'max_tokens'", "whole number"]),
        ({"max_tokens": True}, ["option 'max_tokens'", "whole number"]),
        ({"temperature": float("inf")}, ["option 'temperature'", "finite"]),
        ({"template": "text"}, ["option 'template'"]),
        ({"priority": "urgent"}, ["option 'priority'", "'high'"]),
        ({"on_invalid": "ignore"}, ["option 'on_invalid'", "'skip'"]),
        ({"completion_window": "soon"}, ["option 'completion_window'", "24h"]),
        ({"metadata": {"a": 1}}, ["option 'metadata.a'"]),
        ({"metadata": {"a": "x" * 513}}, ["option 'metadata.a'", "512"]),
        ({"metadata": {"": "x"}}, ["option 'metadata."]),
        ({"metadata": {str(n): "x" for n in range(17)}}, ["option 'metadata'", "16"]),
        ({str(n): n for n in range(9)}, ["unknown option '0'", "and 4 more"]),
        ({"x" * 60_000: 1}, ["unknown option 'xxx"]),
    ],
)
def test_wrong_options_are_refused_by_name(options: object, words: list[str]) -> None:
    with pytest.raises(ValueError, match="option") as told:
        parse_options(options)
    assert all(word in str(told.value) for word in words)
    assert len(str(told.value)) < 2000


def test_options_nested_deeper_than_can_be_stored_are_refused() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    with pytest.raises(ValueError, match="nested deeper"):
        parse_options({"template": {"messages": deep}})
    assert deeper_than(deep, 39)
    assert not deeper_than(deep, 40)


def test_all_options_are_accepted_together() -> None:
    options = {
        "model": MODEL,
        "system_prompt": "Be brief.",
        "template": {"messages": [{"role": "user", "content": "{question}"}]},
        "template_for": "other_rows",
        "on_missing": "empty",
        "on_duplicate": "number",
        "endpoint": "/v1/chat/completions",
        "mixed": True,
        "output_expires_after": 3600,
        "completion_window": "2h",
        "on_invalid": "fail",
        "priority": "high",
        "metadata": {"team": "blue"},
        "max_cost": "12.500000",
        "max_total_tokens": 100_000,
        "on_budget": "pause",
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "frequency_penalty": -1,
        "presence_penalty": 1.5,
        "seed": 7,
        "stop": ["\n"],
        "response_format": {"type": "json_object"},
        "dimensions": 8,
        "parameters": {"top_k": 3},
    }
    assert set(options) == set(JobOptions.model_fields)
    assert parse_options(options).model_dump() == options


def test_options_that_earlier_workers_refuse_are_written_only_where_they_are_set() -> None:
    new = {"template_for", "on_missing", "on_duplicate"}
    assert not new & JobOptions().model_dump().keys()
    chosen = JobOptions(template_for="other_rows", on_missing="empty", on_duplicate="number")
    assert new <= chosen.model_dump().keys()
    assert JobOptions.model_validate(chosen.model_dump()) == chosen
