"""Network addresses in the forms in which audit lines have them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def is_within(remote: str, networks: Iterable[str]) -> bool:
    """Return whether an address is in one of the networks.

    A text that is no address is in none; a text that is no network holds none.
    """
    found = addresses_in(remote)
    for network in networks:
        try:
            holds = ip_network(network, strict=False)
        except ValueError:
            continue
        if any(address in holds for address in found):
            return True
    return False


def is_one_of(remote: str, addresses: frozenset[str]) -> bool:
    """Return whether an address is one of these, in whatever spelling."""
    if not remote:
        return False
    known = {address for text in addresses for address in addresses_in(text)}
    return remote in addresses or any(address in known for address in addresses_in(remote))


def addresses_in(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """Return the address in a text, and the IPv4 address that it maps, if any.

    The result is empty for a text that is no address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return ()
    if isinstance(address, IPv4Address):
        return (address,)
    # A zone names an interface of the server; it is not part of the peer's address.
    plain = IPv6Address(int(address))
    mapped = address.ipv4_mapped
    return (plain, mapped) if mapped else (plain,)
