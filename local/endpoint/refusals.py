"""How does each service say no? Statuses, bodies and headers of its refusals. Pure.

Worded after what the services document and were seen to send (docs/simulator.md has the list).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from .contracts import Ask, Contract, RequestError
from .limits import Exceeded, Remaining
from .profiles import ProfileName

_REASONS = {
    400: ("bad_request", "Bad request."),
    401: ("unauthorized", "Access denied due to invalid subscription key or token."),
    403: ("forbidden", "The principal lacks the role to score this endpoint."),
    404: ("not_found", "Resource not found."),
    408: ("timeout", "The operation was timeout."),
    409: ("conflict", "The deployment is being changed."),
    410: ("gone", "The deployment was retired."),
    413: ("request_too_large", "Request body too large."),
    422: ("unprocessable", "The request could not be processed."),
    429: ("too_many_requests", "Too many requests."),
    500: ("InternalServerError", "The server had an error while processing your request."),
    502: ("bad_gateway", "Bad gateway."),
    503: ("ServiceUnavailable", "The service is temporarily unable to process your request."),
    504: ("gateway_timeout", "The gateway did not get an answer in time."),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not a 200: what goes over the wire."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def error(
    profile: ProfileName,
    status: int,
    code: str,
    message: str,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """An error body as the service shapes it."""
    told: dict[str, Any] = {"code": code, "message": message}
    if profile == "github-models":
        told["details"] = message
    elif profile == "openai":
        kind = "requests" if status == 429 else "invalid_request_error"
        told |= {"type": kind, "param": param}
    sent = dict(headers or {})
    if profile == "serverless":
        sent["x-ms-error-code"] = code
    return Refusal(status, orjson.dumps({"error": told}), sent)


def unauthorized(profile: ProfileName) -> Refusal:
    """The key is missing or wrong."""
    if profile == "managed-online":
        text = b"key_auth_access_denied: the key is missing or invalid"
        return Refusal(401, text, {"www-authenticate": "Bearer"}, "text/plain")
    code, message = {
        "github-models": ("unauthorized", "Bad credentials"),
        "azure-openai": (
            "401",
            "Access denied due to invalid subscription key or wrong API endpoint.",
        ),
        "openai": ("invalid_api_key", "Incorrect API key provided."),
        "serverless": ("Unauthorized", "Invalid auth token."),
    }[profile]
    return error(profile, 401, code, message)


def no_such_path(profile: ProfileName) -> Refusal:
    """Nothing is served at the address."""
    return error(profile, 404, "404", "Resource not found")


def unknown_model(profile: ProfileName, contract: Contract, model: str) -> Refusal:
    """The model or deployment that the request names is not served."""
    if contract == "aml-score":
        text = f"Specified deployment {model} could not be found."
        return Refusal(404, orjson.dumps({"message": text}))
    if contract == "azure-openai" or profile == "azure-openai":
        return error(
            profile,
            404,
            "DeploymentNotFound",
            "The API deployment for this resource does not exist. If you created the deployment "
            "within the last 5 minutes, please wait a moment and try again.",
        )
    if contract == "model-inference":
        return error(profile, 400, "unknown_model", f"Unknown model: {model}")
    message = f"The model `{model}` does not exist."
    return error(profile, 404, "model_not_found", message, param="model")


def unsupported_task(profile: ProfileName, ask: Ask) -> Refusal:
    """The model is served, but cannot do what is asked of it."""
    message = f"The {ask.task} operation does not work with the specified model, {ask.model}."
    if ask.contract == "model-inference":
        return error(profile, 404, "not_found", f"Modality not supported by the model. {message}")
    return error(profile, 400, "OperationNotSupported", message)


def bad_request(profile: ProfileName, contract: Contract, fault: RequestError) -> Refusal:
    """The request is at fault: 422 of the Model Inference API, 424 of a container, else 400."""
    if contract == "aml-score":
        return model_error(400, fault.message)
    if contract == "model-inference" and fault.code != "invalid_json":
        loc = ["body", *([fault.param] if fault.param else [])]
        body = {
            "error": {"code": "parameter_not_supported", "message": fault.message},
            "status": 422,
            "code": "parameter_not_supported",
            "detail": {"loc": loc, "input": fault.param},
            "message": "One of the parameters contain invalid values.",
        }
        return Refusal(422, orjson.dumps(body), {"x-ms-error-code": "parameter_not_supported"})
    return error(profile, 400, fault.code, fault.message, param=fault.param)


def too_large(profile: ProfileName, ask: Ask, exceeded: Exceeded) -> Refusal:
    """More tokens than one request may have."""
    if ask.contract != "aml-score" and profile in ("github-models", "serverless"):
        message = (
            f"Request body too large for {ask.model} model. Max size: {exceeded.limit} tokens."
        )
        return error(profile, 413, "tokens_limit_reached", message)
    return too_long(profile, ask, exceeded.limit)


def too_long(profile: ProfileName, ask: Ask, context: int) -> Refusal:
    """Prompt and max_tokens together are more than the model's context."""
    if ask.contract == "aml-score" or profile == "managed-online":
        return model_error(400, f"Input is longer than {context} tokens.")
    completion = ask.max_tokens or 0
    message = (
        f"This model's maximum context length is {context} tokens. However, you requested "
        f"{ask.longest_prompt + completion} tokens ({ask.longest_prompt} in the messages, "
        f"{completion} in the completion). Please reduce the length of the messages or completion."
    )
    return error(profile, 400, "context_length_exceeded", message, param="messages")


def model_error(inner_status: int, reason: str) -> Refusal:
    """424 of a managed online endpoint: what its container answered, wrapped."""
    headers = {
        "ms-azureml-model-error-statuscode": str(inner_status),
        "ms-azureml-model-error-reason": "model_error",
    }
    body = {"error": {"code": "model_error", "message": reason, "status": inner_status}}
    return Refusal(424, orjson.dumps(body), headers)


def content_filter(profile: ProfileName, contract: Contract) -> Refusal:
    """The prompt was filtered: 400 with an innererror."""
    found = {"hate": _verdict("safe"), "violence": _verdict("medium")}
    told: dict[str, Any] = {
        "message": "The response was filtered due to the prompt triggering the content management "
        "policy. Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": found,
        },
    }
    if contract == "model-inference" and profile == "serverless":
        # The flat form that the Model Inference API documents, beside the one that is seen.
        flat = {"status": 400, "code": "content_filter", "message": "The response was filtered"}
        return Refusal(400, orjson.dumps({**flat, "param": "messages", "error": told}))
    return Refusal(400, orjson.dumps({"error": told}))


def plain(profile: ProfileName, status: int) -> Refusal:
    """Any other status, in the service's usual form; gateways answer in HTML or plain text."""
    if status == 401:
        return unauthorized(profile)
    if status in (502, 504):
        page = f"<html><head><title>{status}</title></head><body>simulated gateway</body></html>"
        return Refusal(status, page.encode(), {}, "text/html")
    code, message = _REASONS.get(status, ("error", f"Simulated status {status}."))
    return error(profile, status, code, message)


def remaining_headers(profile: ProfileName, left: Remaining) -> dict[str, str]:
    """What a good answer says of the quota, where the service says anything."""
    headers: dict[str, str] = {}
    if profile == "managed-online":
        return headers
    if left.requests is not None:
        headers["x-ratelimit-remaining-requests"] = str(left.requests)
    if left.tokens is not None:
        headers["x-ratelimit-remaining-tokens"] = str(left.tokens)
    return headers


def _verdict(severity: str) -> dict[str, Any]:
    return {"filtered": severity != "safe", "severity": severity}
