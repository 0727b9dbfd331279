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
# Networks for special purposes, those of `_PRIVATE` aside, of IANA's registries. The standard
# library's `is_global` tells of them too, but not alike in all releases of Python:
# https://www.iana.org/assignments/iana-ipv4-special-registry
# https://www.iana.org/assignments/iana-ipv6-special-registry
_SPECIAL: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        [
            *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            *("2001::/23", "2001:db8::/32", "3fff::/20"),
        ],
    )
)
# Where clouds' machines ask their platform, at addresses that look like anybody's or like those of
# a private network: Azure, Alibaba, AWS, Google and Oracle.
# https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
_PLATFORMS: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        [
            *("168.63.129.16", "100.100.100.200"),
            *("fd00:ec2::/32", "fd20:ce::254", "fd00:c1::a9fe:a9fe"),
        ],
    )
)


class ReceiverAddresses(NamedTuple):
    """Where a receiver may be. `private`: in private networks too; `secure`: asked over TLS."""

    private: bool
    secure: bool

    def allows(self, address: str) -> bool:
        """Whether an IP address may be connected to; what is none may not.

        Public addresses are for TLS alone. Link-local ones, and with them 169.254.169.254, are
        never allowed, nor are others at which metadata services of clouds are known to be.
        """
        try:
            found = _meant(ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        if _within(found, _PLATFORMS):
            return False
        if _within(found, _PRIVATE):
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


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in each for each in networks if each.version == address.version)


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _ASSIGNED:
        return False
    return not _within(address, _SPECIAL)
