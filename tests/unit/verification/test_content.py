"""What a receipt says has to follow from the evidence in it, whoever signed it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from forger import KNOWN, Edit, Forger, content, history, statement, texts

from jitvault.errors import SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.verification.trust import Trust

Told = dict[str, Any]


def lease(told: Told, number: int = 0) -> Told:
    return dict.__getitem__(told, "proof")["leases"][number]  # type: ignore[no-any-return]


def check(of: Told, n: int) -> Told:
    return next(one for one in of["checks"] if one["n"] == n)


def test_an_honest_receipt_holds_and_says_what_nobody_checked(forger: Forger) -> None:
    for task in ("read-orders", "fix-orders"):
        found = forger.verify(forger.receipt(task=task)).outcome
        assert found.problems == [] and found.holds is None
        assert [one.name for one in found.not_made] == ["lines", "left out", "worker"]
        assert any("--status" in text for text in found.not_checked)
        assert forger.accepts(forger.receipt(task=task), forger.log())
    told = forger.verify(forger.receipt(), forger.log(), told=history()).outcome
    assert told.holds and not any("--status" in text for text in told.not_checked)


def test_an_end_that_no_target_was_asked_about_is_not_closed_with_proof(forger: Forger) -> None:
    def unasked(told: Told) -> None:
        for one in told["proof"]["leases"]:
            one["checks"] = [found for found in one["checks"] if found["n"] != 6]
            one["verdict"] = "audit_confirmed"
        told["policy"]["obligations"]["confirm"] = None
        told["proof"]["target_asked"] = False

    def said_otherwise(told: Told) -> None:
        unasked(told)
        told["proof"]["target_asked"] = True

    words = "revoked at Vault; the target was not asked"
    receipt = forger.receipt(unasked, "fix-orders")
    found = forger.verify(receipt).outcome
    assert found.problems == []
    assert next(one for one in found.checked if one.name == "closed").seen.startswith(f"{words}: sealed")
    assert words in forger.said(receipt, forger.log())
    honest = forger.verify(forger.receipt(task="fix-orders")).outcome
    assert next(one for one in honest.checked if one.name == "closed").seen.startswith("with proof")
    assert any("its checks say otherwise" in problem for problem in forger.problems(said_otherwise))


@pytest.mark.parametrize("trust", [Trust(), Trust("root"), Trust("", KNOWN.workers)])
def test_without_the_namespace_and_the_worker_nothing_is_said_to_hold(forger: Forger, trust: Trust) -> None:
    found = forger.verify(forger.receipt(), forger.log(), trust=trust).outcome
    assert found.problems == [] and found.holds is None
    assert [one.name for one in found.not_made] == ["worker"]
    assert forger.script(forger.receipt(), forger.log(), trust=trust) == 3


def fails(n: int, of: str = "lease") -> Edit:
    def edit(told: Told) -> None:
        credential = lease(told) if of == "lease" else told["proof"][of]
        check(credential, n)["ok"] = False

    return edit


def evidence(n: int, of: str = "lease", **shown: object) -> Edit:
    def edit(told: Told) -> None:
        credential = lease(told) if of == "lease" else told["proof"][of]
        check(credential, n)["evidence"] = shown

    return edit


def without(n: int) -> Edit:
    return lambda told: lease(told)["checks"].remove(check(lease(told), n))


def put(value: object, *path: str | int) -> Edit:
    def edit(told: Told) -> None:
        place: Any = told
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return edit


def swap_times(told: Told) -> None:
    """The lease's look-up is dated before its issue."""
    issued, gone = (check(lease(told), n)["evidence"] for n in (1, 3))
    issued["at"], gone["at"] = gone["at"], issued["at"]


def shared_lookup(told: Told) -> None:
    check(lease(told, 1), 3)["evidence"] = check(lease(told, 0), 3)["evidence"]


