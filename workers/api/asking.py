"""What a call says of itself, to be told again in every event of the job that it makes."""

import re
from typing import Final

from schemas.jobs import TRACEPARENT, Asked
from workers.api.http import HttpCall, HttpRefusal

_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,128}")


def asked_by(call: HttpCall) -> Asked:
    """Who asks: the headers `Idempotency-Key` and `traceparent`. Raises HttpRefusal with 400."""
    key = call.headers.get("idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise HttpRefusal(
            400,
            "invalid_value",
            "Idempotency-Key: 1 to 128 visible ASCII characters",
            param="Idempotency-Key",
        )
    trace = call.headers.get("traceparent", "")
    return Asked(message_id=key, traceparent=trace if TRACEPARENT.fullmatch(trace) else None)
