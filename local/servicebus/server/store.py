"""Messages on disk: a journal of the broker's changes in an SQLite file.

Changes are collected in memory and written by `commit`, one transaction for all of them: a message
that was added and removed in between costs nothing, one that changed twice is written once.
SQLite's write-ahead log survives the death of the process at any moment; `synchronous=NORMAL`
spares the wait for the disk that only the death of the machine would need.
"""

import sqlite3
from pathlib import Path
from typing import Any
from uuid import UUID

from ..broker.broker import Broker
from ..broker.entity import Entity
from ..broker.message import Message, State
from ..broker.sessions import SessionQueue

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entity (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, next_sequence INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS message (
    key INTEGER PRIMARY KEY, state INTEGER NOT NULL, delivery_count INTEGER NOT NULL,
    lock_token BLOB, locked_until_ms INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL,
    enqueued_sequence INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
    scheduled_ms INTEGER NOT NULL, dead_letter_source TEXT, content BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS seen (
    path TEXT, message_id BLOB, until_ms INTEGER NOT NULL, PRIMARY KEY (path, message_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (
    path TEXT, id TEXT, state BLOB NOT NULL, PRIMARY KEY (path, id)
) WITHOUT ROWID;
"""

# A message's key holds its entity's id above this many bits of its sequence number, so that one
# integer finds a row without a second index.
_SEQUENCE_BITS = 44


class StoreInUseError(RuntimeError):
    """Another broker has the file open: stop it, or give this one another file."""


class Store:
    """A `Journal` in a file; see `broker.journal.Journal` for what the methods are told."""

    def __init__(self, path: str | Path, patience: float = 2.0) -> None:
        """Open the file, which another broker may take up to `patience` seconds to let go of."""
        self._database = sqlite3.connect(path, timeout=patience, isolation_level=None)
        try:
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            self._database.close()
            raise StoreInUseError(f"{path} cannot be opened: {error}") from error
        self._ids: dict[str, int] = dict(self._database.execute("SELECT path, id FROM entity"))
        self._clear()

    def _clear(self) -> None:
        self._added: dict[tuple[str, int], Message] = {}
        self._changed: dict[tuple[str, int], Message] = {}
        self._removed: set[tuple[str, int]] = set()
        self._numbers: dict[str, int] = {}
        self._seen: dict[tuple[str, bytes], int | None] = {}
        self._sessions: dict[tuple[str, str], bytes | None] = {}
        self._dirty = False

    # ---------------------------------------------------------------- what the broker tells

    def added(self, path: str, message: Message) -> None:
        """A message is new, or its content changed."""
        self._added[path, message.sequence] = message
        self._dirty = True

    def changed(self, path: str, message: Message) -> None:
        """A message's state, lock or delivery count changed; its content did not."""
        key = (path, message.sequence)
        if key not in self._added:
            self._changed[key] = message
        self._dirty = True

    def removed(self, path: str, sequence: int) -> None:
        """A message is gone."""
        key = (path, sequence)
        self._changed.pop(key, None)
        self._added.pop(key, None)
        self._removed.add(key)
        self._dirty = True

    def numbered(self, path: str, next_sequence: int) -> None:
        """The next message of an entity will get this number."""
        self._numbers[path] = next_sequence
        self._dirty = True

    def saw(self, path: str, message_id: bytes, until_ms: int) -> None:
        """A message with this id is a duplicate until `until_ms`."""
        self._seen[path, message_id] = until_ms
        self._dirty = True

    def forgot(self, path: str, message_id: bytes) -> None:
        """The id may be used again."""
        self._seen[path, message_id] = None
        self._dirty = True

    def session(self, path: str, session_id: str, state: bytes | None) -> None:
        """A session's state was set; None removes it."""
        self._sessions[path, session_id] = state
        self._dirty = True

    # ---------------------------------------------------------------- to and from the file

    def commit(self) -> None:
        """Write all changes since the last commit; returns once they outlive the process.

        Raises:
            sqlite3.Error: they could not be written, and nobody may be told of them.
        """
        if not self._dirty:
            return
        self._database.execute("BEGIN")
        with self._database:  # commits, or rolls back
            self._write()
        self._clear()

    def _write(self) -> None:
        run, many = self._database.execute, self._database.executemany
        many(
            "INSERT INTO entity (path, next_sequence) VALUES (?, ?)"
            " ON CONFLICT (path) DO UPDATE SET next_sequence = excluded.next_sequence",
            self._numbers.items(),
        )
        if not self._numbers.keys() <= self._ids.keys():
            self._ids = dict(run("SELECT path, id FROM entity"))
        many("DELETE FROM message WHERE key = ?", ((self._key(*key),) for key in self._removed))
        many(
            "INSERT OR REPLACE INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._row(key, message) for key, message in self._added.items()),
        )
        many(
            "UPDATE message SET state = ?, delivery_count = ?, lock_token = ?,"
            " locked_until_ms = ? WHERE key = ?",
            (
                (m.state, m.delivery_count, _token(m), m.locked_until_ms, self._key(*key))
                for key, m in self._changed.items()
            ),
        )
        self._write_small_tables()

    def _write_small_tables(self) -> None:
        many = self._database.executemany
        seen, sessions = self._seen.items(), self._sessions.items()
        many(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?)",
            ((*key, until) for key, until in seen if until is not None),
        )
        many(
            "DELETE FROM seen WHERE path = ? AND message_id = ?",
            (key for key, until in seen if until is None),
        )
        many(
            "INSERT OR REPLACE INTO session VALUES (?, ?, ?)",
            ((*key, state) for key, state in sessions if state is not None),
        )
        many(
            "DELETE FROM session WHERE path = ? AND id = ?",
            (key for key, state in sessions if state is None),
        )

    def restore(self, broker: Broker) -> int:
        """Put what the file holds into a broker's entities; returns the number of messages.

        What belongs to entities that are no longer configured stays in the file.
        """
        by_id = {}
        for row in self._database.execute("SELECT id, path, next_sequence FROM entity"):
            entity = _entity(broker, row[1])
            if entity is not None:
                by_id[row[0]] = entity
                entity.restore_next_sequence(row[2])
        count = 0
        for row in self._database.execute("SELECT * FROM message ORDER BY key"):
            entity = by_id.get(row[0] >> _SEQUENCE_BITS)
            if entity is not None:
                entity.restore(_message(row))
                count += 1
        for path, message_id, until_ms in self._database.execute(
            "SELECT path, message_id, until_ms FROM seen ORDER BY until_ms"
        ):
            if (entity := _entity(broker, path)) is not None:
                entity.restore_id(message_id, until_ms)
        for path, session_id, state in self._database.execute("SELECT * FROM session"):
            if isinstance(queue := _entity(broker, path), SessionQueue):
                queue.restore_session(session_id, state)
        broker.restored()
        return count

    def close(self) -> None:
        """Commit and close the file."""
        try:
            self.commit()
        finally:
            self._database.close()

    def _key(self, path: str, sequence: int) -> int:
        return self._ids.get(path, 0) << _SEQUENCE_BITS | sequence

    def _row(self, key: tuple[str, int], message: Message) -> tuple[object, ...]:
        return (
            self._key(*key),
            message.state,
            message.delivery_count,
            _token(message),
            message.locked_until_ms,
            message.enqueued_ms,
            message.enqueued_sequence,
            message.expires_ms,
            message.scheduled_ms,
            message.dead_letter_source,
            message.content(),
        )


def _entity(broker: Broker, path: str) -> Entity | None:
    """The entity that the file knows by this path; written otherwise, it is another one there."""
    entity = broker.entities.get(path.lower())
    return entity if entity is not None and entity.path == path else None


def _token(message: Message) -> bytes | None:
    return message.lock_token.bytes if message.lock_token else None


def _message(row: tuple[Any, ...]) -> Message:
    """A row of the table as the message it was."""
    key, state, count, token, locked_until, enqueued, number, expires, scheduled = row[:9]
    source, content = row[9:]
    message = Message.parse(content)
    message.sequence = key & (1 << _SEQUENCE_BITS) - 1
    message.state, message.delivery_count = State(state), count
    message.lock_token = UUID(bytes=token) if token else None
    message.locked_until_ms, message.enqueued_ms = locked_until, enqueued
    message.enqueued_sequence = number
    message.expires_ms, message.scheduled_ms = expires, scheduled
    message.dead_letter_source = source
    return message
