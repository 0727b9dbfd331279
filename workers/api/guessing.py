"""Does an address guess keys? Then its next wrong one is answered 429, not 401.

Each key and token is looked at first, and whoever has a right one is let in from anywhere: only
refusals come here.
"""

from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

from workers.api.http import HttpRefusal

FREE_GUESSES: Final = 20
GUESS_SECONDS: Final = 6.0
"""After which an address has one more free guess, up to those above."""
MOST_ADDRESSES: Final = 4096
_NETWORK: Final = 64  # of IPv6: whoever has one address mostly has all of its network


def address_of(headers: Mapping[str, str]) -> str:
    """Who calls, as the front end of App Service says; empty where there is none.

    It overwrites `client-ip`, and appends to `x-forwarded-for`, whose earlier entries callers make
    up (https://github.com/Azure/app-service-linux-docs, Things_You_Should_Know/headers.md).
    """
    said = headers.get("client-ip") or headers.get("x-forwarded-for", "").rpartition(",")[2]
    text = said.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{IPv6Address(int(address) >> _NETWORK << _NETWORK)}/{_NETWORK}"
    return str(address.ipv4_mapped if isinstance(address, IPv6Address) else address)


class Guesses:
    """How many wrong keys came from each address of late, for some thousands of addresses.

    Of each one time is kept: when all of its guesses will be free again (GCRA).
    """

    def __init__(self, most: int = MOST_ADDRESSES) -> None:
        self._most = most
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._free_at)

    def wrong(self, address: str, now: float) -> float | None:
        """Count a wrong key; the result is the seconds until the next guess, if none is left."""
        # Never further off than all of its guesses take, should the clock have stepped back.
        free_at = min(max(self._free_at.pop(address, now), now), now + FREE_GUESSES * GUESS_SECONDS)
        wait = free_at - now - (FREE_GUESSES - 1) * GUESS_SECONDS
        self._free_at[address] = free_at if wait > 0 else free_at + GUESS_SECONDS
        if len(self._free_at) > self._most:
            self._free_at.popitem(last=False)
        return wait if wait > 0 else None


def too_many(wait: float) -> HttpRefusal:
    """What an address that guesses is told."""
    return HttpRefusal(
        429,
        "too_many_wrong_keys",
        "too many wrong API keys came from this address: look at the key before you ask again",
        headers={"retry-after": str(ceil(wait)), "x-should-retry": "false"},
    )
