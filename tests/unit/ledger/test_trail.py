"""What is read back as the evidence of a task: its lines in their order, and the canaries around them."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from builders import (
    LEASE,
    NOW,
    OTHER_TOKEN,
    TOKEN,
    WORKER,
    change,
    file_of,
    grant,
    issued,
    keep_canary,
    make,
    operation,
    read,
    seen,
    two_tasks,
)
from sqlalchemy import insert

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import canary_after, canary_before
from jitvault.errors import CorruptRecord
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, OpState
from jitvault.ledger.storage import schema
from jitvault.model.kinds import OperationKind

# -- lines ------------------------------------------------------------------------------------------------


def test_a_trail_has_what_concerns_the_task_in_the_streams_order(ledger: Ledger) -> None:
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    lines = [
        seen(9, Kind.LEASE_REVOKED, LEASE),
        seen(2, Kind.LEASE_ISSUED, LEASE, actor=TOKEN),
        seen(4, Kind.LEASE_LOOKUP, "hmac-lease", op="op-1"),
        seen(3, Kind.HAZARD, actor="hmac-root", path="sys/leases/tidy"),
        seen(6, Kind.TOKEN_REVOKED, TOKEN, epoch=2),
        # somebody's revocation that names its lease in the body: which lease, only the HMAC can tell
        seen(7, Kind.LEASE_REVOKED, "hmac-sha256:1e", actor="hmac-root"),
    ]
    theirs = [
        seen(5, Kind.USED, OTHER_TOKEN, actor=OTHER_TOKEN),
        seen(8, Kind.LEASE_REVOKED, "database/creds/other/x"),
        seen(10, Kind.LEASE_LOOKUP, "hmac-other", op="op-other"),
        seen(11, Kind.OWN, actor=WORKER),
    ]
    read(ledger, lines + theirs)
    trail = ledger.trail(file_of(ledger))
    assert [o.place.offset for o in trail.observations] == [200, 300, 400, 700, 900, 600]
    assert {o.line for o in trail.observations} == {o.line for o in lines}
    assert trail.worker_accessors == {WORKER}


def test_an_observation_comes_back_as_it_was(ledger: Ledger) -> None:
    issued(ledger)
    line = seen(1, Kind.DENIED, TOKEN, actor=TOKEN, op="op-9", failed=True, error="permission denied", closing=False)
    line = replace(line, detail={"denied": True, "warnings": ["é"]})
    read(ledger, [line])
    assert ledger.trail(file_of(ledger)).observations == (line,)


def test_hazards_of_before_the_task_are_left_out(ledger: Ledger) -> None:
    issued(ledger)
    early = seen(1, Kind.HAZARD, path="sys/leases/tidy", at=NOW - timedelta(days=1))
    read(ledger, [early, seen(2, Kind.USED, TOKEN, actor=TOKEN), seen(3, Kind.HAZARD, path="sys/remount")])
    assert [o.path for o in ledger.trail(file_of(ledger)).observations if o.kind is Kind.HAZARD] == ["sys/remount"]


def test_of_what_was_done_to_engines_only_that_is_read_that_can_concern_the_tasks_credentials(
    ledger: Ledger,
) -> None:
    """Whoever may write to a mount that no task uses makes no task's proof slow, and what counts is there."""
    issued(ledger)
    # of a lease whose wrapping was opened only the lease's id says where it came from
    opened = seen(2, Kind.LEASE_ISSUED, "team/app_1/creds/x/a1", actor=TOKEN, path="sys/wrapping/unwrap")
    wrapped = seen(3, Kind.USED, TOKEN, actor=TOKEN, path="pki/issue/web", detail={"wrapped": True})
    refused = seen(4, Kind.DENIED, TOKEN, actor=TOKEN, path="kv/data/x", detail={"denied": True})
    counts = ["sys/leases/tidy", "auth/token/tidy", "pki/issuer/default", "team/app_1/config/x", "team/other/roles/x"]
    beside = ["kv/config/x", "pkis/config/crl", "teams/config/x"]
    acts = [seen(n, Kind.HAZARD, path=path) for n, path in enumerate([*counts, *beside], 5)]
    read(ledger, [opened, wrapped, refused, *acts])
    assert [o.path for o in ledger.trail(file_of(ledger)).observations if o.kind is Kind.HAZARD] == counts


