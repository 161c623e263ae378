"""What a batch of audit lines means: which are kept, whose leases they show, and what freezes everything."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import (
    LEASE,
    NOW,
    OTHER_TOKEN,
    TOKEN,
    WORKER,
    as_is,
    change,
    drop_trigger,
    due,
    file_of,
    grant,
    issued,
    leases_of,
    make,
    operation,
    read,
    refuse_events,
    seen,
    two_tasks,
    whole,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledgers import LedgerPlace, address
from sqlalchemy import select

from jitvault.audit.observation import Kind, Observation
from jitvault.errors import LedgerUnavailable
from jitvault.formats.shorten import shorten
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import ENDED_UNSEEN, Change, LeaseRow, OpState
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.ledger.stream import stored_lines
from jitvault.model.event_chain import chain_problems
from jitvault.model.states import State, Verdict

# -- lines and tasks --------------------------------------------------------------------------------------


def test_the_same_batch_twice_changes_nothing_more(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    lines = [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN), seen(2, Kind.USED, TOKEN, actor=TOKEN)]
    read(ledger, lines)
    once = file_of(ledger)
    read(ledger, lines)
    assert file_of(ledger) == once
    # also when only a part of it is new
    read(ledger, [*lines, seen(3, Kind.USED, TOKEN, actor=TOKEN)])
    assert len(file_of(ledger).events) == len(once.events) + 1
    assert file_of(ledger).events[-1].body["lines"] == [f"{3:064x}"]
    assert as_is(place, "SELECT count(*) FROM observations") == [(3,)]


def test_a_line_twice_in_one_batch_is_one_line(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.USED, TOKEN, actor=TOKEN)] * 2)
    assert as_is(place, "SELECT count(*) FROM observations") == [(1,)]


def test_a_renewal_of_a_lease_by_others_is_news_of_its_task_and_the_workers_own_is_none(ledger: Ledger) -> None:
    """Tripwires are looked for where a task has news."""
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    before = file_of(ledger).task.seq
    read(ledger, [seen(2, Kind.RENEWED, LEASE, actor=WORKER), seen(3, Kind.RENEWED, "other/lease", actor="hmac-any")])
    read(ledger, [seen(4, Kind.RENEWED, LEASE, actor="hmac-any", failed=True)])
    assert file_of(ledger).task.seq == before
    read(ledger, [seen(5, Kind.RENEWED, LEASE, actor="hmac-any")])
    assert file_of(ledger).events[-1].body["lines"] == [f"{5:064x}"]
    assert whole(ledger)


def test_a_lease_enters_from_the_stream(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN, detail={"target_name": "v-1"})])
    (lease,) = file_of(ledger).leases
    assert lease == LeaseRow(
        LEASE, "t-1", "g-t-1-1", "database/creds/app-ro", "v-1", NOW + timedelta(milliseconds=1), Verdict.LIVE, None
    )
    body = file_of(ledger).events[-1].body
    assert (body["lines"], body["leases"], body["state"]) == ([f"{1:064x}"], [LEASE], "approved")
    # of the task's own row it vouches for nothing: whoever edited that would be believed
    assert list(body["rows"]["digests"]) == ["lease"]
    assert whole(ledger)


@pytest.mark.parametrize(
    "how",
    [
        # whatever else a client can choose: only the accessor's HMAC links
        {"actor": OTHER_TOKEN},
        {"actor": ""},
        {"actor": OTHER_TOKEN, "op": "op-1"},
        {"actor": OTHER_TOKEN, "detail": {"task": "t-1", "entity": "e-agent", "grant": "g-t-1-1"}},
        {"actor": "accessor"},
        {"actor": OTHER_TOKEN, "subject": TOKEN},
        {"actor": TOKEN, "closing": False},
        {"actor": TOKEN, "kind": Kind.USED},
    ],
    ids=str,
)
def test_a_lease_is_linked_by_the_accessors_hmac_alone(ledger: Ledger, how: dict[str, Any]) -> None:
    issued(ledger)
    read(ledger, [replace(seen(1, Kind.LEASE_ISSUED, LEASE), **how)])
    assert file_of(ledger).leases == ()


def test_a_known_lease_keeps_what_is_known_of_it(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    dead = replace(file_of(ledger).leases[0], verdict=Verdict.AUDIT_CONFIRMED, dead_at=NOW)
    change(ledger, Change("confirmed", rows=(dead,)))
    read(ledger, [seen(2, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    assert file_of(ledger).leases == (dead,)


def test_a_batch_is_one_event_for_each_task_it_concerns(ledger: Ledger) -> None:
    issued(ledger)
    make(ledger, "t-2")
    change(ledger, Change("issued", rows=(grant("t-2", accessor_hmac=OTHER_TOKEN),)), "t-2")
    make(ledger, "t-3")
    read(
        ledger,
        [
            seen(5, Kind.USED, TOKEN, actor=TOKEN),
            seen(4, Kind.UNWRAPPED, TOKEN, actor="hmac-wrapping"),
            seen(3, Kind.USED, OTHER_TOKEN, actor=OTHER_TOKEN),
            seen(2, Kind.HAZARD, actor="hmac-root"),
        ],
    )
    events = {name: [e for e in file_of(ledger, name).events if e.kind == "observed"] for name in ("t-1", "t-2", "t-3")}
    assert [e.body["lines"] for e in events["t-1"]] == [[f"{4:064x}", f"{5:064x}"]]
    assert [e.body["lines"] for e in events["t-2"]] == [[f"{3:064x}"]]
    assert events["t-3"] == []
    assert all(whole(ledger, name) for name in events)


def test_a_grant_without_an_accessor_gets_no_strangers_lines(ledger: Ledger) -> None:
    make(ledger)
    change(ledger, Change("issuing", rows=(grant(accessor_hmac=None),)))
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=""), seen(2, Kind.UNWRAPPED, "")])
    assert file_of(ledger).leases == ()
    assert len(file_of(ledger).events) == 2


def test_500_lines_are_one_batch(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    read(ledger, [seen(n, Kind.LEASE_ISSUED, f"{LEASE}-{n}", actor=TOKEN) for n in range(1, 501)])
    assert len(file_of(ledger).leases) == 500
    assert len(file_of(ledger).events) == 3
    assert as_is(place, "SELECT count(*) FROM observations") == [(500,)]


@pytest.mark.parametrize("odd", ["a\0b", "\u202e'; DROP TABLE tasks; --", "x" * 5000, "\U0001f600"])
def test_any_text_of_a_line_is_kept_as_text(ledger: Ledger, place: LedgerPlace, odd: str) -> None:
    issued(ledger)
    line = seen(1, Kind.USED, TOKEN, actor=TOKEN, path=odd, request_id=odd, error=odd, remote=odd, detail={"e": odd})
    read(ledger, [line])
    (found,) = ledger.trail(file_of(ledger)).observations
    # the one character that PostgreSQL has not
    path = odd if isinstance(place, Path) else odd.replace("\0", "\ufffd")
    assert (found.path, found.detail) == (shorten(path, 1024), {"e": odd})


# -- what Vault does not know -----------------------------------------------------------------------------

WRAPPING, AGENT, READ = "hmac-wrapping", "hmac-agent", "hmac-read"


def created(n: int = 10, subject: str = TOKEN, **how: Any) -> Observation:
    """The task token is made in a wrapping, with the intent that its grant has."""
    return seen(n, Kind.TOKEN_CREATED, subject, **{"alias": WRAPPING, "op": "op-t-1-1", "path": CREATE, **how})


def refused(n: int, token: str, **how: Any) -> Observation:
    return seen(n, Kind.REFUSED, **{"actor": "", "token": token, "failed": True, "error": "permission denied", **how})


def unwrapped(n: int = 11, **how: Any) -> Observation:
    """The agent takes its token out of the wrapping."""
    return seen(
        n,
        Kind.UNWRAPPED,
        TOKEN,
        **{"actor": "hmac-wrappings-own", "token": WRAPPING, "alias": AGENT, "path": UNWRAP, **how},
    )


def wrapped_read(n: int = 12, actor: str = TOKEN, **how: Any) -> Observation:
    """The agent reads a credential in a wrapping: no lease is shown."""
    return seen(n, Kind.USED, actor, **{"actor": actor, "alias": READ, **how})


def rewrapped(n: int, token: str, alias: str, **how: Any) -> Observation:
    path = "sys/wrapping/rewrap"
    return seen(n, Kind.REWRAPPED, **{"actor": "", "token": token, "alias": alias, "path": path, **how})


def opened_read(n: int = 15, lease: str = LEASE, **how: Any) -> Observation:
    """Whoever opens that wrapping sees the lease."""
    return seen(n, Kind.LEASE_ISSUED, lease, **{"actor": "", "token": READ, "path": UNWRAP, **how})


CREATE, UNWRAP = "auth/token/create/jitvault-15m", "sys/wrapping/unwrap"


def lines_of(place: LedgerPlace, kind: Kind) -> list[str]:
    return [line for (line,) in as_is(place, "SELECT line FROM observations WHERE kind = ? ORDER BY line", kind.value)]


@pytest.mark.parametrize("token", ["hmac-strangers", "", TOKEN, "op-1"])
def test_a_token_that_vault_does_not_know_is_anybodys_and_left_out(
    ledger: Ledger, place: LedgerPlace, token: str
) -> None:
    issued(ledger)
    before = file_of(ledger)
    read(ledger, [refused(1, token), seen(2, Kind.USED, "hmac-strangers", actor="hmac-strangers")])
    assert lines_of(place, Kind.REFUSED) == []
    assert file_of(ledger) == before


@pytest.mark.parametrize("token", [WRAPPING, AGENT, READ])
@pytest.mark.parametrize("batches", [1, 2])
def test_a_token_that_stood_for_a_tasks_token_is_kept_when_vault_forgot_it(
    ledger: Ledger, place: LedgerPlace, token: str, batches: int
) -> None:
    issued(ledger)
    before = [created(), unwrapped(), wrapped_read()]
    for part in ([[*before, refused(20, token)]], [before, [refused(20, token)]])[batches - 1]:
        read(ledger, part)
    assert lines_of(place, Kind.REFUSED) == [f"{20:064x}"]
    assert f"{20:064x}" in file_of(ledger).events[-1].body["lines"]


def test_it_does_not_matter_where_in_a_batch_the_token_is_introduced(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    read(ledger, [refused(1, AGENT), refused(2, "hmac-strangers"), created(), unwrapped()])
    assert lines_of(place, Kind.REFUSED) == [f"{1:064x}"]


def test_a_wrapping_that_was_made_anew_stands_for_the_same_token(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    read(ledger, [created(), rewrapped(11, WRAPPING, "hmac-w2")])
    read(ledger, [rewrapped(12, "hmac-w2", "hmac-w3"), rewrapped(13, "hmac-other", "hmac-other-2")])
    read(ledger, [refused(20, "hmac-w3"), refused(21, "hmac-other-2")])
    assert lines_of(place, Kind.REFUSED) == [f"{20:064x}"]


def test_a_batch_of_which_nothing_is_kept_is_read_all_the_same(ledger: Ledger, place: LedgerPlace) -> None:
    read(ledger, [refused(1, "hmac-strangers")])
    assert ledger.readings()["audit"].position.offset == 200
    assert as_is(place, "SELECT count(*) FROM observations") == [(0,)]


# -- leases that only an unwrap shows ---------------------------------------------------------------------


def test_the_lease_of_a_wrapped_read_belongs_to_the_task_whose_token_read_it(ledger: Ledger) -> None:
    two_tasks(ledger)
    read(ledger, [created(), unwrapped(), wrapped_read(), opened_read(detail={"target_name": "v-1"})])
    assert file_of(ledger).leases == (
        LeaseRow(
            LEASE,
            "t-1",
            "g-t-1-1",
            "database/creds/app-ro",
            "v-1",
            NOW + timedelta(milliseconds=15),
            Verdict.LIVE,
            None,
        ),
    )
    assert leases_of(ledger, "t-2") == []


def test_a_target_name_that_is_hashed_is_not_known(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [wrapped_read(), opened_read(detail={"target_name": "hmac-sha256:1e"})])
    assert [(lease.path, lease.target_name) for lease in file_of(ledger).leases] == [("database/creds/app-ro", None)]


@pytest.mark.parametrize("actor", ["", "hmac-read-accessor", OTHER_TOKEN, WORKER])
def test_whose_lease_it_is_does_not_depend_on_who_opens_the_wrapping(ledger: Ledger, actor: str) -> None:
    two_tasks(ledger)
    read(ledger, [wrapped_read(), opened_read(actor=actor)])
    assert (leases_of(ledger), leases_of(ledger, "t-2")) == ([LEASE], [])


STEPS = (wrapped_read(12), rewrapped(13, READ, "hmac-w2"), opened_read(15, token="hmac-w2"))


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))), ids=str)
def test_a_lease_enters_whichever_of_its_two_lines_is_read_first(ledger: Ledger, order: tuple[int, ...]) -> None:
    two_tasks(ledger)
    lines = (wrapped_read(), opened_read())
    for n, i in enumerate(order):
        read(ledger, [lines[i]], source=f"node-{i}")
        assert leases_of(ledger) == ([LEASE] if n else [])
    read(ledger, lines)
    assert (leases_of(ledger), leases_of(ledger, "t-2")) == ([LEASE], [])
    told = [e for e in file_of(ledger).events if e.body.get("leases")]
    assert [e.body["leases"] for e in told] == [[LEASE]]
    assert f"{15:064x}" in told[0].body["lines"]
    assert whole(ledger)


@pytest.mark.parametrize(
    "order",
    [pytest.param(order, id=str(order)) for order in itertools.permutations(range(3))],
)
def test_a_lease_of_a_wrapping_that_was_made_anew_enters_in_any_order(ledger: Ledger, order: tuple[int, ...]) -> None:
    two_tasks(ledger)
    for i in order:
        read(ledger, [STEPS[i]], source=f"node-{i}")
    assert (leases_of(ledger), leases_of(ledger, "t-2")) == ([LEASE], [])


def test_a_lease_that_another_tasks_token_opened_is_not_that_tasks_though_it_was_read_first(ledger: Ledger) -> None:
    two_tasks(ledger)
    read(ledger, [opened_read(actor=OTHER_TOKEN)], source="node-2")
    read(ledger, [wrapped_read()])
    assert (leases_of(ledger), leases_of(ledger, "t-2")) == ([LEASE], [])


def test_a_known_lease_is_not_told_again_by_its_unwrap(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN, detail={"target_name": "v-1"})])
    known = file_of(ledger).leases
    read(ledger, [wrapped_read(), opened_read()])
    assert file_of(ledger).leases == known
    assert file_of(ledger).events[-1].body["leases"] == []


@pytest.mark.parametrize(
    "how",
    [
        {"token": "hmac-other-wrapping"},
        {"token": ""},
        # a name that a client can choose is none
        {"token": "hmac-other-wrapping", "op": "op-1", "detail": {"task": "t-1"}},
        {"closing": False},
    ],
    ids=str,
)
def test_an_unwrap_of_something_else_shows_no_lease_of_ours(ledger: Ledger, how: dict[str, Any]) -> None:
    issued(ledger)
    read(ledger, [wrapped_read()])
    read(ledger, [opened_read(**{"actor": "hmac-somebody", **how})])
    assert leases_of(ledger) == []


# -- what freezes everything ------------------------------------------------------------------------------


def alarms(place: LedgerPlace) -> list[tuple[Any, ...]]:
    return as_is(place, "SELECT task_id, rule, line, request_id FROM findings ORDER BY id")


def canary_line(n: int = 1, remote: str = "10.1.1.1", **how: Any) -> Observation:
    return seen(n, Kind.CANARY, "hmac-nonce", remote=remote, **how)


def test_a_token_that_we_meant_to_make_is_no_alarm(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    read(ledger, [created()])
    assert (ledger.freeze(), alarms(place)) == (None, [])


@pytest.mark.parametrize(
    "how",
    [
        {"op": "op-1"},
        {"op": ""},
        {"op": "op-t-1-2"},
        {"actor": "hmac-thief"},
        {"actor": ""},
        {"actor": TOKEN},
    ],
    ids=str,
)
def test_a_token_that_nobody_of_ours_meant_to_make_freezes_everything_once(
    ledger: Ledger, place: LedgerPlace, how: dict[str, Any]
) -> None:
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    line = created(10, "hmac-unknown", request_id="r-x", remote="10.9.9.9", **how)
    for _ in range(2):
        read(ledger, [replace(line, line=f"{9:064x}", closing=False), line], at=NOW + timedelta(seconds=5))
    assert alarms(place) == [(None, "unknown_token", line.line, "r-x")]
    frozen = ledger.freeze()
    assert frozen is not None
    assert (frozen.line, frozen.at) == (line.line, NOW + timedelta(seconds=5))
    assert "10.9.9.9" in frozen.reason
    # it is nobody's task's
    assert file_of(ledger).findings == ()


@pytest.mark.parametrize(
    ("state", "answer", "alarming"),
    [
        (OpState.INTENDED, None, False),
        (OpState.UNKNOWN, "timed out", False),
        (OpState.ABANDONED, "never sent", True),
        (OpState.ABANDONED, ENDED_UNSEEN, False),
    ],
    ids=str,
)
def test_a_create_that_nobody_was_answered_is_an_alarm_once_it_was_given_up(
    ledger: Ledger, place: LedgerPlace, state: OpState, answer: str | None, alarming: bool
) -> None:
    make(ledger)
    create = operation("op-t-1-1", state, kind="create_token", answer=answer)
    change(ledger, Change("issued", rows=(grant(accessor_hmac=None), create)))
    ledger.record_session(WORKER, NOW)
    read(ledger, [created()])
    assert bool(alarms(place)) is alarming


def test_a_create_that_vault_refused_after_somebody_used_its_id_is_an_alarm(ledger: Ledger, place: LedgerPlace) -> None:
    make(ledger)
    create = operation("op-t-1-1", OpState.INTENDED, kind="create_token", answer=None)
    change(ledger, Change("issued", rows=(grant(accessor_hmac=None), create)))
    ledger.record_session(WORKER, NOW)
    read(ledger, [created(9, actor="hmac-somebody"), created()])
    assert [rule for _, rule, *_ in alarms(place)] == ["unknown_token"]
    change(ledger, Change("refused", rows=(replace(create, state=OpState.ABANDONED, answer="429"),)))
    for _ in range(2):
        ledger.judge_failed_create("op-t-1-1", NOW)
        ledger.judge_failed_create("op-other", NOW)
    assert [line for *_, line, _ in alarms(place)] == [created(9).line, created().line]


@pytest.mark.parametrize("asked", ["null", "[]", "{}", '{"policies": 1, "ttl": {}}', "no JSON"])
def test_an_intent_that_was_edited_keeps_no_line_from_being_read(
    ledger: Ledger, place: LedgerPlace, asked: str
) -> None:
    make(ledger)
    create = operation("op-t-1-1", OpState.INTENDED, kind="create_token", answer=None)
    change(ledger, Change("issued", rows=(grant(accessor_hmac=None), create)))
    ledger.record_session(WORKER, NOW)
    if isinstance(place, Path):
        # PostgreSQL keeps nothing that is none
        as_is(place, "UPDATE operations SET sent_at = 'never'")
    if isinstance(place, Path) or asked != "no JSON":
        as_is(place, f"UPDATE grants SET asked = '{asked}'")
    read(ledger, [created(detail={"asked": {"policies": [], "ttl": "", "wrap_ttl_s": 120, "also": []}})])
    assert alarms(place) == []


def test_an_edited_time_of_the_first_publication_lets_a_thief_publish_nothing_unseen(
    ledger: Ledger, place: LedgerPlace
) -> None:
    make(ledger)
    ledger.keep(operations=[operation("op-p", kind="publish", subject="tasks/t-1")], at=NOW)
    ledger.record_session(WORKER, NOW)
    if isinstance(place, Path):
        # PostgreSQL keeps no time that is none
        as_is(place, "UPDATE operations SET sent_at = 'never'")
    read(ledger, [seen(20, Kind.OWN, "tasks/t-1", path="jitvault/data/tasks/t-1", op="op-thief")])
    assert [rule for _, rule, *_ in alarms(place)] == ["unknown_publication"]


@pytest.mark.parametrize("second", ["data", "metadata"])
def test_a_delivery_is_one_write_of_its_path(ledger: Ledger, place: LedgerPlace, second: str) -> None:
    """In whichever batches the lines come, and whether Vault's answer was recorded or lost meanwhile."""
    make(ledger)
    publication = operation("op-p", OpState.SETTLED, kind="publish", subject="tasks/t-1")
    delivery = operation("op-i", OpState.INTENDED, kind="deliver", subject="inbox/e/t-1")
    ledger.keep(operations=[publication, delivery], at=NOW)
    ledger.record_session(WORKER, NOW)

    def wrote(n: int, part: str = "data", **how: Any) -> Observation:
        path = f"jitvault-inbox/{part}/e/t-1"
        return seen(n, Kind.OWN, "inbox/e/t-1", path=path, op="op-i", actor=WORKER, request_id=f"r-{n}", **how)

    # a request that failed, and the line of another node about the one that did not
    failed, again = wrote(21, failed=True), replace(wrote(24), request_id="r-23")
    read(ledger, [failed])
    ledger.keep(operations=[replace(delivery, state=OpState.UNKNOWN)], at=NOW)
    read(ledger, [wrote(23), again])
    assert alarms(place) == []
    read(ledger, [wrote(25, second)])
    assert [rule for _, rule, *_ in alarms(place)] == ["unknown_publication"]


