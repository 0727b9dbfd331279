"""The errors of the ports, and of what is read through them. A docstring is the default message.

WorkerError
├── SettingsError      a setting is missing or wrong: nothing starts
├── StorageError
│   ├── BlobMissing    ├── BlobExists   ├── BlobChanged   ├── BlobFull
│   └── LeaseHeld      └── LeaseLost
├── Unavailable        a service could not be reached; the effect is unknown
├── Unreadable         a stored document is not what this service writes
├── NewerVersion       a document or message of a version that this one cannot read
├── Draining           the host is about to end: the message goes back to its queue
│
├── InputError         (jobs.rejections) an input file or a message cannot become a job
├── HandBack           (dispatch.call) the rest of a shard has to wait: not an error of anybody's
└── BudgetSpent        (dispatch.spending) a cap leaves no room for a call
"""

import asyncio
import logging
from math import inf
from typing import Any, ClassVar


class WorkerError(Exception):
    """Something went wrong in the worker."""

    def __init__(self, message: str | None = None, **details: Any) -> None:
        self.details = details
        super().__init__(message or (type(self).__doc__ or "").splitlines()[0])


class SettingsError(WorkerError):
    """A setting is missing or wrong."""


class StorageError(WorkerError):
    """Blob Storage refused a call."""


class BlobMissing(StorageError):
    """The blob does not exist."""


class BlobExists(StorageError):
    """The blob exists already."""


class BlobChanged(StorageError):
    """The blob is not what it was when it was read."""


class BlobFull(StorageError):
    """The append blob has no room for another block."""


class LeaseHeld(StorageError):
    """The lease is held by somebody else."""


class LeaseLost(StorageError):
    """The lease is not ours any more."""


class Unavailable(WorkerError):
    """A service could not be reached in time; whether the call had its effect is unknown."""


class Unreadable(WorkerError):
    """A stored document is not what this service writes."""


class NewerVersion(WorkerError):
    """Written by a newer version of this service."""

    def __init__(self, what: str, version: object) -> None:
        super().__init__(
            f"{what} has schema version {version}, which this version cannot read: "
            "deploy the newer version"
        )


class Draining(WorkerError):
    """The process is about to end: the message goes back to its queue."""


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a TaskGroup, for callers who handle it as if one task had raised it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def being_cancelled() -> bool:
    """Whether somebody wants the current task to end: a CancelledError alone does not say so."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Outage:
    """A fault that lasts: a line in the log where it begins, one every REPEAT seconds while calls
    meet it, so that an alert stays on, and one where it ends, with its subject.

    What each call makes of it meanwhile is logged at debug. Times are seconds of any one clock. A
    fault is over once calls have passed for QUIET seconds with none that failed, so that a service
    that answers every other call has one line, not many. It lasted from the first to the last call
    that was made and failed: one that timed out tells of the time when it was made.
    """

    QUIET: ClassVar = 10.0
    REPEAT: ClassVar = 600.0

    def __init__(self, log: logging.Logger, subject: str) -> None:
        self._log = log
        self._subject = subject
        self._began: float | None = None
        self._made = 0.0
        self._failed = 0.0
        self._passed = -inf
        self._told = -inf

    def failed(self, error: object, now: float, made: float | None = None) -> None:
        """Note that a call failed that was made at `made`, or now, and why: what is to be mended
        stands in the error.
        """
        made = now if made is None else made
        if self._began is None:
            # It may have been made before the fault: the last success was.
            self._began = self._made = max(made, self._passed)
            self._told = -inf
        if now - self._told >= self.REPEAT:
            self._told = now
            self._log.warning("[OUT_OF_ORDER] %s is out of order: %s", self._subject, error)
        self._made = max(self._made, made)
        self._failed = now

    def passed(self, now: float) -> None:
        """Note that a call was answered."""
        if self._began is not None and now - self._failed >= self.QUIET:
            lasted = round(self._made - self._began)
            self._log.warning(
                "[IN_ORDER] %s is in order again: it failed for %s s", self._subject, lasted
            )
            self._began = None
        self._passed = now
