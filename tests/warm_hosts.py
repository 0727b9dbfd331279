"""Function hosts for tests, which start dozens: a process that has loaded the app forks for each.

`python -m tests.warm_hosts` is that process, one for each process that runs tests. Its standard
input is a socket on which it is asked for hosts, and which ends with the one who asks. Its hosts
have the seed of their hashes in common, its umask and its locale; those of users do not.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NoReturn, Self

PROJECT = Path(__file__).parent.parent
StartProcess = Callable[[Sequence[str], Mapping[str, str]], Awaitable[Process]]
Streams = tuple[asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamReader]


class WarmHostsError(Exception):
    """What forks hosts has ended: why stands on standard error."""


class WarmHosts:
    """Starts hosts as `local.hosts.start_process` does, and with the first what forks them."""

    def __init__(self) -> None:
        self._asking: socket.socket | None = None
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    async def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Fork a host, of which nobody need know that it is not this process's child.

        Errors: `WarmHostsError`; the next start begins the process that forks anew.
        """
        (stdin, to_host), (from_host, stdout), (said, stderr) = (os.pipe() for _ in range(3))
        ours = os.fdopen(to_host, "wb", 0), os.fdopen(from_host, "rb", 0), os.fdopen(said, "rb", 0)
        given = {"arguments": arguments, "environment": dict(environment), "folder": os.getcwd()}
        asking = self._ask(given, stdin, stdout, stderr)
        streams = await _writer(ours[0]), await _reader(ours[1]), await _reader(ours[2])
        told, end = await asyncio.open_connection(sock=asking)
        try:
            pid = await _number(told)
        except BaseException:
            end.close()
            streams[0].close()  # the host ends, as it does where its parent is gone
            self._end()
            raise
        return Forked(pid, streams, asyncio.create_task(_exit_status(told, end)))

    def _ask(self, given: Mapping[str, object], *streams: int) -> socket.socket:
        """Ask for a host with these streams, which are given away; gives what tells of it."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                ours.sendall(json.dumps(given).encode() + b"\n")
                self._asking = self._asking or self._begin()
                socket.send_fds(self._asking, [b"1"], [*streams, theirs.fileno()])
            except OSError as error:
                ours.close()
                self._end()
                raise WarmHostsError("what forks hosts for tests takes no request") from error
            finally:
                for stream in streams:
                    os.close(stream)
        return ours

    def _end(self) -> None:
        self._asking = None
        self._ending.close()

    def _begin(self) -> socket.socket:
        """Start the process that forks; gives where it is asked."""
        asking, asked = socket.socketpair()
        with asked:
            forking = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_hosts"],
                cwd=PROJECT,
                stdin=asked.fileno(),
                stdout=subprocess.PIPE,  # no terminal either: a host's output is buffered alike
                start_new_session=True,  # Ctrl-C is not for it
            )
        self._ending.enter_context(forking)  # closes its pipe, and waits for it
        self._ending.enter_context(asking)
        return asking


class Forked(Process):
    """A process whose parent is another one, which tells how it ends; else it is as asyncio's.

    But `wait` waits for the process alone, and not for the ends of its pipes.
    """

    def __init__(self, pid: int, streams: Streams, status: asyncio.Task[int]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = self._streams = streams
        self._status = status

    @property
    def returncode(self) -> int | None:
        known = self._status.done() and not self._status.cancelled()
        return self._status.result() if known and self._status.exception() is None else None

    async def wait(self) -> int:
        return await asyncio.shield(self._status)

    async def communicate(
        self,
        input: bytes | bytearray | memoryview | None = None,  # noqa: A002
    ) -> tuple[bytes, bytes]:
        stdin, stdout, stderr = self._streams
        if input is not None:
            stdin.write(input)
            stdin.close()
        told = await asyncio.gather(stdout.read(), stderr.read())
        await self.wait()
        stdin.close()
        return told

    def send_signal(self, signal: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, signal)  # nobody else has its number before we have heard of its end

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def _writer(pipe: IO[bytes]) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), pipe
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _reader(pipe: IO[bytes]) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader


async def _number(told: asyncio.StreamReader) -> int:
    if not (line := await told.readline()):
        raise WarmHostsError("what forks hosts for tests has ended, or what watches one of them")
    return int(line)


async def _exit_status(told: asyncio.StreamReader, end: asyncio.StreamWriter) -> int:
    try:
        return await _number(told)
    finally:
        end.close()


def serve(asked: socket.socket) -> None:
    """Fork for each that is asked for, until nobody is left to ask."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that watch
    while streams := socket.recv_fds(asked, 1, 4)[1]:
        if os.fork() == 0:
            asked.close()
            _watch(*streams)
        for each in streams:
            os.close(each)


def _load() -> None:
    """Load what a host loads before it reads its settings."""
    from local.loading import loading

    with loading():
        import function_app  # noqa: F401
        import local.hosting  # noqa: F401
    # Each host imports the one of its own folder; what that imports is there.
    del sys.modules["function_app"]


def _watch(stdin: int, stdout: int, stderr: int, asking: int) -> NoReturn:
    """Fork a host, which tells its process id; tell how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked_by = socket.socket(fileno=asking)
    pid = os.fork()
    if pid == 0:
        _be_host(asked_by, (stdin, stdout, stderr))
    for each in (stdin, stdout, stderr):
        os.close(each)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    killed = ended.si_code != os.CLD_EXITED
    with suppress(OSError):  # who asked has ended
        asked_by.sendall(b"%d\n" % (-ended.si_status if killed else ended.si_status))
        asked_by.recv(1)  # its end is known: only now may another process have its number
    os.waitpid(pid, 0)
    os._exit(0)


def _be_host(asked_by: socket.socket, streams: Sequence[int]) -> NoReturn:
    """Do as `python -m local host` in a process of its own, to the end."""
    from local.__main__ import main

    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with asked_by, asked_by.makefile() as request:
        given = json.loads(request.readline())
        os.chdir(given["folder"])
        os.environ.clear()
        os.environ.update(given["environment"])
        # Only now: who starts a process finds it in its session.
        asked_by.sendall(b"%d\n" % os.getpid())
    sys.exit(main(["host", *given["arguments"]]))


if __name__ == "__main__":
    serve(socket.socket(fileno=sys.stdin.fileno()))