@pytest.mark.parametrize("how", [{"closing": False}, {"failed": True, "error": "permission denied"}], ids=str)
def test_a_token_that_was_not_made_is_no_alarm(ledger: Ledger, place: LedgerPlace, how: dict[str, Any]) -> None:
    read(ledger, [created(actor="hmac-thief", **how)])
    assert (ledger.freeze(), alarms(place)) == (None, [])


def test_an_alarm_its_lines_and_what_they_mean_are_committed_together(ledger: Ledger, place: LedgerPlace) -> None:
    issued(ledger)
    lines = [created(actor="hmac-thief"), seen(3, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)]
    # the last thing that is written of a batch is refused
    refuse_events(place)
    with pytest.raises(LedgerUnavailable, match="refused"):
        read(ledger, lines)
    assert (ledger.freeze(), alarms(place), leases_of(ledger)) == (None, [], [])
    assert as_is(place, "SELECT count(*) FROM observations") == [(0,)]
    assert ledger.readings()["audit"].position.offset == 0
    drop_trigger(place, "refuse", "events")
    read(ledger, lines)
    assert ledger.freeze() is not None
    assert (len(alarms(place)), leases_of(ledger)) == (1, [LEASE])


OPENED = [
    unwrapped(20, remote="10.1.1.1"),
    opened_read(20, remote="10.1.1.1"),
    opened_read(20, remote="::ffff:10.1.1.1"),
    seen(20, Kind.CUBBYHOLE_READ, actor="", token=WRAPPING, remote="10.1.1.1"),
    rewrapped(20, WRAPPING, "hmac-again", remote="10.1.1.1"),
]


