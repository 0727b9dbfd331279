"""`phi3batch` for a shell that types it often: a process that has loaded the SDK forks for each.

`python -m tests.cli.warm SOCKET` serves the commands that `commands` puts into a folder. What they
are given (arguments, folder, environment, the three streams) and their exit status are as ever.
"""

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import phi3batch.service  # noqa: F401 - what takes most of a second
from phi3batch.__main__ import main

PROJECT = Path(__file__).parents[2]
# Nothing but the standard library, and of that as little as will do.
CLIENT = """#!{python} -SE
import json, os, socket, sys
given = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    socket.send_fds(server, [json.dumps(given).encode()], [0, 1, 2])
    sys.exit(server.recv(1)[0])
"""
MOST_BYTES = 256 * 1024


@asynccontextmanager
async def commands(folder: Path) -> AsyncIterator[Path]:
    """A folder with `phi3batch` in it, to be looked into before others."""
    path = folder / "socket"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.cli.warm", str(path)), cwd=PROJECT, stdout=PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"serving\n"
        client = folder / "bin" / "phi3batch"
        client.parent.mkdir()
        client.write_text(CLIENT.format(python=sys.executable, path=str(path)))
        client.chmod(0o755)
        yield client.parent
    finally:
        process.kill()
        await process.communicate()


def serve(path: str) -> None:
    """Fork for each command, until killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("serving", flush=True)
        while True:
            client, _ = listener.accept()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass  # those that have ended are let go
            with client:
                if os.fork() == 0:
                    client.sendall(bytes([_status(client)]))
                    os._exit(0)


def _status(client: socket.socket) -> int:
    """Run a client's command in this process: its exit status."""
    data, streams, *_ = socket.recv_fds(client, MOST_BYTES, 3)
    given = json.loads(data)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(given["folder"])
    os.environ.clear()
    os.environ.update(given["environment"])
    try:
        return main(given["arguments"])
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
