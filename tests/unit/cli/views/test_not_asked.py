"""An end that rests on Vault's word alone is never called proven, wherever it is shown."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import msgspec
import pytest
from msgspec import structs
from rich.console import Console
from test_published_task import HONEST, PROOF, REVISION, read
from test_revision import replaced

from jitvault.cli.commands.ends.end import _check_forceable
from jitvault.cli.quiet import quiet_if
from jitvault.cli.views import kill_switch, task_list
from jitvault.cli.views.status import print_published
from jitvault.cli.views.task import print_grant, print_proof
from jitvault.documents.proof import LeaseProof, Proof, target_asked
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import WrongState
from jitvault.lifecycle.record.check_words import NOT_ASKED
from jitvault.lifecycle.record.report import parties_of
from jitvault.model.evidence import NoToken
from jitvault.model.proof_check import TARGET_N, Check
from jitvault.model.states import Verdict
from jitvault.policy.decision import Obligations, ProofLevel

WHY = "It has no door."
ALONE = replaced(REVISION, access=[structs.replace(REVISION.access[0], confirm="audit", confirm_why=WHY)])
BODY = base64.b64encode(ALONE.body).decode()
IS_NOT = f"revoked at Vault; the target is not asked about {ALONE.access[0].template}: {WHY}"


def document(**changes: Any) -> PublishedTask:
    found = read({**HONEST, "body": BODY, "proof": None, **changes})
    assert isinstance(found, PublishedTask)
    return found


def printed(proof: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_proof(console, msgspec.convert(proof, Proof))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def lease(*checks: int) -> LeaseProof:
    made = [Check(n, ok=True, evidence=NoToken()) for n in checks]
    return LeaseProof(lease_id="l", template="t", verdict=Verdict.AUDIT_CONFIRMED, error=None, checks=made)


def test_the_target_was_asked_where_each_lease_has_its_check() -> None:
    assert target_asked([]) is None
    assert target_asked([lease(1, TARGET_N)]) is True
    assert target_asked([lease(1, TARGET_N), lease(1)]) is False


def test_an_end_proven_by_audit_alone_states_that_no_target_was_asked() -> None:
    asked = printed({**PROOF, "target_asked": True})
    assert "every credential revoked after 12 ms, proven after 1300 ms" in asked and NOT_ASKED not in asked
    for times in ({}, {"dead_ms": None}):
        text = printed({**PROOF, **times, "target_asked": False})
        assert f"every credential {NOT_ASKED}" in text and "proven" not in text


def test_a_grant_and_a_status_say_that_it_will_not_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet_if(asked=False, for_program=True):
        print_grant(document(state="issued"), None, out=None)
    assert json.loads(capsys.readouterr().out)["target_asked"] is False
    for print_ in (
        lambda: print_grant(document(state="issued"), None, out=None),
        lambda: print_published(document(), SHOWN, document().written_at),
    ):
        print_()
        assert IS_NOT in " ".join(capsys.readouterr().out.split())


SHOWN: dict[str, Any] = {
    **{"freeze": None, "unread": []},
    "published": {"at": "2030-01-31T09:00:00Z", "age_s": 1, "vouched_by": "nobody", "vouched": ""},
}


def test_a_kill_switch_counts_apart_what_only_vault_said() -> None:
    rows = [{"confirmed": True, "target_asked": asked} for asked in (True, None, False)]
    assert kill_switch._ends_in_words([*rows, {"confirmed": False, "target_asked": False}]) == [
        "2 of 4 tasks are ended and proven",
        f"1 of 4 tasks are ended: {NOT_ASKED}",
    ]
    assert kill_switch._ends_in_words(rows[2:]) == [f"1 of 1 task is ended: {NOT_ASKED}"]


@pytest.mark.parametrize(("state", "is_said"), [("sealed", True), ("confirmed", True), ("ending", False)])
def test_a_list_says_it_of_what_has_ended(state: str, is_said: bool) -> None:
    assert task_list.is_unasked({"state": state, **parties_of(ALONE)}) is is_said
    for asked in (
        parties_of(ALONE, Obligations(confirm=ProofLevel.TARGET)),
        parties_of(REVISION),
        parties_of(None),
    ):
        assert not task_list.is_unasked({"state": state, **asked})


def test_a_sealed_task_that_is_to_be_forced_is_not_called_proven() -> None:
    with pytest.raises(WrongState) as refused:
        _check_forceable("t-1", "sealed", None, "it is over")
    assert "proven" not in str(refused.value)
