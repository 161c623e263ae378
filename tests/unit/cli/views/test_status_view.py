"""How `status` says when a token expires, what waits for a worker, and that somebody looked into a finding."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from test_published_task import NOW, honest

from jitvault.cli.views.status import _expiry, _grouped_findings, _token, print_published
from jitvault.lifecycle.decision.unread import UnreadDocument
from jitvault.model.states import DEAD, State, Verdict

MINUTE = timedelta(minutes=1)
RENEWED = {
    **{"verdict": "live", "expires_at": "2030-01-31T09:09:00Z"},
    **{"expires_unrenewed_at": "2030-01-31T09:01:00Z", "renewed_at": "2030-01-31T08:59:00Z"},
}
END = UnreadDocument("end", "you", "2030-01-31T08:59:00Z", "operator", "it is enough")
MORE = UnreadDocument("extend", "ola", "2030-01-31T08:59:01Z", None, "slow")


def shown(capsys: pytest.CaptureFixture[str], *unread: UnreadDocument, **changes: Any) -> str:
    """What `status` prints of an issued task without a ledger, on one line."""
    document = honest(state=State.ISSUED, end_reason=None, ended=None, proof=None, extension=None, **changes)
    about = {"at": "2030-01-31T08:57:00Z", "age_s": 180, "vouched_by": "nobody", "vouched": "x"}
    facts = {**document.as_json(), "published": about, "unread": unread, "freeze": None}
    print_published(document, facts, NOW)
    return " ".join(capsys.readouterr().out.split())


def test_the_first_line_says_that_an_end_waits_for_a_worker_and_no_next_step_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    waiting = shown(capsys, MORE, END)
    assert waiting.startswith("Task t-1 is issued (its end is requested, and no worker has acted since) requester")
    assert " next " not in waiting
    assert "end requested by you at 2030-01-31 08:59:00 UTC, waits for a worker: it is enough" in waiting
    more = shown(capsys, MORE)
    assert more.startswith("Task t-1 is issued requester") and " next " in more
    assert "more time requested by ola at 2030-01-31 08:59:01 UTC, waits for a worker: slow" in more


def test_a_time_to_unwrap_that_is_past_is_said_to_be_over_and_is_no_next_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    past, to_come = (shown(capsys, unwrap_until=NOW + by) for by in (-MINUTE, MINUTE))
    assert "unwrap until 2030-01-31 08:59:00 UTC, which is over: its end is not published yet" in past
    assert " next " not in past
    assert "unwrap until 2030-01-31 09:01:00 UTC, or the task ends" in to_come and " next " in to_come


@pytest.mark.parametrize(("state", "is_marked"), [("active", True), ("sealed", False)])
def test_a_ledger_marks_a_deadline_that_is_past_while_access_is_held(state: str, *, is_marked: bool) -> None:
    document = honest(state=State(state), ends_at=NOW - MINUTE)
    grant = {**RENEWED, "ttl_s": 1, "requested_ttl_s": 1, "step_s": 1}
    facts = _token(document.full_revision.spec.spec, {**document.as_json(), "grant": grant, "reads": None}, NOW)
    assert facts["deadline"].endswith("which is over: its end is not published yet") is is_marked


@pytest.mark.parametrize("verdict", Verdict)
def test_a_dead_token_does_not_expire_any_more(verdict: Verdict) -> None:
    unrenewed = None if verdict in DEAD else RENEWED["expires_unrenewed_at"]
    said = _expiry({**RENEWED, "verdict": verdict, "expires_unrenewed_at": unrenewed}, NOW, is_held=True)
    assert (", expires by 2030-01-31 09:01:00 UTC unless a worker" in said["token"]) is (verdict not in DEAD)
    assert (said["token"] == "expired by 2030-01-31 09:09:00 UTC") is (verdict is Verdict.EXPIRED)
    assert ("renewed" in said and "bound" in said) is (verdict not in DEAD)


def test_both_times_are_told_of_a_token_that_is_renewed_and_one_of_any_other() -> None:
    held = _expiry(RENEWED, NOW, is_held=True)
    assert held == {
        "token": "live, expires by 2030-01-31 09:01:00 UTC unless a worker renews it",
        "renewed": "last 2030-01-31 08:59:00 UTC",
        "bound": "2030-01-31 09:09:00 UTC, committed ahead: until then renewals may let it live",
    }
    over = _expiry(RENEWED, NOW, is_held=False)
    assert "unless" not in over["token"] and over["bound"].endswith("that it expired by itself is proven after that")
    assert "renewed" not in _expiry({**RENEWED, "renewed_at": None}, NOW, is_held=True)
    starved = _expiry(RENEWED, NOW + 2 * MINUTE, is_held=True)["token"]
    assert starved == "live at the last look, expired by 2030-01-31 09:01:00 UTC: nobody renewed it"
    last = {**RENEWED, "expires_unrenewed_at": RENEWED["expires_at"]}
    assert _expiry(last, NOW, is_held=True) == {"token": "live, expires by 2030-01-31 09:09:00 UTC"}


def test_findings_count_as_closed_when_none_of_them_is_open() -> None:
    closed = {"at": "2026-11-28T14:00:00Z", "by": "ines", "why": "a try"}
    found = {"rule": "denied", "message": "m", "line": None, "request_id": None, "closed": closed}
    assert list(_grouped_findings([found])) == [("m", "denied; closed 2026-11-28 14:00:00 UTC by ines: a try")]
    assert list(_grouped_findings([found, {**found, "closed": None}])) == [("m", "denied, and 1 more like it")]
