"""`phi3batch webhooks`: secrets that both sides know, and telling a receiver once more."""

import secrets
import sys
from argparse import Namespace
from typing import Final

from phi3batch.printing import print_json
from phi3batch.service import connected, each
from phi3batch.watching import told
from schemas.webhooks import secret_of

_BYTES: Final = 32


def run(given: Namespace) -> int:
    """The exit status, 0 where it was done, 1 where one batch refuses."""
    if given.action == "secret":
        print(secret_of(secrets.token_bytes(_BYTES)))
        print(
            "the secret is for the receiver, and for a setting that WEBHOOKS names in "
            "secret_settings",
            file=sys.stderr,
        )
        return 0
    tell = print_json if given.json else told
    with connected() as service:
        return each(given.ids, lambda batch_id: tell(service.replay(batch_id)))
