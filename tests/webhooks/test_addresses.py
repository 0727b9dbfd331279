"""Receivers are where they may be: nobody is made to ask what only the service can reach."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.webhooks.addresses import ReceiverAddresses

PUBLIC = ReceiverAddresses(private=False, secure=True)
PRIVATE = ReceiverAddresses(private=True, secure=True)
PLAIN = ReceiverAddresses(private=True, secure=False)

OUTSIDE = ("93.184.215.14", "20.50.2.1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a01:111::1")
INSIDE = (
    *("10.0.0.1", "172.16.5.4", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.9.9.9"),
    *("100.64.0.1", "::1", "fd00::1", "fc00:1::2"),
)
# Of nobody, of metadata services and platforms, or of everybody.
NEVER = (
    *("169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "168.63.129.16", "0.0.0.0"),
    *("255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9"),
    *("::", "ff02::1", "2001:db8::1", "2001::1", "::ffff:169.254.169.254", "fec0::1"),
    *("64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254", "100::1"),
    *("192.0.0.192", "192.0.0.9", "192.88.99.1", "3fff::1", "2001:20::1"),
    *("100.100.100.200", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe"),
    *("64:ff9b::6464:64c8", "::ffff:100.100.100.200"),
    *("", "localhost", "169.254.169.254:80", "0x7f000001", "2130706433", "127.1"),
)


def mapped(address: str) -> str:
    return f"::ffff:{address}"


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_addresses_are_for_tls_alone(address: str) -> None:
    assert PUBLIC.allows(address)
    assert PRIVATE.allows(address)
    assert not PLAIN.allows(address)


@pytest.mark.parametrize("address", INSIDE)
def test_private_ones_are_for_those_who_say_so(address: str) -> None:
    assert not PUBLIC.allows(address)
    assert PRIVATE.allows(address)
    assert PLAIN.allows(address)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_services_and_what_is_no_receiver_are_never_allowed(address: str) -> None:
    assert not PUBLIC.allows(address)
    assert not PRIVATE.allows(address)
    assert not PLAIN.allows(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_each_of_its_forms(address: IPv4Address) -> None:
    number = int(address)
    high, low = number >> 16, number & 0xFFFF
    forms = (
        mapped(str(address)),
        f"::ffff:{high:x}:{low:x}",
        f"64:ff9b::{high:x}:{low:x}",
        f"2002:{high:x}:{low:x}::1",
    )
    for rule in (PUBLIC, PRIVATE, PLAIN):
        assert {rule.allows(form) for form in forms} == {rule.allows(str(address))}, address


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_nothing_that_is_not_global_is_public(address: IPv4Address | IPv6Address) -> None:
    embeds = isinstance(address, IPv6Address) and (address.ipv4_mapped or address.sixtofour)
    if not address.is_global and not embeds and not str(address).startswith("64:ff9b:"):
        assert not PUBLIC.allows(str(address))


@given(st.text(max_size=40))
def test_what_is_no_address_is_not_allowed(text: str) -> None:
    if PRIVATE.allows(text):
        assert set(text.partition("%")[0]) <= set("0123456789abcdefABCDEF:.")
