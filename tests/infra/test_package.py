"""What is uploaded holds the app and nothing else, and what Azure installs is to be had."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.deployment import MOST_BYTES, kept, tracked, zipped
from tests.infra import project

APP = {"function_app.py", "host.json", "requirements.txt", "schemas", "workers"}
# What lies about in a folder that people work in.
ABOUT = [
    ".azure/prod/.env",
    ".venv/bin/python",
    ".local/function-key",
    "local.settings.json",
    "worker_env/bin/python",
    "build/lib/workers/settings.py",
    "node_modules/azurite/package.json",
    "out/output.jsonl",
    "workers/__pycache__/settings.cpython-312.pyc",
    "prompts.md",
]


def test_the_package_holds_the_app_and_nothing_else() -> None:
    files = list(kept(tracked()))
    assert {path.partition("/")[0] for path in files} == APP
    modules = {path for path in tracked() if path.startswith(("workers/", "schemas/"))}
    assert {path for path in files if "/" in path} == modules
    size = zipped(files)
    print(f"the package: {len(files)} files, {size:,} bytes zipped")
    assert size <= MOST_BYTES
    document = (project.ROOT / "docs/azure.md").read_text("utf-8")
    (told,) = re.findall(r"\((\d+) files, (\d+) KiB zipped\)", document)
    assert [int(each) for each in told] == pytest.approx([len(files), size / 1024], rel=0.05)


def test_what_lies_about_stays_there() -> None:
    assert list(kept(ABOUT)) == []
    assert list(kept([".python_packages/lib/x.py", "function_app.py"])) == [
        ".python_packages/lib/x.py",
        "function_app.py",
    ]


@pytest.mark.long  # it asks a package index
def test_what_azure_installs_is_to_be_had_for_its_python(tmp_path: Path) -> None:
    runtime = project.templates(project.sources())["infra/service/app.bicep"]
    assert b"runtime: { name: 'python', version: '3.12' }" in (runtime.root.text or b"")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"),
            *("--only-binary", ":all:", "--python-version", "3.12", "--target", str(tmp_path)),
            *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
            *("-r", str(project.ROOT / "requirements.txt")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr
