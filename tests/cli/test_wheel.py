"""What pip installs from this repository is enough, and no Azure package is among it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cli.serving import serving

PROJECT = Path(__file__).parents[2]
CHECK = """
import importlib, pkgutil, sys

class NoAzure:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("azure", "aiohttp", "local", "function_app"):
            raise ImportError(name)

sys.meta_path.insert(0, NoAzure())
import phi3batch
for module in pkgutil.walk_packages(phi3batch.__path__, "phi3batch."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from phi3batch.__main__ import main
assert sys.modules["workers"].__file__.startswith(sys.argv[1]), sys.modules["workers"]
sys.exit(main(["validate", sys.argv[2]]))
"""


# The newest is this environment's own.
OLDER = ("1.109.1", "2.54.0")
REVIEWS = "key,text\na,Great phone\nb,Awful\n"


def built(folder: Path) -> Path:
    """The wheel of this repository."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    quiet = ["--disable-pip-version-check", "--wheel-dir", str(folder), str(PROJECT)]
    subprocess.run([*build, *quiet], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_is_all_that_the_command_line_needs(tmp_path: Path) -> None:
    wheel = built(tmp_path)
    folder = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(folder)
    assert not [name for name in names if name.startswith(("tests", "local", "workers/adapters"))]
    (scripts,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "phi3batch = phi3batch.__main__:main" in (folder / scripts).read_text()
    sample = str(PROJECT / "samples" / "every-dialect.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(folder), sample],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "16 can be asked" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("version", OLDER)
def test_older_sdks_serve_as_well(version: str, tmp_path: Path) -> None:
    """The wheel in an environment of its own, from a table to its answers and back."""
    wheel, folder = built(tmp_path), tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, str(wheel), f"openai=={version}"], check=True)
    (tmp_path / "r.csv").write_text(REVIEWS)

    def said(*arguments: str) -> str:
        done = subprocess.run(
            [str(folder / "bin" / "phi3batch"), *arguments],
            cwd=tmp_path,
            env={"PHI3BATCH_URL": served.url, "PHI3BATCH_KEY": "app", "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with serving() as served:
        batch = said("submit", "r.csv", "--prompt", "{text}", "--id-column", "key")
        assert "2 succeeded" in said("watch", batch)
        assert batch in said("ls")
        assert "batch.completed" in said("events", batch)
        assert "r.jsonl" in said("files", "ls")
        assert said("results", batch, "--join", "r.csv") == "r.answers.csv"
        assert said("retry", batch) == ""
    assert (tmp_path / "r.answers.csv").read_text().count("asked with 1 turns") == 2