EVERY_N = (1, 2, 3, 4, 5, 6)
NOON = "2026-11-28T12:00:00Z"
NOTHING = {"kind": "no_token"}
FORGED: dict[str, tuple[Edit, str]] = {
    **{f"check {n} failed": (fails(n), f"although check {n} (") for n in EVERY_N},
    **{f"check {n} is missing": (without(n), f"although check {n} (") for n in EVERY_N},
    **{f"check {n} shows nothing": (evidence(n, **NOTHING), "its evidence shows nothing") for n in EVERY_N},
    "the token's check failed": (fails(3, "token"), "although check 3"),
    "not quiet": (fails(7, "token"), "without check 7"),
    "quiet for a moment": (evidence(7, "token", kind="quiet", ms=999), "has 999 ms of quiet"),
    "no token": (evidence(7, "token", kind="no_token"), "disagree whether there was a token"),
    "evidence that says no": (evidence(2, kind="missing", lack="revocation_line"), "shows nothing"),
    "an issue by expiry": (evidence(1, kind="expiry", at=NOON), "shows nothing"),
    "an act in between": (evidence(4, kind="missing", lack="hazard", about="sys/mounts/database"), "shows nothing"),
    "another interval": (evidence(4, kind="interval", begin=NOON, end=NOON), "covers another interval"),
    "canaries in the wrong order": (
        evidence(5, kind="contiguous", source="audit.log", begin=20, end=10),
        "shows nothing",
    ),
    "a target that says nothing": (
        evidence(6, kind="target_answer", engine="postgresql", question="x", answer=" "),
        "shows nothing",
    ),
    "a lease that expired": (evidence(2, kind="expiry", at="2026-11-28T14:22:30Z"), "its time was over"),
    "expired by word": (put("expired", "proof", "leases", 0, "verdict"), "only a token can be"),
    "times in the wrong order": (swap_times, "was seen gone before it was revoked"),
    "one look-up for two leases": (shared_lookup, "is check 3 both of"),
    "a live lease": (put("live", "proof", "leases", 0, "verdict"), "is live"),
    "a lease by Vault's word": (put("gone", "proof", "leases", 0, "verdict"), "is gone"),
    "a lease never issued": (put("never_issued", "proof", "leases", 0, "verdict"), "a lease that is known was issued"),
    "a token never issued": (put("never_issued", "proof", "token", "verdict"), "its grant has an accessor"),
    "the grant says otherwise": (put("expired", "grants", -1, "verdict"), "and its grant expired"),
    "an earlier token is missing": (put([], "proof", "earlier_tokens"), "are not those of the grants"),
    "leases without a token": (put([], "grants"), "no token that can have read them"),
    "a check twice": (lambda told: lease(told)["checks"].append(check(lease(told), 1)), "has check 1 2 times"),
    "a check that is none": (lambda told: check(lease(told), 6).update(n=9), "has a check 9, and there is no such"),
    "another task's proof": (put("other", "proof", "task_id"), "about another one"),
    "an ending task": (put("ending", "proof", "state"), "no closed task"),
    "confirmed by word": (put("unverified", "proof", "state"), "no closed task"),
    "more time by word": (put(999_999, "extensions", 0, "seconds"), "another digest than what it says"),
    "another intent": (put("Drop the orders.", "intent"), "the revision that was approved says otherwise"),
    "another access": (put([], "access"), "the revision that was approved says otherwise"),
    "another lease's id twice": (
        lambda told: lease(told, 1).update(lease_id=lease(told)["lease_id"]),
        "is listed 2 times",
    ),
    "an open child": (
        lambda told: told["children"].append(
            {"task": "child", "digest": told["extensions"][0]["digest"], "state": "active", "chain": told["chain"]}
        ),
        "its delegated task child is active",
    ),
}


@pytest.mark.parametrize(("edit", "says"), FORGED.values(), ids=FORGED)
def test_what_does_not_follow_from_the_evidence_does_not_hold(forger: Forger, edit: Edit, says: str) -> None:
    found = forger.verify(forger.receipt(edit)).outcome
    assert not found.holds and any(says in problem for problem in texts(found)), texts(found)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (put([], "approved_by"), "policy demands 2 approvals, and the receipt names 0"),
        (lambda told: told["approved_by"].pop(), "and the receipt names 1"),
        (lambda told: told["approved_by"].append(told["requester"]["entity"]), "is its requester"),
        (lambda told: told["approved_by"].append(told["agent"]["entity"]), "is its agent"),
        (lambda told: told["approved_by"].append(told["owner"]["entity"]), "is its owner"),
        (put([{"entity": "e-1", "name": "ines"}], "approvers"), "names ines as approver, whose entity did not approve"),
        (
            lambda told: told.update(
                approvers=[{"entity": told["approved_by"][0], "name": name} for name in ("ines", "bob")]
            ),
            "2 names for the approver",
        ),
        (put(False, "policy", "permitted"), "did not permit"),
        (put("audit_confirmed", "proof", "leases", 0, "verdict"), "policy demands proof by the target"),
    ],
)
def test_approvals_that_policy_demands_have_to_be_there(forger: Forger, edit: Edit, says: str) -> None:
    problems = forger.problems(edit, task="fix-orders")
    assert any(says in problem for problem in problems), problems


