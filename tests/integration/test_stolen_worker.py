"""Whoever has the worker's token keeps no access alive with it, and does not go unseen."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from attended import wait_for
from commands import Quick
from hands import THIEF, ask
from rig import Rig

from jitvault.lifecycle.requests.publish_templates import TemplateWatch, publish_templates
from jitvault.stream.reading import canary

# documents that nobody can read stay behind, and a kill switch counts each of them as a task of its scope
pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]


def another_login(rig: Rig) -> str:
    """A token with the worker's policy that no worker of ours logged in for: who stole what it logs in with has one."""
    return str(rig.admin.write("auth/token/create", {"policies": ["jitvault-worker"]})["auth"]["client_token"])


def overwrite(rig: Rig, task: str, token: str, op: str = "") -> None:
    """What the worker published of the task, with the head of a chain that never was."""
    said = rig.document(f"tasks/{task}")
    forged = {**said, "chain": {"seq": said["chain"]["seq"] + 5, "head": "0" * 64}}
    path, headers = f"jitvault/data/tasks/{task}", {"X-Jitvault-Op": op}
    status, _ = ask(rig, "PUT", path, token, {"data": forged}, source=THIEF, headers=headers)
    assert status == 200


@pytest.mark.parametrize("by", ["its token", "another login of its, with an id from the audit log"])
def test_what_a_thief_published_freezes_everything_and_its_task_ends(rig: Rig, spec: Spec, by: str) -> None:
    """What the task holds is revoked. It is proven once an administrator has put the worker's own version back."""
    file, other = spec(), spec()
    held, _ = rig.active(file), rig.active(other)
    honest = rig.document(f"tasks/{file.stem}")
    if by == "its token":
        overwrite(rig, file.stem, rig.world.worker_token.reveal())
    else:
        acts = "SELECT op_id FROM operations WHERE kind = 'publish' AND task_id = ? ORDER BY sent_at DESC"
        overwrite(rig, file.stem, another_login(rig), rig.rows(acts, file.stem)[0][0])
    ended = rig("operator", "status", other.stem, code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("frozen", True)
    assert rig.rows("SELECT rule FROM findings WHERE task_id IS NULL") == [("unknown_publication",)]
    assert "the ledger does not hold" in str(rig.turn(file.stem, code=12))
    assert held.login["user"] not in rig.database_roles()
    assert not rig.is_live(held.token)
    rig.put(f"tasks/{file.stem}", honest)
    ended = rig("operator", "status", file.stem, code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("frozen", True)


def test_what_a_thief_took_away_of_what_is_published_freezes_everything(rig: Rig, spec: Spec) -> None:
    """Without a ledger that document is all that people have, and a ledger that was put back is known by it."""
    file, other = spec(), spec()
    rig.active(file)
    rig.active(other)
    published = f"jitvault/metadata/tasks/{file.stem}"
    # an administrator may: `jitvault tidy` does
    assert ask(rig, "DELETE", published, rig.world.admin_token.reveal())[0] == 204
    assert rig("operator", "status", other.stem).json["state"] == "active"
    assert rig("operator", "status", file.stem).json["state"] == "active"
    assert ask(rig, "DELETE", published, another_login(rig), source=THIEF)[0] == 204
    ended = rig("operator", "status", other.stem, code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("frozen", True)
    assert rig.rows("SELECT rule FROM findings WHERE task_id IS NULL") == [("unknown_publication",)]


@pytest.mark.parametrize(("command", "forged"), [("revoke", "a seal"), ("complete", "what is no document")])
def test_what_a_thief_published_as_over_is_ended_and_not_believed(
    rig: Rig, spec: Spec, command: str, forged: str
) -> None:
    """Whoever has the worker's identity has the ledger as well, and that knows what the agent still holds."""
    sealed, file = spec(), spec()
    rig.active(sealed)
    rig("operator", "complete", sealed.stem)
    rig.settle()
    rig("operator", "status", sealed.stem)
    held = rig.active(file)
    over, said = rig.document(f"tasks/{sealed.stem}"), rig.document(f"tasks/{file.stem}")
    said |= {key: over[key] for key in ("state", "end_reason", "ended", "proof", "receipt")}
    if forged != "a seal":
        # a thousand times as long, unpacked
        said["proof"] = base64.b64encode(zlib.compress(b" " * 64 * 1024 * 1024)).decode()
    path, token = f"jitvault/data/tasks/{file.stem}", rig.world.worker_token.reveal()
    assert ask(rig, "PUT", path, token, {"data": said}, source=THIEF)[0] == 200
    rig("operator", command, file.stem, code=12)
    assert not rig.is_live(held.token)
    # where the target is slow, Vault's own queue goes on with it
    wait_for(lambda: not rig.lease_is_live(held.lease_id))
    assert held.login["user"] not in rig.database_roles()


@pytest.mark.parametrize("command", ["revoke", "complete"])
def test_what_somebody_else_wrote_about_a_task_keeps_nobody_from_ending_it(rig: Rig, spec: Spec, command: str) -> None:
    file, other = spec(), spec()
    held, kept = rig.active(file), rig.active(other)
    for task in (file, other):
        overwrite(rig, task.stem, rig.world.admin_token.reveal())
    refused = rig("operator", command, file.stem, code=12)
    assert "the ledger does not hold" in refused.error["message"]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    assert held.login["user"] not in rig.database_roles()
    assert "_confirmed" not in str(rig.rows("SELECT verdict FROM leases"))
    # nobody wants the other one ended
    rig("operator", "status", other.stem, code=12)
    assert rig.is_live(kept.token)


@pytest.mark.parametrize("what", ["its token", "its lease", "with an id from the audit log", "by another login"])
def test_a_renewal_with_the_workers_token_that_no_worker_meant_freezes_everything(
    rig: Rig, spec: Spec, what: str
) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    (grant,) = rig.record(file.stem).grants
    path, body = "auth/token/renew-accessor", {"accessor": grant.wrapped_accessor, "increment": 900}
    if what == "its lease":
        path, body = f"sys/leases/renew/{held.lease_id}", {"increment": 900}
    op = grant.create_op if what == "with an id from the audit log" else "0" * 32
    token = another_login(rig) if what == "by another login" else rig.world.worker_token.reveal()
    assert ask(rig, "PUT", path, token, body, source=THIEF, headers={"X-Jitvault-Op": op})[0] == 200
    ended = rig("operator", "status", file.stem, code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("frozen", True)
    (rule,) = {rule for (rule,) in rig.rows("SELECT rule FROM findings WHERE task_id IS NULL")}
    assert rule == "unknown_renewal"
    assert not rig.is_live(held.token)


@pytest.mark.parametrize("by", ["its token", "another login of its", "the operation id of a receipt"])
def test_a_receipt_that_no_worker_meant_freezes_everything(rig: Rig, spec: Spec, by: str) -> None:
    """What is signed has its HMAC in the ledger before; one more write, and nothing of it in the task's file."""
    file, other = spec(), spec()
    held = rig.active(other)
    rig.active(file)
    rig("operator", "complete", file.stem)
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"
    (op,) = [op for op in rig.operations(file.stem) if op.kind == "sign"]
    assert op not in rig.record(file.stem).operations
    token, headers = rig.world.worker_token.reveal(), {}
    if by == "another login of its":
        token = another_login(rig)
    elif by == "the operation id of a receipt":
        headers = {"X-Jitvault-Op": op.op_id}
    body = {"input": base64.b64encode(b"a receipt of a task that never was").decode()}
    path = "jitvault-transit/sign/jitvault-receipts"
    # whoever may do everything signs what they like
    assert ask(rig, "PUT", path, rig.world.admin_token.reveal(), body)[0] == 200
    assert rig("operator", "status", other.stem).json["state"] == "active"
    assert ask(rig, "PUT", path, token, body, source=THIEF, headers=headers)[0] == 200
    ended = rig("operator", "status", other.stem, code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("frozen", True)
    assert rig.rows("SELECT rule FROM findings WHERE task_id IS NULL") == [("unknown_signature",)]
    assert not rig.is_live(held.token)


def test_without_a_ledger_a_seal_beats_what_a_thief_published_over_it(rig: Rig, spec: Spec) -> None:
    """Vault keeps the version with the receipt; and the receipt of one task is none of another's."""
    file, running = spec(), spec()
    rig.active(file)
    rig.active(running)
    rig("operator", "complete", file.stem)
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"
    alone = Quick(rig.cli.variables, rig.cli.home)

    def told(task: str, code: int = 0) -> tuple[str, str, str]:
        done = alone("operator", "status", task, "--json", code=code, worker=False)
        shown, problem = done.json, done.json["published"]["problem"] or ""
        assert code == 0 or problem in done.error["message"]
        return shown["state"], shown["published"]["vouched_by"], problem

    assert told(file.stem) == ("sealed", "receipt", "")
    assert told(running.stem) == ("issued", "nobody", "")
    assert "by nobody: a receipt comes with the seal" in alone("operator", "status", running.stem, worker=False).stdout
    honest, token = rig.document(f"tasks/{file.stem}"), rig.world.worker_token.reveal()
    forged = {**honest, "state": "active", "end_reason": None, "proof": None}
    for said in (forged, {**forged, "receipt": None}):
        assert ask(rig, "PUT", f"jitvault/data/tasks/{file.stem}", token, {"data": said}, source=THIEF)[0] == 200
        state, by, problem = told(file.stem, code=12)
        assert (state, by, "somebody overwrote the document" in problem) == ("sealed", "receipt", True)
    theirs = {**rig.document(f"tasks/{running.stem}"), "state": "sealed", "receipt": honest["receipt"]}
    rig.put(f"tasks/{running.stem}", theirs)
    state, by, problem = told(running.stem, code=12)
    assert (state, by, "without a receipt" in problem) == ("sealed", "nobody", True)


@pytest.fixture
def templates(rig: Rig) -> Iterator[str]:
    """The path of the published templates, which is as it was afterwards."""
    before = (rig.admin.read("jitvault/data/templates") or {}).get("data", {}).get("data")
    yield "jitvault/data/templates"
    rig.admin.delete("jitvault/metadata/templates")
    if before:
        rig.put("templates", before)


@pytest.mark.parametrize("what", ["the templates", "an inbox", "an inbox, with the id of its delivery"])
def test_what_a_thief_wrote_for_agents_freezes_everything(rig: Rig, spec: Spec, templates: str, what: str) -> None:
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    inbox = f"jitvault-inbox/data/{rig.entity('research-agent')}/{file.stem}"
    path = templates if what == "the templates" else inbox
    (op,) = (each.op_id for each in rig.operations(file.stem) if each.kind == "deliver")
    headers = {"X-Jitvault-Op": op if "id of" in what else "0" * 32}
    body, token = {"data": {"read": "me"}}, rig.world.worker_token.reveal()
    assert ask(rig, "PUT", path, token, body, source=THIEF, headers=headers)[0] == 200
    ended = rig("operator", "status", file.stem, code=12).json
    assert (ended["end_reason"], ended["proof"]["confirmed"]) == ("frozen", True)
    # the id is one write's, whichever of the two was first
    told = [message for (message,) in rig.rows("SELECT message FROM findings WHERE rule = 'unknown_publication'")]
    assert any(f"'{path}' from {THIEF}" in message for message in told)


def test_a_thief_closes_no_inbox_and_keeps_nothing_in_it(rig: Rig, spec: Spec) -> None:
    file = spec()
    place, token = f"{rig.entity('operator')}/{file.stem}", rig.world.worker_token.reveal()
    for path in ("config", f"metadata/{place}"):
        for setting in ({"cas_required": True}, {"delete_version_after": "24h"}, {"max_versions": 10}):
            assert ask(rig, "PUT", f"jitvault-inbox/{path}", token, setting, source=THIEF)[0] == 403
    assert rig("operator", "grant", file).json["state"] == "issued"


def test_templates_that_no_intent_explains_are_put_back_and_no_two_workers_fight(rig: Rig, templates: str) -> None:
    """Whoever published last is right; only where that worker does nothing is it another one."""
    first = rig.wiring(None).worker
    canary(first)
    second = replace(first, templates=dict(list(first.templates.items())[:1]))
    looks = [TemplateWatch(worker).look for worker in (first, second)]

    def look() -> list[str]:
        return [each().name for each in looks]

    rig.put("templates", {"an": "administrator"})
    assert publish_templates(first) and not publish_templates(first)
    assert look() == ["OWN", "OTHERS"]
    assert publish_templates(second)
    for _ in range(3):
        assert look() == ["OTHERS", "OWN"]
    # the first one waits for the second, however often somebody else writes
    for _ in range(2):
        rig.put("templates", {"an": "administrator"})
        assert look() == ["UNEXPLAINED", "RESTORED"]
        assert look() == ["OTHERS", "OWN"]
    assert list(rig.document("templates")) == list(second.templates)
    rig.admin.delete("jitvault/metadata/templates")
    assert [looks[0]().name for _ in range(3)] == ["UNEXPLAINED", "RESTORED", "OWN"]
    assert look() == ["OWN", "OTHERS"]
    writes = rig.rows("SELECT count(*) FROM operations WHERE kind = 'publish' AND subject = 'templates'")
    assert writes == [(5,)]
    # and no line of theirs is a thief's
    canary(first)
    assert rig.rows("SELECT rule FROM findings") == []
    first.ledger.close()
