"""What the tests of the ledger build it from: rows, changes, audit lines, and the file itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from event_examples import body
from ledgers import LedgerPlace, ask

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.source import Batch, Position
from jitvault.audit.trail import Canary
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, GrantRow, OperationRow, OpState, RevisionRow, TaskRecord, TaskRow
from jitvault.model.event_chain import chain_problems
from jitvault.model.states import OVER, State, Verdict

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
TOKEN, OTHER_TOKEN, WORKER = "hmac-token", "hmac-other-token", "hmac-worker"
LEASE = "database/creds/app-ro/afiJklUf"


def task(task_id: str = "t-1", state: State = State.APPROVED) -> TaskRow:
    return TaskRow(
        task_id=task_id,
        state=state,
        end_reason=None,
        revision=1,
        digest="sha256:" + "a" * 64,
        requester="e-req",
        agent="e-agent",
        version=0,
        seq=0,
        head="",
        created_at=NOW,
        due_at=None,
        ends_at=None,
        ending_at=None,
        dead_ms=None,
        confirmed_ms=None,
        receipt=None,
    )


def revision(task_id: str = "t-1") -> RevisionRow:
    return RevisionRow(task_id, 1, "sha256:" + "a" * 64, b'{"a":1}', {"permitted": True})


def grant(task_id: str = "t-1", attempt: int = 1, **changes: Any) -> GrantRow:
    made = GrantRow(
        grant_id=f"g-{task_id}-{attempt}",
        task_id=task_id,
        attempt=attempt,
        digest="sha256:" + "a" * 64,
        role="jitvault-15m",
        create_op=f"op-{task_id}-{attempt}",
        wrapped_accessor="accessor",
        accessor_hmac=TOKEN,
        token_lease=None,
        creation_path="auth/token/create/jitvault-15m",
        requested_ttl_s=900,
        ttl_s=600,
        step_s=120,
        wrap_ttl_s=120,
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=10),
        rolling=False,
        renew_at=None,
        delivered=False,
        settled=False,
        verdict=Verdict.LIVE,
        dead_at=None,
        wrapping_hmac="hmac-wrapping" if task_id == "t-1" else None,
    )
    return replace(made, **changes)


def operation(op_id: str = "op-1", state: OpState = OpState.ANSWERED, **changes: Any) -> OperationRow:
    made = OperationRow(op_id, "t-1", "revoke_lease", LEASE, state, "ok", NOW, NOW + timedelta(milliseconds=5))
    return replace(made, **changes)


def make(ledger: Ledger, task_id: str = "t-1", *, state: State = State.APPROVED) -> TaskRow:
    rows = (revision(task_id),)
    return ledger.create(task(task_id, state), Change("submitted", body("submitted"), rows=rows), at=NOW)


def change(ledger: Ledger, what: Change, task_id: str = "t-1") -> TaskRow:
    with ledger.claim(task_id) as claim:
        return ledger.apply(task_id, what, claim=claim, at=NOW)


def file_of(ledger: Ledger, task_id: str = "t-1") -> TaskRecord:
    found = ledger.record(task_id)
    assert found is not None
    return found


def whole(ledger: Ledger, task_id: str = "t-1") -> bool:
    found = file_of(ledger, task_id)
    return chain_problems(found.events, head=found.task.head) == [] and found.task.seq == len(found.events)


def as_is(place: LedgerPlace, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What somebody with the database and a program for it can do."""
    return ask(place, statement, values)[0]


def due(ledger: Ledger, now: datetime) -> list[str]:
    """The tasks whose time has come, whoever works on them."""
    return [t.task_id for t in ledger.tasks() if t.due_at is not None and t.due_at <= now and t.state not in OVER]


def lose(place: LedgerPlace, table: str = "tasks") -> None:
    """Let every claim's time be over, as if its holder had been paused for longer."""
    as_is(place, f"UPDATE {table} SET claim_until = 1")


def on_event(place: LedgerPlace, name: str, sqlite: str, postgresql: str) -> None:
    """Do a statement with each event that is written."""
    if isinstance(place, Path):
        as_is(place, f"CREATE TRIGGER {name} AFTER INSERT ON events BEGIN {sqlite}; END")
        return
    body = f"$$ BEGIN {postgresql}; RETURN NULL; END $$"
    as_is(place, f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS {body}")
    as_is(place, f"CREATE TRIGGER {name} AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION {name}()")


def refuse_events(place: LedgerPlace) -> None:
    on_event(place, "refuse", "SELECT RAISE(ABORT, 'refused')", "RAISE EXCEPTION 'refused'")


def drop_trigger(place: LedgerPlace, name: str, table: str) -> None:
    as_is(place, f"DROP TRIGGER {name}" + ("" if isinstance(place, Path) else f" ON {table}"))


def seen(n: int, kind: Kind, subject: str = "", **how: Any) -> Observation:
    """The `n`-th line of a stretch, `n` milliseconds after NOW; it is the worker's own unless `how` says else."""
    made = Observation(
        line=f"{n:064x}",
        place=Place(how.pop("source", "audit"), how.pop("epoch", 1), 100 * n),
        at=NOW + timedelta(milliseconds=n),
        closing=True,
        kind=kind,
        request_id=f"r-{n}",
        path="database/creds/app-ro",
        subject=subject,
        actor=WORKER,
        op="",
        remote="127.0.0.1",
        failed=False,
        error="",
        token="",
        alias="",
        detail={},
    )
    return replace(made, **how)


def batch(lines: Sequence[Observation], *, offset: int = 0, epoch: int = 1, gaps: tuple[str, ...] = ()) -> Batch:
    end = offset or max((o.place.offset + 100 for o in lines), default=0)
    return Batch(tuple(lines), Position("1:2", end, epoch), gaps, len(lines))


def read(
    ledger: Ledger,
    lines: Sequence[Observation],
    *,
    source: str = "audit",
    shared: Sequence[str] = (),
    at: datetime = NOW,
    **how: Any,
) -> None:
    """Enter `lines` as one batch that was read of a source."""
    ledger.start_source(source, Position("1:2", 0, 1))
    ledger.observe(source, batch(lines, **how), after=position(ledger, source), at=at, shared=shared)


def position(ledger: Ledger, source: str = "audit") -> Position:
    return ledger.readings()[source].position


def issued(ledger: Ledger) -> None:
    """A task t-1 with a grant whose token is TOKEN, and an operation op-1."""
    make(ledger)
    change(ledger, Change("issued", rows=(grant(), operation())))


def two_tasks(ledger: Ledger) -> None:
    """t-1 has TOKEN, t-2 has OTHER_TOKEN."""
    issued(ledger)
    make(ledger, "t-2")
    change(ledger, Change("issued", rows=(grant("t-2", accessor_hmac=OTHER_TOKEN),)), "t-2")


def leases_of(ledger: Ledger, task_id: str = "t-1") -> list[str]:
    return [lease.lease_id for lease in file_of(ledger, task_id).leases]


def keep_canary(ledger: Ledger, seconds: float, *, source: str = "audit", epoch: int = 1) -> Canary:
    """A canary of ours that stands so many seconds after NOW; offsets grow with time."""
    place, at = Place(source, epoch, 100_000 + int(seconds * 1000)), NOW + timedelta(seconds=seconds)
    name = f"{source}/{epoch}/{seconds}"
    line = seen(0, Kind.CANARY, name, line=hashlib.sha256(name.encode()).hexdigest(), place=place, at=at)
    read(ledger, [line], source=source, epoch=epoch)
    found = ledger.keep_canary(source, name)
    assert found == Canary(place, at)
    return found