# -- canaries ---------------------------------------------------------------------------------------------


def canaries(ledger: Ledger, *seconds: float) -> None:
    """Matched canaries so many seconds after NOW."""
    for at in seconds:
        keep_canary(ledger, at)


def seconds_of(ledger: Ledger) -> list[float]:
    return [(c.at - NOW).total_seconds() for c in ledger.trail(file_of(ledger)).canaries]


def acted(ledger: Ledger, *seconds: float, **changes: Any) -> list[Observation]:
    """Lines of the task's token so many seconds after NOW, each in its place among the canaries."""
    base = seen(1, Kind.OWN).place
    lines = [
        seen(
            n,
            changes.get("kind", Kind.USED),
            TOKEN,
            actor=changes.get("actor", TOKEN),
            detail=changes.get("detail", {}),
            line=hashlib.sha256(f"{n}/{at}/{changes}".encode()).hexdigest(),
            at=NOW + timedelta(seconds=at),
            place=replace(base, offset=100_000 + int(at * 1000)),
        )
        for n, at in enumerate(seconds, 1)
    ]
    read(ledger, lines)
    return lines


def test_a_trail_has_the_canaries_around_its_lines_and_that_of_its_tokens_expiry(ledger: Ledger) -> None:
    issued(ledger)
    acted(ledger, 1, 2, 50)
    # the grant expires 600 s after NOW: nothing but a canary shows that the time has come
    canaries(ledger, 700, 599, 40, 30, 20, 3, -5, -20, 60, 601, 70, 3)
    assert seconds_of(ledger) == [-5, 3, 40, 60, 601]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_left_out_of_all_canaries_would_say_nothing_else(ledger: Ledger, seed: int) -> None:
    rng = random.Random(seed)
    issued(ledger)
    expires_s = rng.randrange(200)
    change(ledger, Change("expires", rows=(grant(expires_at=NOW + timedelta(seconds=expires_s)),)))
    lines = acted(ledger, *(at + 0.5 for at in rng.sample(range(200), rng.randrange(1, 12))))
    lines += acted(ledger, rng.randrange(200) + 0.25, kind=Kind.RENEWED, actor=WORKER, detail={"increment_s": 20})
    every = [keep_canary(ledger, at) for at in rng.sample(range(-20, 220), rng.randrange(30))]
    trail = ledger.trail(file_of(ledger))
    whole = replace(trail, canaries=every)
    assert set(trail.canaries) <= set(every)
    for o in lines:
        assert canary_before(trail, o.place) == canary_before(whole, o.place)
        assert canary_after(trail, o.place) == canary_after(whole, o.place)
    for over in (NOW + timedelta(seconds=expires_s), lines[-1].at + timedelta(seconds=20), max(o.at for o in lines)):
        assert min((c.at for c in trail.canaries if c.at >= over), default=None) == min(
            (c.at for c in every if c.at >= over), default=None
        )


def test_what_a_worker_leaves_in_a_day_makes_no_trail_long(ledger: Ledger) -> None:
    issued(ledger)
    acted(ledger, 1, 86_000)
    every = [
        {"source": "audit", "epoch": 1, "offset": 5000 * n, "at": NOW + timedelta(seconds=5 * (n - 20))}
        for n in range(20_000)
    ]
    ledger._db.write(lambda c: c.execute(insert(schema.canaries), every))
    # the one at 900 is the first after the longest life of a token of its role
    assert seconds_of(ledger) == [0, 5, 600, 900, 85_995, 86_000]


def test_a_trail_has_the_first_canary_after_its_lines_where_none_closes_it(ledger: Ledger) -> None:
    issued(ledger)
    acted(ledger, 1)
    canaries(ledger, 5, 7)
    assert seconds_of(ledger) == [5]


