"""Whatever goes wrong with a call is an answer too, in the same form at every door."""

import logging
from collections.abc import Awaitable, Iterable
from typing import Final, TypeVar

from workers.api.http import AnyReply, HttpRefusal, JsonReply
from workers.jobs.rejections import InputError
from workers.ports.errors import NewerVersion, StorageError, Unavailable, Unreadable

_STATUS_OF: Final = {"file_not_found": 404, "file_changed": 409, "message_too_large": 413}

Reply = TypeVar("Reply", bound=AnyReply)

log = logging.getLogger(__name__)


async def answered(work: Awaitable[Reply]) -> Reply | JsonReply:
    """The answer of some work, or its refusal."""
    try:
        return await work
    except HttpRefusal as refusal:
        return refusal.reply()
    except InputError as error:
        status = _STATUS_OF.get(error.code, 400)
        return HttpRefusal(status, error.code, str(error), param=error.param).reply()
    except NewerVersion as error:
        return HttpRefusal(400, "newer_version", str(error)).reply()
    except (StorageError, Unreadable):
        log.exception("[HTTP_STORAGE_REFUSED] storage refused what HTTP asked for")
        return HttpRefusal(500, "storage_refused", "storage refused: see the log").reply()
    except Unavailable:
        away = HttpRefusal(503, "unavailable", "storage or bus is out of reach: ask again")
        return away.reply()


def unknown_tenant(tenant: str, known: Iterable[str]) -> HttpRefusal:
    """What to answer to whoever asks about a tenant that nobody knows."""
    names = ", ".join(known)
    message = f"there is no tenant {tenant!r}; TENANTS knows: {names}"
    return HttpRefusal(404, "unknown_tenant", message, param="tenant")
