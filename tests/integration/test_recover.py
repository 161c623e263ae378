"""The ledger is lost, or an older one was put back, while tasks are in every state.

What Vault and the audit files still know is known again, what may hold access is ended, and nothing is called proven
that the evidence does not carry. Each test has servers of its own: a recovery looks at everything that there is.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attended import Attended, wait_for
from commands import EXAMPLE
from copied_world import copied_world
from ledgers import address, new_place
from mortal import ALL, Mortal
from rig import PREFIX, ROLE, Held, Rig, own_rig

from jitvault.context import WorkerContext
from jitvault.documents.published_task import packed
from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, opened
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.event_chain import chain_problems
from jitvault.model.states import EndReason
from jitvault.recovery import lost_task
from jitvault.recovery.recover import recover_task
from jitvault.sandbox.world import env
from jitvault.vault.transit import Transit
from jitvault.wiring import SystemClock

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]
PROVEN = {"confirmed", "sealed"}
DEAD = {"audit_confirmed", "target_confirmed", "expired"}


class LaterClock(SystemClock):
    """A clock by which more time is over than is."""

    later_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.later_s


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    kind = getattr(request, "param", "sqlite")
    with copied_world() as world:
        place = new_place(world.servers.postgres, tmp_path / "first.db", kind)
        yield own_rig(world, env(world, address(place), EXAMPLE), tmp_path)


def lose(rig: Rig) -> None:
    """The ledger's disk is gone: the worker begins with nothing."""
    kind = "sqlite" if isinstance(rig.place, Path) else "postgresql"
    file = rig.cli.home / f"after-{len(list(rig.cli.home.glob('after-*')))}.db"
    file.touch()
    if kind == "sqlite":
        rig.ledger_path.unlink()
        for more in rig.ledger_path.parent.glob(rig.ledger_path.name + "-*"):
            more.unlink()
        assert "`jitvault ledger upgrade`" in rig("operator", "ledger", "recover", code=11).error["hint"]
        rig("operator", "ledger", "upgrade")
        return
    rig.place = new_place(rig.world.servers.postgres, file, kind)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_LEDGER": address(rig.place)}


@contextmanager
def not_revocable(rig: Rig, held: Held) -> Iterator[None]:
    """A role that owns something cannot be dropped."""
    name = held.login["user"]
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA "of-{name}" AUTHORIZATION "{name}"'.encode())
        yield
        target.execute(f'DROP SCHEMA "of-{name}"'.encode())


def active(rig: Rig, file: Path) -> Held:
    held = rig.active(file)
    rig("operator", "status", file.stem)
    return held


def recover(rig: Rig, *more: str, code: int | None = 0) -> dict[str, Any]:
    result = rig("operator", "ledger", "recover", "--wait", "20", *more, code=code)
    return dict(result.json)


def fates(told: dict[str, Any]) -> dict[str, str]:
    return {task["task_id"]: task["fate"] for task in told["tasks"]}


def roles_tokens(rig: Rig) -> list[str]:
    """The task tokens that Vault has, wrappings included."""
    return list(rig.admin.list(f"sys/leases/lookup/{ROLE}/"))


def check_whole(rig: Rig) -> None:
    """Nothing lives that the ledger does not know, and every chain is whole and as Vault says."""
    assert rig.admin.list(f"sys/leases/lookup/{PREFIX}/") == []
    checked = rig("operator", "ledger", "check").json
    assert checked["ok"] and checked["heads"]["missing"] == []
    for (task,) in rig.rows("SELECT task_id FROM tasks"):
        record = rig.record(task)
        assert chain_problems(record.events, head=record.task.head) == []
        assert not {found["rule"] for found in record.findings} & {"ledger_edited", "ledger_rolled_back"}


def seals(rig: Rig, task: str) -> dict[str, Any]:
    for _ in range(4):
        rig.settle()
        shown = dict(rig("operator", "status", task).json)
        if shown["state"] == "sealed":
            return shown
    raise AssertionError(shown["state"])


