"""The door under `/v1` and `/openai`: who calls, may he send so much, and who answers."""

import random
from collections.abc import Callable, Mapping
from typing import Final

from schemas.estimating import EstimateCreate
from workers.api import openapi
from workers.api.access import WRONG_KEY, Caller, caller_by, caller_of, refusal, token_of
from workers.api.answering import answered
from workers.api.guessing import Guesses, address_of, too_many
from workers.api.http import AnyReply, HttpCall, HttpRefusal, JsonReply
from workers.api.openai import shapes
from workers.api.openai.batches import BatchesApi
from workers.api.openai.files import FilesApi
from workers.api.openai.operations import (
    ActOnBatch,
    AddPart,
    BatchOperation,
    CancelUpload,
    CompleteUpload,
    CreateBatch,
    CreateEstimate,
    CreateFile,
    CreateUpload,
    DeleteFile,
    FileOperation,
    ListBatches,
    ListFiles,
    ListModels,
    OpenAiOperation,
    ReadBatch,
    ReadContent,
    ReadEvents,
    ReadFile,
    ReadManifest,
    ReadModel,
    ReadOpenApi,
    ReadReport,
    ReplayWebhook,
    ServiceOperation,
    UploadOperation,
    read_body,
    route,
)
from workers.api.openai.uploads import UploadsApi
from workers.intake.estimates import Estimates
from workers.ports import SignedTokens
from workers.settings import Settings

MOST_BYTES: Final = 100 * 1024 * 1024
"""Of a file in one form. The host keeps a body whole several times over."""
FORM_BYTES: Final = 64 * 1024
"""Of what a form has around its file."""


class OpenAiDoor:
    """Answers the calls of the OpenAI Batch API's clients."""

    def __init__(
        self,
        files: FilesApi,
        uploads: UploadsApi,
        batches: BatchesApi,
        *,
        estimates: Estimates,
        settings: Settings,
        tokens: SignedTokens | None,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._files = files
        self._uploads = uploads
        self._batches = batches
        self._estimates = estimates
        self._settings = settings
        self._tokens = tokens
        self._clock = clock
        self._rng = rng
        self._guesses = Guesses()

    async def answer(self, call: HttpCall) -> AnyReply:
        """The answer to any call, with an id that clients show beside an error."""
        reply = await answered(self._do(call))
        request = f"req_{self._rng.getrandbits(96):024x}"
        return reply.with_headers({"x-request-id": request})

    async def _do(self, call: HttpCall) -> AnyReply:
        caller = await self._caller(call.headers)
        operation = route(call)
        check_length(call.headers, len(call.body), needed=operation.has_body)
        return await self._answer(caller, operation, call)

    async def _caller(self, headers: Mapping[str, str]) -> Caller:
        """Who calls. Raises HttpRefusal with 401, or 429 where somebody guesses."""
        keys, entra, now = self._settings.api_keys, self._settings.entra, self._clock()
        caller = caller_of(headers, keys, now)
        if caller is None and entra and self._tokens and (token := token_of(headers)):
            claims = await self._tokens.claims(token)
            caller = None if claims is None else caller_by(claims, entra, now)
        if caller is None:
            raise self._refused(headers, now, closed=not keys and entra is None)
        return caller

    def _refused(self, headers: Mapping[str, str], now: float, *, closed: bool) -> HttpRefusal:
        refused = refusal(headers, closed=closed)
        if refused.code != WRONG_KEY:
            return refused
        wait = self._guesses.wrong(address_of(headers), now)
        return refused if wait is None else too_many(wait)

    async def _answer(self, caller: Caller, operation: OpenAiOperation, call: HttpCall) -> AnyReply:
        if isinstance(operation, FileOperation):
            return await self._on_files(caller, operation, call)
        if isinstance(operation, UploadOperation):
            return await self._on_uploads(caller, operation, call)
        if isinstance(operation, BatchOperation):
            return await self._on_batches(caller, operation, call)
        return await self._of_service(caller, operation, call)

    async def _of_service(
        self, caller: Caller, operation: ServiceOperation, call: HttpCall
    ) -> AnyReply:
        settings = self._settings
        match operation:
            case CreateEstimate():
                told = await self._estimates.told(read_body(EstimateCreate, call), caller.tenant)
                return JsonReply(200, told.model_dump(mode="json"))
            case ListModels():
                return shapes.listed(shapes.models_of(settings.deployments, settings.routes))
            case ReadModel(id=name):
                return self._model(name)
            case ReadOpenApi():
                return JsonReply(200, openapi.document())

    def _model(self, name: str) -> JsonReply:
        for each in shapes.models_of(self._settings.deployments, self._settings.routes):
            if each.id == name:
                return JsonReply(200, each.model_dump(mode="json"))
        code, message = ReadModel.unknown
        raise HttpRefusal(404, code, message, param="id")

    async def _on_files(self, caller: Caller, operation: FileOperation, call: HttpCall) -> AnyReply:
        match operation:
            case CreateFile():
                return await self._files.create(caller, call)
            case ListFiles():
                return await self._files.list(caller, operation)
            case DeleteFile(id=file):
                return await self._files.delete(caller, file)
            case ReadContent(id=file):
                return await self._files.content(caller, file)
            case ReadFile(id=file):
                return await self._files.read(caller, file)

    async def _on_uploads(
        self, caller: Caller, operation: UploadOperation, call: HttpCall
    ) -> AnyReply:
        match operation:
            case CreateUpload():
                return await self._uploads.create(caller, call)
            case AddPart(id=key):
                return await self._uploads.add_part(caller, key, call)
            case CompleteUpload(id=key):
                return await self._uploads.complete(caller, key, call)
            case CancelUpload(id=key):
                return await self._uploads.cancel(caller, key)

    async def _on_batches(
        self, caller: Caller, operation: BatchOperation, call: HttpCall
    ) -> AnyReply:
        match operation:
            case CreateBatch():
                return await self._batches.create(caller, call)
            case ListBatches():
                return await self._batches.list(caller, operation)
            case ActOnBatch():
                return await self._batches.act(caller, operation)
            case ReadEvents(id=job):
                return await self._batches.events(caller, job)
            case ReadManifest(id=job):
                return await self._batches.manifest(caller, job)
            case ReadReport(id=job):
                return await self._batches.report(caller, job)
            case ReplayWebhook(id=job):
                return await self._batches.replay(caller, job)
            case ReadBatch(id=job):
                return await self._batches.read(caller, job)


def check_length(headers: Mapping[str, str], held: int, *, needed: bool) -> None:
    """Refuse a body that is too long, or needed and lost, before it is read. Raises HttpRefusal.

    The Functions host reads bodies with a Content-Length only: of others nothing arrives.
    """
    given = headers.get("content-length")
    if needed and given is None and not held:
        raise HttpRefusal(
            411,
            "length_required",
            "the body came without a Content-Length, and is lost: give a file that can be "
            "measured (from Node not a stream, but `await openAsBlob(path)`), or send it in parts "
            "(client.uploads)",
        )
    length = int(given) if given and given.isascii() and given.isdecimal() else held
    if max(length, held) > MOST_BYTES + FORM_BYTES:
        raise HttpRefusal(
            413,
            "file_too_large",
            f"a file sent in one piece has at most {MOST_BYTES:,} bytes: send it in parts "
            "(client.uploads.upload_file_chunked)",
            param="file",
        )
