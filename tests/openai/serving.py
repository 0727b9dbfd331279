"""The service that the programs of these tests ask, and how they are installed and run."""

import asyncio
import hashlib
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Mapping
from pathlib import Path

from local import keys
from local.settings import BODY_LIMIT
from local.stack import BODY_BYTES
from phi3batch.commands.keys import new_key

KEY, OTHER = new_key(), new_key()
PROGRAMS = Path(__file__).parent / "programs"


def settings() -> dict[str, str]:
    """Two tenants, each with a key."""
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, OTHER)]
    entries = [
        {"name": "app", "sha256": digests[0]},
        {"name": "blue", "sha256": digests[1], "tenant": "blue"},
    ]
    return {
        keys.API_KEYS: json.dumps(entries),
        "TENANTS": '{"blue": {}}',
        BODY_LIMIT: str(BODY_BYTES),
    }


async def run(
    *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """What a program says that has to end well."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=os.environ | dict(environment or {}),
        stdout=PIPE,
        stderr=STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


async def python_with(folder: Path, *packages: str) -> Path:
    """The interpreter of an environment that holds these packages alone."""
    await run(sys.executable, "-m", "venv", folder)
    await run(folder / "bin/python", "-m", "pip", "install", "--quiet", *packages)
    return folder / "bin/python"
