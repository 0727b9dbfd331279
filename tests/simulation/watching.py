"""Somebody who counts what processes tell of jobs, as a collector does."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas.jobs import Job, JobState
from schemas.money import Cost
from workers.ports.telemetry import Telemetry

KINDS = ("succeeded", "failed", "invalid", "cancelled", "expired")
ENDED = "ended"


class Watching(Telemetry):
    """The sums over all processes: a crash may keep one from being told, nothing tells it twice."""

    def __init__(self) -> None:
        self._told: dict[str, Counter[str]] = defaultdict(Counter)

    def moved(self, job: Job, before: JobState | None, after: JobState, cost: Cost | None) -> None:
        told = self._told[job.id]
        for kind in KINDS:
            told[kind] += getattr(after.counts, kind)
            told[kind] -= getattr(before.counts, kind) if before else 0
        told[ENDED] += after.terminal

    def forget(self, jobs: Iterable[str]) -> None:
        """Nobody asks what was told of these jobs any more."""
        for job in jobs:
            self._told.pop(job, None)

    def faults(self, job: str, manifest: Mapping[str, Any]) -> Iterator[str]:
        """What was told more often than it was."""
        for kind, count in self._told[job].items():
            most = 1 if kind == ENDED else manifest["counts"][kind]
            if not 0 <= count <= most:
                yield f"{count} {kind} were told to who watches, and {most} there are"
