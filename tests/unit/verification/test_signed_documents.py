"""What people signed stands in the receipt as they signed it; both verifiers refuse what is another's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from forger import KNOWN, Forger, content, statement

from jitvault.model.scope import Scope
from jitvault.verification.outcome import Basis

Told = dict[str, Any]


def rewritten(envelope: Told, **changed: object) -> None:
    """The same envelope with another content, under the signature that it had."""
    said = json.loads(base64.b64decode(envelope["payload"])) | changed
    envelope["payload"] = base64.b64encode(json.dumps(said).encode()).decode()


def of_another_task(told: Told) -> None:
    told["documents"]["decisions"][0] = content("read-orders")["documents"]["request"]


def another_tasks_end(told: Told) -> None:
    told["documents"]["ends"] = content("read-orders")["documents"]["ends"]


def under_another_name(told: Told) -> None:
    one, two = told["documents"]["decisions"]
    one["signatures"] = two["signatures"]


def with_anothers_key(told: Told) -> None:
    """What one approver signed, as the decision of the other."""
    one, two = told["documents"]["decisions"]
    entity = json.loads(base64.b64decode(two["payload"]))["entity"]
    one["payload"] = two["payload"]
    one["signatures"][0]["keyid"] = f"jitvault-signer-{entity}:v1"


def an_end_as_a_request(told: Told) -> None:
    told["documents"]["request"] = told["documents"]["ends"][0]


def a_sentence(told: Told) -> None:
    told["documents"]["request"]["payload"] = base64.b64encode(b"the operator asked for it").decode()


DECISIONS = "/predicate/documents/decisions"
REFUSED: dict[str, tuple[Callable[[Told], object], str]] = {
    "of another task": (of_another_task, f"{DECISIONS}/0/payload"),
    "an end of another task": (another_tasks_end, "/predicate/documents/ends/0/payload"),
    "under another name": (under_another_name, f"{DECISIONS}/0/signatures/0/keyid"),
    "what another one signed": (with_anothers_key, f"{DECISIONS}/0/signatures/0/sig"),
    "an end in place of the request": (an_end_as_a_request, "/predicate/documents/request/payload"),
    "a sentence": (a_sentence, "/predicate/documents/request/payload"),
    "with a later expiry": (
        lambda told: rewritten(told["documents"]["decisions"][0], expires_at="2030-01-01T00:00:00Z"),
        f"{DECISIONS}/0/payload",
    ),
    "of another type": (
        lambda told: told["documents"]["decisions"][0].update(payloadType="application/vnd.in-toto+json"),
        f"{DECISIONS}/0/payloadType",
    ),
    "no request": (lambda told: told["documents"].update(request=None), "/predicate/documents/request"),
    "no approval": (lambda told: told["documents"].update(decisions=[]), "/predicate/approved_by/0"),
    "an approval twice": (
        lambda told: told["documents"]["decisions"].append(told["documents"]["decisions"][0]),
        f"{DECISIONS}/0/payload",
    ),
    "no approval of more time": (
        lambda told: told["extensions"][0].update(signed=[]),
        "/predicate/extensions/0/approved_by/0/entity",
    ),
    "more time than was asked for": (
        lambda told: told["extensions"][0].update(seconds=301),
        "/predicate/extensions/0/seconds",
    ),
}


def refrozen(**changed: object) -> Callable[[Told], None]:
    """A freeze by the same operator that says something else, signed by a key that no auditor has."""

    def edit(told: Told) -> None:
        freeze = told["documents"]["freeze"]
        said = json.loads(base64.b64decode(freeze["payload"])) | changed
        freeze["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
        freeze["signatures"][0]["keyid"] = f"jitvault-signer-{said['entity']}:v99"

    return edit


def without_a_freeze(told: Told) -> None:
    told["documents"]["freeze"] = None


def key_of(**scope: str) -> dict[str, str]:
    """A scope as a freeze names it, with the key that stands for it."""
    return {"agent": "", "template": "", "owner": "", **scope, "task": Scope(**scope).key}


FREEZE = "/predicate/documents/freeze"
NOT_ITS_FREEZE: dict[str, tuple[Callable[[Told], object], str]] = {
    "of another agent": (refrozen(**key_of(agent="deploy-agent")), f"{FREEZE}/payload"),
    "of another owner": (refrozen(**key_of(owner="nobody")), f"{FREEZE}/payload"),
    "of another template": (refrozen(**key_of(template="postgres-readonly")), f"{FREEZE}/payload"),
    "of the agent and another template": (
        refrozen(**key_of(agent="research-agent", template="postgres-readonly")),
        f"{FREEZE}/payload",
    ),
    "of another scope than its key": (refrozen(agent=""), f"{FREEZE}/payload"),
    "a lift": (refrozen(freezes=False), FREEZE),
    "by another operator": (refrozen(entity="e-1"), "/predicate/ended/by"),
    "for another reason": (refrozen(reason="another"), "/predicate/ended/note"),
    "whose signature does not hold": (
        lambda told: rewritten(told["documents"]["freeze"], nonce="0"),
        f"{FREEZE}/payload",
    ),
    "a request in its place": (
        lambda told: told["documents"].update(freeze=told["documents"]["request"]),
        f"{FREEZE}/payload",
    ),
    "of a task that ended otherwise": (lambda told: told["ended"].update(reason="operator"), "/predicate/ended/reason"),
}


@pytest.mark.parametrize(("edit", "place"), NOT_ITS_FREEZE.values(), ids=NOT_ITS_FREEZE)
def test_a_freeze_that_did_not_end_the_task_is_refused_at_its_place(
    forger: Forger, edit: Callable[[Told], object], place: str
) -> None:
    receipt = forger.receipt(edit, "serve-orders")
    problems = forger.verify(receipt, forger.log()).outcome.problems
    assert any(at.startswith(place) for problem in problems for at in problem.places), problems
    code, said = forger.run(receipt, forger.log())
    assert code == 1 and any(place in line for line in said.splitlines() if "WRONG" in line), said


@pytest.mark.parametrize(
    "scope", [{}, {"owner": "data-owner"}, {"template": "pki-service"}, {"agent": "RESEARCH-AGENT"}]
)
def test_a_freeze_of_everything_or_of_a_part_of_the_task_has_it(forger: Forger, scope: dict[str, str]) -> None:
    receipt = forger.receipt(refrozen(**key_of(**scope)), "serve-orders")
    assert forger.accepts(receipt, forger.log())


def test_who_froze_the_task_is_attested_without_the_freeze_or_its_authors_key(forger: Forger) -> None:
    ended = {"/predicate/ended/by", "/predicate/ended/note", "/predicate/ended/reason"}
    for edit, is_attested in ((lambda told: None, False), (refrozen(), True), (without_a_freeze, True)):
        receipt = forger.receipt(edit, "serve-orders")
        assert ended.issubset(forger.verify(receipt, forger.log()).outcome.attested) is is_attested
        code, said = forger.run(receipt, forger.log())
        assert (code, "ATTESTED /predicate/ended/by\n" in said) == (0, is_attested)


@pytest.mark.parametrize(("edit", "place"), REFUSED.values(), ids=REFUSED)
def test_a_document_of_another_task_or_signer_is_refused_at_its_place(
    forger: Forger, edit: Callable[[Told], object], place: str
) -> None:
    receipt = forger.receipt(edit, "fix-orders")
    problems = forger.verify(receipt, forger.log()).outcome.problems
    assert any(place in problem.places for problem in problems), problems
    code, said = forger.run(receipt, forger.log())
    named = [line for line in said.splitlines() if "WRONG" in line]
    assert code == 1 and any(place.removesuffix("/sig") in line for line in named), named


def approvers(told: Told) -> list[str]:
    return [one["entity"] for one in told["approvers"]]


def basis(forger: Forger, signers: dict[tuple[str, int], bytes]) -> tuple[Basis, list[str]]:
    trust = replace(KNOWN, signers=signers)
    outcome = forger.verify(forger.receipt(task="fix-orders"), forger.log(), trust=trust).outcome
    assert outcome.holds
    (found,) = (one.basis for one in outcome.checked if one.name == "approvals")
    return found, outcome.attested


def test_the_quorum_counts_as_rederived_only_against_keys_that_the_auditor_brings(forger: Forger) -> None:
    """Keys in the receipt would be the worker's word: whoever can have it signed could put in any."""
    everybody = dict(KNOWN.signers)
    rederived, places = basis(forger, everybody)
    assert rederived is Basis.REDERIVED and "/predicate/approved_by" not in places
    first = approvers(content("fix-orders"))[0]
    for known in ({}, {key: one for key, one in everybody.items() if key[0] != first}):
        attested, places = basis(forger, known)
        assert attested is Basis.ATTESTED and "/predicate/approved_by" in places
        _, said = forger.run(forger.receipt(task="fix-orders"), forger.log(), trust=replace(KNOWN, signers=known))
        assert "  ATTESTED /predicate/approved_by\n" in said