def test_a_trail_goes_on_to_the_canary_after_the_end_of_the_last_renewal(ledger: Ledger) -> None:
    issued(ledger)
    change(ledger, Change("expires", rows=(grant(expires_at=NOW + timedelta(seconds=2)),)))
    acted(ledger, 1, kind=Kind.RENEWED, actor=WORKER, detail={"increment_s": 6})
    canaries(ledger, -1, 1, 3, 5, 7, 9)
    assert seconds_of(ledger) == [-1, 1, 3, 7]


def test_a_trail_without_lines_has_no_canaries(ledger: Ledger) -> None:
    issued(ledger)
    canaries(ledger, -1, 1)
    assert seconds_of(ledger) == []


def test_a_trail_knows_every_session_of_the_worker(ledger: Ledger) -> None:
    issued(ledger)
    for name in (WORKER, "hmac-worker-2", WORKER):
        ledger.record_session(name, NOW)
    assert ledger.trail(file_of(ledger)).worker_accessors == {WORKER, "hmac-worker-2"}


def test_the_lines_of_each_source_have_canaries_of_their_own_around_them(ledger: Ledger) -> None:
    issued(ledger)
    change(ledger, Change("expires", rows=(grant(expires_at=NOW + timedelta(milliseconds=1)),)))
    # two nodes that take turns in answering: the canary nearest in time stands in the other one's file
    keep_canary(ledger, -10, source="audit")
    keep_canary(ledger, -5, source="node-2")
    line = seen(2, Kind.USED, TOKEN, actor=TOKEN, place=replace(seen(1, Kind.OWN).place, offset=100_000))
    read(ledger, [line])
    keep_canary(ledger, 5, source="node-2")
    keep_canary(ledger, 10, source="audit")
    trail = ledger.trail(file_of(ledger))
    assert canary_before(trail, line.place) is not None
    assert canary_after(trail, line.place) is not None


# -- lines by alias ---------------------------------------------------------------------------------------

WRAPPING, AGENT, READ = "hmac-wrapping", "hmac-agent", "hmac-read"


def lines_of(ledger: Ledger, task_id: str = "t-1") -> list[int]:
    """The numbers of the trail's lines, in its order."""
    return [int(o.line, 16) for o in ledger.trail(file_of(ledger, task_id)).observations]


def test_a_trail_has_the_lines_about_tokens_that_stood_for_the_tasks(ledger: Ledger) -> None:
    two_tasks(ledger)
    nobody = {"actor": "", "failed": True}
    ours = [
        seen(10, Kind.TOKEN_CREATED, TOKEN, alias=WRAPPING),
        seen(11, Kind.REWRAPPED, actor="", token=WRAPPING, alias="hmac-w2"),
        seen(12, Kind.REWRAPPED, actor="", token="hmac-w2", alias="hmac-w3"),
        seen(13, Kind.UNWRAPPED, TOKEN, actor="hmac-w", token="hmac-w3", alias=AGENT),
        seen(14, Kind.UNWRAP_REFUSED, token=WRAPPING, **nobody),
        seen(15, Kind.UNWRAP_REFUSED, token="hmac-w3", **nobody),
        seen(16, Kind.USED, TOKEN, actor=TOKEN, alias=READ),
        seen(17, Kind.LEASE_ISSUED, LEASE, actor="", token=READ),
        seen(18, Kind.CUBBYHOLE_READ, actor="", token=READ),
        seen(19, Kind.REFUSED, token=AGENT, **nobody),
    ]
    theirs = [
        seen(20, Kind.UNWRAP_REFUSED, token="hmac-else", **nobody),
        seen(21, Kind.UNWRAP_REFUSED, token="", **nobody),
        seen(22, Kind.TOKEN_CREATED, OTHER_TOKEN, alias="hmac-other-wrapping"),
        seen(23, Kind.UNWRAP_REFUSED, token="hmac-other-wrapping", **nobody),
        # what a line calls itself does not make it ours
        seen(24, Kind.REWRAPPED, actor="", token="hmac-else", alias=""),
        seen(25, Kind.USED, "hmac-else", actor="hmac-else", alias="hmac-else-read"),
    ]
    # several files have no order: what is about a token may be read before what says whose it is. What anybody can have
    # written is kept where that is known: of what was delivered always, of what came of it once it was read.
    anybodys = [o for o in ours if o.kind in (Kind.UNWRAP_REFUSED, Kind.CUBBYHOLE_READ, Kind.REFUSED)]
    for line in [anybodys[0], *reversed([o for o in ours if o not in anybodys]), *theirs, *anybodys[1:]]:
        read(ledger, [line])
    assert lines_of(ledger) == list(range(10, 20))
    assert lines_of(ledger, "t-2") == [22, 23]


