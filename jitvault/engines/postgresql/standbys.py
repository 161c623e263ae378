"""Find the standbys of a PostgreSQL primary that are not named.

The probe's document should name them. A standby lets in whoever the primary lets in, and a session there lives on
when the login is dropped. The named servers show who streams from them, and which of them is a standby. No server
shows a standby that is fed from an archive of the log alone, or whatever takes a copy and connects to no server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitvault.engines.interface import Finding
from jitvault.engines.postgresql import client
from jitvault.engines.postgresql.hazards import milliseconds
from jitvault.engines.postgresql.servers import address_of, servers_of
from jitvault.errors import NotConfirmed

SERVERS = "servers_named"
LONGEST_DELAY_MS = 10_000
# These write the log or a copy to a disk and let nobody log in.
_NO_SERVERS = frozenset({"pg_receivewal", "pg_basebackup", "pg_rewind", "barman_receive_wal"})

_SELF = """
    SELECT pg_catalog.pg_is_in_recovery(), c.system_identifier::pg_catalog.text,
        pg_catalog.pg_postmaster_start_time()::pg_catalog.text,
        pg_catalog.current_setting('cluster_name'), pg_catalog.current_setting('primary_slot_name'),
        EXISTS (SELECT FROM pg_catalog.pg_stat_get_wal_receiver() AS w WHERE w.pid IS NOT NULL),
        pg_catalog.current_setting('max_standby_streaming_delay'), pg_catalog.pg_backend_pid()
    FROM pg_catalog.pg_control_system() AS c
"""
_SENDERS = """
    SELECT coalesce(r.application_name, '')::pg_catalog.text, coalesce(s.slot_name, '')::pg_catalog.text
    FROM pg_catalog.pg_stat_replication AS r
    LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.active_pid OPERATOR(pg_catalog.=) r.pid
    WHERE coalesce(s.slot_type, 'physical') OPERATOR(pg_catalog.=) 'physical'::pg_catalog.text ORDER BY 1, 2
"""
_IDLE_SLOTS = """
    SELECT slot_name::pg_catalog.text FROM pg_catalog.pg_replication_slots
    WHERE slot_type OPERATOR(pg_catalog.=) 'physical'::pg_catalog.text AND NOT temporary AND NOT active ORDER BY 1
"""
_MEND = (
    "Name each standby that lets logins in: `dsn` and `replicas` in the probe's document, with the probe's own login. "
    "Or keep logins out of it (hot_standby = off)."
)


@dataclass(frozen=True, slots=True)
class Sender:
    """A client that streams from a server.

    `application` is its own name for itself.
    """

    application: str
    slot: str


@dataclass(frozen=True, slots=True)
class Server:
    """What a named server shows about itself.

    `started` tells one server from another of one system.
    """

    address: str
    standby: bool
    system: str
    started: str
    name: str
    slot: str
    receives: bool
    senders: Sequence[Sender]
    idle_slots: Sequence[str]
    pooled: bool = False
    """Whether something else answers in the server's place, as PgBouncer does."""
    delay: str = "0"
    """How long sessions there may keep the server from replaying the log; -1: for ever."""


