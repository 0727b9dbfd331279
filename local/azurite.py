"""Azurite, Microsoft's storage emulator, as a child process: the blob service only.

`npm ci` installs it. A child ends with its parent, however the parent dies. On a folder, Azurite
writes its metadata every 5 s and when it is stopped: only its own `kill` loses the last seconds,
for where the parent dies it first lets the hosts bring in what they are answered.
"""

import asyncio
import fcntl
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from workers.ports.errors import SettingsError

MAIN = Path(__file__).parent.parent / "node_modules/azurite/dist/src/blob/main.js"
_BEFORE_MAIN = Path(__file__).with_suffix(".mjs")
START_SECONDS = 60.0
STOP_SECONDS = 10.0

# Documented with Azurite; the same on every machine.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

# Longer than the hosts, which lose their parent at the same moment, take to drain.
LINGER_SECONDS = 2.5
_LISTENS = re.compile(r"successfully listens on https?://[^:]+:(\d+)")


class FolderInUseError(RuntimeError):
    """Another command has the folder: wait for it, or name another folder."""


class Azurite:
    """One Azurite, on `location` or in memory; it keeps its port over restarts.

    `port` 0 takes a free one at the first start; `options` are Azurite's own. Belongs to no event
    loop.
    """

    def __init__(
        self, location: Path | None = None, port: int = 0, options: Sequence[str] = ()
    ) -> None:
        self.location = location
        self.port = port
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object

    @property
    def connection_string(self) -> str:
        """For `BlobServiceClient.from_connection_string`; holds the port once started."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{self.port}/{ACCOUNT};"
        )

    async def start(self) -> None:
        """Start, and return when it accepts connections.

        Errors: `SettingsError`, `FolderInUseError`.
        """
        self._spawn([] if self.location is None else [await locked(self.location)])
        give_up = time.monotonic() + START_SECONDS
        while (listening := _LISTENS.search(self._said())) is None:
            if self.process is None or self.process.poll() is not None:
                raise SettingsError(f"Azurite did not start: {self._said().strip()}")
            if time.monotonic() > give_up:
                raise SettingsError(f"Azurite did not start within {START_SECONDS:.0f} s")
            await asyncio.sleep(0.02)
        self.port = int(listening[1])

    async def stop(self) -> None:
        """Ask it to save and end; kill it when it does not."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self.process.wait, STOP_SECONDS)
            except subprocess.TimeoutExpired:
                await self.kill()
            self._forget()

    async def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
            self._forget()

    def _spawn(self, locks: Sequence[int]) -> None:
        if not MAIN.exists():
            raise SettingsError("Azurite is not installed: run `npm ci` in the project's folder.")
        linger = LINGER_SECONDS if self.location else 0.0
        where = ["--location", str(self.location)] if self.location else ["--inMemoryPersistence"]
        options = ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        # Longer than clients keep idle connections, or they would send into closing ones.
        options += ["--blobPort", str(self.port), "--blobKeepAliveTimeout", "60", *where]
        options += self.options
        self._output.truncate(0)
        self._output.seek(0)
        self.process = subprocess.Popen(
            [
                *("node", "--import", _BEFORE_MAIN.as_uri()),
                *(str(MAIN), *options),
            ],
            env=os.environ | {"LINGER_MS": str(round(1000 * linger))},
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the parent, which stops Azurite when nobody needs it any more.
            start_new_session=True,
            pass_fds=locks,
        )
        for lock in locks:
            os.close(lock)

    def _said(self) -> str:
        # Not read(): the child shares this file's position.
        return os.pread(self._output.fileno(), 64 * 1024, 0).decode(errors="replace")

    def _forget(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


async def locked(folder: Path) -> int:
    """A lock on a folder, held until the descriptor is closed, by a child that inherits it too.

    One that is about to end is waited for. Errors: `FolderInUseError`.
    """
    give_up = time.monotonic() + STOP_SECONDS
    while (lock := _try_lock(folder)) is None:
        if time.monotonic() > give_up:
            raise FolderInUseError(f"{folder} is in use")
        await asyncio.sleep(0.1)
    return lock


def _try_lock(folder: Path) -> int | None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@asynccontextmanager
async def azurite(
    location: Path | None = None, port: int = 0, options: Sequence[str] = ()
) -> AsyncIterator[Azurite]:
    """A running Azurite: on `location` (made if needed), or in memory, gone at the end."""
    emulator = Azurite(location, port, options)
    try:
        await emulator.start()
        yield emulator
    finally:
        await emulator.stop()
