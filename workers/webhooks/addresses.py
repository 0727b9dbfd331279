"""Which addresses may a webhook's receiver have? Asked of what is connected to, not of a name."""

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PRIVATE: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "127.0.0.0/8",
            "100.64.0.0/10",
            "::1/128",
            "fc00::/7",
        ],
    )
)
# Everything else of IPv6 is for special purposes, or for nobody yet.
_ASSIGNED: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
# Azure's machines ask their platform at this address, which looks like anybody's:
# https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
_PLATFORM: Final = IPv4Address("168.63.129.16")


class ReceiverAddresses(NamedTuple):
    """Where a receiver may be. `private`: in private networks too; `secure`: asked over TLS."""

    private: bool
    secure: bool

    def allows(self, address: str) -> bool:
        """Whether an IP address may be connected to; what is none may not.

        Public addresses are for TLS alone. Those of metadata services (169.254.169.254 and its
        like) are never allowed.
        """
        try:
            found = _meant(ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        if any(found in network for network in _PRIVATE if network.version == found.version):
            return self.private
        return self.secure and _public(found)


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, where it is made of one."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _ASSIGNED:
        return False
    special = address.is_multicast or address.is_reserved or address == _PLATFORM
    return address.is_global and not special