def test_approvals_of_a_rebuilt_record_that_embeds_none_are_attested(forger: Forger) -> None:
    """Whoever can have a receipt signed can say that its record was rebuilt, and leave out what people signed."""

    def edit(told: Told) -> None:
        told["recovered"] = [{"at": "2026-11-28T15:00:00Z", "from": {"seq": 3}, "verified_by": []}]
        told["documents"] = {"request": None, "decisions": [], "ends": [], "freeze": None}

    receipt = forger.receipt(edit, "serve-orders")
    outcome = forger.verify(receipt, forger.log(), trust=KNOWN).outcome
    found = {one.name: one.basis for one in outcome.checked}
    assert outcome.holds and {found["approvals"], found["documents"]} == {Basis.ATTESTED}
    assert {"/predicate/approved_by", "/predicate/documents/request"} <= {*outcome.attested}
    _, said = forger.run(receipt, forger.log(), trust=KNOWN)
    assert "  ATTESTED /predicate/approved_by\n" in said


def test_approvals_that_nobody_signed_are_attested_at_most(forger: Forger) -> None:
    """A thief of the worker's token writes what the approvers would have signed, by versions that no key file has."""

    def edit(told: Told) -> None:
        told["intent"] = "Count something else."

    receipt = forger.receipt(edit, "fix-orders", fits=True)
    outcome = forger.verify(receipt, forger.log()).outcome
    assert outcome.problems == [] and {"/predicate/approved_by", f"{DECISIONS}/0"} <= {*outcome.attested}
    code, said = forger.run(receipt, forger.log())
    assert code == 0 and f"ATTESTED {DECISIONS}/0\n" in said


def test_the_revision_is_the_one_that_was_approved(forger: Forger) -> None:
    def edit(whole: Told) -> None:
        whole["subject"] = statement("read-orders")["subject"]

    receipt = forger.signed(edit, "fix-orders")
    places = {place for one in forger.verify(receipt, forger.log()).outcome.problems for place in one.places}
    assert {"/subject/0/name", "/predicate/access/0/path", f"{DECISIONS}/0/payload"} <= places
    code, said = forger.run(receipt, forger.log())
    assert code == 1 and "/predicate/access/0/path: the revision says otherwise" in said
