"""Whether a shared access signature may use the namespace.

Source: "Service Bus access control with shared access signatures", Microsoft Learn.
"""

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl, quote_plus

from ..broker.errors import UnauthorizedError

KEY_NAME = "RootManageSharedAccessKey"
# The key that Microsoft's emulator has: one connection string serves both.
WELL_KNOWN_KEY = "SAS_KEY_VALUE"

_PREFIX = "SharedAccessSignature "


def check_token(token: str, key: str, now_ms: int) -> None:
    """Let a token pass that was signed with the key and has not expired.

    Raises:
        UnauthorizedError: the token is of another kind, expired or signed with another key.
    """
    fields = dict(parse_qsl(token.removeprefix(_PREFIX)))
    if not token.startswith(_PREFIX) or not {"sr", "sig", "se", "skn"} <= fields.keys():
        raise UnauthorizedError("InvalidToken: a SharedAccessSignature is required.")
    # The signature is over the resource as the client escaped it, which differs between clients.
    resource = token.split("sr=", 1)[1].split("&", 1)[0]
    candidates = {resource, quote_plus(fields["sr"], safe="")}
    signatures = {_sign(f"{candidate}\n{fields['se']}", key) for candidate in candidates}
    if fields["skn"] != KEY_NAME or not any(
        hmac.compare_digest(signature, fields["sig"].encode()) for signature in signatures
    ):
        raise UnauthorizedError("InvalidSignature: The token has an invalid signature.")
    if not fields["se"].isdecimal() or int(fields["se"]) * 1000 <= now_ms:
        raise UnauthorizedError("ExpiredToken: The token is expired.")


def _sign(text: str, key: str) -> bytes:
    return base64.b64encode(hmac.digest(key.encode(), text.encode(), hashlib.sha256))