# the wrappings that are opened are a task's
OURS = [seen(10, Kind.USED, TOKEN, actor=TOKEN, alias=READ), seen(11, Kind.UNWRAPPED, TOKEN, actor="", alias=WRAPPING)]


@pytest.mark.parametrize("line", OPENED[1:], ids=lambda o: f"{o.kind} {o.remote}")
def test_what_others_unwrap_on_the_workers_host_is_theirs(
    ledger: Ledger, place: LedgerPlace, line: Observation
) -> None:
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    read(ledger, [canary_line()])
    read(ledger, [replace(line, token="hmac-strange")])
    assert (ledger.freeze(), alarms(place)) == (None, [])


@pytest.mark.parametrize("line", OPENED, ids=lambda o: f"{o.kind} {o.remote}")
def test_an_unwrap_from_the_workers_own_address_freezes_everything(
    ledger: Ledger, place: LedgerPlace, line: Observation
) -> None:
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    read(ledger, [canary_line(), *OURS])
    read(ledger, [line])
    assert alarms(place) == [(None, "unwrap_by_worker", line.line, line.request_id)]
    frozen = ledger.freeze()
    assert frozen is not None
    assert frozen.line == line.line


def test_the_address_can_be_learnt_in_the_same_batch(ledger: Ledger) -> None:
    ledger.record_session(WORKER, NOW)
    read(ledger, [OPENED[0], canary_line()])
    assert ledger.freeze() is not None


