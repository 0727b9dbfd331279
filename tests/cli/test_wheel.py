"""What pip installs from this repository is enough, and no Azure package is among it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_the_wheel_is_all_that_the_command_line_needs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    quiet = ["--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(PROJECT)]
    subprocess.run([*build, *quiet], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
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
