"""How does a receiver know who has sent a webhook? By the signatures of Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping


def signed(identity: str, at: int, body: bytes, keys: Iterable[bytes]) -> Mapping[str, str]:
    """The headers of a webhook that is sent `at` a time, in seconds since the epoch.

    Each key signs: while a secret is being changed, receivers may know either.
    """
    content = b".".join((identity.encode(), str(at).encode(), body))
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(_signature(key, content) for key in keys),
    }


def _signature(key: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