@pytest.mark.parametrize(
    ("learnt", "how", "shared"),
    [
        ("another address", {"remote": "10.1.1.2"}, ()),
        ("a shared host", {}, ("10.1.0.0/16",)),
        ("a shared host by its name", {}, ("10.9.0.0/16", "10.1.1.1/32")),
        ("it failed", {"failed": True}, ()),
        ("its request line", {"closing": False}, ()),
        ("another act", {"kind": Kind.USED}, ()),
        ("no address", {"remote": ""}, ()),
    ],
)
def test_an_unwrap_that_is_no_alarm(
    ledger: Ledger, place: LedgerPlace, learnt: str, how: dict[str, Any], shared: tuple[str, ...]
) -> None:
    ledger.record_session(WORKER, NOW)
    read(ledger, [canary_line(), replace(OPENED[0], **how)], shared=shared)
    assert (ledger.freeze(), alarms(place)) == (None, []), learnt


@pytest.mark.parametrize(
    "teacher",
    [
        # only what Vault was asked by our own session says where we are, and only its own nonces
        canary_line(actor="hmac-thief"),
        canary_line(actor=""),
        canary_line(remote=""),
        seen(1, Kind.OWN, op="op-1", remote="10.1.1.1"),
        created(1, remote="10.1.1.1"),
    ],
    ids=lambda o: f"{o.kind} {o.actor} {o.remote}",
)
def test_an_address_is_learnt_from_our_own_canaries_alone(
    ledger: Ledger, place: LedgerPlace, teacher: Observation
) -> None:
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    read(ledger, [teacher, OPENED[0]])
    assert (ledger.freeze(), alarms(place)) == (None, [])


