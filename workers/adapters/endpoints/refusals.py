"""What does an answer that is not a success mean? Statuses and error bodies -> Outcome. Pure.

An endpoint's own words may repeat the prompt, so none of them reach an Outcome. What does: error
codes and parameter names that look like identifiers, the names of content-filter categories, and
the number of tokens a model takes. All else in a message is text from this file.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from schemas.outcomes import Outcome, OutcomeKind
from workers.adapters.endpoints.hints import limit_behind, retry_after

NO_SUCH_PATH = "no_such_path"
TASK_UNSUPPORTED = "task_unsupported"

_KIND_OF_STATUS: dict[int, OutcomeKind] = {
    401: "auth",
    402: "auth",
    403: "auth",
    404: "gone",
    405: "gone",
    408: "transient",
    409: "transient",
    410: "gone",
    424: "transient",
    425: "transient",
    429: "throttled",
    499: "transient",
    501: "gone",
}
_MODEL_UNKNOWN = frozenset(
    {"unknown_model", "model_not_found", "deploymentnotfound", "invalid_model"}
)
_MODEL_UNKNOWN_TEXT = re.compile(
    r"model\b.{0,300}(?:not found|does not exist|unknown)", re.I | re.S
)
_FILTERED = frozenset({"content_filter", "responsibleaipolicyviolation", "contentfilter"})
_TOO_LONG = frozenset(
    {
        "context_length_exceeded",
        "tokens_limit_reached",
        "string_above_max_length",
        "request_too_large",
    }
)
_CONTAINER_REFUSED = frozenset({400, 413, 415, 422})
_CATEGORIES = frozenset(
    {
        "hate",
        "self_harm",
        "sexual",
        "violence",
        "jailbreak",
        "profanity",
        "indirect_attack",
        "protected_material_text",
        "protected_material_code",
    }
)

_SAFE_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_SAFE_PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}(?:[.\[][A-Za-z0-9_]{1,40}\]?){0,6}")
_SAFE_ID = re.compile(r"[A-Za-z0-9_.:|-]{1,100}")
_MOST_TOKENS = re.compile(r"(?:context length is|max size:|longer than) (\d{2,8}) tokens", re.I)

_REQUEST_IDS = ("x-request-id", "apim-request-id", "x-ms-request-id", "request-id")

_SAID: dict[OutcomeKind, str] = {
    "throttled": "The endpoint's quota is used up for now: it asks to come back later",
    "transient": "The endpoint failed for a reason that may pass: ask the row again",
    "content_filter": "The content filter refused the row: change its text",
    "bad_request": "The endpoint refused the row: correct its parameters",
    "auth": "The endpoint refused the credentials: check the deployment's key or role",
    "gone": "The endpoint does not know the address or model: check the deployment's url and model",
}


_SAID_OF_TASK = "The deployment cannot do the row's task: name its tasks in DEPLOYMENTS"


def refusal(status: int, headers: Mapping[str, str], body: Any, now: float) -> Outcome:
    """The outcome of an answer with a status other than 2xx.

    `body` is the parsed JSON, or None where there was none; `now` is seconds since the epoch.
    """
    error = _error_of(body)
    code = _code_of(error, headers)
    text = error.get("message")
    text = text if isinstance(text, str) else ""
    kind = _kind_of(status, code.lower(), error, headers)
    if _is_about_the_task(status, code.lower(), text):
        kind, code = "bad_request", TASK_UNSUPPORTED
    elif kind == "gone" and _is_about_the_path(status, code.lower(), text):
        code = NO_SUCH_PATH
    limit = limit_behind(headers, code, text) if kind == "throttled" else None
    return Outcome(
        kind=kind,
        status=status,
        code=code or f"http_{status}",
        message=_message(kind, status, code, error, text),
        request_id=request_id(headers),
        retry_after=retry_after(headers, text, now=now, limit=limit),
        limit=limit,
        billed=_may_be_billed(kind, status, code.lower()),
    )


def reported(status: int, headers: Mapping[str, str], body: Any) -> Outcome:
    """The outcome of an error that came with a success status: in a body, or within a stream."""
    error = _error_of(body)
    code = _code_of(error, headers)
    kind: OutcomeKind = "content_filter" if _is_filtered(code.lower(), error) else "transient"
    return Outcome(
        kind=kind,
        status=status,
        code=code or "reported_error",
        message=_message(kind, status, code, error, ""),
        request_id=request_id(headers),
        billed=True,
    )


def task_unsupported(outcome: Outcome) -> Outcome:
    """A path that is missing, at an endpoint that is known to do other tasks."""
    said = f"{_SAID_OF_TASK} (HTTP {outcome.status})"
    return replace(outcome, kind="bad_request", code=TASK_UNSUPPORTED, message=said)


def request_id(headers: Mapping[str, str]) -> str | None:
    """The service's own name for the call, for its support."""
    for name in _REQUEST_IDS:
        value = headers.get(name)
        if value and _SAFE_ID.fullmatch(value):
            return value
    return None