def test_a_circle_of_rewraps_ends(ledger: Ledger) -> None:
    # Vault cannot say this; whoever can write the file is not to hang the worker with it
    issued(ledger)
    lines = [
        seen(10, Kind.TOKEN_CREATED, TOKEN, alias=WRAPPING),
        seen(11, Kind.REWRAPPED, actor="", token=WRAPPING, alias="hmac-w2"),
        seen(12, Kind.REWRAPPED, actor="", token="hmac-w2", alias=WRAPPING),
    ]
    read(ledger, lines)
    assert lines_of(ledger) == [10, 11, 12]


def test_a_task_that_has_no_token_yet_has_nobodys_lines(ledger: Ledger) -> None:
    make(ledger)
    change(ledger, Change("issuing", rows=(grant(accessor_hmac=None),)))
    read(ledger, [seen(10, Kind.TOKEN_CREATED, "", alias=""), seen(11, Kind.UNWRAP_REFUSED, actor="", token="")])
    assert lines_of(ledger) == []


# -- the order across sources -----------------------------------------------------------------------------


def used(n: int, source: str, offset: int, ms: int, epoch: int = 1) -> Any:
    line = seen(n, Kind.USED, TOKEN, actor=TOKEN, at=NOW + timedelta(milliseconds=ms))
    return replace(line, place=replace(line.place, source=source, epoch=epoch, offset=offset))


def test_lines_of_several_sources_are_ordered_by_vaults_time(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [used(3, "b", 0, 30), used(1, "b", 900, 50)], source="b")
    read(ledger, [used(4, "a", 500, 10), used(2, "a", 600, 40), used(5, "a", 700, 60)], source="a")
    assert lines_of(ledger) == [4, 3, 2, 1, 5]


def test_within_a_source_its_own_order_holds_whatever_the_times_say(ledger: Ledger) -> None:
    # lines are not written in the order of their times: two requests at once, or a clock that was set back
    issued(ledger)
    read(ledger, [used(1, "a", 100, 40), used(2, "a", 200, 10), used(3, "a", 50, 90, epoch=2)], source="a")
    read(ledger, [used(4, "b", 10, 5), used(5, "b", 20, 60)], source="b")
    # 2 stands after 1, which was at 40: so it is not before 4 at 5, and not after 5 at 60
    assert lines_of(ledger) == [4, 1, 2, 5, 3]


def test_a_later_stretch_is_later_though_its_offsets_and_times_are_lower(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [used(2, "a", 10, 5, epoch=2), used(1, "a", 900, 50)], source="a")
    assert lines_of(ledger) == [1, 2]


# -- whether it was interrupted ---------------------------------------------------------------------------


def interrupted(ledger: Ledger) -> bool:
    return ledger.interrupted(file_of(ledger))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, False),
        ({"epoch": 2}, True),
        ({"source": "node-2"}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "line",
    [
        seen(1, Kind.TOKEN_CREATED, TOKEN),
        seen(1, Kind.USED, TOKEN, actor=TOKEN),
        # what it did names nothing else of the task's
        seen(1, Kind.USED, "", actor=TOKEN),
        seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN),
        seen(1, Kind.TOKEN_REVOKED, TOKEN, closing=False),
    ],
    ids=lambda o: o.kind.value,
)
def test_a_trail_is_interrupted_where_a_line_stands_elsewhere_than_the_newest_canary(
    ledger: Ledger, line: Any, where: dict[str, Any], expected: bool
) -> None:
    issued(ledger)
    read(ledger, [line])
    keep_canary(ledger, 5)
    assert interrupted(ledger) is False
    keep_canary(ledger, 6, **where)
    assert interrupted(ledger) is expected
    # an older one that is found later changes nothing
    keep_canary(ledger, 5.5, source="node-3")
    assert interrupted(ledger) is expected


