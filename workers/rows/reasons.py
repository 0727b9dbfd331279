"""What a row without an answer is told, where its endpoint gave no better words."""

from collections.abc import Mapping

from schemas.jobs import Ending, Reason

ADVICE: Mapping[str, str] = {
    "throttled": "the deployment kept refusing for its quota: drop this row again later",
    "transient": "the deployment kept failing: drop this row again later",
    "timeout": "no answer in time: ask for fewer tokens, or drop this row again later",
    "content_filter": "refused by the content filter: change the prompt",
    "bad_request": "refused by the deployment as a bad request: change the row",
    "auth": "the deployment refused the key or role: mend the setting, then drop this row again",
    "gone": "the deployment does not exist: mend DEPLOYMENTS, then drop this row again",
    "ok": "",
}
"""What to do, by what became of the last call."""

CRASHED = Reason(
    code="worker_crashed",
    message="given up: the last three workers that asked it crashed; drop this row again by itself",
)
DUPLICATE = (
    "its custom_id stood earlier in the file: give every row its own, set the option on_duplicate "
    "to number, or drop this line again, to have it asked under the custom_id in its request"
)


def default_reason(ending: Ending) -> Reason:
    """What rows that the job leaves without an answer are told where it has no reason of its own.

    Some may have been asked before, in vain or as the job ended: the text is true of all.
    """
    message = {
        "cancelled": "no answer: the job was cancelled; drop this row again to run it",
        "expired": "no answer: the completion window passed; drop this row again to run it",
        "failed": "no answer: the job failed; mend its reason and drop this row again",
    }[ending]
    return Reason(code=f"job_{ending}", message=message)