def test_where_a_worker_acts_from_now_is_what_counts(ledger: Ledger) -> None:
    ledger.record_session(WORKER, NOW)
    read(ledger, [canary_line()])
    read(ledger, [canary_line(2, remote="10.1.1.2"), OPENED[0]])
    assert ledger.freeze() is None
    read(ledger, [unwrapped(21, remote="10.1.1.2")])
    assert ledger.freeze() is not None


def test_a_canary_that_shows_no_address_does_not_make_the_known_one_forgotten(ledger: Ledger) -> None:
    ledger.record_session(WORKER, NOW)
    read(ledger, [canary_line()])
    read(ledger, [canary_line(2, remote="")])
    read(ledger, [OPENED[0]])
    assert ledger.freeze() is not None


@pytest.mark.parametrize("read_at", [NOW, NOW + timedelta(days=1)])
def test_where_a_worker_acted_from_a_while_before_says_nothing(ledger: Ledger, read_at: datetime) -> None:
    """Whenever it is read: an address that a host has given back is somebody else's soon."""
    ledger.record_session(WORKER, NOW)
    read(ledger, [canary_line()])
    read(ledger, [replace(OPENED[0], at=NOW + timedelta(minutes=15))], at=read_at)
    assert ledger.freeze() is None
    read(ledger, [unwrapped(21, remote="10.1.1.1", at=NOW + timedelta(minutes=14))], at=read_at)
    assert ledger.freeze() is not None