def test_lines_on_both_sides_of_a_gap_are_interrupted(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.TOKEN_CREATED, TOKEN), seen(2, Kind.USED, TOKEN, actor=TOKEN, epoch=2)])
    keep_canary(ledger, 5, epoch=2)
    assert interrupted(ledger) is True


def test_what_others_do_elsewhere_does_not_interrupt(ledger: Ledger) -> None:
    two_tasks(ledger)
    read(ledger, [seen(1, Kind.TOKEN_CREATED, TOKEN, epoch=2)])
    read(ledger, [seen(2, Kind.USED, OTHER_TOKEN, actor=OTHER_TOKEN), seen(3, Kind.HAZARD, path="sys/leases/tidy")])
    keep_canary(ledger, 5, epoch=2)
    assert interrupted(ledger) is False
    assert ledger.interrupted(file_of(ledger, "t-2")) is True


def test_without_a_canary_a_line_or_a_token_nothing_is_interrupted(ledger: Ledger) -> None:
    issued(ledger)
    read(ledger, [seen(1, Kind.USED, TOKEN, actor=TOKEN)])
    assert interrupted(ledger) is False
    make(ledger, "t-2")
    change(ledger, Change("issuing", rows=(grant("t-2", accessor_hmac=None),)), "t-2")
    make(ledger, "t-3")
    change(ledger, Change("issued", rows=(grant("t-3", accessor_hmac="hmac-unused"),)), "t-3")
    read(ledger, [seen(2, Kind.OWN, "", actor="")])
    keep_canary(ledger, 5, epoch=2)
    assert interrupted(ledger) is True
    assert ledger.interrupted(file_of(ledger, "t-2")) is False
    assert ledger.interrupted(file_of(ledger, "t-3")) is False


def test_a_lease_that_was_shown_elsewhere_is_interrupted_as_well(ledger: Ledger) -> None:
    # else nobody looks whether it is alive before it is revoked, and afterwards check 5 cannot be had any more
    issued(ledger)
    read(ledger, [seen(1, Kind.TOKEN_CREATED, TOKEN), seen(2, Kind.USED, TOKEN, actor=TOKEN, alias=READ)])
    read(ledger, [seen(3, Kind.LEASE_ISSUED, LEASE, actor="", token=READ, source="node-2")], source="node-2")
    keep_canary(ledger, 5)
    assert [lease.lease_id for lease in file_of(ledger).leases] == [LEASE]
    assert interrupted(ledger) is True


def test_a_gap_in_another_source_while_the_token_lived_is_interrupted_as_well(ledger: Ledger) -> None:
    # what the token did on that node may be what is missing: then no line of it stands anywhere else
    issued(ledger)
    read(ledger, [seen(1, Kind.OWN, source="node-2")], source="node-2")
    read(ledger, [seen(2, Kind.TOKEN_CREATED, TOKEN)])
    later = NOW + timedelta(seconds=3)
    read(ledger, [seen(3, Kind.OWN, source="node-2", epoch=2)], source="node-2", epoch=2, gaps=("cut off",), at=later)
    keep_canary(ledger, 5)
    assert interrupted(ledger) is True