def test_a_ledger_that_was_lost_is_rebuilt_and_what_held_access_is_ended(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    pending, approved, issued, held_on = spec(criticality="medium"), spec(criticality="medium"), spec(), spec()
    ending, confirmed, sealed, cancelled = spec(), spec(), spec(), spec(criticality="medium")
    rig("operator", "submit", pending)
    rig("operator", "submit", approved)
    rig("approver-1", "approve", approved.stem, "--yes")
    rig("operator", "submit", cancelled)
    rig("operator", "cancel", cancelled.stem)
    active(rig, sealed)
    rig("operator", "complete", sealed.stem)
    seals(rig, sealed.stem)
    before = json.loads(rig("auditor", "report", sealed.stem).stdout)
    rig("auditor", "report", sealed.stem, "--receipt", tmp_path / "before.json")
    gone = active(rig, confirmed)
    rig("operator", "complete", confirmed.stem)
    wrapped = rig.granted(issued)
    held = active(rig, held_on)
    stuck = active(rig, ending)
    with not_revocable(rig, stuck):
        rig("operator", "complete", ending.stem, code=6)
    delivered = len(roles_tokens(rig))
    lose(rig)

    planned = recover(rig, "--plan")
    assert rig.is_live(held.token) and not planned["finished"]
    assert rig.rows("SELECT COUNT(*) FROM tasks") == [(0,)]
    told = recover(rig, code=6)
    assert (
        fates(told)
        == fates(planned)
        == {
            pending.stem: "anew",
            approved.stem: "anew",
            issued.stem: "ending",
            held_on.stem: "ending",
            ending.stem: "ending",
            confirmed.stem: "ending",
            sealed.stem: "closed",
            cancelled.stem: "cancelled",
        }
    )
    assert told["finished"] and told["unproven"] == sorted([confirmed.stem, ending.stem])

    # no access lives on, and what was alive then is proven as always
    for one in (held, stuck, gone):
        assert not rig.is_live(one.token)
        assert not rig.lease_is_live(one.lease_id)
        assert one.login["user"] not in rig.database_roles()
    assert rig.task_tokens(issued.stem) == []
    for file, lease, proven in ((held_on, held, True), (ending, stuck, False)):
        status = rig("operator", "status", file.stem).json
        assert (status["state"] in PROVEN, status["end_reason"] is not None) == (proven, True)
        assert [(one["lease_id"], one["verdict"]) for one in status["leases"]] == [(lease.lease_id, "target_confirmed")]
    assert rig.record(issued.stem).task.state in PROVEN
    # what had ended before is gone by Vault's word, and no line of before that was read under trust says more
    for file in (confirmed, ending):
        assert {grant.verdict.value for grant in rig.record(file.stem).grants} == {"gone"}
    assert not {lease.verdict.value for lease in rig.record(confirmed.stem).leases} & {"audit_confirmed"}
    check_whole(rig)

    # the receipt is the same one, and so is what a report says
    assert rig("auditor", "report", sealed.stem).json["leases"][0]["verdict"] == before["leases"][0]["verdict"]
    rig("auditor", "report", sealed.stem, "--receipt", tmp_path / "after.json")
    assert (tmp_path / "before.json").read_text() == (tmp_path / "after.json").read_text()
    assert rig("operator", "status", sealed.stem).json["state"] == "sealed"
    for file in (issued, held_on):
        receipt = seals(rig, file.stem)
        assert receipt["state"] == "sealed"
        signed = rig.record(file.stem).task.receipt
        payload = opened(
            signed, key=RECEIPT_KEY, public_keys=Transit(rig.admin).public_keys(RECEIPT_KEY), payload_type=RECEIPT_TYPE
        )
        assert [one["from"]["state"] for one in payload["predicate"]["recovered"]]

    # what was never granted is granted once, and the approval still counts
    assert wrapped["wrapping"] and delivered
    granted = rig.granted(approved)
    assert len(rig.task_tokens(approved.stem)) == 1 and granted["state"] == "issued"
    assert rig("operator", "grant", pending, code=4).error
    rig("operator", "complete", approved.stem)
    for file in (confirmed, ending):
        rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "its lines are of before", code=6)
        assert rig.record(file.stem).task.state == "unverified"

    # a second time nothing changes
    heads = rig.rows("SELECT task_id, head FROM tasks ORDER BY task_id")
    again = recover(rig)
    assert {*fates(again).values()} == {"kept"} and again["finished"]
    assert rig.rows("SELECT task_id, head FROM tasks ORDER BY task_id") == heads


