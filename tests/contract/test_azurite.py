"""The starter of Azurite keeps its word: ports, restarts, and no child without its parent."""

import json
import os
import re
import select
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from local import azurite as starter
from workers.adapters.blobs import connect_blobs
from workers.ports import BlobRef
from workers.ports.errors import LeaseHeld, LeaseLost, SettingsError

ROOT = Path(__file__).parent.parent.parent
PARENT = """
import asyncio
from local.azurite import azurite

async def main():
    async with azurite() as emulator:
        print(emulator.process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process as Linux can")
def test_it_ends_with_its_parent_however_that_dies() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        assert not select.select([child], [], [], 0)[0]
        parent.kill()

    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended


async def test_a_start_that_fails_says_why(azurite: starter.Azurite) -> None:
    with pytest.raises(SettingsError, match="in use"):
        async with starter.azurite(port=azurite.port):
            pass


async def test_it_loads_neither_telemetry_nor_databases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tmp_path / "loaded"
    (tmp_path / "tell.cjs").write_text(
        f"""process.on("SIGTERM", () => {{
          require("fs").writeFileSync({json.dumps(str(loaded))}, Object.keys(require.cache).join());
          process.exit();
        }});"""
    )
    monkeypatch.setenv("NODE_OPTIONS", f"--require={tmp_path / 'tell.cjs'}")
    monkeypatch.setenv("AZURITE_DB", "mysql://nobody@127.0.0.1:1/nothing")
    async with starter.azurite():
        pass
    packages = set(re.findall("node_modules/([^/]+)/", loaded.read_text()))
    assert "express" in packages
    assert packages.isdisjoint({"applicationinsights", "sequelize"})


async def test_leases_outlive_a_restart_as_they_do_in_azure(tmp_path: Path) -> None:
    ref, mine, other = BlobRef("state", "x"), str(uuid.uuid4()), str(uuid.uuid4())
    async with starter.azurite(tmp_path) as emulator:
        async with connect_blobs(emulator.connection_string) as blobs:
            await blobs.ensure_containers([ref.container])
            await blobs.create(ref, b"")
            await blobs.acquire_lease(ref, mine, 60)

        await emulator.stop()
        await emulator.start()

        async with connect_blobs(emulator.connection_string) as blobs:
            with pytest.raises(LeaseHeld):
                await blobs.acquire_lease(ref, other, 60)
            with pytest.raises(LeaseLost):
                await blobs.renew_lease(ref, other)
            await blobs.renew_lease(ref, mine)


async def test_what_is_not_installed_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "MAIN", Path("/nowhere/main.js"))

    with pytest.raises(SettingsError, match="npm ci"):
        async with starter.azurite():
            pass
