"""What does Ctrl-C mean? The first time: end the job and bring home what is done; then: stop."""

import asyncio
import signal
from typing import Any, cast


class Interrupts:
    """Listens for SIGINT and SIGTERM, for the task that makes it.

    `asked` is set by the first SIGINT once `gentle` is; any other one, and SIGTERM at any time,
    cancels the task.
    """

    def __init__(self) -> None:
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.gentle = False
        self.asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._task.cancel)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _interrupted(self) -> None:
        if self.gentle and not self.asked.is_set():
            self.asked.set()
        else:
            self._task.cancel()
