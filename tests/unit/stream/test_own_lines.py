"""Which line of the audit stream says what a token that was just created is called there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from jitvault.audit.observation import PLAIN, Kind, Observation, Place
from jitvault.stream.own_lines import creation_among

OURS = Observation(
    line="l-1",
    place=Place("audit", 1, 4096),
    at=datetime(2030, 1, 31, 9, 0, tzinfo=UTC),
    closing=True,
    kind=Kind.TOKEN_CREATED,
    request_id="",
    path="auth/token/create/jitvault-15m",
    subject="hmac-sha256:accessor",
    actor="hmac-sha256:worker",
    op="op-1",
    remote="127.0.0.1",
    failed=False,
    error="",
    token="",
    alias="hmac-sha256:wrapping",
    detail={"worker": True},
)


def test_the_answer_to_the_own_request_names_token_and_wrapping() -> None:
    request = replace(OURS, closing=False, subject="", alias="")
    another = replace(OURS, op="op-2", subject="hmac-sha256:another")
    assert creation_among([another, request, OURS], "op-1") == OURS
    assert creation_among([another, request], "op-1") is None


@pytest.mark.parametrize(
    "differing",
    [
        {"closing": False},
        {"failed": True},
        {"kind": Kind.USED},
        {"detail": {}},
        {"op": "op-2"},
        {"subject": ""},
        {"subject": "a plain accessor"},
        {"alias": ""},
        {"alias": PLAIN},
    ],
    ids=lambda differing: next(iter(differing)),
)
def test_no_other_line_does(differing: dict[str, Any]) -> None:
    assert creation_among([replace(OURS, **differing)], "op-1") is None


def test_two_answers_to_one_request_are_none() -> None:
    assert creation_among([OURS, replace(OURS, line="l-2", subject="hmac-sha256:another")], "op-1") is None