@pytest.mark.parametrize("changed", [{}, {"reason": "revoked"}, {"at": "2020-01-01T00:00:00.000000+00:00"}])
def test_the_end_is_one_of_the_history(forger: Forger, changed: Told) -> None:
    ending = next(event for event in history()["timeline"] if event["event"] == "ending")
    ended = {"at": ending["at"], "reason": ending["body"]["reason"], "note": "", "name": None, "by": None}
    found = forger.verify(forger.receipt(put({**ended, **changed}, "ended")), told=history()).outcome
    wrong = "no event of the history is the end that the receipt names"
    assert (wrong in texts(found)) is bool(changed)


def closed_without_proof(told: Told) -> None:
    told["proof"] |= {"state": "unverified", "confirmed": False}
    told["proof"]["forced"] = {"by": "e-1", "name": "ines", "reason": "the target is gone"}
    lease(told)["verdict"] = "unverifiable"


def test_a_task_that_was_closed_without_proof_does_not_hold(forger: Forger) -> None:
    problems = forger.problems(closed_without_proof, fits=True)
    assert problems == ["the task was closed WITHOUT PROOF by ines: the target is gone"]


def test_a_lease_that_vault_forgot_needs_what_the_target_said(forger: Forger) -> None:
    def forced(told: Told) -> None:
        told["proof"]["forced"] = {"by": "e-1", "name": "ines", "reason": "no answer"}
        for n in (2, 4):
            check(lease(told), n)["ok"] = False

    def and_unasked(told: Told) -> None:
        forced(told)
        check(lease(told), 6)["ok"] = False

    assert forger.problems(forced, fits=True) == []
    assert any("although check 6" in problem for problem in forger.problems(and_unasked, fits=True))


def test_what_a_receipt_says_in_passing_is_told(forger: Forger) -> None:
    def edit(told: Told) -> None:
        told["findings"] = [{"rule": "denied", "message": "a request was\x1b[2J denied", "line": None}]
        told["proof"]["not_proven"] = ["that its TLS sessions are over"]
        told["recovered"] = [{"at": "2026-11-28T15:00:00Z", "from": {}, "verified_by": []}]

    told = forger.verify(forger.receipt(edit)).outcome.remarks
    assert told[0] == "finding denied: a request was\\x1b[2J denied"
    assert told[1] == "not proven: that its TLS sessions are over" and "rebuilt 1 time" in told[2]


def whole(**changed: object) -> bytes:
    """A statement with other fields in its predicate."""
    return canonical_bytes({**statement(), "predicate": {**content(), **changed}})


def without_field(name: str) -> bytes:
    predicate = {key: value for key, value in content().items() if key != name}
    return canonical_bytes({**statement(), "predicate": predicate})


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"[]", "is no receipt"),
        (b"{}", "missing required field"),
        (b"\xff\xfe", "is no receipt"),
        (b'{"a":' * 5000, "is no receipt"),
        (whole(sealed_at="yesterday"), "at /predicate/sealed_at: "),
        (whole(sealed_at="2026-12-01T00:00:00+00:00"), "not in canonical form, at /predicate/sealed_at"),
        (whole(more=1), "at /predicate/more: .*unknown field"),
        (whole(kind="Receipt"), "at /predicate/kind: .*unknown field"),
        (whole(policy={**content()["policy"], "more": 1}), "at /predicate/policy/more: "),
        *((without_field(name), f"at /predicate/{name}: ") for name in content()),
        (whole(chain={"events": 1, "head": "x"}), "at /predicate/chain/head"),
        (whole(proof={**content()["proof"], "token": "it was revoked"}), "at /predicate/proof/token: "),
        (canonical_bytes({**statement(), "predicateType": "https://jitvault.dev/receipt/v2"}), "at /predicateType: "),
        (canonical_bytes({**statement(), "_type": "https://in-toto.io/Statement/v0.1"}), "at /_type: "),
        (canonical_bytes({**statement(), "subject": []}), "at /subject: "),
        (json.dumps(statement()).encode(), "not in canonical form"),
        (canonical_bytes(statement())[:-1] + b',"_type":"https://in-toto.io/Statement/v1"}', "not in canonical form"),
    ],
)
def test_what_is_signed_and_no_receipt_is_refused(forger: Forger, payload: bytes, says: str) -> None:
    data = json.dumps(forger.envelope(payload)).encode()
    with pytest.raises(SecurityFinding, match=says):
        forger.verify(data)
    code, said = forger.run(data, forger.log())
    place = re.search(r"at (/[^: ]*)", says)
    assert code == 1 and (place is None or f"WRONG   {place[1]}" in said or f", {place[1]}" in said), said


