"""Who takes messages out of a queue, as the queue sees them."""

from typing import Protocol

from .message import Message


class Consumer(Protocol):
    """Where a queue hands its messages to.

    `credit` is how many more it takes, which `deliver` lowers; with `deletes_on_receive` a message
    is gone once it is handed over, otherwise it is locked until it is settled.
    """

    credit: int
    deletes_on_receive: bool

    def deliver(self, message: Message) -> None:
        """Take a message."""