def test_what_a_worker_does_to_keep_a_task_is_no_act_and_what_others_do_is(ledger: Ledger) -> None:
    issued(ledger)
    ledger.record_session(WORKER, NOW)
    kept = [
        seen(1, Kind.RENEWED, TOKEN, actor=WORKER),
        seen(2, Kind.TOKEN_LOOKUP, TOKEN, actor=WORKER),
        seen(3, Kind.RENEWED, LEASE, actor=WORKER),
        # nor is what casts doubt on nothing but a proof
        seen(7, Kind.HAZARD, path="sys/remount"),
    ]
    acts = [
        seen(4, Kind.RENEWED, TOKEN, actor="hmac-root"),
        seen(5, Kind.LEASE_ISSUED, LEASE, actor=TOKEN),
        seen(6, Kind.TOKEN_REVOKED, TOKEN, actor=WORKER),
    ]
    read(ledger, [*kept, *acts])
    found = ledger.acts(file_of(ledger))
    assert (found.observations, found.canaries, found.worker_accessors) == (tuple(acts), (), {WORKER})
    assert len(ledger.trail(file_of(ledger)).observations) == len(kept) + len(acts)


def test_the_acts_on_what_stands_for_a_token_are_the_tasks(ledger: Ledger) -> None:
    issued(ledger)
    lines = [
        seen(1, Kind.TOKEN_CREATED, TOKEN, alias="hmac-wrapping"),
        seen(2, Kind.REWRAPPED, actor="", token="hmac-wrapping", alias="hmac-next"),
        seen(3, Kind.UNWRAPPED, actor="", token="hmac-next"),
    ]
    read(ledger, lines)
    assert [o.kind for o in ledger.acts(file_of(ledger)).observations] == [o.kind for o in lines]


# -- a file, read again -------------------------------------------------------------------------------------


def test_a_file_that_nobody_changed_is_the_same_and_what_was_found_meanwhile_is_in_it(ledger: Ledger) -> None:
    issued(ledger)
    file = file_of(ledger)
    assert ledger.refreshed(file) == file
    assert ledger.refreshed(file).events is file.events
    ledger.finding("t-1", "denied", "too often", NOW, line="1", request_id="r-1")
    again = ledger.refreshed(file)
    assert again == file_of(ledger) and [found["rule"] for found in again.findings] == ["denied"]


def test_a_file_is_read_anew_where_its_task_changed_or_the_stream_said_something_of_it(ledger: Ledger) -> None:
    two_tasks(ledger)
    file = file_of(ledger)
    change(ledger, Change("queued", fields={"due_at": NOW}))
    changed = ledger.refreshed(file)
    assert changed == file_of(ledger) != file
    # there may be thousands: only those that came since are read
    assert len(changed.events) > len(file.events) and changed.events[0] is file.events[0]
    read(ledger, [seen(1, Kind.LEASE_ISSUED, LEASE, actor=TOKEN)])
    observed = ledger.refreshed(changed)
    assert observed == file_of(ledger) and [lease.lease_id for lease in observed.leases] == [LEASE]
    # what is said of others changes nothing
    read(ledger, [seen(2, Kind.USED, OTHER_TOKEN, actor=OTHER_TOKEN)])
    assert ledger.refreshed(observed).events is observed.events


def test_a_file_has_no_renewal_that_is_over_and_every_one_whose_end_is_open(ledger: Ledger) -> None:
    issued(ledger)
    states = (OpState.INTENDED, OpState.ANSWERED, OpState.UNKNOWN, OpState.SETTLED, OpState.ABANDONED)
    renewals = (OperationKind.RENEW_TOKEN, OperationKind.RENEW_LEASE)
    rows = [
        operation(f"{kind} {state}", state, kind=kind)
        for kind in (*renewals, OperationKind.REVOKE_LEASE)
        for state in states
    ]
    change(ledger, Change("noted", rows=rows))
    found = {op.op_id for op in file_of(ledger).operations if op.op_id in {row.op_id for row in rows}}
    over = {f"{kind} {state}" for kind in renewals for state in (OpState.SETTLED, OpState.ABANDONED)}
    assert found == {row.op_id for row in rows} - over


def test_a_file_whose_task_is_gone_is_not_gone_on_with(ledger: Ledger) -> None:
    issued(ledger)
    file = file_of(ledger)
    # not LedgerUnavailable, which ends a worker: it is about this task alone
    with pytest.raises(CorruptRecord, match="disappeared"):
        ledger.refreshed(replace(file, task=replace(file.task, task_id="t-9")))
