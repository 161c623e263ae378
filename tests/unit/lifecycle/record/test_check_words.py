"""Each kind of evidence can be said in words, and a later reader gets the same evidence back."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.lifecycle.record.check_words import evidence_in_words, failure_in_words
from jitvault.model.evidence import (
    Closed,
    Contiguous,
    Evidence,
    Expiry,
    Gap,
    Interval,
    Lack,
    Line,
    Missing,
    NoToken,
    Quiet,
    Read,
    ReadKind,
    TargetAnswer,
)
from jitvault.model.proof_check import Check

AT = datetime(2030, 1, 31, 9, tzinfo=UTC)
LINE = "4f" * 32
READS = [Read(how, "database/creds/app", AT, LINE) for how in ReadKind]
MISSING = [
    Missing(lack=lack, about="x/y", name="v-token", at=AT, line=LINE, read=read, count=2, elided=elided, for_good=good)
    for lack in Lack
    for read in READS
    for elided, good in ((False, True), (True, False))
]
ANY = st.one_of(
    st.builds(
        Line,
        sha256=st.just(LINE),
        source=st.text(),
        request_id=st.text(),
        operation=st.text(),
        path=st.text(),
        at=st.just(AT),
    ),
    st.builds(Gap, listing=st.just(LINE), closed=st.sampled_from(Closed), line=st.none() | st.just(LINE)),
    st.builds(TargetAnswer, engine=st.text(), question=st.text(), answer=st.text(min_size=1)),
    st.builds(Quiet, ms=st.integers(0, 2**40), listed=st.none() | st.sampled_from(MISSING)),
    st.builds(Contiguous, source=st.text(), begin=st.integers(0, 2**40), end=st.integers(0, 2**40)),
    st.sampled_from([*MISSING, NoToken(), Expiry(AT), Interval(AT, AT)]),
)


@given(ANY)
def test_evidence_is_read_back_as_it_was_written_and_has_words(evidence: Evidence) -> None:
    data = msgspec.json.encode(Check(1, ok=True, evidence=evidence))
    assert msgspec.json.decode(data, type=Check).evidence == evidence
    assert evidence_in_words(evidence)


@pytest.mark.parametrize("evidence", MISSING, ids=lambda one: one.lack)
def test_no_words_have_a_hole(evidence: Missing) -> None:
    said = evidence_in_words(evidence)
    assert said.strip() and "{" not in said and "None" not in said
    assert said.endswith(": nothing makes up for that") is evidence.for_good


@pytest.mark.parametrize("closed", Closed)
def test_a_gap_says_how_it_was_closed(closed: Closed) -> None:
    said = evidence_in_words(Gap(LINE, closed, LINE))
    assert said.startswith("interrupted; nothing unaccounted for was listed (line 4f4f4f4f4f4f4f4f); ")


def test_a_failed_check_is_named_by_its_number_and_name() -> None:
    check = Check(6, ok=False, evidence=Missing(lack=Lack.NOT_PROBED))
    assert failure_in_words(check) == "check 6 (target_refuses) does not hold: the target was not probed"


@pytest.mark.parametrize(
    "data",
    [
        {"n": 1, "ok": True, "evidence": "line 4f4f x at 2030-01-31T09:00:00Z"},
        {"n": 1, "ok": True, "evidence": {"kind": "words"}},
        {"n": 1, "ok": True, "evidence": {"kind": "no_token", "more": 1}},
        {"n": 1, "ok": True, "evidence": {"kind": "gap", "listing": "4f4f", "closed": "ended_before"}},
        {"n": 6, "ok": True, "evidence": {"kind": "target_answer", "engine": "pki", "question": "x", "answer": ""}},
        {"n": 7, "ok": True, "evidence": {"kind": "quiet", "ms": -1}},
        {"n": 7, "ok": True, "evidence": {"kind": "quiet", "ms": 1}, "name": "quiet"},
        {"n": 7, "ok": True},
    ],
    ids=str,
)
def test_a_sentence_and_fields_that_nobody_knows_are_no_evidence(data: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(data, Check)


def test_bytes_and_a_quiet_time_are_said_in_numbers() -> None:
    assert evidence_in_words(Contiguous("audit.log", 10, 20)) == "audit.log bytes 10 to 20 read contiguously"
    listed = Missing(lack=Lack.UNANSWERED, count=1)
    said = evidence_in_words(Quiet(1000, listed))
    assert said == "nothing newer in 1000 ms up to a matching canary; 1 requests never got an answer: listed"
    assert evidence_in_words(TargetAnswer("postgresql", "v-x", "it does not exist")) == "it does not exist"
