"""Is a success really one? Bodies of 2xx answers, in OpenAI's shape -> Outcome. Pure.

A 200 may carry HTML, half a body, an error, no choices, a filtered choice, or vectors for other
inputs than those that were sent. None of these may become a row's result.
"""

from collections.abc import Mapping
from typing import Any

from schemas.deployments import Task
from schemas.outcomes import Outcome, Usage
from workers.adapters.endpoints.hints import remaining
from workers.adapters.endpoints.refusals import (
    filter_categories,
    filtered_message,
    reported,
    request_id,
)
from workers.rows.packing import by_index, count_inputs


def answer(
    task: Task, status: int, headers: Mapping[str, str], body: Any, inputs: int | None
) -> Outcome:
    """The outcome of an answer with a 2xx status.

    `body` is the parsed JSON in OpenAI's shape, or None where it was not readable; `inputs` is
    how many vectors an embeddings request asked for (None: unknown).
    """
    if not isinstance(body, dict):
        return unusable("unreadable_answer", "The answer is not JSON", status, headers)
    if "error" in body and not body.get("choices") and not body.get("data"):
        return reported(status, headers, body)
    if task in ("embeddings", "image-embeddings"):
        return _embeddings(status, headers, body, inputs)
    return _choices(task, status, headers, body)


def unusable(
    code: str, what: str, status: int | None, headers: Mapping[str, str] | None = None
) -> Outcome:
    """A success status with an answer that cannot be used: it ran, and may have been billed."""
    return Outcome(
        kind="transient",
        status=status,
        code=code,
        message=f"{what}: ask the row again",
        request_id=request_id(headers) if headers else None,
        billed=True,
    )


def inputs_of(task: Task, body: Mapping[str, Any]) -> int | None:
    """How many vectors a request asks for; None for the other tasks."""
    return count_inputs(body.get("input")) if task in ("embeddings", "image-embeddings") else None


def choices_of(body: Mapping[str, Any]) -> int:
    """How many choices a request asks for: `n` for each of its prompts."""
    n, prompt = body.get("n"), body.get("prompt")
    each = n if type(n) is int and n > 0 else 1
    return each * (len(prompt) if isinstance(prompt, list) else 1)


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """Tokens as the endpoint counted them; None if it did not, or not in numbers."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage.get("prompt_tokens", usage.get("total_tokens")))
    completion = _count(usage.get("completion_tokens") or 0)
    return None if prompt is None or completion is None else Usage(prompt, completion)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _good(status: int, headers: Mapping[str, str], body: dict[str, Any]) -> Outcome:
    return Outcome(
        kind="ok",
        status=status,
        body=body,
        usage=usage_of(body),
        request_id=request_id(headers),
        remaining_requests=remaining(headers, "requests"),
        remaining_tokens=remaining(headers, "tokens"),
        billed=True,
    )


def _choices(task: Task, status: int, headers: Mapping[str, str], body: dict[str, Any]) -> Outcome:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return unusable("empty_answer", "The answer holds no choices", status, headers)
    if all(isinstance(each, dict) for each in choices):
        if all(each.get("finish_reason") == "content_filter" for each in choices):
            return _filtered(status, headers, body, choices)
        if all(_is_choice(task, each) for each in choices):
            return _good(status, headers, body)
    return unusable("unreadable_answer", "The answer's choices are malformed", status, headers)


def _is_choice(task: Task, choice: Mapping[str, Any]) -> bool:
    if task == "chat":
        return isinstance(choice.get("message"), dict)
    return isinstance(choice.get("text"), str)


def _filtered(
    status: int, headers: Mapping[str, str], body: dict[str, Any], choices: list[dict[str, Any]]
) -> Outcome:
    struck = {
        name for each in choices for name in filter_categories(each.get("content_filter_results"))
    }
    return Outcome(
        kind="content_filter",
        status=status,
        body=body,
        usage=usage_of(body),
        code="content_filter",
        message=filtered_message(sorted(struck)),
        request_id=request_id(headers),
        billed=True,
    )


def _embeddings(
    status: int, headers: Mapping[str, str], body: dict[str, Any], inputs: int | None
) -> Outcome:
    data = body.get("data")
    if not isinstance(data, list) or not data:
        return unusable("empty_answer", "The answer holds no embeddings", status, headers)
    ordered = by_index(data, len(data) if inputs is None else inputs)
    if ordered is None:
        what = "The answer does not hold one embedding for each input"
        return unusable("embeddings_mismatch", what, status, headers)
    return _good(status, headers, body | {"data": ordered})
