"""A task hands a part of its access on: never more than it has, and all of it ends with the task."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLE, without_limits
from hands import Mirror, ask
from invariants import check, check_over
from mortal import Mortal, new_rig, points_of, time_passes, until_done
from rig import Held, Rig, rests_on
from test_order import not_revocable

from jitvault.documents.signed import payload_of
from jitvault.errors import JitvaultError
from jitvault.lifecycle import advance
from jitvault.lifecycle import ending as finish
from jitvault.lifecycle.issuance import issue
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.lifecycle.revocation import cascade as family
from jitvault.lifecycle.revocation.without_ledger import RevocationCount, revoke_without_ledger
from jitvault.model.revision import Revision
from jitvault.model.revision_text import describe
from jitvault.model.states import PROVEN, EndReason
from jitvault.sandbox.world import World, env

Spec = Callable[..., Path]


@pytest.fixture
def child(spec: Spec) -> Callable[..., Path]:
    """`child(parent)` gives the file of a spec that narrows the task `parent`."""

    def write(parent: str, *, more: str = "", window: str = "5m", **changes: Any) -> Path:
        return spec(window=window, more=f"  parent: {parent}\n{more}", **changes)

    return write


def another_agent(rig: Rig) -> str:
    """The name of a new agent, which has no login: what it gets is delivered to the requester."""
    name = f"agent-{secrets.token_hex(4)}"
    rig.admin.write("identity/entity", {"name": name})
    return name


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at(file: Path, **changes: str) -> Path:
    """The spec with words replaced."""
    text = file.read_text()
    for old, new in changes.items():
        assert old.replace("_", "-") in text
        text = text.replace(old.replace("_", "-"), new)
    file.write_text(text)
    return file


def tree(rig: Rig, spec: Spec, child: Callable[..., Path]) -> tuple[list[str], list[Held]]:
    """A task, what it handed on, and what that handed on once more, each with a lease."""
    top = spec()
    held = [rig.active(top)]
    files = [top]
    for window in ("10m", "5m"):
        files.append(child(files[-1].stem, window=window))
        held.append(rig.active(files[-1]))
    for file in files:
        rig("operator", "status", file.stem)
    return [file.stem for file in files], held


def state(rig: Rig, task: str) -> tuple[str, str | None]:
    row = rig.record(task).task
    return row.state.value, row.end_reason and row.end_reason.value


def test_a_child_has_its_own_token_that_names_everybody_above_it(rig: Rig, spec: Spec, child: Any) -> None:
    names, held = tree(rig, spec, child)
    metas = [rig.task_tokens(name)[0]["meta"] for name in names]
    assert "jitvault_parent" not in metas[0]
    assert [(m["jitvault_parent"], m["jitvault_delegation"]) for m in metas[1:]] == [
        (names[0], names[0]),
        (names[1], f"{names[0]} {names[1]}"),
    ]
    assert len({one.token for one in held}) == len({one.lease_id for one in held}) == 3
    ends = [rig.record(name).task.ends_at for name in names]
    assert None not in ends
    assert ends[2] < ends[1] < ends[0]
    shown = rig("operator", "status", names[1]).json
    assert (shown["parent"], shown["delegation"], shown["children"]) == (names[0], names[:1], names[2:])
    rows = {row["task_id"]: row for row in rig("auditor", "report").json["leases"]}
    assert [(rows[n]["parent"], rows[n]["delegation"]) for n in names] == [
        (None, []),
        (names[0], names[:1]),
        (names[1], names[:2]),
    ]
    assert rig.document(f"tasks/{names[2]}")["delegation"] == names[:2]


def test_the_end_of_a_parent_ends_all_below_it_from_the_leaves_up(rig: Rig, spec: Spec, child: Any) -> None:
    names, held = tree(rig, spec, child)
    done = rig("operator", "complete", names[0]).json
    assert done["confirmed"]
    ended = [state(rig, name) for name in names]
    assert [why for _, why in ended] == ["completed", "parent", "parent"]
    # where it takes long the settle window of what ended first is over
    assert {found for found, _ in ended} <= PROVEN
    for one in held:
        assert not rig.is_live(one.token)
        assert not rig.lease_is_live(one.lease_id)
    proven = [next(e.at for e in rig.record(name).events if e.kind == "confirmed") for name in names]
    assert proven == sorted(proven, reverse=True)
    # every door before the first lease, as Vault answered
    acts = rig.rows("SELECT kind, subject, sent_at FROM operations WHERE kind LIKE 'revoke_%' ORDER BY answered_at")
    tokens = {rig.record(name).grants[-1].accessor_hmac: name for name in names}
    first = [tokens.get(subject, "lease") for _, subject, _ in acts]
    assert set(first[:3]) == set(names), first
    rig.settle()
    for name in names:
        assert rig("operator", "status", name).json["state"] == "sealed"
    receipt = payload_of(rig.record(names[2]).task.receipt or {})["predicate"]
    assert [(link["task"], link["digest"]) for link in receipt["delegation"]] == [
        (name, rig.record(name).task.digest) for name in names[:2]
    ]


def test_a_parent_is_sealed_after_what_it_handed_on_and_its_receipt_says_so(
    rig: Rig, spec: Spec, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (top, middle, leaf), _ = tree(rig, spec, child)
    seal = finish.seal
    with monkeypatch.context() as patch:
        # the leaf has something left to wait for, such as a request that is in flight
        patch.setattr(
            finish, "seal", lambda w, found, *more: found.record.task.task_id != leaf and seal(w, found, *more)
        )
        rig("operator", "complete", top)
        rig.settle()
        for _ in range(2):
            assert rig("operator", "status", top).json["state"] == "confirmed"
            assert [state(rig, name)[0] for name in (middle, leaf)] == ["confirmed", "confirmed"]
    # one command is enough, from the leaves up
    assert rig("operator", "status", top).json["state"] == "sealed"
    sealed = [next(e.at for e in rig.record(name).events if e.kind == "sealed") for name in (leaf, middle, top)]
    assert sealed == sorted(sealed)
    for above, below in ((top, middle), (middle, leaf)):
        row = rig.record(below).task
        receipt = payload_of(rig.record(above).task.receipt or {})["predicate"]
        assert receipt["children"] == [
            {
                **{"task": below, "digest": row.digest, "state": "sealed"},
                "chain": {"events": row.seq, "head": row.head},
            }
        ]
    assert payload_of(rig.record(leaf).task.receipt or {})["predicate"]["children"] == []


def test_a_late_lease_below_takes_the_proof_above_it_back(rig: Rig, spec: Spec, child: Any, hurried: None) -> None:
    top = spec()
    rig.active(top)
    below = child(top.stem)
    lease_id = rig.active(below).lease_id
    rig("operator", "complete", top.stem)
    assert [state(rig, file.stem)[0] for file in (top, below)] == ["confirmed", "confirmed"]
    probe = rig.document("probes/postgres")
    line = rig.line_of(lease_id)
    with rig.world.audit_file.open("a") as audit:
        audit.write(line.replace(lease_id, lease_id + "x"))
    rig.settle()
    try:
        # the late one cannot be proven
        rig.put("probes/postgres", {"dsn": probe["dsn"].replace("password=", "password=wrong")})
        rig("operator", "status", top.stem, code=None)
        assert [state(rig, file.stem)[0] for file in (top, below)] == ["ending", "ending"]
    finally:
        rig.put("probes/postgres", probe)
        rig.vouch()
    (why,) = [e.body["note"] for e in rig.record(top.stem).events if e.kind == "unproven"]
    assert why == f"tasks below it are not proven any more: {below.stem}"
    # and it is proven again with what is below it
    rig("operator", "status", top.stem)
    assert [state(rig, file.stem)[0] for file in (top, below)] == ["confirmed", "confirmed"]


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(rig: Rig, file: Path, code: int, said: str, who: str = "operator") -> None:
    """The grant is refused with that exit code, and nothing is issued; so it is when it is asked for again."""
    for _ in range(2):
        result = rig(who, "grant", file, code=code)
        assert said in result.error["message"], result.error
    assert rig.task_tokens(file.stem) == []
    known = rig.wiring().ledger.record(file.stem)
    assert known is None or known.grants == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "postgres-readwrite", "criticality": "high"}, "access: its parent does not have postgres-readw"),
        ({"more": "  tools: [curl]\n"}, "tools: its parent does not have curl"),
        ({}, "network: its parent's token works from loopback alone"),
        ({"more": "  network: loopback\n", "criticality": "low"}, "criticality: expected medium or higher"),
        ({"more": "  network: loopback\n", "window": "15m"}, "window: its parent ends at"),
    ],
)
def test_a_child_that_is_wider_is_refused(rig: Rig, spec: Spec, child: Any, changes: dict[str, str], said: str) -> None:
    top = spec(criticality="medium", more="  tools: [psql]\n  network: loopback\n")
    rig("operator", "grant", top, code=4)
    rig("approver-1", "approve", top.stem, "--yes")
    rig.granted(top)
    narrow = {"criticality": "medium", **changes}
    refused(rig, child(top.stem, **narrow), 8, said)


def test_a_parent_that_cannot_hand_anything_on_is_refused(rig: Rig, spec: Spec, child: Any) -> None:
    itself = spec(task="itself", more="  parent: itself\n")
    refused(rig, itself, 8, "a task cannot be its own parent")
    refused(rig, child("nobody"), 8, "there is no task nobody")
    waiting = spec(criticality="medium")
    rig("operator", "submit", waiting)
    told = rig.document(f"tasks/{waiting.stem}")
    rig.put("tasks/elsewhere", {**told, "installation": "another", "task_id": "elsewhere", "state": "active"})
    try:
        refused(rig, child("elsewhere"), 8, "belongs to another installation")
    finally:
        # other tests share this Vault, and a kill switch would go by it
        rig.admin.delete("jitvault/metadata/tasks/elsewhere")
    refused(rig, child(waiting.stem, criticality="medium"), 8, f"task {waiting.stem} is pending_approval")
    ended = spec()
    rig.active(ended)
    rig("operator", "complete", ended.stem)
    refused(rig, child(ended.stem), 8, f"task {ended.stem} is confirmed")


def test_parents_never_go_in_a_circle(rig: Rig, spec: Spec, child: Any) -> None:
    """Only what has access hands it on, and that is never revised: neither of two can come first."""
    refused(rig, spec(task="ring-a", more="  parent: ring-b\n"), 8, "there is no task ring-b")
    refused(rig, spec(task="ring-b", more="  parent: ring-a\n"), 8, "there is no task ring-a")
    top = spec(task="ring-c")
    rig.granted(top)
    low = child("ring-c", task="ring-d")
    rig.granted(low)
    again = spec(task="ring-c", more="  parent: ring-d\n")
    assert "is issued with another spec" in rig("operator", "grant", again, "--revise", code=9).error["message"]


def test_a_parent_that_ended_between_approval_and_issue_is_refused(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.active(top)
    low = child(top.stem, criticality="medium")
    rig("operator", "grant", low, code=4)
    rig("approver-1", "approve", low.stem, "--yes")
    rig("operator", "complete", top.stem)
    refused(rig, low, 8, f"task {top.stem} is confirmed")


def test_nobody_above_approves_what_was_handed_on(rig: Rig, spec: Spec, child: Any) -> None:
    """The owner of the parent is an approver, and has no part in the child itself."""
    top = at(spec(), data_owner="approver-1")
    rig.active(top)
    low = child(top.stem, criticality="medium")
    rig("operator", "grant", low, code=4)
    result = rig("approver-1", "approve", low.stem, "--yes", code=None)
    assert f"owner of {top.stem}" in result.stdout + result.stderr
    assert state(rig, low.stem)[0] == "pending_approval"
    rig("approver-2", "approve", low.stem, "--yes")
    assert rig.granted(low)["state"] == "issued"


def test_only_the_parents_requester_and_agent_hand_it_on(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.active(top)
    rig.cli.variables["JITVAULT_APPROVER_1_TOKEN"] = rig.world.operator_2_token.reveal()
    refused(rig, child(top.stem), 3, f"only operator and research-agent can hand task {top.stem} on", who="approver-1")
    low = child(top.stem)
    granted = rig("agent", "grant", low).json
    assert rig.use(granted).secrets


def test_policy_says_how_deep_and_by_whom(rig: Rig, spec: Spec, child: Any, tmp_path: Path) -> None:
    names, _ = tree(rig, spec, child)
    refused(rig, child(names[2], window="2m"), 3, "delegation is allowed two levels deep at most")
    policies = without_limits(tmp_path / "operators-alone")
    text = (policies / "delegate.cedar").read_text()
    mine = text.replace('(principal in Group::"jitvault-operators" || principal in Group::"jitvault-agents") &&', "")
    assert mine != text
    (policies / "delegate.cedar").write_text(mine.replace("context.depth >= 1 &&", "principal is Operator &&"))
    rig.cli.variables["JITVAULT_POLICIES"] = str(policies)
    top = spec()
    rig.active(top)
    refused(rig, child(top.stem), 3, "no policy permits it", who="agent")


def test_two_children_never_hold_more_than_their_parent(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.active(top)
    first, second = child(top.stem), child(top.stem)
    rig.active(first)
    rig("operator", "submit", second)
    refused(rig, second, 8, "together they could take")
    rig("operator", "complete", first.stem)
    assert rig.granted(second)["state"] == "issued"


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_reads_that_any_token_may_make_block_no_proof_of_a_task_or_its_parent(rig: Rig, spec: Spec, child: Any) -> None:
    """Its child's agent reads such paths in a wrapping, and logs in with the token as well: that gives no lease."""
    top = spec()
    rig.active(top)
    below = child(top.stem)
    token = rig.active(below).token
    for path in ("identity/oidc/.well-known/keys", "pki/cert/ca"):
        assert ask(rig, "GET", path, token, headers={"X-Vault-Wrap-TTL": "1"})[1]["wrap_info"]
    name, password = f"friend-{secrets.token_hex(4)}", secrets.token_hex(16)
    rig.admin.write(f"auth/userpass/users/{name}", {"password": password})
    friend = {"password": password}
    assert ask(rig, "POST", f"auth/userpass/login/{name}", token, friend, headers={"X-Vault-Wrap-TTL": "1"})[0] == 200
    done = rig("operator", "complete", top.stem, code=None).json
    assert (done["confirmed"], state(rig, below.stem)[0]) == (True, "confirmed")
    assert "outside_template" in rig.findings(below.stem)


