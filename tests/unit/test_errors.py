from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from jitvault import errors
from jitvault.cli import app, session
from jitvault.errors import ApprovalMissing, JitvaultError, VaultRejected, WaitTimedOut
from jitvault.model.event_bodies import StatedError

# Exit codes are a promise to scripts, so they are spelled out here a second time.
CODES = {
    "JitvaultError": 1,
    "UsageError": 2,
    "Denied": 3,
    "ApprovalMissing": 4,
    "VaultUnavailable": 5,
    "NotConfirmed": 6,
    "AuditUntrusted": 7,
    "InvalidInput": 8,
    "WrongState": 9,
    "VaultRefused": 10,
    "LedgerUnavailable": 11,
    "SecurityFinding": 12,
    "WaitTimedOut": 13,
}
# A kind of another error has its code.
KINDS = {
    "OutcomeUnknown": "VaultUnavailable",
    "VaultBusy": "VaultUnavailable",
    "TargetUnavailable": "VaultUnavailable",
    "VaultNotServing": "VaultUnavailable",
    "StillAccepted": "NotConfirmed",
    "ProbeUnusable": "NotConfirmed",
    "AuditLagging": "AuditUntrusted",
    "AuditMissing": "AuditUntrusted",
    "Frozen": "SecurityFinding",
    "CorruptRecord": "SecurityFinding",
    "LostTask": "SecurityFinding",
    "NotFound": "WrongState",
    "TaskEnded": "WrongState",
    "DecisionStale": "WrongState",
    "WorkerRefused": "VaultRefused",
    "VaultRejected": "VaultRefused",
    "LedgerUnreachable": "LedgerUnavailable",
    "LedgerFull": "LedgerUnavailable",
    "MissingLedger": "LedgerUnavailable",
    "UnusedLedger": "LedgerUnavailable",
    "ForeignLedger": "LedgerUnavailable",
    "OlderRules": "LedgerUnavailable",
    "NoWorkerActed": "WaitTimedOut",
}
DRAWN = re.compile(r"^(?P<indent> +[│ ]*)(?:[├└]── )?(?P<name>[A-Z]\w+) +(?P<code>\d+)(?: +\S.*)?$")


def tree(root: type[JitvaultError] = JitvaultError) -> Iterator[tuple[type[JitvaultError], str | None]]:
    """Every class of the module with its parent's name."""
    yield root, None
    for child in root.__subclasses__():
        for found, parent in tree(child):
            yield found, parent or root.__name__


CLASSES = [error for error, _ in tree()]


def made(error: type[JitvaultError], **how: str) -> JitvaultError:
    if error is VaultRejected:
        return VaultRejected("it failed", status=400, **how)
    return error("it failed", **how)


def drawn() -> dict[str, tuple[str | None, int]]:
    """Name → (parent, exit code), as the docstring draws the tree."""
    found: dict[str, tuple[str | None, int]] = {}
    last: str | None = None
    for line in (errors.__doc__ or "").splitlines():
        match = DRAWN.match(line)
        if not match:
            continue
        depth = (line.index(match["name"]) - 4) // 4
        parent = (None, "JitvaultError", last)[depth]
        found[match["name"]] = (parent, int(match["code"]))
        last = match["name"] if depth == 1 else last
    return found


def test_the_tree_in_the_docstring_is_the_real_tree() -> None:
    assert drawn() == {error.__name__: (parent, error.exit_code) for error, parent in tree()}


def test_every_exception_of_the_module_is_in_the_tree() -> None:
    defined = {
        name for name, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__
    }
    assert defined == {error.__name__ for error in CLASSES}
    assert all(error.__module__ == errors.__name__ for error in CLASSES)


def test_every_class_has_its_documented_exit_code() -> None:
    expected = CODES | {kind: CODES[of] for kind, of in KINDS.items()}
    assert {error.__name__: error.exit_code for error in CLASSES} == expected
    own = [error.exit_code for error in CLASSES if error.__name__ not in KINDS]
    assert sorted(own) == list(range(1, 14))


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_says_what_happened_and_what_to_do_next(error: type[JitvaultError]) -> None:
    raised = made(error)
    assert str(raised) == "it failed"
    assert raised.hint == error.default_hint
    assert raised.hint.strip()
    assert made(error, hint="do that").hint == "do that"
    assert made(error, hint="do that").has_own_hint and not raised.has_own_hint


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_a_hint_that_names_the_task_leads_on(error: type[JitvaultError]) -> None:
    if "TASK" in error.default_hint:
        assert made(error).leads_on


def test_how_a_task_goes_on_whose_id_the_command_made_is_added_where_the_hint_does_not_lead_on() -> None:
    made = "drawn-7"
    for error, is_added in ((WaitTimedOut("late"), True), (ApprovalMissing("not yet"), False)):
        said = app._with_made_task(error.hint, error, made)
        assert (said != error.hint) == is_added
        # whatever the words are
        error.hint, error.leads_on = "drawn-7. That settles the request", not error.leads_on
        assert (app._with_made_task(error.hint, error, made) != error.hint) != is_added
    assert app._with_made_task("Wait.", WaitTimedOut("late"), None) == "Wait."


def test_a_refused_request_is_settled_and_one_that_stands_is_not() -> None:
    told = StatedError(8, "no", "Wait.")
    assert session.refused(told).leads_on and not session.refused(told, is_settled=False).leads_on


def test_only_a_kind_may_share_its_parents_code() -> None:
    for error, parent in tree():
        if parent and error.__name__ not in KINDS:
            assert "exit_code" in vars(error)
            assert parent == "JitvaultError"


def test_a_rejection_keeps_its_status_and_reasons() -> None:
    error = VaultRejected("no", status=400, reasons=("invalid lease",))
    assert (error.status, error.reasons) == (400, ("invalid lease",))
    assert VaultRejected("no", status=404).reasons == ()
