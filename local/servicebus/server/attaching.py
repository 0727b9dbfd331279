"""What a link that a client attaches ends at."""

from urllib.parse import unquote, urlsplit

from ..broker.errors import ServerBusyError, ServiceBusError, UnauthorizedError
from ..codec import performatives as p
from ..codec.values import Value
from .faults import Kind, Operation
from .inbound import Inbound
from .link import AmqpSession, terminus_fields
from .outbound import Outbound
from .requests import CBS_NODE, MANAGEMENT_SUFFIX


def open_link(session: AmqpSession, client: p.Attach) -> Inbound | Outbound:
    """Open the link that a client asks for, or refuse it; in both cases it exists until detached.

    Raises:
        DecodeError: its source or target is malformed.
    """
    end = client.source if client.is_receiver else client.target
    path = entity_path(terminus_fields(end, 1)[0])
    link: Inbound | Outbound
    link = (Outbound if client.is_receiver else Inbound)(session, client, path)
    fault = session.services.faults.draw(Operation.ATTACH, path)
    if fault and fault.kind == Kind.DROP:
        session.peer.abort()
        return link
    try:
        if fault:
            raise ServerBusyError
        _connect(link, path)
        link.open()
    except ServiceBusError as refusal:
        link.refuse(refusal)
    return link


def _connect(link: Inbound | Outbound, path: str) -> None:
    """Find what is at the other end of a link."""
    broker = link.services.broker
    if path.lower() == CBS_NODE:
        link.node = CBS_NODE
        return
    if not link.session.peer.authorized:
        raise UnauthorizedError("Unauthorized access: a token must be put on $cbs first.")
    if path.lower().endswith(MANAGEMENT_SUFFIX):
        link.node = path.lower()
        broker.entity(path[: -len(MANAGEMENT_SUFFIX)])
    elif isinstance(link, Outbound):
        link.queue = broker.queue(path)
    else:
        link.entity = broker.entity(path)


def entity_path(address: Value) -> str:
    """The path of an address such as `amqps://host/queue` or `queue`."""
    text = address if isinstance(address, str) else ""
    if "://" in text:
        text = urlsplit(text).path
    return unquote(text.strip("/"))
