"""The three doors: what a dropped file, a queued message or the nightly sweep announces."""

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import orjson
from pydantic import ValidationError

from schemas.jobs import Asked, Door, parse_options
from schemas.messages import JOBS_MESSAGE, Announcement, JobsMessage
from schemas.requests import deeper_than
from schemas.tenants import DEFAULT_TENANT
from schemas.versions import version_of
from schemas.wrong_values import wrong_values
from workers.jobs.rejections import InputError, Origin
from workers.jobs.store import check_version
from workers.ports import BlobInfo

# The calls that end a write; others (SetBlobTier, a directory's CreateFile) raise events as well.
_WRITES: Final = frozenset(
    {"PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit", "PutBlobFromUrl"}
)
_CREATED: Final = "Microsoft.Storage.BlobCreated"
OPTIONS_KEY: Final = "options"
OPTIONS_SUFFIX: Final = ".options.json"
MAX_OPTIONS_BYTES: Final = 64 * 1024
MAX_MESSAGE_BYTES: Final = 256 * 1024
_DEEPEST_MESSAGE: Final = 64


class BlobCreated:
    """A BlobCreated event, from Event Grid's schema or CloudEvents'. `etag` is unquoted."""

    def __init__(self, container: str, name: str, etag: str | None) -> None:
        self.container = container
        self.name = name
        self.etag = etag


def read_jobs_message(body: bytes) -> JobsMessage | BlobCreated | None:
    """What a message on `jobs` says; None for an event that starts nothing.

    Raises InputError where it says nothing that can be done, NewerVersion where it is of a later
    schema.
    """
    if len(body) > MAX_MESSAGE_BYTES:
        raise InputError(
            "message_too_large", f"the message has more than {MAX_MESSAGE_BYTES} bytes"
        )
    try:
        raw = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise InputError(
            "invalid_message", f"the message is not JSON: {error.msg} at character {error.pos}"
        ) from None
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]  # Event Grid's own schema delivers arrays
    if not isinstance(raw, dict):
        raise InputError("invalid_message", "the message has to be one JSON object")
    if deeper_than(raw, _DEEPEST_MESSAGE):
        raise InputError(
            "invalid_message", f"the message is nested deeper than {_DEEPEST_MESSAGE} levels"
        )
    kind = raw.get("eventType") or raw.get("type")
    if isinstance(kind, str) and kind.startswith("Microsoft."):
        return _blob_created(raw) if kind == _CREATED else None
    check_version("a message", raw)
    if "type" not in raw:
        raw = {"type": "request", **raw}
    try:
        return JOBS_MESSAGE.validate_python(raw)
    except ValidationError as error:
        first = wrong_values(error)[0]
        # The first part is the message's type.
        where = ".".join(str(part) for part in first.loc[1:])[:100]
        raise InputError(
            "invalid_message",
            f"{where or 'the message'}: {first.words[:300]}; a job request is "
            '{"container": "...", "name": "...", "options": {...}}',
            param=where or None,
        ) from None


def _blob_created(raw: Mapping[str, Any]) -> BlobCreated | None:
    data = raw.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("url"), str):
        raise InputError("invalid_message", "a BlobCreated event without data.url")
    api = data.get("api")
    if not isinstance(api, str) or api not in _WRITES:
        return None
    container, name = _place(data["url"], str(raw.get("subject") or ""))
    etag = data.get("eTag")
    return BlobCreated(container, name, unquoted(etag) if isinstance(etag, str) else None)


def _place(url: str, subject: str) -> tuple[str, str]:
    """Container and decoded name: the subject has the name as it is, the URL encodes it."""
    marker, between = "/containers/", "/blobs/"
    if marker in subject and between in subject:
        container, _, name = subject.partition(marker)[2].partition(between)
        return container, name
    try:
        path = urlsplit(url).path.lstrip("/")
    except ValueError:
        raise InputError("invalid_message", "a BlobCreated event whose url is none") from None
    container, _, name = path.partition("/")
    if not name:
        raise InputError("invalid_message", "a BlobCreated event whose url names no blob")
    return container, unquote(name)


def origin_of(body: bytes) -> Origin:
    """Where a message comes from that cannot be done, or not even be read."""
    if len(body) > MAX_MESSAGE_BYTES:
        return Origin()
    try:
        raw = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return Origin()
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    if not isinstance(raw, dict):
        return Origin()
    tenant = raw.get("tenant")
    return Origin(_input_of(raw), tenant if isinstance(tenant, str) else DEFAULT_TENANT)


def _input_of(raw: Mapping[str, Any]) -> str | None:
    container, name, data = raw.get("container"), raw.get("name"), raw.get("data")
    if isinstance(data, dict) and isinstance(url := data.get("url"), str):
        try:
            container, name = _place(url, str(raw.get("subject") or ""))
        except InputError:
            return None
    if not (isinstance(container, str) and isinstance(name, str)):
        return None
    return f"{container[:63]}/{name[:1024]}"


def unquoted(etag: str) -> str:
    """An ETag without quotes: Event Grid gives it so, and HTTP with them."""
    return etag.strip('"')


