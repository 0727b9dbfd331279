"""Microsoft's own worker takes the app as it is: what our host might overlook shows here.

azure-functions-runtime needs Python 3.13. Where there is one, it gets a venv of its own with what
Azure would install, kept in .local/ until the requirements change.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "index_with_runtime.py"
RUNTIME = "azure-functions-runtime==1.3.0"

# One process makes the environment that all of them use.
pytestmark = pytest.mark.xdist_group("microsoft_runtime")


def pythons() -> Iterator[str]:
    """Where a Python 3.13 may be: this one, on the path, in pyenv."""
    yield sys.executable
    if found := shutil.which("python3.13"):
        yield found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(root.glob("versions/3.13*/bin/python")))


def is_3_13(python: str) -> bool:
    # A shim of pyenv may be there without a Python behind it.
    asked = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info[:2] == (3, 13))"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return asked.stdout.strip() == "True"


def with_pip(python: str) -> str:
    """It, or else the Python that runs the tests: that one has a pip."""
    asked = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    return python if asked.returncode == 0 else sys.executable


@pytest.fixture(scope="module")
def runtime() -> Path:
    """A Python 3.13 with the app's requirements and Microsoft's worker."""
    python = next(filter(is_3_13, pythons()), None)
    if python is None:
        pytest.skip("no Python 3.13 was found: install one to try Microsoft's worker")
    folder = PROJECT / ".local" / "microsoft-runtime"
    requirements = PROJECT / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + RUNTIME.encode()).hexdigest()
    stamp, own = folder / "installed", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        # Without a pip of its own: to put it there takes a fifth of all this.
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
        install = [with_pip(python), "-m", "pip", "--python", str(own), "install"]
        install += ["--quiet", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(requirements), RUNTIME], check=True, timeout=240)
        stamp.write_text(wanted)
    return own


def index(runtime: Path, app: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(runtime), str(SCRIPT), str(app)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_function_app_is_indexed_as_azure_would(runtime: Path) -> None:
    answer = index(runtime, PROJECT)
    assert "error" not in answer
    triggers = {
        name: next(each for each in bindings if each["type"].endswith("Trigger"))
        for name, bindings in answer["functions"].items()
    }
    blobs = [each for each in triggers.values() if each["type"] == "blobTrigger"]
    assert [each["path"] for each in blobs] == ["prompts/{name}"]
    assert blobs[0]["source"] == "EventGrid"
    # The file's content stays where it is: the function gets a client.
    assert blobs[0]["properties"]["SupportsDeferredBinding"] is True
    queues = {each["queueName"] for each in triggers.values() if "queueName" in each}
    names = ("jobs", "shards", "webhooks")
    assert queues == {*names, *(f"{name}/$DeadLetterQueue" for name in names)}
    schedules = {each["schedule"] for each in triggers.values() if "schedule" in each}
    assert "%NIGHTLY_SCHEDULE%" in schedules
    routes = {each["route"]: each["authLevel"] for each in triggers.values() if "route" in each}
    assert routes == {
        "{*path}": "FUNCTION",
        "{door:regex(^(v1|openai)$)}/{*path}": "ANONYMOUS",
        "dashboard/{*path}": "ANONYMOUS",
    }


def test_a_mistake_is_found_by_microsofts_worker(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(
        "import azure.functions as func\n"
        "app = func.FunctionApp()\n"
        "@app.timer_trigger('timer', schedule='0 0 0 * * *')\n"
        "async def tick(clock: func.TimerRequest) -> None: ...\n"
    )
    assert "cannot load the tick function" in index(runtime, tmp_path)["error"]