def test_a_child_that_cannot_be_revoked_keeps_its_parents_access_from_nothing(
    rig: Rig, spec: Spec, child: Any, hurried: None
) -> None:
    names, held = tree(rig, spec, child)
    with not_revocable(rig, held[2].login["user"]):
        rig("operator", "complete", names[0], code=6)
        # by now it is quiet, and what is below is all that keeps it from being proven
        time.sleep(1.1)
        done = rig("operator", "complete", names[0], code=6).json
        assert not done["confirmed"]
        assert [rests_on(c) for c in done["token"]["checks"] if not c["ok"]] == [
            f"not before the tasks below it are proven dead: {names[2]}, {names[1]}"
        ]
        for one in held:
            assert not rig.is_live(one.token)
        assert [rig.lease_is_live(one.lease_id) for one in held] == [False, False, True]
        assert [state(rig, name)[0] for name in names] == ["ending"] * 3
        assert {lease["verdict"] for lease in done["leases"]} == {"target_confirmed"}
        check(rig)
    assert rig("operator", "complete", names[0]).json["confirmed"]
    for name in names:
        check_over(rig, name)


def test_what_was_closed_without_proof_keeps_its_parent_unproven(
    rig: Rig, spec: Spec, child: Any, hurried: None
) -> None:
    top = spec()
    rig.active(top)
    low = child(top.stem)
    held = rig.active(low)
    rig("operator", "status", low.stem)
    with not_revocable(rig, held.login["user"]):
        rig("operator", "complete", top.stem, code=6)
        why = ("--force", "--yes", "--reason", "its owner keeps what it made")
        rig("operator", "revoke", low.stem, *why, code=6)
        assert state(rig, low.stem)[0] == "unverified"
        rig("operator", "complete", top.stem, code=6)
        assert state(rig, top.stem)[0] == "ending"
        rig("operator", "revoke", top.stem, *why, code=6)
        assert state(rig, top.stem) == ("unverified", "completed")


