"""The operations of `ENTITY/$management`.

Source: "AMQP 1.0 in Service Bus: request-response-based operations", Microsoft Learn.
"""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from ..broker.entity import Entity
from ..broker.errors import (
    InvalidFieldError,
    MessageTooLargeError,
    NotAllowedError,
    NotImplementedHereError,
)
from ..broker.message import Message
from ..broker.queues import Queue
from ..broker.sessions import SessionQueue
from ..codec.values import Array, Int, Timestamp, Value

Body = dict[str, Value]
Wanted = TypeVar("Wanted")

_PREFIX = "com.microsoft:"
_RECEIVE_AND_DELETE = 0
_PEEKED_BYTES = 1024 * 1024


def manage(entity: Entity, operation: str, body: Body, max_message: int) -> Body | None:
    """Do an operation on an entity; returns the body of the reply, None for "nothing there".

    Raises:
        ServiceBusError: the operation is refused; of a list, what came before it was done.
    """
    name = operation.removeprefix(_PREFIX)
    if name == "schedule-message":
        return _schedule(entity, body, max_message)
    if name == "cancel-scheduled-message":
        for sequence in _integers(body, "sequence-numbers"):
            entity.cancel_scheduled(sequence)
        return {}
    if name in _QUEUE_OPERATIONS:
        if not isinstance(entity, Queue):
            raise NotAllowedError(f"a topic has no operation {operation}")
        return _QUEUE_OPERATIONS[name](entity, body)
    if name in _SESSION_OPERATIONS:
        if not isinstance(entity, SessionQueue):
            raise NotAllowedError(f"{operation} needs an entity with sessions")
        return _SESSION_OPERATIONS[name](entity, body)
    raise NotImplementedHereError(f"the operation {operation} is not supported by this broker")


def _field(body: Body, name: str, kind: type[Wanted]) -> Wanted:
    value = body.get(name)
    if not isinstance(value, kind):
        raise InvalidFieldError(f"the field {name} is missing or no {kind.__name__}")
    return value


def _list_of(body: Body, name: str, kind: type[Wanted]) -> list[Wanted]:
    values: list[Any] = _field(body, name, list)
    if not all(isinstance(value, kind) for value in values):
        raise InvalidFieldError(f"the field {name} holds something that is no {kind.__name__}")
    return values


def _count(body: Body, name: str) -> int:
    value = _field(body, name, int)
    if value < 0:
        raise InvalidFieldError(f"the field {name} is negative")
    return value


def _integers(body: Body, name: str) -> list[int]:
    return _list_of(body, name, int)


def _schedule(entity: Entity, body: Body, max_message: int) -> Body:
    messages = []
    for item in _list_of(body, "messages", dict):
        encoded = _field(item, "message", bytes)
        if len(encoded) > max_message:
            raise MessageTooLargeError(
                f"A message is larger than the limit of {max_message} bytes."
            )
        messages.append(Message.parse(encoded))
    for message in messages:
        entity.check(message)
    return {"sequence-numbers": Array([entity.accept(message) for message in messages])}


def _renew_lock(queue: Queue, body: Body) -> Body:
    tokens = _list_of(body, "lock-tokens", UUID)
    return {"expirations": Array([Timestamp(queue.renew(token)) for token in tokens])}


def _peek(queue: Queue, body: Body) -> Body | None:
    start, count = _field(body, "from-sequence-number", int), _count(body, "message-count")
    session = body.get("session-id")
    encoded, size = [], 0
    for message in queue.peek(start, count, None if session is None else str(session)):
        encoded.append(message.wire())
        size += len(encoded[-1])
        if size > _PEEKED_BYTES:  # a client that wants more asks from the next number on
            break
    return {"messages": [{"message": data} for data in encoded]} if encoded else None


def _receive_deferred(queue: Queue, body: Body) -> Body:
    delete = body.get("receiver-settle-mode") == _RECEIVE_AND_DELETE
    messages = queue.receive_deferred(_integers(body, "sequence-numbers"), delete=delete)
    return {"messages": [{"lock-token": m.lock_token, "message": m.wire()} for m in messages]}


def _update_disposition(queue: Queue, body: Body) -> Body:
    status = _field(body, "disposition-status", str)
    changes = body.get("properties-to-modify") or {}
    if not isinstance(changes, dict):
        raise InvalidFieldError("the field properties-to-modify is no dict")
    properties = {str(key): value for key, value in changes.items()}
    for token in _list_of(body, "lock-tokens", UUID):
        match status:
            case "completed":
                queue.complete(token)
            case "abandoned":
                queue.abandon(token, properties)
            case "defered":  # spelled so in the protocol
                queue.defer(token, properties)
            case "suspended":
                reason, description = (
                    body.get("deadletter-reason"),
                    body.get("deadletter-description"),
                )
                queue.dead_letter(token, reason, description, properties)
            case _:
                raise InvalidFieldError(f"there is no disposition {status}")
    return {}


def _renew_session(queue: SessionQueue, body: Body) -> Body:
    return {"expiration": Timestamp(queue.renew_session(_field(body, "session-id", str)))}


def _get_state(queue: SessionQueue, body: Body) -> Body:
    return {"session-state": queue.session_state(_field(body, "session-id", str))}


def _set_state(queue: SessionQueue, body: Body) -> Body:
    state = body.get("session-state")
    if not isinstance(state, bytes | None):
        raise InvalidFieldError("a session state is bytes")
    queue.set_session_state(_field(body, "session-id", str), state)
    return {}


def _list_sessions(queue: SessionQueue, body: Body) -> Body | None:
    skip, top = _count(body, "skip"), _count(body, "top")
    ids = queue.sessions_with_messages()[skip : skip + top]
    return {"skip": Int(skip), "sessions-ids": Array(ids)} if ids else None


_QUEUE_OPERATIONS: dict[str, Callable[[Queue, Body], Body | None]] = {
    "renew-lock": _renew_lock,
    "peek-message": _peek,
    "receive-by-sequence-number": _receive_deferred,
    "update-disposition": _update_disposition,
}
_SESSION_OPERATIONS: dict[str, Callable[[SessionQueue, Body], Body | None]] = {
    "renew-session-lock": _renew_session,
    "get-session-state": _get_state,
    "set-session-state": _set_state,
    "get-message-sessions": _list_sessions,
}
