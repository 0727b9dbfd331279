"""The nodes that answer requests: `$cbs`, which takes tokens, and `ENTITY/$management`.

A request is a message with its operation in the application properties; the reply goes to the
client's receiver on the same node and carries the request's message id as its correlation id.
"""

from typing import NamedTuple

from ..broker.errors import (
    InvalidFieldError,
    NotImplementedHereError,
    ServerBusyError,
    ServiceBusError,
)
from ..codec import sections
from ..codec.reading import DecodeError, decode
from ..codec.values import Int, Symbol, Value
from .faults import Kind, Operation
from .link import Link
from .management import manage

CBS_NODE = "$cbs"
MANAGEMENT_SUFFIX = "/$management"


class Request(NamedTuple):
    """A request, decoded as far as it is common to all."""

    message_id: Value
    reply_to: Value
    operation: str
    body: Value


class Reply(NamedTuple):
    """A status in the numbers of HTTP, and what was asked for."""

    status: int
    description: str
    condition: str | None = None
    body: Value = None


def answer(link: Link, data: bytes) -> None:
    """Do what a request on a link asks for, and send the reply."""
    request = _parse(data)
    is_cbs = link.node == CBS_NODE
    fault = None if is_cbs else link.services.faults.draw(Operation.MANAGE, _entity(link))
    if fault and fault.kind == Kind.DROP:
        link.session.peer.abort()
        return
    try:
        if fault and fault.kind == Kind.BUSY:
            raise ServerBusyError
        reply = _put_token(link, request) if is_cbs else _manage(link, request)
    except ServiceBusError as refusal:
        reply = Reply(refusal.status, str(refusal), refusal.condition)
    except DecodeError as error:
        reply = Reply(400, str(error), "amqp:decode-error")
    link.after(fault, lambda: _send(link, request, reply))


def _entity(link: Link) -> str:
    return link.path[: -len(MANAGEMENT_SUFFIX)]


def _parse(data: bytes) -> Request:
    properties: Value = None
    application: Value = None
    body: Value = None
    for part in sections.split(data):
        if part.code == sections.PROPERTIES:
            properties = decode(data, part.value)[0]
        elif part.code == sections.APPLICATION_PROPERTIES:
            application = decode(data, part.value)[0]
        elif part.code == sections.VALUE:
            body = decode(data, part.value)[0]
    if not isinstance(properties, list) or not isinstance(application, dict):
        raise DecodeError("a request lacks its properties or application properties")
    fields = [*properties, *[None] * 5]
    return Request(fields[0], fields[4], str(application.get("operation")), body)


def _put_token(link: Link, request: Request) -> Reply:
    if request.operation != "put-token":
        raise NotImplementedHereError(f"$cbs has no operation {request.operation}")
    if not isinstance(request.body, str):
        raise InvalidFieldError("put-token needs a token as its body")
    link.session.peer.authorize(request.body)
    return Reply(202, "Accepted")


def _manage(link: Link, request: Request) -> Reply:
    if not isinstance(request.body, dict):
        raise InvalidFieldError(f"{request.operation} needs a map as its body")
    entity = link.services.broker.entity(_entity(link))
    body = manage(entity, request.operation, request.body, link.services.limits.max_message)
    return Reply(204, "No Content") if body is None else Reply(200, "OK", None, body)


def _send(link: Link, request: Request, reply: Reply) -> None:
    # $cbs and $management spell the same things differently.
    status, description = (
        ("status-code", "status-description")
        if link.node == CBS_NODE
        else ("statusCode", "statusDescription")
    )
    properties: dict[str, Value] = {status: Int(reply.status), description: reply.description}
    if reply.condition:
        properties["errorCondition"] = properties["error-condition"] = Symbol(reply.condition)
    data = sections.encode_value_message(request.message_id, properties, reply.body)
    link.session.reply(link.node, request.reply_to, data)