def test_a_new_ledger_beside_open_tasks_grants_nothing_and_ends_what_is_to_end(rig: Rig, spec: Spec) -> None:
    file, over, new, third = spec(), spec(), spec(), spec()
    held, done, agents = active(rig, file), active(rig, over), active(rig, third)
    below = spec(window="5m", more=f"  parent: {over.stem}\n")
    handed = rig.use(rig("agent", "grant", below).json)
    other = spec(template="postgres-readwrite")
    rig("operator", "submit", other)
    rig("approver-1", "approve", other.stem, "--yes")
    written = active(rig, other)
    lose(rig)
    # an agent that removes its request hides nothing
    mine = f"jitvault/metadata/requests/{rig.entity('research-agent')}/{below.stem}/submit"
    rig.vault(rig.token_of("agent")).delete(mine)
    refused = rig("operator", "grant", new, code=12).error
    assert "has had to be rebuilt" in refused["message"] and "ledger recover" in refused["hint"]
    lost = rig.turn(file.stem, code=12)
    assert lost is not None and "missing in the ledger" in str(lost) and "ledger recover" in lost.hint
    (usable,) = [c for c in rig("operator", "doctor", code=None).json["checks"] if c["name"] == "usable"]
    assert usable["status"] == "fail" and "ledger recover" in usable["mend"]
    # who only reads the ledger is told as well
    reads = {"JITVAULT_LEDGER": rig.cli.variables["JITVAULT_LEDGER"]}
    (freeze,) = rig.cli("auditor", "freezes", "--json", worker=False, extra=reads).json["freezes"]
    assert freeze["kind"] == "recovery" and "ledger recover" in freeze["reason"]

    # who wants an end is heard, with the worker's identity and without; other lost tasks' leases keep the proof back
    rig.put(f"requests/{rig.entity('research-agent')}/{third.stem}/submit", {"what": "hides the operator's request"})
    assert "missing in the ledger" in rig("operator", "complete", below.stem, code=12).error["message"]
    unproven = rig("operator", "complete", over.stem, code=6).error
    assert "belongs to no task" in unproven["message"] and "ledger recover" in unproven["hint"]
    with Attended(rig) as worker:
        health = worker.started.pool._health
        # at first it is not ready because it has read nothing
        wait_for(lambda: any("ledger recover" in why for why in health.unready()))
        wait_for(lambda: rig.rows("SELECT 1 FROM judged WHERE path LIKE ?", f"%/{third.stem}/submit"))
        # names at the target have whole seconds, so the first login may count as this task's: then the proof waits
        rig.cli("agent", "complete", third.stem, "--wait", "5s", code=None, worker=False)
    for task, one in ((over, done), (below, handed), (third, agents)):
        assert not rig.is_live(one.token) and not rig.lease_is_live(one.lease_id)
        assert [lease.lease_id for lease in rig.record(task.stem).leases] == [one.lease_id]
    # nobody asked for this one's, and nothing is granted still
    assert rig.is_live(held.token) and rig.state(file.stem) is None
    assert rig("operator", "grant", new, code=12).error
    # a scope leaves none out that the ledger lost
    why = ("--reason", "its host was compromised", "--wait", "2s")
    frozen = rig("operator", "freeze", "--template", "postgres-readwrite", *why, code=None).json
    assert [*frozen["ended"], *frozen["not_ended"]] == [other.stem]
    assert not rig.is_live(written.token) and not rig.lease_is_live(written.lease_id) and rig.is_live(held.token)
    rig("operator", "unfreeze", "--template", "postgres-readwrite", *why[:2])
    rig("operator", "revoke", "--template", "postgres-readonly", "--yes", *why, code=None)
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)

    assert {*fates(recover(rig)).values()} == {"kept"}
    assert {rig.state(task.stem) for task in (file, over, below, third, other)} <= PROVEN
    rig("operator", "grant", new)
    rig("operator", "complete", new.stem)
    check_whole(rig)
    assert rig("operator", "freezes").json["freezes"] == []
    # the leases of lost tasks are no finding against the one that ended beside them
    assert rig("operator", "findings", "list", "--all").json["findings"] == []


