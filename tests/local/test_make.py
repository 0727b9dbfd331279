"""What `make run` is given reaches the command as it was written, through make and shell."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PYTHON = '#!/bin/sh\nfor each; do printf "%s\\0" "$each"; done\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that is set up, and whose Python tells its arguments."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "package.json"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copy(PROJECT / "package-lock.json", tmp_path)
    for name in (".venv/bin", "node_modules"):
        (tmp_path / name).mkdir(parents=True)
    for name in (".venv", "node_modules"):
        (tmp_path / name / ".installed").touch()
    python = tmp_path / ".venv/bin/python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def arguments(project: Path, *variables: str, **environment: str) -> list[str]:
    done = subprocess.run(
        ["make", "--silent", "run", *variables],
        cwd=project,
        capture_output=True,
        check=True,
        env=os.environ | environment,
        text=True,
    )
    return done.stdout.split("\0")[:-1]


OPTIONS = [
    {"system_prompt": "under $50"},
    {"system_prompt": '$(HOME) ${HOME} $HOME $$ `id` # it\'s "so" \\ %s'},
    {"template": {"prompt": "{question} costs ${price}"}},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_survive_make_and_shell(project: Path, options: dict[str, str]) -> None:
    text = json.dumps(options)
    given = arguments(project, f"OPTIONS={text}")
    assert given[given.index("--options") + 1] == text
    given = arguments(project, OPTIONS=text)
    assert given[given.index("--options") + 1] == text


def test_names_survive_too_and_what_is_not_given_is_left_out(project: Path) -> None:
    given = arguments(project, "FILE=my $file.jsonl", "OUT=$out", "AGAIN=1", "OPTIONS=@o.json")
    assert given == [
        *("-m", "local", "run", "my $file.jsonl", "--options", "@o.json", "--workers", "1"),
        *("--out", "$out", "--again"),
    ]
    assert "--out" not in arguments(project)


def test_an_environment_that_is_a_link_to_another_folders_stays_as_it_is(
    project: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    (project / ".venv").rename(theirs)
    (project / ".venv").symlink_to(theirs)
    (theirs / ".installed").unlink()
    packages = theirs / "lib/python3.12/site-packages"
    packages.mkdir(parents=True)
    path = packages / "phi3-batch-worker.pth"
    path.write_text("/the/other/folder")
    make = ["make", "--silent", "setup"]
    done = subprocess.run(make, cwd=project, capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert "error: .venv is a link to another folder's environment" in done.stderr
    assert not (theirs / ".installed").exists()
    path.write_text(str(project))
    subprocess.run(make, cwd=project, capture_output=True, check=True)
    assert (theirs / ".installed").exists(), "a link to one's own is as good as a folder"