def filter_categories(verdicts: Any) -> list[str]:
    """The content-filter categories that struck, by their documented names only."""
    if not isinstance(verdicts, dict):
        return []
    return sorted(
        name
        for name in _CATEGORIES & verdicts.keys()
        if isinstance(verdicts[name], dict) and verdicts[name].get("filtered") is True
    )


def filtered_message(categories: list[str]) -> str:
    """What an error row says of a filtered row."""
    return _SAID["content_filter"] + (f" (filtered: {', '.join(categories)})" if categories else "")


def _kind_of(
    status: int, code: str, error: Mapping[str, Any], headers: Mapping[str, str]
) -> OutcomeKind:
    if status == 424:
        return _kind_of_container(headers)
    if status in (400, 422) and _is_filtered(code, error):
        return "content_filter"
    if status == 400 and code in _MODEL_UNKNOWN:
        return "gone"
    if status in _KIND_OF_STATUS:
        return _KIND_OF_STATUS[status]
    if status >= 500:
        return "transient"
    return "gone" if 300 <= status < 400 else "bad_request"


def _kind_of_container(headers: Mapping[str, str]) -> OutcomeKind:
    """424 wraps what the container of a managed online endpoint answered."""
    try:
        inner = int(headers.get("ms-azureml-model-error-statuscode", ""))
    except ValueError:
        return "transient"
    if inner == 429:
        return "throttled"
    return "bad_request" if inner in _CONTAINER_REFUSED else "transient"


def _is_filtered(code: str, error: Mapping[str, Any]) -> bool:
    inner = error.get("innererror")
    inner_code = str(inner.get("code", "")).lower() if isinstance(inner, dict) else ""
    return code in _FILTERED or inner_code in _FILTERED


def _is_about_the_task(status: int, code: str, text: str) -> bool:
    """Whether the model is there and cannot do what is asked: no reason to stop the deployment."""
    return (status == 400 and code == "operationnotsupported") or (
        status == 404 and "modality" in text[:2000].lower()
    )


def _is_about_the_path(status: int, code: str, text: str) -> bool:
    """Whether the address is unknown, rather than the model that it was asked for."""
    named = code in _MODEL_UNKNOWN or _MODEL_UNKNOWN_TEXT.search(text[:2000])
    return status in (404, 405, 501) and not named


def _may_be_billed(kind: OutcomeKind, status: int, code: str) -> bool:
    """Azure bills what was processed: filtered prompts, inputs found too long, time-outs too.

    Source: Azure OpenAI, "Plan to manage costs". A gateway's 5xx may hide a request that ran.
    """
    if kind == "content_filter" or status == 408 or status >= 500:
        return True
    return (status == 424 and kind == "transient") or (status == 400 and code in _TOO_LONG)


def _error_of(body: Any) -> Mapping[str, Any]:
    """The error in its many shapes: OpenAI's, the flat one, FastAPI's `detail`, a bare string."""
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    if isinstance(error, str):
        return {"message": error, "code": body.get("error_type")}
    if not isinstance(error, dict):
        return {}
    detail = error.get("detail", body.get("detail"))
    first = detail[0] if isinstance(detail, list) and detail else detail
    if not isinstance(first, dict):
        return error
    location = first.get("loc")
    named = _path(location) if isinstance(location, list) else None
    return {"code": first.get("type"), **error, "param": error.get("param") or named}


def _path(location: list[Any]) -> str | None:
    """FastAPI's `["body", "messages", 0, "content"]` as `messages[0].content`."""
    path = ""
    for part in location[1:] if location and location[0] == "body" else location:
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{part}"
    return path or None


def _code_of(error: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    for value in (error.get("code"), error.get("type"), headers.get("x-ms-error-code")):
        if isinstance(value, str) and _SAFE_CODE.fullmatch(value):
            return value
    return ""


def _message(kind: OutcomeKind, status: int, code: str, error: Mapping[str, Any], text: str) -> str:
    facts = [f"HTTP {status}"] + ([f"code {code}"] if code else [])
    param = error.get("param")
    if kind == "bad_request" and isinstance(param, str) and _SAFE_PARAM.fullmatch(param):
        facts.append(f"parameter {param}")
    said = _SAID[kind]
    if kind == "bad_request" and (status == 413 or code.lower() in _TOO_LONG):
        said = "The row is longer than the endpoint takes: shorten it or lower max_tokens"
        most = _MOST_TOKENS.search(text[:2000])
        facts += [f"at most {most[1]} tokens"] if most else []
    elif code == TASK_UNSUPPORTED:
        said = _SAID_OF_TASK
    elif kind == "content_filter":
        inner = error.get("innererror")
        verdicts = inner.get("content_filter_result") if isinstance(inner, dict) else None
        said = filtered_message(filter_categories(verdicts))
    return f"{said} ({', '.join(facts)})"