def job_id(
    info: BlobInfo,
    options: Mapping[str, Any] | None,
    tenant: str = DEFAULT_TENANT,
    rerun: str | None = None,
) -> str:
    """The same file, unchanged, is the same job; a request's options and tenant tell it apart, and
    what names a rerun. It begins with the file's last-modified time, so that results sort by it.
    """
    parts = [info.ref.container, info.ref.name, info.etag]
    if options is not None:
        parts.append(orjson.dumps(options, option=orjson.OPT_SORT_KEYS).decode())
    if tenant != DEFAULT_TENANT:
        parts.append(f"tenant {tenant}")
    if rerun is not None:
        parts.append(f"rerun {rerun}")
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    stamp = datetime.fromtimestamp(info.last_modified, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{digest[:16]}"


def announce(
    info: BlobInfo,
    door: Door,
    asked: Asked,
    options: Mapping[str, Any] | None = None,
    *,
    tenant: str = DEFAULT_TENANT,
    rerun: str | None = None,
) -> Announcement:
    """The announcement of a file."""
    return Announcement(
        schema_version=version_of(options, tenant, door),
        job=job_id(info, options, tenant, rerun),
        door=door,
        container=info.ref.container,
        name=info.ref.name,
        etag=info.etag,
        size=info.size,
        options=None if options is None else dict(options),
        asked=asked,
        tenant=tenant,
    )


def check_tenant(tenant: str, known: Collection[str]) -> None:
    """Whether a job may be run for a tenant. Raises InputError."""
    if tenant not in known:
        names = ", ".join(known)
        raise InputError(
            "unknown_tenant",
            f"tenant {tenant!r} is not known; TENANTS knows: {names}",
            param="tenant",
        )


def check_place(container: str, name: str, input_containers: tuple[str, ...]) -> None:
    """Raise InputError where a file cannot become a job, whatever it holds."""
    if container not in input_containers:
        known = ", ".join(input_containers)
        raise InputError(
            "wrong_container",
            f"{container!r} is not an input container; those are: {known}",
            param="container",
        )
    if not name or len(name) > 1024:
        raise _invalid_name("a blob's name has 1 to 1,024 characters")
    # HTTP clients resolve dot segments, whoever signs the request: the blob would be another one,
    # in another container. Names with control characters break the listing they stand in.
    if any(part in (".", "..") for part in name.replace("\\", "/").split("/")):
        raise _invalid_name("a blob's name must have no part that is '.' or '..'")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise _invalid_name("a blob's name must have no control characters")


def _invalid_name(message: str) -> InputError:
    return InputError("invalid_name", message, param="name")


def place_id(container: str, name: str, etag: str | None) -> str:
    """The short name of a write that yields no job, which is the same for each of its events."""
    return hashlib.sha256("\0".join((container, name, etag or "")).encode()).hexdigest()[:32]


def check_dropped(name: str) -> bool:
    """Whether a dropped file is to be run; an options file is not. Raises InputError."""
    if name.lower().endswith(OPTIONS_SUFFIX):
        return False
    if not name.lower().endswith((".jsonl", ".ndjson")):
        raise InputError("not_jsonl", "only files named .jsonl or .ndjson are run when dropped")
    return True


def metadata_options(metadata: Mapping[str, str]) -> object | None:
    """Options in a blob's metadata: one key, base64url JSON. Raises ValueError."""
    encoded = next((v for k, v in metadata.items() if k.lower() == OPTIONS_KEY), None)
    if encoded is None:
        return None
    padded = encoded.strip() + "=" * (-len(encoded.strip()) % 4)
    try:
        data = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("the metadata key 'options' is not base64url JSON") from None
    return options_json(data)


def check_options(options: Mapping[str, Any]) -> None:
    """Whether a message's options are ones, and no longer than a file's may be. Raises ValueError.

    They go into the marker, and from there into a message again, with all else that it says.
    """
    _refuse_long(len(orjson.dumps(options)))
    parse_options(options)


def options_json(data: bytes) -> object:
    """The options in a JSON text. Raises ValueError where it is none or they are none."""
    _refuse_long(len(data))
    try:
        parsed: object = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"options are not JSON: {error.msg} at character {error.pos}") from None
    return parsed


def _refuse_long(length: int) -> None:
    if length > MAX_OPTIONS_BYTES:
        raise ValueError(f"the options have more than {MAX_OPTIONS_BYTES:,} bytes: shorten them")


def results_folder(name: str, job: str) -> str:
    """`{file name without .jsonl}/{job}`, with nothing in it that a path could climb out with.

    Blob names are opaque to the service, but people mount, sync and click them.
    """
    stem = name
    for suffix in (".jsonl", ".ndjson"):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
    parts = [_safe(part) for part in stem.replace("\\", "/").split("/")]
    kept = "/".join(part for part in parts if part)
    return f"{kept[:700].rstrip('/ .') or 'unnamed'}/{job}"


def _safe(part: str) -> str:
    cleaned = "".join("_" if ord(c) < 32 or ord(c) == 127 or c in '%?#<>:"|*' else c for c in part)
    return cleaned.strip(" .")
