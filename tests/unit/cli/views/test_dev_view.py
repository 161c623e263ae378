"""What `jitvault dev` streams: one line an event, that fits on a terminal, with what matters and without the noise."""

from __future__ import annotations

from typing import Any

import pytest
from event_examples import WHOLE, example

from jitvault.cli.views.dev import event_line, event_words, first_commands
from jitvault.model.kinds import EventKind

AT = "2030-01-02T03:04:05.678901Z"
NAMES = {"e-1": "approver-1", "e-2": "approver-2"}
UNDECIDED: dict[str, Any] = {"approved_by": [], "denied_by": None, "missing": [], "refused": []}


def told(kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A body of this kind; of a decision nothing is said but what `changes` say."""
    if "decision" not in WHOLE[kind]:
        return example(kind, **changes)
    decided = {**UNDECIDED, **{name: changes[name] for name in UNDECIDED if name in changes}}
    return example(kind, decided=decided, **{name: of for name, of in changes.items() if name not in UNDECIDED})


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (
            EventKind.SUBMITTED,
            {"state": "pending_approval", "missing": [{"group": "jitvault-approvers", "count": 1}]},
            "submitted: waits for 1 of approvers",
        ),
        (
            EventKind.DECIDED,
            {
                "state": "pending_approval",
                "approved_by": ["e-1"],
                "missing": [{"group": "jitvault-security", "count": 1}, {"group": "jitvault-dba", "count": 2}],
            },
            "decided: approved by approver-1, waits for 1 of security, 2 of dba",
        ),
        (EventKind.SUBMITTED, {"state": "approved", "approved_by": [], "missing": []}, "submitted: approved"),
        (EventKind.SUBMITTED, {"state": "denied", "note": "low only"}, "submitted: denied (low only)"),
        (
            EventKind.DECIDED,
            {"state": "approved", "approved_by": ["e-1", "e-2"], "missing": []},
            "decided: approved by approver-1, approver-2",
        ),
        (
            EventKind.DECIDED,
            {"state": "denied", "denied_by": "e-2", "missing": [{"group": "jitvault-security", "count": 1}]},
            "decided: denied by approver-2",
        ),
        (
            EventKind.OBSERVED,
            {"lines": ["a"], "leases": ["database/creds/app-readonly/x", "database/creds/app-readonly/y"]},
            "credential read: database/creds/app-readonly",
        ),
        (EventKind.OBSERVED, {"lines": ["a"], "leases": []}, None),
        (EventKind.ENDING, {"reason": "completed", "name": "operator"}, "ending: completed, asked for by operator"),
        (EventKind.REVOKED, {"verdicts": {"a": "gone", "b": "gone"}}, "revoked: 2 gone"),
        (EventKind.SEALED, {}, "sealed: the receipt is signed"),
        (EventKind.RENEW_INTENDED, {}, "renewed in steps"),
        (EventKind.JUDGED, {}, None),
    ],
)
def test_an_event_is_told_in_a_few_words_or_not_at_all(kind: str, body: dict[str, Any], words: str | None) -> None:
    assert event_words(kind, AT, told(kind, body), NAMES) == words


def test_every_kind_of_event_has_been_thought_of() -> None:
    """A new kind is told by its own name; what is left out is what this test names."""
    left_out = {kind for kind in EventKind if event_words(kind, AT, example(kind), NAMES) is None}
    said_otherwise = {kind for kind in EventKind if kind.endswith("_intended")} - {EventKind.CREATE_TOKEN_INTENDED}
    said_otherwise -= {EventKind.RENEW_INTENDED}
    assert left_out - {EventKind.CREATE_TOKEN_INTENDED} == said_otherwise | {
        *(EventKind.ATTEMPT_SETTLED, EventKind.JUDGED, EventKind.LISTED, EventKind.QUEUED),
        *(EventKind.SEEN_ALIVE, EventKind.WRAPPINGS_ENDED),
    }


@pytest.mark.parametrize("width", [40, 80, 120])
def test_an_event_is_one_line_that_fits(width: int) -> None:
    line = event_line(AT, "a-task-with-a-name-that-is-quite-long", "denied: " + "words " * 40 + "\n\x1b[31m", width)
    assert len(line) == width and line.endswith("…") and line.isprintable()
    assert line.startswith("03:04:05  a-task-with-a-name")
    assert event_line(AT, "t", "sealed", width) == "03:04:05  t                 sealed"


def test_the_first_commands_are_for_the_file_at_hand() -> None:
    grant = 'jitvault grant "$JITVAULT_EXAMPLE_SPEC"'
    roles = first_commands(["source operator.env"], ["source agent.env"], has_example=True)
    taken = ["source agent.env", "jitvault unwrap read-orders --read"]
    assert roles == ["source operator.env", "jitvault templates list", grant, *taken]
    scripts = first_commands(["source dev.env", "export VAULT_TOKEN=$X"], ["export VAULT_TOKEN=$Y"], has_example=False)
    assert scripts == ["source dev.env", "export VAULT_TOKEN=$X", "jitvault templates list"]