def test_a_child_ends_when_its_parent_does_although_nobody_looks_at_the_parent_again(
    rig: Rig, spec: Spec, child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that ends the parent dies right after the decision: whoever looks at the child goes on there."""
    names, held = tree(rig, spec, child)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(family, "live_below", dies)
    with pytest.raises(KeyboardInterrupt), rig.environment("operator"):
        wiring = rig.wiring()
        sign_end(wiring.person, names[0], reason=EndReason.COMPLETED, note="")
        advance.advance(wiring.worker, names[0])
    monkeypatch.undo()
    assert rig.is_live(held[1].token)
    shown = rig("operator", "status", names[1]).json
    assert shown["state"] in PROVEN and shown["end_reason"] == "parent"
    assert [rig.is_live(one.token) for one in held[1:]] == [False, False]
    assert rig("operator", "status", names[0]).json["state"] in PROVEN


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_parent_that_ends_while_its_child_is_issued(
    rig: Rig, spec: Spec, child: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Before the create, which is not made then; or after it, when the end waits for the child and takes it back."""
    top = spec()
    rig.active(top)
    low = child(top.stem)
    rig("operator", "submit", low)
    create = issue._create
    ends = threading.Thread(target=rig.cli, args=("operator", "complete", top.stem), daemon=True)

    def slow(*args: Any) -> Any:
        made = create(*args) if when == "after" else None
        ends.start()
        until(lambda: state(rig, top.stem)[0] == "ending")
        return made or create(*args)

    monkeypatch.setattr(issue, "_create", slow)
    rig("operator", "grant", low, code=None)
    ends.join(60)
    assert state(rig, low.stem) == ("confirmed", "parent")
    assert state(rig, top.stem) == ("confirmed", "completed")
    assert rig.task_tokens(low.stem) == []
    assert rig.tokens_made(low.stem) == (0 if when == "before" else 1)
    check(rig)


def test_two_children_that_are_issued_at_once_never_hold_more_than_their_parent(
    rig: Rig, spec: Spec, child: Any
) -> None:
    top = spec()
    rig.active(top)
    files = [child(top.stem) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        codes = list(pool.map(lambda file: rig.cli("operator", "grant", file, code=None).code, files))
    assert sorted(codes) == [0, 8, 8]
    assert sum(len(rig.task_tokens(file.stem)) for file in files) == 1
    check(rig)


def test_the_end_of_a_tree_may_die_anywhere(lab: World, tmp_path: Path, mortal: Mortal, hurried: None) -> None:
    def grown(name: str) -> tuple[Rig, list[str]]:
        rig, top = new_rig(lab, env(lab, "", EXAMPLE), tmp_path, name)
        low = top.with_name(f"{top.stem}-low.yaml")
        text = top.read_text().replace(top.stem, low.stem).replace("15m", "5m")
        low.write_text(f"{text}  parent: {top.stem}\n")
        for file in (top, low):
            rig.active(file)
        rig("operator", "status", low.stem)
        return rig, [top.stem, low.stem]

    rig, names = grown("dry")
    dry = mortal(rig, "complete", names[0], point=0, in_a_hurry=True)
    assert dry["code"] == 0, dry
    points = points_of(dry["points"], ("/v1/auth/token/revoke-accessor", "/v1/sys/leases/revoke/"))
    for point in points:
        rig, names = grown(str(point))
        died = mortal(rig, "complete", names[0], point=point, in_a_hurry=True)
        assert died["signal"] == signal.SIGKILL or point > len(dry["points"]) - 12, (point, died)
        time_passes(rig)
        if point % 2:
            # whoever looks at the child goes on with it
            rig("operator", "status", names[1], code=None)
        check(rig, rig("operator", "status", names[0], code=None))
        until_done(rig, "complete", names[0])
        for name in names:
            check_over(rig, name)
        assert [state(rig, name)[1] for name in names] == ["completed", "parent"], point


def test_the_kill_switch_ends_what_an_agents_task_handed_on(rig: Rig, spec: Spec, child: Any) -> None:
    agent = another_agent(rig)
    top = at(spec(), research_agent=agent)
    held = [rig.active(top)]
    low = child(top.stem)
    held.append(rig.active(low))
    result = rig("operator", "revoke", "--agent", agent, "--yes", "--reason", "gone astray").json
    assert sorted(task["task_id"] for task in result["tasks"]) == sorted([top.stem, low.stem])
    assert result["confirmed"]
    assert not any(rig.is_live(one.token) for one in held)


def test_without_the_stream_the_whole_tree_is_taken_back(
    rig: Rig, spec: Spec, child: Any, mirrored: None, mirror: Mirror
) -> None:
    names, held = tree(rig, spec, child)
    mirror.hold()
    rig("operator", "complete", names[0], code=7)
    assert not any(rig.is_live(one.token) or rig.lease_is_live(one.lease_id) for one in held)
    mirror.let_go()
    assert rig("operator", "complete", names[0]).json["confirmed"]


def test_two_tasks_of_one_agent_have_nothing_in_common(rig: Rig, spec: Spec, child: Any) -> None:
    """Tokens, leases and findings are each task's own, also where one was handed on by the other."""
    top = spec()
    first = rig.active(top)
    low = child(top.stem)
    second = rig.active(low)
    assert first.token != second.token
    with pytest.raises(JitvaultError):
        rig.vault(second.token).read("database/creds/app-readwrite")
    shown = [rig("operator", "status", file.stem, code=None).json for file in (top, low)]
    assert [len(one["leases"]) for one in shown] == [1, 1]
    assert [one["state"] for one in shown] == ["active", "confirmed"]
    assert [[f["rule"] for f in one["findings"]] for one in shown] == [[], ["denied"]]
    assert rig.is_live(first.token)
    assert rig.lease_is_live(first.lease_id)


def test_an_edited_parent_hands_nothing_on(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.active(top)
    rig("operator", "complete", top.stem)
    rig.sql("UPDATE tasks SET state = 'active', due_at = NULL WHERE task_id = ?", top.stem)
    low = child(top.stem)
    rig("operator", "grant", low, code=13)
    rig.turn(low.stem, code=12)
    assert rig.task_tokens(low.stem) == []


def test_a_child_whose_parent_was_edited_away_is_not_believed(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.active(top)
    low = child(top.stem)
    rig.active(low)
    rig.sql("UPDATE tasks SET parent = NULL WHERE task_id = ?", low.stem)
    assert "parent" in rig("operator", "status", low.stem, code=12).error["message"]


@pytest.mark.parametrize(("edit", "undo"), [("parent = NULL", "parent = ?"), ("state = 'cancelled'", None)])
def test_a_child_that_was_edited_away_keeps_its_parent_unproven(
    rig: Rig, spec: Spec, child: Any, edit: str, undo: str | None
) -> None:
    top = spec()
    rig.active(top)
    low = child(top.stem)
    held = rig.active(low)
    rig.sql(f"UPDATE tasks SET {edit} WHERE task_id = ?", low.stem)
    assert low.stem in rig("operator", "status", top.stem).json["children"]
    proof = rig("operator", "complete", top.stem, code=6)
    assert not proof.json["confirmed"] and rig.is_live(held.token)
    assert "handed_on" in [event.kind for event in rig.record(top.stem).events]
    rig("operator", "status", low.stem, code=12)
    if undo is None:
        # its chain goes on from the state that was set: what it was is not known any more
        return
    rig.sql(f"UPDATE tasks SET {undo} WHERE task_id = ?", top.stem, low.stem)
    assert rig("operator", "complete", top.stem).json["confirmed"]
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    assert state(rig, low.stem) == ("confirmed", "parent")


def test_a_child_whose_rows_cannot_be_read_keeps_nothing_of_its_parent_alive(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    held = rig.active(top)
    low = child(top.stem)
    rig.active(low)
    # PostgreSQL keeps no time that is none
    assert rig.ledger_path
    rig.sql("UPDATE operations SET sent_at = 'never' WHERE task_id = ?", low.stem)
    ended = rig("operator", "complete", top.stem, code=6).json
    assert not ended["confirmed"]
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)


def test_a_child_that_was_deleted_keeps_its_parent_unproven(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.active(top)
    low = child(top.stem)
    held = rig.active(low)
    assert rig.sql("DELETE FROM tasks WHERE task_id = ?", low.stem) == 1
    assert not rig("operator", "complete", top.stem, code=6).json["confirmed"] and rig.is_live(held.token)


def test_a_child_ends_when_its_parents_deadline_was_edited(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.active(top)
    low = child(top.stem)
    held = rig.active(low)
    assert rig("auditor", "ledger", "check", code=None).json["broken"] == []
    rig.sql("UPDATE tasks SET ends_at = ? WHERE task_id = ?", "2099-01-01 00:00:00", top.stem)
    broken = rig("auditor", "ledger", "check", code=12).json["broken"]
    assert broken == [{"task_id": top.stem, "problems": ["the task's ends_at was set by hand"]}]
    rig("operator", "extend", low.stem, "--for", "30m", "--reason", "more", code=None)
    rig("operator", "status", low.stem, code=None)
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    assert state(rig, low.stem)[1] == "parent"


def test_the_agent_hands_on_what_has_a_network(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec(more="  network: loopback\n")
    rig.active(top)
    granted = rig("agent", "grant", child(top.stem, more="  network: loopback\n")).json
    assert rig.use(granted).secrets


def test_explain_says_what_a_child_would_take_and_what_it_assumes(rig: Rig, spec: Spec, child: Any) -> None:
    top = spec()
    rig.granted(top)
    told = rig("operator", "policy", "explain", child(top.stem)).json
    assert told["decision"]["rules"] == ["delegation-two-deep", "low-risk-is-approved-at-once", "operators-ask"]
    assert any("its parent has this access" in one for one in told["assumed"])
    assert not any("its parent" in one for one in rig("operator", "policy", "explain", top).json["assumed"])


def test_a_child_gets_at_most_what_is_left_of_its_parent_when_it_is_issued(rig: Rig, spec: Spec, child: Any) -> None:
    """A window that fitted when it was asked for is shortened by what has passed since."""
    top = spec(window="20s")
    rig.active(top)
    low = child(top.stem, window="17s")
    rig("operator", "submit", low)
    time.sleep(3)
    rig.granted(low)
    above, below = (rig.record(file.stem).grants[-1] for file in (top, low))
    assert below.ttl_s < 17
    assert below.expires_at < above.expires_at
    assert f"Handed on by: {top.stem} (agent research-agent)" in "\n".join(
        describe(Revision.of(rig.record(low.stem).revision.body))
    )


def test_a_ledger_that_takes_no_writes_keeps_nothing_of_the_tree_alive(rig: Rig, spec: Spec, child: Any) -> None:
    names, held = tree(rig, spec, child)
    wiring = rig.wiring()
    sign_end(wiring.person, names[0], reason=EndReason.OPERATOR, note="")
    assert revoke_without_ledger(wiring.worker, names[0]) == RevocationCount(ended=6, known=6)
    assert not any(rig.is_live(one.token) or rig.lease_is_live(one.lease_id) for one in held)


def test_a_child_that_cannot_be_read_is_passed_over_where_the_ledger_takes_no_writes(
    rig: Rig, spec: Spec, child: Any
) -> None:
    assert rig.ledger_path
    names, held = tree(rig, spec, child)
    wiring = rig.wiring()
    sign_end(wiring.person, names[0], reason=EndReason.OPERATOR, note="")
    rig.sql("UPDATE operations SET sent_at = 'never' WHERE task_id = ?", names[1])
    assert revoke_without_ledger(wiring.worker, names[0]) == RevocationCount(ended=4, known=4)
    assert [rig.is_live(one.token) for one in held] == [False, True, False]
