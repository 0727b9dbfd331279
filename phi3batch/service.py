"""The service behind its OpenAI doors, spoken to with the `openai` SDK."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import openai
from pydantic import ValidationError

from phi3batch.mistakes import Ended, Mistake
from phi3batch.statuses import NOT_ADMITTED, NOT_DONE, WRONG_USAGE
from schemas.estimating import Estimate, EstimateCreate
from schemas.openai import Batch, BatchEvent, File

IN_ONE_PIECE: Final = 100 * 1024 * 1024
PART: Final = 16 * 1024 * 1024
"""Bytes of a part: the SDK holds it several times over, and repeats no more than it."""
RETRIES: Final = 5
"""Of what is sent and brought home, after the first try."""
LOOKS: Final = 2
"""Retries of a look: somebody waits for it."""
_REPORT_SECONDS: Final = 60.0
"""For one try at a report: all else is at home, and the SDK would wait for ten minutes."""
_PAGE: Final = 100
_PAUSES: Final = (0.5, 2.0)
"""Seconds before a download that has broken off is begun again."""
# What the SDK raises as it is where an answer is streamed: of httpx or httpx2, by its version.
_BROKEN_OFF: Final[tuple[type[Exception], ...]] = tuple(
    sys.modules[name].RequestError for name in ("httpx", "httpx2") if name in sys.modules
)

# Not let in, or too much at a time: the next one would fare alike.
_KEYS: Final = "PHI3BATCH_KEY takes what `phi3batch keys new` has printed"
_OF_ALL: Final = frozenset({401, 403, 429})

BatchAction = Literal["cancel", "pause", "resume"]


class BatchService:
    """Files and batches. What goes wrong is an `openai.OpenAIError`; `connected` tells it.

    Of what is refused for one batch or file alone, `Ended` names it.
    """

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client.with_options(max_retries=RETRIES)
        self._looking = client.with_options(max_retries=min(LOOKS, RETRIES))

    def reach(self) -> None:
        """Find out whether it is there and lets this key in, before anything large is sent."""
        self._looking.models.list()

    def upload(self, path: Path, name: str) -> str:
        """The id of a file that is uploaded, in parts where it is large."""
        if path.stat().st_size <= IN_ONE_PIECE:
            with path.open("rb") as content:
                return self._client.files.create(file=(name, content), purpose="batch").id
        upload = self._client.uploads.upload_file_chunked(
            file=path,
            mime_type="application/jsonl",
            purpose="batch",
            part_size=PART,
            md5=_md5(path),
        )
        made = upload.file
        if made is None:
            raise Ended(NOT_DONE, f"{path}: the upload was not completed: try again")
        return str(made.id)

    def create(
        self,
        file_id: str,
        *,
        endpoint: str,
        window: str,
        metadata: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> Batch:
        """A batch of an uploaded file. `options` are the job's own, beside those named here.

        A file that no batch is made of goes again.
        """
        wanted: Any = {"completion_window": window, "endpoint": endpoint}
        more: dict[str, Any] = {"phi3": dict(options)}
        if (seconds := more["phi3"].pop("output_expires_after", None)) is not None:
            more["output_expires_after"] = {"anchor": "created_at", "seconds": seconds}
        try:
            made = self._client.batches.create(
                input_file_id=file_id, metadata=dict(metadata), extra_body=more, **wanted
            )
        except openai.APIStatusError:
            with suppress(openai.OpenAIError):
                self._looking.files.delete(file_id)
            raise
        return _batch(made)

    def batch(self, batch_id: str) -> Batch:
        """A batch as it stands."""
        with about(batch_id):
            return _batch(self._looking.batches.retrieve(batch_id))

    def batches(self, most: int) -> Iterator[Batch]:
        """The latest batches, the newest first."""
        return map(_batch, islice(self._looking.batches.list(limit=min(most, _PAGE)), most))

    def act(self, batch_id: str, action: BatchAction) -> Batch:
        """A batch that is cancelled, paused or resumed from now on."""
        return self._posted(batch_id, action)

    def replay(self, batch_id: str) -> Batch:
        """An ended batch, of which the tenant's receiver is told once more."""
        return self._posted(batch_id, "webhooks")

    def _posted(self, batch_id: str, what: str) -> Batch:
        with about(batch_id):
            told = self._client.post(f"/batches/{batch_id}/{what}", cast_to=dict[str, Any])
        return Batch.model_validate(told)

    def events(self, batch_id: str) -> Sequence[BatchEvent]:
        """What has happened to a batch, the latest first."""
        with about(batch_id):
            told = self._looking.get(f"/batches/{batch_id}/events", cast_to=dict[str, Any])
        return [BatchEvent.model_validate(each) for each in told["data"]]

    def estimate(self, wanted: EstimateCreate) -> Estimate | None:
        """What a file would take; None where the service is one that does not say."""
        body = wanted.model_dump(mode="json", exclude_defaults=True)
        try:
            told = self._looking.post("/estimate", body=body, cast_to=dict[str, Any])
        except openai.NotFoundError:
            return None
        return Estimate.model_validate(told)

    def files(self, most: int) -> Iterator[File]:
        """The latest uploaded files, the newest first."""
        found = islice(self._looking.files.list(limit=min(most, _PAGE)), most)
        return (File.model_validate(each.model_dump()) for each in found)

    def manifest(self, batch_id: str) -> bytes:
        """An ended batch's manifest as it was written."""
        with about(batch_id):
            return self._client.get(f"/batches/{batch_id}/manifest", cast_to=bytes)

    def report(self, batch_id: str) -> bytes | None:
        """How an ended batch went, as a page; None where the service has none of it."""
        try:
            return self._looking.get(
                f"/batches/{batch_id}/report", cast_to=bytes, options={"timeout": _REPORT_SECONDS}
            )
        except openai.NotFoundError:
            return None

    def delete(self, file_id: str) -> None:
        """Delete an uploaded file."""
        with about(file_id):
            self._client.files.delete(file_id)

    def download(self, file_id: str, target: Path) -> None:
        """Write a file's content to a path, which has its name once it is whole.

        One that breaks off is begun again. Raises Ended where it always does.
        """
        part = target.with_name(f".{target.name}.part")
        try:
            for pause in (*_PAUSES, None):
                try:
                    with self._client.files.with_streaming_response.content(file_id) as content:
                        content.stream_to_file(part)
                    break
                except _BROKEN_OFF as error:
                    if pause is None:
                        told = f"{target}: its download breaks off ({error}): try again"
                        raise Ended(NOT_DONE, told) from None
                    time.sleep(pause)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def _md5(path: Path) -> str:
    """What the service compares the whole file with."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


def _batch(made: openai.BaseModel) -> Batch:
    return Batch.model_validate(made.model_dump())


@contextmanager
def connected() -> Iterator[BatchService]:
    """The service that the environment names. Raises Mistake, and Ended where it refuses."""
    url = _address()
    key = os.environ.get("PHI3BATCH_KEY") or os.environ.get("OPENAI_API_KEY")
    if not key:
        raise Mistake("no key: set PHI3BATCH_KEY, or OPENAI_API_KEY, to an API key of the service")
    try:
        with openai.OpenAI(base_url=url, api_key=key) as client:
            yield BatchService(client)
    except openai.AuthenticationError as error:
        raise Ended(NOT_ADMITTED, f"{_message(error)} ({_KEYS})") from None
    except openai.APIStatusError as error:
        raise Ended(NOT_DONE, _message(error)) from None
    except openai.APIConnectionError as error:
        told = f"{url} cannot be reached: {error.__cause__ or error}: is the service up, as by "
        raise Ended(NOT_DONE, f"{told}`phi3batch up`, and PHI3BATCH_URL its address?") from None
    except (openai.OpenAIError, ValidationError):
        told = f"{url} answers, but not as this service does: is the address right?"
        raise Ended(NOT_DONE, told) from None


@contextmanager
def about(name: str) -> Iterator[None]:
    """Around what is asked of one batch or file: Ended names it where just that is refused."""
    try:
        yield
    except openai.APIStatusError as error:
        if error.status_code in _OF_ALL or error.status_code >= 500:
            raise
        status = WRONG_USAGE if error.status_code == 400 else NOT_DONE
        more = f" (phi3batch show {name})" if error.status_code == 409 else ""
        message = _message(error)
        told = message if message.startswith(name) else f"{name}: {message}"
        raise Ended(status, f"{told}{more}") from None


def each(names: Iterable[str], do: Callable[[str], None]) -> int:
    """Do something to each: the worst status, for one that is refused keeps no other from it."""
    status = 0
    for name in names:
        try:
            do(name)
        except Ended as refused:
            print(f"error: {refused}", file=sys.stderr)
            status = max(status, refused.status)
    return status


def is_known() -> bool:
    """Whether the environment names a service and a key."""
    urls, keys = ("PHI3BATCH_URL", "OPENAI_BASE_URL"), ("PHI3BATCH_KEY", "OPENAI_API_KEY")
    return all(any(map(os.environ.get, names)) for names in (urls, keys))


def _address() -> str:
    """The base of the doors. It has no default, which would send rows to somebody else."""
    if given := os.environ.get("PHI3BATCH_URL"):
        plain = given.rstrip("/")
        return plain if plain.endswith("/v1") else f"{plain}/v1"
    if given := os.environ.get("OPENAI_BASE_URL"):
        return given
    raise Mistake(
        "no address: set PHI3BATCH_URL, or OPENAI_BASE_URL, to where the service is, such as "
        "http://127.0.0.1:7071"
    )


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    told, code = map(body.get, ("message", "code")) if isinstance(body, dict) else (None, None)
    if told is None or code == "unknown_url":
        where = error.request.url.copy_with(path="/")
        return (
            f"{where} answers {error.status_code}, but not as this service does: is "
            "PHI3BATCH_URL its address, without a path?"
        )
    return str(told)