def test_a_worker_that_has_run_for_days_acts_from_where_it_acted_last(ledger: Ledger) -> None:
    """Its session is entered once, when it logs in."""
    ledger.record_session(WORKER, NOW)
    read(ledger, [canary_line()])
    later = NOW + timedelta(days=2)
    read(ledger, [canary_line(2, at=later)], at=later)
    read(ledger, [replace(OPENED[0], at=later)], at=later)
    assert ledger.freeze() is not None


def test_each_of_several_workers_has_an_address(ledger: Ledger) -> None:
    for name, remote in (("hmac-worker-2", "10.1.1.2"), (WORKER, "10.1.1.1")):
        ledger.record_session(name, NOW)
        read(ledger, [canary_line(len(name), remote=remote, actor=name)])
    read(ledger, [*OURS, unwrapped(20, remote="10.1.1.2"), opened_read(21, remote="10.1.1.1")])
    assert ledger.lift_freezes("seen", NOW) == 2


# -- laws: how lines come in changes nothing --------------------------------------------------------------


@dataclass(frozen=True)
class Entered:
    """What a ledger holds after some reading, without where each line was found and how often it was told."""

    observations: frozenset[tuple[Any, ...]]
    leases: tuple[LeaseRow, ...]
    tasks: tuple[tuple[Any, ...], ...]
    freezes: frozenset[tuple[Any, ...]]


