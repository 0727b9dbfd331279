"""What a broker tells about its changes, for whoever makes them durable."""

from typing import Protocol

from .message import Message


class Journal(Protocol):
    """What each change is told to, before anybody outside hears that it happened.

    A change may be told more than once; the last one counts. `path` names the entity. Messages are
    passed by reference: what matters is how they are when the journal is written.
    """

    def added(self, path: str, message: Message) -> None:
        """A message is new, or its content changed."""

    def changed(self, path: str, message: Message) -> None:
        """A message's state, lock or delivery count changed; its content did not."""

    def removed(self, path: str, sequence: int) -> None:
        """A message is gone."""

    def numbered(self, path: str, next_sequence: int) -> None:
        """The next message of an entity will get this number."""

    def saw(self, path: str, message_id: bytes, until_ms: int) -> None:
        """A message with this id is a duplicate until `until_ms`."""

    def forgot(self, path: str, message_id: bytes) -> None:
        """The id may be used again."""

    def session(self, path: str, session_id: str, state: bytes | None) -> None:
        """A session's state was set; None removes it."""


class NoJournal:
    """A journal that keeps nothing: messages live as long as the process."""

    def added(self, path: str, message: Message) -> None:
        """Keep nothing."""

    def changed(self, path: str, message: Message) -> None:
        """Keep nothing."""

    def removed(self, path: str, sequence: int) -> None:
        """Keep nothing."""

    def numbered(self, path: str, next_sequence: int) -> None:
        """Keep nothing."""

    def saw(self, path: str, message_id: bytes, until_ms: int) -> None:
        """Keep nothing."""

    def forgot(self, path: str, message_id: bytes) -> None:
        """Keep nothing."""

    def session(self, path: str, session_id: str, state: bytes | None) -> None:
        """Keep nothing."""
