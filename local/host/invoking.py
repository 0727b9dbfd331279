"""One invocation: decode what triggered it, call the function, log how it went.

The decoders are those of the azure-functions package and its blob extension, fed with what the
host sends the worker over gRPC: a `Datum` for the value and one for each field of the trigger's
metadata (Azure/azure-functions-host, GrpcMessageConversionExtensions.ToRpc).
"""

import asyncio
import inspect
import json
import logging
import os
import secrets
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import azure.functions as func
from azure.functions.meta import Datum
from azurefunctions.extensions.base import Datum as DeferredDatum

from local.host.loading import CONVERTERS, DEFERRED_CONVERTERS, Function

logger = logging.getLogger("local.host")

EXIT_TIMED_OUT = 70


@dataclass(frozen=True, slots=True)
class BlobReference:
    """What a deferred blob binding carries: the model binding data `AzureStorageBlobs`."""

    version: str
    source: str
    content_type: str
    content: str

    @classmethod
    def to(cls, connection: str, container: str, name: str) -> "BlobReference":
        """A reference to one blob; `connection` is the name of a setting."""
        content = {"Connection": connection, "ContainerName": container, "BlobName": name}
        return cls("1.0", "AzureStorageBlobs", "application/json", json.dumps(content))


@dataclass(frozen=True, slots=True)
class TraceContext:
    """W3C trace context of an invocation."""

    trace_parent: str
    trace_state: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InvocationContext:
    """What a function's `context: func.Context` gives, without the retry policy's part."""

    invocation_id: str
    function_name: str
    function_directory: str
    trace_context: TraceContext
    thread_local_storage: threading.local
    retry_context: None = None


class InvocationFailedError(Exception):
    """The function raised, or its input could not be decoded. Logged already."""


class Invoker:
    """Calls functions, each with its own id, and gives up the process where one never ends.

    `timeout` is host.json's functionTimeout in seconds; None is unbounded. As in Azure, a call
    that takes longer is not cancelled: the process ends, other invocations with it. `stopping` is
    to be set when the host ends.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._local = threading.local()
        self.running: set[asyncio.Task[Any]] = set()
        self.stopping = False

    async def invoke(
        self,
        function: Function,
        value: Any,
        metadata: Mapping[str, Datum],
        *,
        reason: str,
        trace_parent: str | None = None,
    ) -> Any:
        """Call `function` and give what it returned. Errors: `InvocationFailedError`."""
        invocation_id = str(uuid.uuid4())
        logger.debug(
            "Executing 'Functions.%s' (Reason='%s', Id=%s)", function.name, reason, invocation_id
        )
        began = time.monotonic()
        try:
            arguments = {function.parameter: decode(function, value, metadata)}
            if function.takes_context:
                arguments["context"] = self._context(function, invocation_id, trace_parent)
            result = await self._call(function, arguments)
        except Exception as error:
            self._log_end(function, invocation_id, began, "Failed")
            if self.stopping:
                # The app gives back what it cannot end in time: that is how it should stop.
                logger.info("Function '%s' gave its work back: %s", function.name, error)
            else:
                logger.exception("Function '%s' failed", function.name)
            raise InvocationFailedError(function.name) from error
        except asyncio.CancelledError:
            self._log_end(function, invocation_id, began, "Cancelled")
            raise
        self._log_end(function, invocation_id, began, "Succeeded")
        return result

    def _log_end(self, function: Function, invocation_id: str, began: float, how: str) -> None:
        logger.debug(
            "Executed 'Functions.%s' (%s, Id=%s, Duration=%dms)",
            function.name,
            how,
            invocation_id,
            (time.monotonic() - began) * 1000,
        )

    async def _call(self, function: Function, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(function.call):
            task = asyncio.create_task(function.call(**arguments))
        else:
            task = asyncio.create_task(asyncio.to_thread(function.call, **arguments))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            logger.critical(
                "Timeout value of %s s exceeded by function '%s': the host ends",
                self._timeout,
                function.name,
            )
            logging.shutdown()
            os._exit(EXIT_TIMED_OUT)
        result = task.result()
        if result is not None and function.kind != "httpTrigger":
            raise TypeError(
                f"function {function.name!r} without a $return binding returned a value"
            )
        return result

    def _context(
        self, function: Function, invocation_id: str, trace_parent: str | None
    ) -> InvocationContext:
        self._local.invocation_id = invocation_id
        return InvocationContext(
            invocation_id=invocation_id,
            function_name=function.name,
            function_directory=str(function.folder),
            trace_context=TraceContext(trace_parent or new_trace_parent(), "", {}),
            thread_local_storage=self._local,
        )


def decode(function: Function, value: Any, metadata: Mapping[str, Datum]) -> Any:
    """The argument that Azure's worker would hand to the function."""
    if isinstance(value, BlobReference):
        return DEFERRED_CONVERTERS.get(function.kind).decode(
            DeferredDatum(value, "model_binding_data"),
            trigger_metadata=metadata,
            pytype=function.pytype,
        )
    return CONVERTERS.get(function.kind).decode(value, trigger_metadata=metadata)


def encode_response(result: Any) -> dict[str, Datum]:
    """An HTTP function's answer as the worker sends it to the host."""
    converter = CONVERTERS.get("http")
    datum = converter.encode(result, expected_type=None)
    if datum.type == "string":
        datum = converter.encode(func.HttpResponse(datum.value), expected_type=None)
    encoded: dict[str, Datum] = datum.value
    return encoded


def new_trace_parent() -> str:
    """A W3C traceparent that begins a trace."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def text(value: str | None) -> Datum | None:
    """A text of the trigger's metadata."""
    return None if value is None else Datum(value, "string")


def number(value: int | None) -> Datum | None:
    """A whole number of the trigger's metadata."""
    return None if value is None else Datum(value, "int")


def as_json(value: Any) -> Datum | None:
    """Anything else of the trigger's metadata, as the host's serializer writes it."""
    return None if value is None else Datum(json.dumps(value, default=str), "json")


def present(**fields: Datum | None) -> dict[str, Datum]:
    """A trigger's metadata without the fields that a message does not have."""
    return {name: datum for name, datum in fields.items() if datum is not None}
