"""Name who is at the other end of a connection, and choose who has to go when there are too many.

An address says nothing about whether somebody is Vault: only a canary does (`audit/files/untrusted.py`). Addresses are
used for two things alone: connections of one address share the places that strangers have, so that many of them cannot
push out one of another address; and an address that a canary vouched for before goes last.
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
    """Who is at the other end.

    `name` is the same for all connections of one sender; `group` is what one party has for itself: an address, or the
    /64 of an IPv6 address, since whoever has one address of that has all.
    """

    name: str
    group: str


@dataclass(slots=True)
class Guest:
    """A connection that may be ended when there are too many.

    `since` is when it came (`time.monotonic()`), `came_whole` that it brought something that was complete, `busy` that
    something of it is under way, and `known` that a canary vouched for its peer before.
    """

    peer: Peer
    since: float
    came_whole: bool = False
    busy: bool = False
    known: bool = False


def peer_at(kind: str, host: str) -> Peer:
    """Return the peer at an address; an IPv4 address that came as `::ffff:…` is the IPv4 address."""
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
    """Return the peer of a connection to a socket device, and a label that tells this one of its connections."""
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
    """Return the guest that is ended first; None where there is none.

    An unknown peer goes before a known one, one that has brought nothing whole before one that has, and an idle one
    before a busy one. Among those it is the oldest of the group that has most: a newcomer from elsewhere stays.
    """
    there = list(guests)
    connections = Counter(guest.peer.group for guest in there)

    def rank(guest: _G) -> tuple[bool, bool, bool, int, float]:
        return guest.known, guest.came_whole, guest.busy, -connections[guest.peer.group], guest.since

    return min(there, key=rank, default=None)
