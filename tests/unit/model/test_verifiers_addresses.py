"""What a template says of the servers that take its certificates, and what is said where nobody looked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs
from test_revision import revision

from jitvault.engines.interface import ProbeResult
from jitvault.model.revision_content import Access
from jitvault.model.verifiers import unproven, unproven_sessions

OVER = "that TLS sessions opened with its certificate are over"


def entry(**changes: Any) -> Access:
    return structs.replace(revision().access[0], **{"template": "a", "engine": "pki", "ttl_s": 900, **changes})


def test_sessions_of_certificates_are_told_as_not_proven_whoever_was_asked() -> None:
    asked = ["one.example.org:443", "two.example.org:8443"]
    named = entry(template="b", verifiers=asked, accepted_after_end_s=90)
    assert unproven_sessions([named, entry(), entry(), entry(template="c", engine="database")]) == [
        f"a: {OVER}; no server that takes it was ever asked",
        f"b: {OVER} (by the template's word they are over 1m30s after its end); "
        f"{', '.join(asked)} was shown another certificate, by the template's check",
    ]


def test_until_when_a_certificate_may_be_accepted_is_told_where_its_end_is_known() -> None:
    bounded = entry(accepted_after_end_s=300)
    said = (
        "a: that its certificate is refused everywhere: others may go on accepting it {}, by lists and answers that "
        "live no longer; whoever saved a list with a longer life before, or does not look for revocations, accepts it "
        "until it expires, {}"
    )
    over = unproven_sessions([bounded])
    assert unproven([bounded]) == [said.format("for 5m after its end", "at most 15m after its end"), *over]
    assert unproven([bounded], {"a": None}, is_whole=True) == unproven([bounded])
    # a part of a second is no second less
    ended = datetime(2026, 11, 28, 1, 0, 0, 1, tzinfo=UTC)
    until = "until 2026-11-28 01:05:01 UTC (5m after its end)"
    latest = "at the latest 2026-11-28 01:15:01 UTC (15m after its end)"
    assert unproven([bounded, bounded], {"a": ended}) == [said.format(until, latest), *over]


def test_a_task_that_got_no_certificate_has_nothing_to_tell_of_one() -> None:
    other = entry(template="b", accepted_after_end_s=300)
    assert unproven([entry(), other], {"a": None}, is_whole=True) == unproven_sessions([entry()])
    assert unproven([entry()], {}, is_whole=True) == []
    # where the end is not proven, it may have got one that no line shows
    assert unproven([entry()], {}) == unproven_sessions([entry()])
    assert unproven([entry(engine="database")], {"a": None}) == []


@pytest.mark.parametrize(
    ("refused", "sessions", "is_over"), [(True, 0, True), (True, None, True), (True, 1, False), (False, None, False)]
)
def test_what_nobody_looked_for_is_not_open_and_is_not_none_either(
    refused: bool, sessions: int | None, is_over: bool
) -> None:
    assert ProbeResult(refused=refused, open_sessions=sessions, evidence="x").is_over is is_over