COLUMNS = [
    "line",
    "at",
    "closing",
    "kind",
    "request_id",
    "path",
    "subject",
    "actor",
    "op",
    "remote",
    "failed",
    "error",
    "token",
    "alias",
    "detail",
]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with two tasks and a session of the worker, to be copied."""
    path = tmp_path_factory.mktemp("begun") / "ledger.db"
    fill(path)
    assert [p.name for p in path.parent.iterdir()] == ["ledger.db"]
    return path


def fill(place: LedgerPlace) -> None:
    database = opened(address(place), create=True)
    ledger = Ledger(database)
    two_tasks(ledger)
    ledger.record_session(WORKER, NOW)
    database.close()


def entered(begun: Path, batches: Iterable[tuple[str, Sequence[Observation]]]) -> Entered:
    """What a copy of `begun` holds after it read `batches`, each of a source."""
    path = begun.with_name("copy.db")
    shutil.copy(begun, path)
    return entered_into(path, batches)


def entered_into(place: LedgerPlace, batches: Iterable[tuple[str, Sequence[Observation]]]) -> Entered:
    database = opened(address(place), create=False)
    ledger = Ledger(database)
    for source, lines in batches:
        read(ledger, [replace(o, place=replace(o.place, source=source)) for o in lines], source=source)
    files = [file_of(ledger, name) for name in ("t-1", "t-2")]
    with database.read() as connection:
        columns = [schema.observations.c[name] for name in COLUMNS]
        rows = [tuple(row) for row in connection.execute(select(*columns))]
        freezes = [tuple(row) for row in connection.execute(select(schema.freezes.c.reason, schema.freezes.c.line))]
    database.close()
    for file in files:
        assert chain_problems(file.events, head=file.task.head) == []
        told = [lease for event in file.events for lease in event.body.get("leases", ())]
        assert sorted(told) == sorted(lease.lease_id for lease in file.leases)
    return Entered(
        observations=frozenset((*row[:-1], str(row[-1])) for row in rows),
        leases=tuple(lease for file in files for lease in file.leases),
        tasks=tuple((f.task.state, f.task.end_reason, f.grants, f.operations) for f in files),
        freezes=frozenset(freezes),
    )


# every kind of line that is entered by itself or by another one; no address of the worker's, which is learnt on the way
STORY = (
    created(10),
    unwrapped(11),
    wrapped_read(12),
    wrapped_read(13, OTHER_TOKEN, alias="hmac-read-2"),
    opened_read(15),
    opened_read(16, f"{LEASE}-2", token="hmac-read-2"),
    seen(17, Kind.LEASE_ISSUED, f"{LEASE}-3", actor=TOKEN, closing=False),
    seen(18, Kind.LEASE_ISSUED, f"{LEASE}-3", actor=TOKEN),
    seen(19, Kind.LEASE_ISSUED, f"{LEASE}-4", actor=OTHER_TOKEN),
    seen(20, Kind.LEASE_REVOKED, LEASE, op="op-1"),
    seen(21, Kind.UNWRAP_REFUSED, actor="", token=WRAPPING, failed=True),
    created(22, "hmac-unknown", alias="hmac-w-unknown", actor="hmac-thief", remote="10.9.9.9"),
    seen(23, Kind.HAZARD, path="sys/leases/tidy", actor="hmac-root"),
    rewrapped(24, "hmac-foreign", "hmac-foreign-2"),
)
REFUSALS = (refused(30, WRAPPING), refused(31, AGENT), refused(32, READ), refused(33, "hmac-anybodys"))
FIRST = [o for o in STORY if o.alias]
LAW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


Reads = list[tuple[str, list[Observation]]]


@st.composite
def readings(draw: st.DrawFn, lines: Sequence[Observation]) -> Reads:
    """Some way to read `lines` out of two sources: any order, in pieces, some of them again or in both."""
    order = draw(st.permutations(lines))
    again = draw(st.lists(st.sampled_from(lines), max_size=5))
    stream = [*order, *again]
    found: Reads = []
    while stream:
        n = draw(st.integers(1, len(stream)))
        found.append((draw(st.sampled_from(["audit", "node-2"])), stream[:n]))
        stream = stream[n:]
    return found


@pytest.fixture(scope="module")
def at_once(begun: Path) -> Entered:
    return entered(begun, [("audit", STORY)])


@pytest.fixture(scope="module")
def at_once_with_refusals(begun: Path) -> Entered:
    return entered(begun, [("audit", [*STORY, *REFUSALS])])


def test_what_the_laws_compare_with_has_everything_in_it(at_once: Entered, at_once_with_refusals: Entered) -> None:
    assert (len(at_once.observations), len(at_once.leases), len(at_once.freezes)) == (len(STORY), 4, 1)
    assert len(at_once_with_refusals.observations) == len(STORY) + 3


def test_both_databases_mean_the_same(place: LedgerPlace, at_once_with_refusals: Entered) -> None:
    fill(place)
    halves = [("audit", [*STORY[::2], *REFUSALS]), ("node-2", STORY[1::2]), ("audit", [*STORY, *REFUSALS])]
    assert entered_into(place, halves) == at_once_with_refusals


@LAW
@given(batches=readings(STORY))
def test_however_lines_are_read_they_mean_the_same(begun: Path, at_once: Entered, batches: Reads) -> None:
    assert entered(begun, batches) == at_once


def test_a_refusal_of_what_was_delivered_is_known_before_the_line_that_made_it(ledger: Ledger) -> None:
    """Two nodes' files have no order between them."""
    issued(ledger)
    refused = seen(21, Kind.UNWRAP_REFUSED, actor="", token="hmac-wrapping", failed=True, source="node-2")
    strange = seen(22, Kind.UNWRAP_REFUSED, actor="", token="hmac-strange", failed=True, source="node-2")
    read(ledger, [refused, strange], source="node-2")
    read(ledger, [seen(10, Kind.TOKEN_CREATED, TOKEN, alias="hmac-wrapping", op="op-t-1-1")])
    assert refused.line in {o.line for o in ledger.acts(file_of(ledger)).observations}
    assert [(one.kind, one.lines, one.last_remote) for one in ledger.not_kept()] == [("unwrap_refused", 1, "127.0.0.1")]


