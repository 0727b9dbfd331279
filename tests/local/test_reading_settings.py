"""local.settings.json is read as `func start` reads it."""

import json
from pathlib import Path
from typing import Any

import pytest

from local import settings
from workers.ports.errors import SettingsError


def write(folder: Path, document: Any) -> Path:
    (folder / settings.FILE).write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_no_file_is_no_settings(tmp_path: Path) -> None:
    assert settings.read(tmp_path) == {}


def test_values_and_connection_strings_become_settings(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "IsEncrypted": False,
            "Values": {"A": "1", "B": 2, "C": True, "D": 1.5},
            "ConnectionStrings": {"sql": "x", "other": {"ConnectionString": "y"}},
            "Host": {"LocalHttpPort": 7071},
        },
    )
    assert settings.read(tmp_path) == {
        "A": "1",
        "B": "2",
        "C": "True",
        "D": "1.5",
        "ConnectionStrings:sql": "x",
        "ConnectionStrings:other": "y",
    }


def test_the_environment_wins(tmp_path: Path) -> None:
    write(tmp_path, {"Values": {"A": "file", "B": "file"}})
    environment = {"A": "environment"}
    settings.apply(tmp_path, environment)
    assert environment == {"A": "environment", "B": "file"}


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    (tmp_path / settings.FILE).write_text('{"Values": {"A": "1"}}', encoding="utf-8-sig")
    assert settings.read(tmp_path) == {"A": "1"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"IsEncrypted": True}, "encrypted"),
        ([], "must be an object"),
        ({"Values": []}, "Values must be an object"),
        ({"Values": {"DEPLOYMENTS": [{"name": "x"}]}}, "DEPLOYMENTS must be a text"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings.read(write(tmp_path, document))


def test_what_is_not_json_is_said(tmp_path: Path) -> None:
    (tmp_path / settings.FILE).write_text("{", encoding="utf-8")
    with pytest.raises(SettingsError, match="is not JSON"):
        settings.read(tmp_path)


def test_expand_resolves_settings_in_a_text() -> None:
    assert settings.expand("a/%X%/%Y%", {"X": "1", "Y": "2"}) == "a/1/2"
    with pytest.raises(SettingsError, match="set NIGHTLY_SCHEDULE in"):
        settings.expand("%NIGHTLY_SCHEDULE%", {})
