"""Name the peer of a connection, and choose which connection to end first.

An address does not show whether a peer is Vault: only a canary does (`audit/files/untrusted.py`). Addresses are
used for two things alone. Connections of one address share the places for untrusted senders, so that many of them
cannot push out one of another address; and an address that a canary vouched for before is ended last.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

_NETWORK_BITS = 64
_G = TypeVar("_G", bound="Guest")


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer of a connection.

    `name` is equal for all connections of one sender. `group` is what belongs to one party: an address, or the /64
    of an IPv6 address, since a party that has one address of a /64 has all of them.
    """

    name: str
    group: str


@dataclass(slots=True)
class Guest:
    """A connection that may be ended when there are too many.

    `since` is when it was accepted (`time.monotonic()`), `came_whole` that it sent something complete, `busy` that
    it is sending something, and `known` that a canary vouched for its peer before.
    """

    peer: Peer
    since: float
    came_whole: bool = False
    busy: bool = False
    known: bool = False


def peer_at(kind: str, host: str) -> Peer:
    """Return the peer at an address.

    An IPv4 address in the form `::ffff:…` is the IPv4 address.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return Peer(f"{kind}-{host}", host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    group = str(address)
    if isinstance(address, IPv6Address):
        group = str(int(address) >> _NETWORK_BITS)
    return Peer(f"{kind}-{address}", group)


def peer_of(connection: socket.socket) -> tuple[Peer, str]:
    """Return the peer of a connection to a socket device, and a label.

    The label tells one connection of the peer from another.
    """
    if connection.family == socket.AF_UNIX:
        if not hasattr(socket, "SO_PEERCRED"):
            return Peer("unix", "unix"), "unix"
        size = struct.calcsize("3i")
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return Peer(f"unix-uid{uid}", str(uid)), f"unix-uid{uid}-pid{pid}"
    with suppress(OSError):
        host, port = connection.getpeername()[:2]
        peer = peer_at("tcp", host)
        return peer, f"{peer.name}-{port}"
    return Peer("tcp", "tcp"), "tcp"


def first_to_go(guests: Iterable[_G]) -> _G | None:
    """Return the guest that is ended first, or None.

    An unknown peer goes before a known one, a guest that has sent nothing whole before one that has, and an idle
    one before a busy one. Among equals it is the oldest of the group that has most: a newcomer from elsewhere
    stays.
    """
    there = list(guests)
    connections = Counter(guest.peer.group for guest in there)

    def rank(guest: _G) -> tuple[bool, bool, bool, int, float]:
        return guest.known, guest.came_whole, guest.busy, -connections[guest.peer.group], guest.since

    return min(there, key=rank, default=None)