@LAW
@given(introductions=readings(FIRST), rest=readings([*(o for o in STORY if not o.alias), *REFUSALS]))
def test_nor_does_it_matter_how_refusals_are_read_after_what_they_are_about(
    begun: Path, at_once_with_refusals: Entered, introductions: Reads, rest: Reads
) -> None:
    # what Vault does not know is only kept where it is known already whose it is: everybody could fill the ledger
    # with the rest. So this law holds where the introduction is read before, as in a source with one writer it is.
    assert entered(begun, [*introductions, *rest]) == at_once_with_refusals


# -- what has to be looked at -------------------------------------------------------------------------------


def rolling(ledger: Ledger, state: State) -> None:
    """t-1, whose token is renewed from time to time, to be looked at in an hour."""
    make(ledger)
    fields = {"due_at": NOW + timedelta(hours=1)}
    change(ledger, Change("issuing", state=State.ISSUING, rows=(grant(rolling=True),)))
    change(ledger, Change("delivered", state=State.ISSUED, fields=fields))
    if state is not State.ISSUED:
        change(ledger, Change("moved", state=state))


LEASED = [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)]
UNWRAPPED = [seen(2, Kind.UNWRAPPED, TOKEN, actor="hmac-anybody")]


@pytest.mark.parametrize("lines", [LEASED, UNWRAPPED])
def test_a_new_lease_of_a_rolling_token_and_its_unwrap_make_the_task_due(
    ledger: Ledger, lines: list[Observation]
) -> None:
    rolling(ledger, State.ISSUED)
    assert due(ledger, NOW + timedelta(minutes=1)) == []
    read(ledger, lines)
    assert due(ledger, NOW + timedelta(minutes=1)) == ["t-1"]
    assert all(lease.renew_at is not None for lease in file_of(ledger).leases)


def test_nothing_else_makes_it_due_and_no_end_is_hurried(ledger: Ledger) -> None:
    rolling(ledger, State.ENDING)
    read(ledger, [*LEASED, *UNWRAPPED, seen(3, Kind.USED, TOKEN, actor=TOKEN)])
    assert due(ledger, NOW + timedelta(minutes=1)) == []


def test_a_refused_unwrap_and_a_lease_that_lives_as_long_as_its_task_are_no_hurry(ledger: Ledger) -> None:
    make(ledger)
    change(ledger, Change("issuing", state=State.ISSUING, rows=(grant(),)))
    change(ledger, Change("delivered", state=State.ISSUED, fields={"due_at": NOW + timedelta(hours=1)}))
    read(ledger, [*LEASED, replace(UNWRAPPED[0], failed=True)])
    assert due(ledger, NOW + timedelta(minutes=1)) == []
    assert [lease.renew_at for lease in file_of(ledger).leases] == [None]


def test_what_holds_access_is_due_before_what_ended_longer_ago(ledger: Ledger) -> None:
    two_tasks(ledger)
    for task_id, state, in_s in (("t-1", State.ENDING, 0), ("t-2", State.ISSUED, 1)):
        fields = {"due_at": NOW + timedelta(seconds=in_s)}
        change(ledger, Change("issuing", state=State.ISSUING), task_id)
        change(ledger, Change("moved", state=state, fields=fields), task_id)
    assert ledger.take_due(NOW + timedelta(minutes=1), 9) == ["t-2", "t-1"]


def test_no_flood_of_rewraps_hides_that_of_what_was_delivered(
    ledger: Ledger, place: LedgerPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_lines, "MOST_REWRAPS", 1)
    issued(ledger)
    read(ledger, [created(), unwrapped(), wrapped_read()])
    chain = [READ, *(f"hmac-r{n}" for n in range(9))]
    flood = [rewrapped(30 + n, old, new) for n, (old, new) in enumerate(itertools.pairwise(chain))]
    read(ledger, [*flood, rewrapped(50, WRAPPING, "hmac-thiefs")])
    kept = lines_of(place, Kind.REWRAPPED)
    assert kept[-1] == f"{50:064x}" and len(kept) == 5 + 1
