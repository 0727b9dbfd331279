"""What to do about rows that ended with an error, by its code."""

from collections.abc import Mapping
from typing import Final, get_args

from schemas.history import ErrorCount
from schemas.jobs import Ending
from schemas.results import CodeCount
from workers.rows.reasons import ADVICE, CRASHED, DUPLICATE, default_reason
from workers.rows.writing import OTHER

_USUAL: Final = "what is wrong, and what to do, stands in the message of each such line"
_WHOLE: Final = "the whole job failed for this: its reason says what to do"
_UNREADABLE: Final = (
    "the deployment's answers could not be used: drop this row again later, and look at the "
    "deployment if it goes on"
)
_TOO_LONG: Final = (
    "longer than the model reads at a time: shorten the prompt, lower max_tokens, or name a model "
    "with a longer context"
)
_OF_ROWS: Final[Mapping[str, str]] = {
    "invalid_json": "the line is no JSON in UTF-8: mend it where its message says, and drop it "
    "again",
    "invalid_row": "a field is missing, or has a value that it cannot have: mend the one that its "
    "message names, and drop the row again",
    "unknown_row": "not a request in any form that is known: give it url and body, messages, "
    "prompt, input or input_data, or make a request of it by the option template",
    "unknown_url": "its url is none that is known: name one of those in its message",
    "url_mismatch": "it asks for another endpoint than its job: send such rows as a job of their "
    "own, or with the option mixed",
    "line_too_long": "shorten the line, or raise MAX_LINE_BYTES, and drop it again",
    "raw_incomplete": "what stands in errors.jsonl is not the whole line: take it from the first "
    "file",
    "template_field": "a field of the template is missing, or has no form in which it can stand "
    "there: fill it, or set the option on_missing to empty",
    "request_too_large": "larger than one request may be: shorten the row, or lower max_tokens",
    "no_model": "it names no model, nor does its job: set the option model, and drop errors.jsonl "
    "again",
    "unknown_model": "nothing serves the model that it names: correct the name in the row, or add "
    "a deployment of it to DEPLOYMENTS, then drop the row again",
    "no_price": "what may answer it had no price when the job was made, and a cap on cost needs "
    "one: give the deployment its price in DEPLOYMENTS, then drop errors.jsonl again",
    "max_tokens_missing": "nothing bounds its answer, and its job has a cap: set the option "
    "max_tokens, and drop errors.jsonl again",
    "unknown_cost": "it has a field of which nobody knows what it adds to the cost, and its job "
    "has a cap: remove the field that its message names",
    "context_length_exceeded": _TOO_LONG,
    "no_deployment": "no deployment does what it asks: add one to DEPLOYMENTS, or name its tasks "
    "there, then drop this row again",
    "unsupported_parameter": "the deployment cannot be asked with a parameter of it: remove the "
    "one that its message names, or ask another model",
    "unencodable": "it holds what no JSON in UTF-8 can carry: take that out of its text",
    "unwritable_answer": "the answer is no JSON that could be written: change the prompt, or mend "
    "the deployment",
    "answer_too_large": "its answer is larger than may be: ask for fewer tokens, choices or inputs",
    "task_unsupported": "the deployment cannot do the row's task: name its tasks in DEPLOYMENTS, "
    "then drop this row again",
    "token_unavailable": "no token could be had for the deployment: give the identity its role, "
    "then drop this row again",
    "deadline": ADVICE["timeout"],
    "connect_failed": "the deployment could not be reached: mend its url or the network, then "
    "drop this row again",
    "not_sent": "the request could not be sent: mend the deployment's url and headers, then drop "
    "this row again",
    "no_such_path": "nothing is at the deployment's address: mend its url, then drop this row "
    "again",
    "unreadable_answer": _UNREADABLE,
    "truncated_stream": _UNREADABLE,
    "empty_answer": _UNREADABLE,
    "embeddings_mismatch": _UNREADABLE,
    "connection_lost": ADVICE["transient"],
    "reported_error": ADVICE["transient"],
}
"""What this service finds wrong with rows, requests and answers."""

_OF_ENDPOINTS: Final[Mapping[str, str]] = {
    word: advice
    for words, advice in (
        (
            "internalservererror internalerror servererror serviceunavailable overloaded "
            "overloadederror badgateway gatewaytimeout",
            ADVICE["transient"],
        ),
        ("toomanyrequests ratelimitexceeded ratelimitreached ratelimiterror", ADVICE["throttled"]),
        (
            "unauthorized forbidden invalidapikey authenticationerror permissiondenied "
            "permissionerror",
            ADVICE["auth"],
        ),
        ("modelnotfound deploymentnotfound invalidmodel", ADVICE["gone"]),
        ("responsibleaipolicyviolation contentfilter", ADVICE["content_filter"]),
        ("tokenslimitreached stringabovemaxlength", _TOO_LONG),
        (
            "invalidrequesterror invalidrequest badrequest badrequesterror unprocessableentity",
            "refused by the deployment as a bad request: change what its message names",
        ),
    )
    for word in words.split()
}
"""Usual words of endpoints, in small letters alone."""

_OF_STATUS: Final[Mapping[int, str]] = {
    **dict.fromkeys((401, 402, 403), ADVICE["auth"]),
    **dict.fromkeys((404, 405, 410, 501), ADVICE["gone"]),
    **dict.fromkeys((408, 409, 424, 425, 499), ADVICE["transient"]),
    413: _TOO_LONG,
    429: ADVICE["throttled"],
}
_OF_CODE: Final[Mapping[str, str]] = {
    **ADVICE,
    **_OF_ROWS,
    CRASHED.code: CRASHED.message,
    "duplicate_custom_id": DUPLICATE,
    "budget_exceeded": "the job's cap left no room for them: drop errors.jsonl again with a new "
    "max_cost or max_total_tokens; a lower max_tokens makes room for more",
    OTHER: "the rarest codes, counted together: look at errors.jsonl",
    **{reason.code: reason.message for reason in map(default_reason, get_args(Ending))},
}


def advised(
    codes: Mapping[str, CodeCount], *, failed_for: str | None = None
) -> tuple[ErrorCount, ...]:
    """Rows by code with what to do, the most frequent first.

    Where the job failed as a whole for such a code, its reason says that.
    """
    ordered = sorted(codes.items(), key=lambda each: (-each[1].rows, each[0]))
    return tuple(
        ErrorCount(
            **{**count.model_dump(), "code": code, "advice": _advice(code, failed_for)},
        )
        for code, count in ordered
    )


def _advice(code: str, failed_for: str | None) -> str:
    if code == failed_for:
        return _WHOLE
    own = _OF_CODE.get(code) or _of_status(code)
    return own or _OF_ENDPOINTS.get(code.lower().replace("_", "")) or _USUAL


def _of_status(code: str) -> str | None:
    """Of an endpoint that told its status alone."""
    status = code.removeprefix("http_")
    if status == code or not status.isdecimal():
        return None
    if int(status) < 300:
        return None  # it refuses nothing
    usual = ADVICE["transient"] if int(status) >= 500 else ADVICE["bad_request"]
    return _OF_STATUS.get(int(status), ADVICE["gone"] if int(status) < 400 else usual)
