"""What time is it, where this machine's clock may be wrong? The storage service's clock decides."""

from collections.abc import Callable
from typing import Final

TOLERANCE_SECONDS: Final = 5.0


class ServiceClock:
    """Seconds since the epoch, corrected by what storage says with its answers (HTTP `Date`).

    Messages are scheduled by the bus's clock: a machine whose own is behind by more than a delay
    would schedule them for the past, and run round in circles without a pause. Differences within
    the tolerance are those of whole seconds and slow answers: the own clock is the better one.
    """

    def __init__(self, own: Callable[[], float]) -> None:
        self._own = own
        self._ahead = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self._own() + self._ahead

    def heard(self, service_time: float, asked: float) -> None:
        """Take note of the time in an answer to a call made at `asked` by this clock."""
        if self() - asked > TOLERANCE_SECONDS:
            return  # an old answer: the process may have slept over it
        ahead = service_time - self._own()
        self._ahead = ahead if abs(ahead) > TOLERANCE_SECONDS else 0.0