def unnamed(where: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Return what is wrong with the servers in the probe's document.

    Raises NotConfirmed.
    """
    return tuple(judge([_server(dsn) for dsn in servers_of(where)]))


def _server(dsn: str) -> Server:
    with client.probing(dsn) as target:
        row = target.execute(_SELF).fetchone()
        if row is None:
            raise NotConfirmed("the target returned nothing about itself")
        senders = [Sender(*found) for found in target.execute(_SENDERS).fetchall()]
        announced_pid = target.info.backend_pid
        slots = [str(found[0]) for found in target.execute(_IDLE_SLOTS).fetchall()]
    standby, system, started, name, slot, receives, delay, pid = row
    pooled = pid != announced_pid
    return Server(address_of(dsn), standby, system, started, name, slot, receives, senders, slots, pooled, delay)


def judge(servers: Sequence[Server]) -> Iterator[Finding]:
    """Yield the findings about the named servers.

    The primary is the first of `servers`.
    """
    primary, *others = servers
    for server in servers:
        if server.pooled:
            yield _finding(
                f"pooler at {server.address}",
                f"{server.address} is a pooler, which may lead to another server and keep what the probe sets",
                "Name the server itself in the probe's document.",
            )
    if primary.standby:
        yield _finding(
            f"dsn {primary.address}",
            f"{primary.address}, the probe's dsn, is a standby: roles that it has not replayed yet look gone",
            "Use the primary as dsn, and list each standby in `replicas`.",
        )
    named: dict[tuple[str, str], Server] = {}
    for server in servers:
        key = (server.system, server.started)
        if key in named:
            yield _finding(
                f"{server.address} twice",
                f"{named[key].address} and {server.address} are one server, so another one is missing",
                "Name each server once, by an address that always leads to it.",
            )
        named.setdefault(key, server)
    standbys = [server for server in named.values() if server.standby and server.system == primary.system]
    for other in others:
        if not other.standby or other.system != primary.system:
            yield _finding(
                f"replica {other.address}",
                f"{other.address} is no standby of {primary.address}",
                "Leave it out, or point it at the standby.",
                certain=False,
            )
    for standby in standbys:
        yield from _held_up(standby)
    yield from _streams(primary, list(named.values()), standbys)


def _held_up(standby: Server) -> Iterator[Finding]:
    """Yield a finding if a login can hold up replay for too long.

    By that it outlives its end at the primary.
    """
    delay_ms = milliseconds(standby.delay)
    if 0 <= delay_ms <= LONGEST_DELAY_MS:
        return
    how_long = "for ever" if delay_ms < 0 else f"for {standby.delay}"
    yield _finding(
        f"max_standby_streaming_delay at {standby.address}",
        f"{standby.address} has max_standby_streaming_delay = {standby.delay}: an open transaction there keeps it "
        f"{how_long} from hearing that a login was dropped",
        f"Set max_standby_streaming_delay to {LONGEST_DELAY_MS // 1000}s at most there.",
        certain=delay_ms < 0,
    )


def _streams(primary: Server, named: Sequence[Server], standbys: Sequence[Server]) -> Iterator[Finding]:
    """Compare who streams from the named servers with the named standbys.

    A named standby may stream through one that is not named. Names and slots tell which is which, where they
    differ.
    """
    senders = [sender for server in named for sender in server.senders if sender.application not in _NO_SERVERS]
    receiving = [standby for standby in standbys if standby.receives]
    strangers = _without_named(senders, receiving)
    if strangers:
        listed = ", ".join(sorted(_sender_name(sender) for sender in strangers))
        yield _finding(
            "standbys",
            f"{len(senders)} standbys stream from the servers that the probe's document names, and it names "
            f"{len(receiving)} that do; not named: {listed}",
            _MEND,
        )
    known = {standby.slot for standby in standbys}
    idle = sorted({slot for server in named for slot in server.idle_slots if slot not in known})
    if idle:
        yield _finding(
            "slots",
            f"{primary.address} keeps its log for standbys that are not connected: {', '.join(idle)}",
            f"A standby that is cut off lets logins in that are dropped. {_MEND} Drop a slot that nothing uses.",
            certain=False,
        )


def _without_named(senders: Sequence[Sender], receiving: Sequence[Server]) -> list[Sender]:
    """Return the senders that serve no named standby.

    Each standby takes one sender, its own if slot or name tell which.
    """
    rest = list(senders)
    for standby in receiving:
        own = [sender for sender in rest if standby.slot and sender.slot == standby.slot]
        own = own or [sender for sender in rest if standby.name and sender.application == standby.name]
        # a standby without a name of its own has the default name
        own = own or [sender for sender in rest if not sender.slot and sender.application in ("walreceiver", "")]
        if own or rest:
            rest.remove((own or rest)[0])
    return rest


def _sender_name(sender: Sender) -> str:
    name = sender.application or "a standby without a name"
    return f"{name} (slot {sender.slot})" if sender.slot else name


def _finding(about: str, seen: str, mend: str, *, certain: bool = True) -> Finding:
    return Finding(SERVERS, about, seen, mend, certain)
