"""How `status` says when a token expires, and that somebody looked into a finding."""

from __future__ import annotations

import pytest

from jitvault.cli.views.status import _expires, _grouped_findings
from jitvault.model.states import DEAD, Verdict


@pytest.mark.parametrize("verdict", Verdict)
def test_a_dead_token_does_not_expire_any_more(verdict: Verdict) -> None:
    said = _expires(verdict.value)
    assert (said == "expires") is (verdict not in DEAD)
    assert (said == "expired") is (verdict is Verdict.EXPIRED)


def test_findings_count_as_closed_when_none_of_them_is_open() -> None:
    closed = {"at": "2026-11-28T14:00:00Z", "by": "ines", "why": "a try"}
    found = {"rule": "denied", "message": "m", "line": None, "request_id": None, "closed": closed}
    assert list(_grouped_findings([found])) == [("m", "denied; closed 2026-11-28 14:00:00 UTC by ines: a try")]
    assert list(_grouped_findings([found, {**found, "closed": None}])) == [("m", "denied, and 1 more like it")]