def test_a_lost_task_whose_import_takes_long_is_ended_in_proof(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spec()
    held = active(rig, file)
    lose(rig)
    rig("operator", "grant", spec(), code=12)
    wiring, clock = rig.wiring(), LaterClock()
    sign_end(wiring.person, file.stem, reason=EndReason.OPERATOR, note="")

    def takes_long(worker: WorkerContext, task: str) -> None:
        recover_task(worker, task)
        clock.later_s = 60.0

    monkeypatch.setattr(lost_task, "recover_task", takes_long)
    worker, until = replace(wiring.worker, clock=clock), clock.monotonic() + 30
    ended = lost_task.advance_or_end_lost(worker, file.stem, hint=wiring.person.entity, deadline=until)
    assert ended.task.state in PROVEN and not rig.is_live(held.token)


def test_what_vault_calls_over_keeps_no_new_ledger_from_granting(rig: Rig, spec: Spec) -> None:
    file, other, new = spec(), spec(), spec()
    active(rig, file)
    rig("operator", "complete", file.stem)
    seals(rig, file.stem)
    active(rig, other)
    said = rig.document(f"tasks/{other.stem}")
    rig.put(f"tasks/{other.stem}", {**said, "installation": "0" * 32})
    lose(rig)
    rig("operator", "grant", new)


def test_an_older_ledger_is_corrected_forward(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    kept, granted_since, used_since, ended_since = spec(), spec(criticality="medium"), spec(), spec()
    still = active(rig, kept)
    rig("operator", "submit", granted_since)
    issued = rig.granted(used_since)
    over = active(rig, ended_since)
    copy = rig.snapshot(tmp_path / "backup.db")
    rig("approver-1", "approve", granted_since.stem, "--yes")
    held = active(rig, granted_since)
    used = rig.use(issued)
    rig("operator", "status", used_since.stem)
    rig("operator", "complete", ended_since.stem)
    unknown = spec()
    lost = active(rig, unknown)
    rig.put_back(copy)
    failure = rig.turn(granted_since.stem, code=12)
    assert failure is not None and "recover" in failure.hint
    rig.put_back(copy)

    told = recover(rig)
    assert fates(told) == {
        kept.stem: "kept",
        granted_since.stem: "ending",
        used_since.stem: "goes_on",
        ended_since.stem: "ending",
        unknown.stem: "ending",
    }
    assert told["finished"] and told["unproven"] == []
    # what the ledger knows whole goes on
    assert rig.is_live(still.token) and rig.is_live(used.token) and rig.lease_is_live(used.lease_id)
    for one in (held, over, lost):
        assert not rig.is_live(one.token) and not rig.lease_is_live(one.lease_id)
    # the stream went on from where it was read, so what ended then is proven by what was read of it
    for file in (granted_since, ended_since, unknown):
        found = rig.record(file.stem)
        assert found.task.state in PROVEN
        assert "confirmed" in [event.kind for event in found.events]
        assert {grant.verdict.value for grant in found.grants} <= DEAD
        assert {lease.verdict.value for lease in found.leases} <= DEAD
    for file in (kept, used_since):
        assert rig("operator", "status", file.stem).json["state"] == "active"
        rig("operator", "complete", file.stem)
    check_whole(rig)
    assert rig("operator", "freezes").json["freezes"] == []
    # the leases of lost tasks are no finding against the one that ended beside them
    assert rig("operator", "findings", "list", "--all").json["findings"] == []


def test_what_contradicts_vault_is_left_and_keeps_grants_away(rig: Rig, spec: Spec) -> None:
    """Vault was restored as well, or somebody wrote there: the ledger says more than it and lacks what it says."""
    file, other = spec(), spec()
    held = active(rig, other)
    active(rig, file)
    rig("operator", "complete", file.stem)
    said = rig.document(f"tasks/{file.stem}")
    rig.put(f"tasks/{file.stem}", {**said, "state": "active", "chain": {"seq": 4, "head": "0" * 64}})
    told = recover(rig, code=12)
    assert fates(told)[file.stem] == "contradicts" and not told["finished"]
    assert rig.record(file.stem).task.state in PROVEN
    assert "recovered" not in [event.kind for event in rig.record(file.stem).events]
    assert rig.findings(file.stem).count("ledger_contradicts") == 1
    assert rig.is_live(held.token)
    refused = rig("operator", "grant", spec(), code=12).error
    assert "rebuilt" in refused["message"] and "ledger recover" in refused["hint"]
    (freeze,) = rig("operator", "freezes").json["freezes"]
    assert freeze["kind"] == "recovery"
    doctor = rig("operator", "doctor", code=None).json
    (usable,) = [check for check in doctor["checks"] if (check["area"], check["name"]) == ("ledger", "usable")]
    assert usable["status"] == "fail" and "has had to be rebuilt" in usable["seen"]
    # an empty one goes by Vault alone
    rig("operator", "complete", other.stem)
    lose(rig)
    told = recover(rig, code=None)
    assert fates(told)[file.stem] == "ending" and told["finished"]


# all the others are on SQLite, and the ledger's own tests on both
@pytest.mark.parametrize("rig", ["postgresql"], indirect=True)
def test_what_somebody_wrote_into_vault_raises_no_verdict(rig: Rig, spec: Spec) -> None:
    file, made_up, lower = spec(), "made-up", spec()
    held, low = active(rig, file), active(rig, lower)
    said = rig.document(f"tasks/{file.stem}")
    forged = {"payload": "e30=", "payloadType": RECEIPT_TYPE, "signatures": [{"keyid": "x", "sig": "eA=="}]}
    rig.put(f"tasks/{file.stem}", {**said, "state": "sealed", "receipt": packed(forged)})
    rig.put(f"tasks/{made_up}", {**said, "task_id": made_up})
    # what policy asked is said to be less, and so is what the template asks, in a body of their own
    other = rig.document(f"tasks/{lower.stem}")
    decision = {**other["decision"], "obligations": {**other["decision"]["obligations"], "confirm": None}}
    rig.put(f"tasks/{lower.stem}", {**other, "state": "confirmed", "decision": decision, "ttl": {"step_s": 1}})
    # and a token of somebody's own says that it is the task's
    thief = rig.admin.write(
        ROLE, {"policies": ["jitvault-access-none"], "meta": {"jitvault_task": file.stem}, "ttl": "5m"}
    )
    lose(rig)
    told = recover(rig, code=None)
    assert fates(told)[file.stem] == "ending"
    assert made_up in told["left"]
    for one in (held, low):
        assert not rig.is_live(one.token) and not rig.lease_is_live(one.lease_id)
    assert rig.record(file.stem).task.state in PROVEN
    assert "confirmed" in [event.kind for event in rig.record(file.stem).events]
    assert rig.record(file.stem).task.receipt != forged
    assert [lease.verdict.value for lease in rig.record(file.stem).leases] == ["target_confirmed"]
    assert [lease.verdict.value for lease in rig.record(lower.stem).leases] == ["target_confirmed"]
    assert all(len(rig.record(name).grants) == 1 for name in (file.stem, lower.stem))
    # nobody's, and ended as that
    assert not rig.is_live(thief["auth"]["client_token"])
    assert [row[0] for row in rig.rows("SELECT kind FROM orphans")] == ["token"]
    assert rig("operator", "ledger", "check", code=12).json["heads"]["missing"] == [made_up]
    rig.admin.delete(f"jitvault/metadata/tasks/{made_up}")
    check_whole(rig)


def test_without_its_lines_a_task_is_ended_and_never_confirmed(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    """The audit log was lost with the ledger: what Vault lists is ended, and nobody can say whose it was."""
    file, waiting = spec(), spec(criticality="medium")
    held = active(rig, file)
    rig("operator", "submit", waiting)
    rig("approver-1", "approve", waiting.stem, "--yes")
    shutil.copy(rig.world.audit_file, tmp_path / "kept.log")
    with rig.world.audit_file.open("r+b") as audit:
        audit.truncate(0)
    lose(rig)
    told = recover(rig, code=None)
    assert not rig.is_live(held.token)
    assert fates(told) == {file.stem: "ending", waiting.stem: "ending"}
    for name in (file.stem, waiting.stem):
        found = rig.record(name)
        assert found.task.state == "ending"
        assert {grant.verdict.value for grant in found.grants} == {"unverifiable"}
        # nobody knows which token it was
        assert "NOT known to be revoked" in rig("operator", "complete", name, code=6).error["message"]
        assert rig.record(name).task.state == "ending"
    # nothing is delivered again
    assert rig.task_tokens(waiting.stem) == []
    rig("operator", "grant", waiting, code=9)
    closed = rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "its lines are lost", code=6).json
    assert (closed["state"], closed["confirmed"]) == ("unverified", False)


# of the some 370 requests and commits of a recovery of two tasks: after the mark; while the first is taken in, and
# before it is published; while the files are read; when the doors are closed; while the rest is swept
POINTS = (2, 80, 134, 150, 185, 240)


@pytest.mark.parametrize("point", POINTS if ALL else POINTS[2::2])
def test_a_recovery_that_dies_goes_on(rig: Rig, spec: Spec, mortal: Mortal, point: int) -> None:
    file, waiting = spec(), spec(criticality="medium")
    held = active(rig, file)
    rig("operator", "submit", waiting)
    rig("approver-1", "approve", waiting.stem, "--yes")
    lose(rig)
    within = "jitvault.cli.commands.installation.ledger_recover:recover_ledger"
    arguments = ("ledger", "recover", "--wait", "20")
    died = mortal(rig, *arguments, point=point, within=within)
    assert died["signal"] == signal.SIGKILL, died
    for table in ("tasks", "audit_sources", "installation"):
        rig.sql(f"UPDATE {table} SET claim_until = 0")
    # until it has finished nothing is granted, whatever was taken in
    refused = rig("operator", "grant", waiting, code=12).error
    assert "recover" in refused["hint"]
    told = recover(rig)
    assert told["finished"]
    assert rig.record(file.stem).task.state in PROVEN
    assert [lease.verdict.value for lease in rig.record(file.stem).leases] == ["target_confirmed"]
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    kinds = [event.kind for event in rig.record(file.stem).events]
    assert kinds.count("recovered") == 1
    rig.granted(waiting)
    assert len(rig.task_tokens(waiting.stem)) == 1
    rig("operator", "complete", waiting.stem)
    check_whole(rig)
