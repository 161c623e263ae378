"""A signature says who wrote a document, not that it makes sense."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.documents.signed import (
    DecisionDocument,
    EndDocument,
    GrantDocument,
    SignedDocument,
    SubmitDocument,
    WithdrawDocument,
    check_note,
    parse_signed,
)
from jitvault.errors import InvalidInput, SecurityFinding

COMMON = {"task": "t1", "entity": "e1", "nonce": "0" * 32, "at": "2030-01-01T00:00:00Z"}
PAPERS: dict[type[SignedDocument], dict[str, Any]] = {
    SubmitDocument: {**COMMON, "kind": "submit", "spec": {"a": 1}, "revise": False},
    GrantDocument: {**COMMON, "kind": "grant", "spec_digest": "sha256:" + "a" * 64},
    EndDocument: {**COMMON, "kind": "end", "reason": "completed", "note": ""},
    DecisionDocument: {
        **COMMON,
        "kind": "decision",
        "digest": "sha256:" + "b" * 64,
        "revision": 2,
        "requester": "e2",
        "decision": "deny",
        "groups": ["jitvault-approvers"],
        "reason": "too many rows",
        "expires_at": "2030-01-01T00:30:00Z",
    },
    WithdrawDocument: {
        **COMMON,
        "kind": "withdraw",
        "digest": "sha256:" + "b" * 64,
        "revision": 2,
        "requester": "e2",
        "reason": "",
    },
}
KINDS = list(PAPERS)


@pytest.mark.parametrize("model", KINDS)
def test_a_proper_paper_is_accepted(model: type[SignedDocument]) -> None:
    assert parse_signed(model, PAPERS[model], task="t1", entity="e1").task == "t1"


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("other", [{"task": "t2"}, {"entity": "e2"}])
def test_a_paper_about_another_task_or_by_another_entity_is_refused(
    model: type[SignedDocument], other: dict[str, str]
) -> None:
    with pytest.raises(SecurityFinding):
        parse_signed(model, {**PAPERS[model], **other}, task="t1", entity="e1")


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("shown_as", KINDS)
def test_a_paper_of_one_kind_is_never_one_of_another(
    model: type[SignedDocument], shown_as: type[SignedDocument]
) -> None:
    if model is not shown_as:
        with pytest.raises(SecurityFinding):
            parse_signed(shown_as, PAPERS[model], task="t1", entity="e1")


@pytest.mark.parametrize("model", KINDS)
def test_a_field_more_or_less_is_refused(model: type[SignedDocument]) -> None:
    for name in PAPERS[model]:
        less = {k: v for k, v in PAPERS[model].items() if k != name}
        with pytest.raises(SecurityFinding):
            parse_signed(model, less, task="t1", entity="e1")
    with pytest.raises(SecurityFinding):
        parse_signed(model, {**PAPERS[model], "more": 1}, task="t1", entity="e1")


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (EndDocument, "reason", "because"),
        (EndDocument, "note", "\x1b[2Jgone"),
        (EndDocument, "note", "x" * 501),
        (DecisionDocument, "decision", "perhaps"),
        (DecisionDocument, "expires_at", "tomorrow"),
        (DecisionDocument, "expires_at", "2030-01-01T00:00:00"),
        (DecisionDocument, "expires_at", "2030-13-01T00:00:00Z"),
        # to the nanosecond, two readers can round to two times
        (DecisionDocument, "expires_at", "2030-01-01T00:00:00.1234567Z"),
        (DecisionDocument, "expires_at", "2030-01-01 00:00Z"),
        (DecisionDocument, "expires_at", "1893456000"),
        # in UTC these are before the first year and after the last one
        (DecisionDocument, "expires_at", "0001-01-01T00:00:00+23:00"),
        (GrantDocument, "queued_until", "9999-12-31T23:59:59-23:00"),
        (DecisionDocument, "digest", "sha256:short"),
        (DecisionDocument, "groups", []),
        (DecisionDocument, "revision", 0),
        (DecisionDocument, "reason", "shown \u202ebackwards"),
        (SubmitDocument, "revise", "yes"),
        (GrantDocument, "spec_digest", None),
    ],
)
def test_a_signed_value_that_makes_no_sense_is_refused(model: type[SignedDocument], field: str, value: object) -> None:
    with pytest.raises(SecurityFinding):
        parse_signed(model, {**PAPERS[model], field: value}, task="t1", entity="e1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(sorted({k for p in PAPERS.values() for k in p})), JSON))
def test_whatever_is_signed_is_a_paper_or_a_finding_and_nothing_else(
    model: type[SignedDocument], change: dict[str, Any]
) -> None:
    with contextlib.suppress(SecurityFinding):
        parse_signed(model, {**PAPERS[model], **change}, task="t1", entity="e1")


@pytest.mark.parametrize("note", ["", "done", "too many rows at once"])
def test_a_plain_reason_can_be_signed(note: str) -> None:
    assert check_note(note) == note


@pytest.mark.parametrize("note", ["\x1b[31mred", "two\nlines", " space", "x" * 501, "zero\u200bwidth"])
def test_a_reason_that_would_not_be_accepted_is_refused_before_it_is_signed(note: str) -> None:
    with pytest.raises(InvalidInput):
        check_note(note)


@pytest.mark.parametrize("more", [{"a\nTask t1 is sealed (operator)": 1}, {"entity": "e1\nTask t1 is sealed"}])
def test_what_somebody_signed_puts_no_line_into_a_message(more: dict[str, Any]) -> None:
    with pytest.raises(SecurityFinding) as refused:
        parse_signed(EndDocument, {**PAPERS[EndDocument], **more}, task="t1", entity="e1")
    assert "Task t1 is sealed" in str(refused.value) and "\n" not in str(refused.value)
