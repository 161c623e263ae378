"""The history of a task on few lines: nothing is lost, and only what is the same is folded."""

from __future__ import annotations

from typing import Any

from event_examples import WHOLE, example
from hypothesis import given
from hypothesis import strategies as st

from jitvault.cli.views.timeline import folded, rows

BODIES: dict[str, dict[str, Any]] = {
    "ending": {"reason": "operator", "note": "enough"},
    "revoke_intended": {},
    "revoked": {"verdicts": {"a": "revoke_failed"}},
    "judged": {},
    "confirmed": {},
    "unproven": {},
}
EVENTS = st.lists(st.sampled_from(sorted(BODIES)), max_size=30)


def events(*kinds: str | tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for n, kind in enumerate(kinds):
        name, body = kind if isinstance(kind, tuple) else (kind, BODIES.get(kind, {}))
        found.append(
            {"seq": n + 1, "at": f"2026-11-25T00:00:{n:02}.000001Z", "event": name, "body": example(name, **body)}
        )
    return found


@given(EVENTS)
def test_every_event_is_counted_once_and_the_lines_are_in_order(kinds: list[str]) -> None:
    timeline = events(*kinds)
    lines = folded(timeline)
    assert sum(line.count for line in lines) == len(timeline)
    assert [line.first for line in lines] == sorted(line.first for line in lines)
    assert all(line.first <= line.last for line in lines)


@given(EVENTS)
def test_what_is_no_try_is_never_folded(kinds: list[str]) -> None:
    told = [kind for kind in kinds if kind in ("ending", "confirmed", "unproven")]
    lines = [line for line in folded(events(*kinds)) if line.event in ("ending", "confirmed", "unproven")]
    assert [line.event for line in lines] == told
    assert all(line.count == 1 for line in lines)


def test_who_froze_and_who_asked_for_more_time_is_named() -> None:
    by = {"entity": "e-1", "name": "research-agent"}
    extension = {**WHOLE["extended"]["extension"], "by": by, "reason": "it is slow"}
    told = events(
        ("ending", {"reason": "frozen", "by": "e-1", "name": "operator", "scope": "everything", "note": "look first"}),
        ("ending", {"reason": "frozen", "note": "a tripwire", "line": "abc"}),
        ("extension_pending", {"extension": extension, "missing": []}),
        ("extension_refused", {"extension": extension}),
        ("extended", {"extension": extension, "approved_by": []}),
    )
    assert [words for _, words in rows(told)] == [
        "ending: frozen by operator (look first)",
        "ending: frozen (a tripwire)",
        "more time pending, asked for by research-agent (it is slow)",
        "more time refused, asked for by research-agent (it is slow): too long",
        "extended until 2030-01-31 09:05:00, asked for by research-agent (it is slow)",
    ]


def test_renewals_are_one_line() -> None:
    (shown,) = rows(events("renew_intended", "renew_intended"))
    assert shown[1].startswith("renewed in steps (2 times, last at ")


def test_a_lease_is_shown_when_it_was_observed_and_not_with_earlier_lines() -> None:
    creation, lease = ("observed", {"lines": ["a", "b"], "leases": []}), {"lines": ["c"], "leases": ["l-1"]}
    shown = rows(events("token_created", creation, creation, ("observed", lease), ("observed", lease), "unwrapped"))
    assert shown[1:] == [
        ("2026-11-25 00:00:01.000", "observed 4 audit lines (2 times, last at 00:00:02)"),
        ("2026-11-25 00:00:03.000", "observed 2 audit lines, 2 new leases (2 times, last at 00:00:04)"),
        ("2026-11-25 00:00:05.000", "unwrapped"),
    ]


def test_tries_are_one_line_for_each_outcome_with_how_often_and_until_when() -> None:
    tried = ["revoke_intended", "revoked"] * 3
    gone = ("revoked", {"verdicts": {"a": "gone"}})
    shown = rows(events("ending", *tried, "revoke_intended", gone, "confirmed"))
    assert shown == [
        ("2026-11-25 00:00:00.000", "ending: revoked (enough)"),
        ("2026-11-25 00:00:01.000", "revoke intended (4 times, last at 00:00:07)"),
        ("2026-11-25 00:00:02.000", "revoked: 1 revoke_failed (3 times, last at 00:00:06)"),
        ("2026-11-25 00:00:08.000", "revoked: 1 gone"),
        ("2026-11-25 00:00:09.000", "confirmed"),
    ]


def test_a_listing_in_each_try_is_folded_by_what_it_found() -> None:
    left, none = ("listed", {"answer": "not accounted for", "suspects": ["a"]}), {"answer": "accounted", "suspects": []}
    tried = ["revoke_intended", "listing_intended", left] * 2
    shown = [what for _, what in rows(events("ending", *tried, "listing_intended", ("listed", none)))]
    assert shown[1:] == [
        "revoke intended (2 times, last at 00:00:04)",
        "listing intended (3 times, last at 00:00:07)",
        "listed: not accounted for, 1 of no task (2 times, last at 00:00:06)",
        "listed: accounted",
    ]


def test_who_did_it_and_why_is_told() -> None:
    by = {"by": "an-entity", "name": "olive", "note": "enough"}
    refused = [{"entity": "e", "name": "adam", "why": "withdrew the approval: too soon", "withdrawn": True}]
    shown = rows(
        events(
            ("decided", {"state": "pending_approval", "decided": {"refused": refused, "approved_by": []}}),
            (
                "decided",
                {"state": "denied", "note": "adam denied it: no", "decided": {"refused": [], "approved_by": []}},
            ),
            ("ending", {"reason": "operator", **by}),
            ("noted", by),
            ("unverified", by),
            ("cancelled", {**by, "note": ""}),
        )
    )
    assert [what for _, what in shown] == [
        "decided: pending_approval (adam withdrew the approval: too soon)",
        "decided: denied (adam denied it: no)",
        "ending: revoked, asked for by olive (enough)",
        "noted by olive (enough)",
        "closed without proof by olive (enough)",
        "cancelled by olive",
    ]


def test_who_asked_approved_and_was_given_the_token_is_named() -> None:
    names = {"e-1": "ada", "e-2": "bob", "e-3": "research-agent"}

    def by_approvers(*approved: str) -> dict[str, Any]:
        return {"state": "pending_approval", "decided": {"refused": [], "approved_by": approved}}

    by = {"entity": "e-3", "name": "research-agent"}
    extension = {**WHOLE["extended"]["extension"], "by": by, "reason": "it is slow"}
    told = events(
        ("submitted", by_approvers()),
        ("decided", by_approvers("e-1")),
        ("decided", by_approvers("e-1", "e-2")),
        ("delivered", {"to": "e-3"}),
        ("extended", {"extension": extension, "approved_by": [{"entity": "e-2", "name": "bob"}]}),
        ("revised", by_approvers()),
        ("decided", by_approvers("e-1", "e-4")),
    )
    assert [what for _, what in rows(told, names, requester="olive")] == [
        "submitted: pending_approval; olive asked",
        "decided: pending_approval; ada approved",
        "decided: pending_approval; bob approved",
        "delivered to research-agent",
        "extended until 2030-01-31 09:05:00, asked for by research-agent (it is slow); bob approved",
        "revised: pending_approval; olive asked",
        "decided: pending_approval; ada and e-4 approved",
    ]


def test_tries_before_and_after_something_else_are_not_mixed() -> None:
    shown = rows(events("revoke_intended", "unproven", "revoke_intended"))
    assert [what for _, what in shown] == ["revoke intended", "unproven", "revoke intended"]


def test_lines_that_were_read_are_added_up() -> None:
    read = [("observed", {"lines": ["x"] * n, "leases": ["l"] * leases}) for n, leases in ((4, 1), (2, 0))]
    assert [what for _, what in rows(events(*read))] == [
        "observed 6 audit lines, 1 new lease (2 times, last at 00:00:01)"
    ]


def test_another_day_is_named() -> None:
    first, last = events("judged", "judged")
    last["at"] = "2026-11-26T08:00:00.000001Z"
    assert rows([first, last]) == [
        ("2026-11-25 00:00:00.000", "judged (2 times, last at 2026-11-26 08:00:00)"),
    ]
