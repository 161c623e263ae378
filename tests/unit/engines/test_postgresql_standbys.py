"""Which servers a probe's document names, what they say together, and which standby nobody names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jitvault.engines.interface import ProbeResult
from jitvault.engines.postgresql.servers import MAX_REPLICAS, address_of, merged, servers_of
from jitvault.engines.postgresql.standbys import Sender, Server, judge
from jitvault.errors import NotConfirmed

PRIMARY = Server("db:1", False, "7", "t1", "", "", False, (), ())
FIRST = Server("db:2", True, "7", "t2", "", "", True, (), ())
SECOND = replace(FIRST, address="db:3", started="t3")
STREAM = Sender("walreceiver", "")
FED = replace(PRIMARY, senders=(STREAM,))
DEAD, ALIVE = ProbeResult(True, 0, "gone"), ProbeResult(False, 1, "there")


def about(*servers: Server) -> list[tuple[str, bool]]:
    return [(found.about, found.certain) for found in judge(servers)]


def test_a_pooler_is_no_server() -> None:
    assert about(replace(PRIMARY, pooled=True)) == [("pooler at db:1", True)]


@pytest.mark.parametrize(("delay", "certain"), [("-1", True), ("30s", False), ("10s", None), ("0", None)])
def test_how_long_a_standby_may_go_on_without_the_log_is_told(delay: str, certain: bool | None) -> None:
    found = about(FED, replace(FIRST, delay=delay))
    assert found == ([] if certain is None else [("max_standby_streaming_delay at db:2", certain)])


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"dsn": ""},
        {"dsn": 1},
        {"dsn": "host=a", "replica": ["host=b"]},
        {"dsn": "host=a", "replicas": "host=b"},
        {"dsn": "host=a", "replicas": [""]},
        {"dsn": "host=a", "replicas": [{"dsn": "host=b"}]},
        {"dsn": "host=a", "replicas": None},
        {"dsn": "host=a", "replicas": ["host=b"] * (MAX_REPLICAS + 1)},
    ],
    ids=str,
)
def test_a_document_that_may_leave_a_server_out_is_none(document: dict[str, Any]) -> None:
    with pytest.raises(NotConfirmed) as error:
        servers_of(document)
    assert "host=" not in str(error.value)


def test_the_primary_comes_first_and_alone_is_enough() -> None:
    assert servers_of({"dsn": "host=a"}) == ("host=a",)
    assert servers_of({"dsn": "host=a", "replicas": ["host=b", "host=c"]}) == ("host=a", "host=b", "host=c")


def test_an_address_tells_no_secret() -> None:
    assert address_of("host=a port=1 user=u password=secret") == "a:1"
    with pytest.raises(NotConfirmed) as error:
        address_of("password=secret nonsense")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("answers", "refused", "sessions"),
    [((DEAD, DEAD), True, 0), ((DEAD, ALIVE), False, 1), ((ALIVE, DEAD), False, 1), ((ALIVE, ALIVE), False, 2)],
)
def test_a_login_is_dead_where_every_server_says_so(
    answers: tuple[ProbeResult, ProbeResult], refused: bool, sessions: int
) -> None:
    found = merged([(address, {"v": said}) for address, said in zip(("a:1", "b:1"), answers, strict=True)])["v"]
    assert (found.refused, found.open_sessions) == (refused, sessions)
    assert "at a:1: " in found.evidence and "at b:1: " in found.evidence


def test_a_server_that_did_not_say_leaves_it_open() -> None:
    assert not merged([("a:1", {"v": DEAD}), ("b:1", {"v": replace(DEAD, seen=False)})])["v"].seen


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        ((PRIMARY,), []),
        ((FED, FIRST), []),
        ((FED, replace(FIRST, senders=(STREAM,)), SECOND), []),
        ((replace(PRIMARY, senders=(Sender("pg_receivewal", ""),)),), []),
        ((FED,), [("standbys", True)]),
        ((replace(PRIMARY, senders=(STREAM, STREAM)), FIRST), [("standbys", True)]),
        # one that is named and fed from an archive does not stand for one that streams
        ((FED, replace(FIRST, receives=False)), [("standbys", True)]),
        # another standby of a standby
        ((FED, replace(FIRST, senders=(STREAM,))), [("standbys", True)]),
        # a server of another system does not stand for one either
        ((FED, replace(FIRST, system="8")), [("replica db:2", False), ("standbys", True)]),
        ((FED, FIRST, replace(FIRST, address="db:9")), [("db:9 twice", True)]),
        ((replace(PRIMARY, standby=True),), [("dsn db:1", True)]),
        ((replace(PRIMARY, idle_slots=("b",)),), [("slots", False)]),
        ((replace(PRIMARY, idle_slots=("b",)), replace(FIRST, slot="b", receives=False)), []),
    ],
    ids=str,
)
def test_a_standby_that_nobody_names_is_told(servers: tuple[Server, ...], found: list[tuple[str, bool]]) -> None:
    assert about(*servers) == found


def test_what_is_not_named_is_told_by_its_slot_or_name() -> None:
    primary = replace(PRIMARY, senders=(Sender("b", "slot_b"), Sender("c", "slot_c"), Sender("walreceiver", "")))
    (told,) = judge([primary, replace(FIRST, slot="slot_b"), replace(SECOND, name="walreceiver")])
    assert told.seen.endswith("not named: c (slot slot_c)")
