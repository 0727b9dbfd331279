"""Which shared access signatures open the namespace."""

import base64
import hashlib
import hmac
from urllib.parse import quote, quote_plus

import pytest

from local.servicebus.broker.errors import UnauthorizedError
from local.servicebus.server.tokens import KEY_NAME, WELL_KNOWN_KEY, check_token

NOW_MS = 1_700_000_000_000
RESOURCE = "sb://127.0.0.1:5672/jobs"


def token(
    *,
    key: str = WELL_KNOWN_KEY,
    name: str = KEY_NAME,
    expires: str = str(NOW_MS // 1000 + 60),
    resource: str = quote_plus(RESOURCE),
) -> str:
    signature = hmac.digest(key.encode(), f"{resource}\n{expires}".encode(), hashlib.sha256)
    encoded = quote_plus(base64.b64encode(signature))
    return f"SharedAccessSignature sr={resource}&sig={encoded}&se={expires}&skn={name}"


@pytest.mark.parametrize(
    "resource",
    [
        quote_plus(RESOURCE),
        quote(RESOURCE, safe="").lower(),  # clients differ in how they escape
        RESOURCE,
    ],
)
def test_a_token_of_one_who_knows_the_key(resource: str) -> None:
    check_token(token(resource=resource), WELL_KNOWN_KEY, NOW_MS)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (token(key="another"), "InvalidSignature"),
        (token(name="Nobody"), "InvalidSignature"),
        (token() + "0", "InvalidSignature"),
        (token().replace("jobs", "all"), "InvalidSignature"),
        (token(expires=str(NOW_MS // 1000)), "ExpiredToken"),
        (token(expires="never"), "ExpiredToken"),
        ("", "InvalidToken"),
        ("eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.e30.c2ln", "InvalidToken"),
        ("SharedAccessSignature sr=a&sig=b", "InvalidToken"),
        (token().removeprefix("SharedAccessSignature "), "InvalidToken"),
    ],
)
def test_any_other_token(wrong: str, why: str) -> None:
    with pytest.raises(UnauthorizedError, match=why):
        check_token(wrong, WELL_KNOWN_KEY, NOW_MS)