def changed(told: Told) -> None:
    told["timeline"][3]["body"]["more"] = 1


HISTORIES: dict[str, tuple[Edit, str]] = {
    "an event was changed": (changed, "does not end in the receipt's head"),
    "an event is missing": (lambda told: told["timeline"].pop(5), "lacks some of the"),
    "the last events are missing": (lambda told: told["timeline"].__delitem__(slice(20, None)), "lacks some of the"),
    "another task's": (put("other", "task_id"), "about task 'other'"),
    "the revision was changed": (put("nothing", "revision", "content", "spec"), "is not the one whose digest"),
}


@pytest.mark.parametrize(("edit", "says"), HISTORIES.values(), ids=HISTORIES)
def test_a_history_that_is_not_the_receipts_does_not_hold(forger: Forger, edit: Edit, says: str) -> None:
    told = history()
    edit(told)
    problems = texts(forger.verify(forger.receipt(), told=told).outcome)
    assert any(says in problem for problem in problems), problems


def parties(**given: str) -> Told:
    return {
        part: {"entity": f"e-{part}", "name": part, **({"entity": given[part]} if part in given else {})}
        for part in ("requester", "agent", "owner")
    }


def test_who_has_a_part_in_the_task_above_approves_nothing(forger: Forger) -> None:
    def edit(told: Told) -> None:
        link = {"task": "above", "digest": told["extensions"][0]["digest"], **parties(requester=told["approved_by"][0])}
        told["delegation"] = [link]

    problems = forger.refused(edit, forger.log(), task="fix-orders", fits=True)
    approver = content("fix-orders")["approved_by"][0]
    assert problems == [
        f"entity {approver} approved the task and is its requester of above",
        f"entity {approver} approved extension 1 and is the task's requester of above",
    ]


@pytest.mark.parametrize(
    ("who", "says"),
    [("requester", "asked for extension 1 and approved it"), ("agent", "approved extension 1 and is the task's agent")],
)
def test_nobody_with_a_part_in_it_approves_an_extension(forger: Forger, who: str, says: str) -> None:
    def edit(told: Told) -> None:
        told["extensions"][0]["approved_by"] = [told[who]]

    problems = forger.refused(edit, forger.log(), fits=True)
    assert len(problems) == 1 and says in problems[0], problems


def test_approvals_that_may_be_lost_are_not_called_counted(forger: Forger) -> None:
    """A rebuilt record may lack some, so they are not checked; but who rebuilt it has to be said."""
    rebuilt = {"at": "2026-11-28T15:00:00Z", "from": {"seq": 3}, "verified_by": []}

    def edit(told: Told) -> None:
        told.update(recovered=[rebuilt], approved_by=[], approvers=[])

    receipt = forger.receipt(edit, "fix-orders", fits=True)
    found = forger.verify(receipt, forger.log()).outcome
    assert found.problems == [] and found.holds is None
    assert [one.name for one in found.not_made] == ["approvals"]
    assert forger.script(receipt, forger.log()) == 3
    kept = forger.verify(forger.receipt(put([rebuilt], "recovered"), "fix-orders"), forger.log()).outcome
    assert kept.holds
    for unsaid in (None, {}, {**rebuilt, "at": "now"}):
        with pytest.raises(SecurityFinding, match="recovered"):
            forger.verify(forger.receipt(put([unsaid], "recovered"), "fix-orders"))
