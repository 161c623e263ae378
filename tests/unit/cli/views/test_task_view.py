from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs
from test_published_task import honest

from jitvault.cli.quiet import quiet_if
from jitvault.cli.views.status import _grouped_findings, _waits_for
from jitvault.cli.views.task import heading_end, print_decision
from jitvault.documents.published_parts import Ended
from jitvault.model.states import State
from jitvault.policy.decision import Requirement


def finding(message: str, request: str, line: str | None = "a" * 64) -> dict[str, Any]:
    return {"rule": "denied", "message": message, "line": line, "request_id": request, "closed": None}


def test_findings_that_say_the_same_are_shown_once_with_the_first_and_their_number() -> None:
    found = [finding("b was refused", "r1"), finding("a was refused", "r2"), finding("b was refused", "r3")]
    assert list(_grouped_findings(found)) == [
        ("a was refused", "denied, line aaaaaaaaaaaaaaaa, request r2"),
        ("b was refused", "denied, line aaaaaaaaaaaaaaaa, request r1, and 1 more like it"),
    ]


def test_a_finding_without_a_line_names_its_rule() -> None:
    assert list(_grouped_findings([finding("it was edited", "", None)])) == [("it was edited", "denied")]


def test_a_task_that_waits_says_for_whom_and_what_gives_it() -> None:
    missing = [Requirement("jitvault-approvers", 1), Requirement("jitvault-security", 2)]
    assert _waits_for({"task_id": "t1", "missing": missing}) == {
        "waiting": "for 1 approval by jitvault-approvers and 2 approvals by jitvault-security",
        "ask": "a member of jitvault-approvers and one of jitvault-security to run `jitvault approve t1`",
    }
    assert _waits_for({"task_id": "t1", "missing": []}) == {}


def test_the_heading_does_not_say_what_the_line_of_the_end_says() -> None:
    at = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
    ended = Ended("e-1", "churn-bot", at, "completed", "the program did not start")
    assert heading_end("completed", ended) == []
    assert heading_end("completed", structs.replace(ended, note="")) == ["(completed)"]
    assert heading_end("operator", ended) == ["(revoked by churn-bot)"]
    assert heading_end(None, None) == []


@pytest.mark.parametrize(("state", "printed"), [(State.SEALED, ""), (State.DENIED, "t-1\n"), (State.APPROVED, "t-1\n")])
def test_a_script_gets_the_id_of_a_task_that_was_submitted_and_not_of_one_that_is_over(
    capsys: pytest.CaptureFixture[str], state: State, printed: str
) -> None:
    with quiet_if(asked=True):
        print_decision(honest(state=state), is_refused=state is not State.APPROVED)
    assert capsys.readouterr().out == printed
