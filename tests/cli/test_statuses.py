"""The exit statuses that the help of each command names are those that it ends with."""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi3batch import service as connecting
from phi3batch import watching
from phi3batch.arguments import parser
from phi3batch.statuses import MEANINGS, NOT_ADMITTED, NOT_DONE, ROWS_FAILED, TOO_LATE
from tests.cli.serving import Failing, Served
from tests.cli.test_commands import ended

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
BATCH = "batch_20270115T080000Z-1b2f3c4d5e6f7a8b"
ARGUMENTS = {
    **dict.fromkeys(("watch", "results", "retry", "show", "events", "webhooks replay"), (BATCH,)),
    **dict.fromkeys(("cancel", "pause", "resume"), (BATCH,)),
    **dict.fromkeys(("submit", "validate", "estimate"), ("my.jsonl",)),
    "files rm": ("file-1",),
    "keys new": ("app",),
    "completion": ("bash",),
}
COMMANDS = sorted(MEANINGS)


def arguments(command: str) -> tuple[str, ...]:
    return (*command.split(), *ARGUMENTS.get(command, ()))


def leaves(made: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """All commands and actions that do something."""
    below = [
        each
        for action in made._actions
        if isinstance(action, argparse._SubParsersAction)
        for each in dict.fromkeys(action.choices.values())
    ]
    if not below:
        yield made
    for each in below:
        yield from leaves(each)


@pytest.fixture
def served(
    running: Served, endpoint: Failing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Served:
    monkeypatch.setenv("PHI3BATCH_URL", running.url)
    monkeypatch.setenv("PHI3BATCH_KEY", "app")
    monkeypatch.setattr(connecting, "RETRIES", 0)
    monkeypatch.setattr(watching, "_PATIENCE", 0.0)
    monkeypatch.chdir(tmp_path)
    Path("my.jsonl").write_text('{"prompt": "bad"}\n')
    running.polls, endpoint.word = 0, "bad"
    return running


def test_every_command_has_its_statuses() -> None:
    found = {each.prog.partition(" ")[2] for each in leaves(parser())}
    assert found - {"up"} == set(COMMANDS), "`up` ends as `python -m local up` does"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_tells_each_status(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(*command.split(), "--help") == 0
    out = capsys.readouterr().out
    lines = out.partition("exit status:\n")[2].splitlines()
    assert [int(line.split()[0]) for line in lines] == sorted(MEANINGS[command])
    assert max(map(len, lines)) <= 100
    assert (TOO_LATE in MEANINGS[command]) == ("--timeout" in out)


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_usage_is_2(command: str) -> None:
    assert ended(*arguments(command), "--nothing") == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_is_130(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    name = parser().parse_args(arguments(command)).module
    module = importlib.import_module(f"phi3batch.commands.{name}")
    monkeypatch.setattr(module, "run", interrupted)
    assert ended(*arguments(command)) == 130


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_service_or_its_key_only_those_end_well_that_need_none(
    command: str, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = NOT_ADMITTED in MEANINGS[command]
    alone = 0
    monkeypatch.setenv("PHI3BATCH_KEY", "nobody")
    assert ended(*arguments(command)) == (NOT_ADMITTED if needs else alone)
    monkeypatch.setenv("PHI3BATCH_URL", "http://127.0.0.1:1")
    assert ended(*arguments(command)) == (NOT_DONE if needs else alone)


def test_where_no_row_is_answered_it_is_3(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ("--interval", "0.01")
    assert ended("submit", "my.jsonl", "--watch", *fast) == ROWS_FAILED
    (batch,) = set(re.findall(r"batch_[\w-]+", capsys.readouterr().out))
    for command in (
        ("watch", batch, *fast),
        ("results", batch),
        ("retry", batch, "--watch", *fast),
    ):
        assert ended(*command) == ROWS_FAILED, command
    threes = {name for name, told in MEANINGS.items() if ROWS_FAILED in told}
    assert threes == {"submit", "watch", "results", "retry"}


def test_where_time_has_passed_it_is_124(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = ("--timeout", "0.05", "--interval", "0.02")
    assert ended("submit", "my.jsonl", "--watch", "--interval", "0.01") == ROWS_FAILED
    (batch,) = set(re.findall(r"batch_[\w-]+", capsys.readouterr().out))
    served.polls = 10_000
    assert ended("submit", "my.jsonl", "--watch", *soon) == TOO_LATE
    assert ended("retry", batch, "--watch", *soon) == TOO_LATE
    (open_batch, *_) = re.findall(r"phi3batch watch (batch_[\w-]+)", capsys.readouterr().err)
    assert ended("watch", open_batch, *soon) == TOO_LATE
    late = {name for name, told in MEANINGS.items() if TOO_LATE in told}
    assert late == {"submit", "watch", "retry"}
