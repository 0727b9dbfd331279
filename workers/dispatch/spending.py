"""What stands between a call of a capped job and its deployment: is what it may cost set aside?"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from schemas.deployments import Task
from schemas.outcomes import Outcome
from workers.ports.errors import WorkerError


class BudgetSpent(WorkerError):
    """A cap leaves no room for what a call may cost."""


class Pledge(Protocol):
    """The most that one call can cost, set aside for it until it is settled or dropped."""

    async def secure(self) -> None:
        """Make durable that the call may be made, for whoever comes after a crash.

        Raises HandBack where it cannot be now.
        """

    def settle(self, deployment: str, outcome: Outcome | None) -> None:
        """The call was made: it cost what its usage tells, or, where that is not known, all."""

    def drop(self) -> None:
        """The call is not made; nothing happens to one that is settled."""


class Purse(Protocol):
    """What the attempt at a shard may spend."""

    async def pledge(self, task: Task, body: Mapping[str, Any], among: Sequence[str]) -> Pledge:
        """Set the most aside that a call can cost at any of these deployments, once there is room.

        Raises BudgetSpent where there will be none, HandBack where there may be some later.
        """

    def spare(self, task: Task, body: Mapping[str, Any], among: Sequence[str]) -> Pledge | None:
        """The same, of what nobody needs now; None where there is none."""
