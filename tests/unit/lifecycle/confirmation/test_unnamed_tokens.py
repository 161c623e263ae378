"""Which tokens a task's lines show under its intents that no grant of it names."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import AuditTrail
from jitvault.lifecycle.confirmation.evidence import Evidence
from jitvault.lifecycle.confirmation.seal_check import why_proof_fails_now

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
MADE = Observation(
    line="l-1",
    place=Place("file", 1, 1),
    at=NOW,
    closing=True,
    kind=Kind.TOKEN_CREATED,
    request_id="r-1",
    path="auth/token/create/jitvault-15m",
    subject="second",
    actor="worker",
    op="op-1",
    remote="",
    failed=False,
    error="",
    token="",
    alias="",
    detail={},
)


def unnamed(*lines: Observation, named: str | None = "first") -> list[str]:
    """Of a task with one grant, whose token has this accessor, among lines of the worker's session `worker`."""
    file = SimpleNamespace(grants=(SimpleNamespace(create_op="op-1", accessor_hmac=named),))
    trail = AuditTrail(lines, (), frozenset({"worker"}))
    return [o.subject for o in Evidence(cast(Any, file), trail, cast(Any, None), interrupted=False).unnamed_tokens()]


def test_a_token_of_the_intent_that_no_grant_names_is_one_whoever_of_the_worker_made_it() -> None:
    assert unnamed(replace(MADE, subject="first"), MADE) == ["second"]
    assert unnamed(MADE, named=None) == ["second"]
    # by another login with the worker's policy
    assert unnamed(replace(MADE, actor="thief", detail={"worker": True})) == ["second"]


def test_a_task_whose_lines_show_one_is_not_sealed() -> None:
    file = SimpleNamespace(grants=(SimpleNamespace(create_op="op-1", accessor_hmac="first"),))
    trail = AuditTrail((MADE,), (), frozenset({"worker"}))
    found = Evidence(cast(Any, file), trail, cast(Any, None), interrupted=False)
    assert "none of its grants names" in (why_proof_fails_now(cast(Any, None), found, ()) or "")


@pytest.mark.parametrize(
    "line",
    [
        replace(MADE, subject="first"),
        replace(MADE, op="another"),
        replace(MADE, actor="anybody"),
        replace(MADE, failed=True),
        replace(MADE, closing=False),
        replace(MADE, kind=Kind.TOKEN_REVOKED),
    ],
)
def test_no_other_line_shows_one(line: Observation) -> None:
    assert unnamed(line) == []


def test_a_second_audit_device_in_the_same_log_shows_no_second_token() -> None:
    """It names the same request, and everything in it by other HMACs."""
    again = replace(MADE, line="l-2", actor="hmac of the worker", subject="hmac of the first", detail={"worker": True})
    assert unnamed(replace(MADE, subject="first"), again) == []


@given(st.lists(st.sampled_from(["first", "second", "third"])))
def test_each_is_given_once_however_often_lines_repeat_it(subjects: list[str]) -> None:
    lines = [replace(MADE, line=str(n), subject=subject) for n, subject in enumerate(subjects)]
    assert sorted(unnamed(*lines)) == sorted(set(subjects) - {"first"})
