"""What a command says where a worker has not done, or not finished, what was asked."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from test_published_task import NOW, honest

from jitvault.cli import app, session
from jitvault.cli.commands.ends import freeze
from jitvault.cli.requests.grant_wait import raise_for
from jitvault.errors import AuditUntrusted, JitvaultError, NotConfirmed, NoWorkerActed, WrongState
from jitvault.model.event_bodies import StatedError
from jitvault.model.scope import Scope
from jitvault.model.states import State

LAGS = StatedError(AuditUntrusted.exit_code, "its last lines are missing", "Repair it.")
LATE = "no worker has done this within 9 s"
START = ["jitvault worker", "jitvault worker --once"]


def wiring(*written: str, sandbox: bool = False) -> Any:
    """What a command has on a person's own machine: no ledger. It signed one document of each kind `written`."""
    person = SimpleNamespace(written={f"requests/e/t-1/{kind}": kind for kind in written})
    settings = SimpleNamespace(sandbox_target="127.0.0.1:1" if sandbox else None)
    return SimpleNamespace(person=person, settings=settings, has_ledger=False)


@pytest.mark.parametrize(
    ("since", "kind"), [(NOW - timedelta(seconds=1), AuditUntrusted), (NOW + timedelta(seconds=1), NoWorkerActed)]
)
def test_a_wait_ends_with_what_a_worker_met_meanwhile(since: Any, kind: type[JitvaultError]) -> None:
    """What it met before says nothing of this request: perhaps no worker lives any more."""
    with pytest.raises(kind) as found:
        session._raise_not_done(wiring(), "t-1", honest(error=LAGS), since, LATE, begun=False)
    assert str(found.value) == "task t-1: no worker has done this within 9 s: its last lines are missing"


@pytest.mark.parametrize("begun", [True, False])
def test_a_wait_without_a_worker_names_what_was_written_and_what_to_start(
    capsys: pytest.CaptureFixture[str], *, begun: bool
) -> None:
    late = session.nobody_acted(wiring("end"), f"task t-1: {LATE}", begun=begun)
    assert late.data == {"waiting": {"written": ["requests/e/t-1/end"], "begun": begun, "start": START}}
    assert all(command in late.hint for command in START)
    with pytest.raises(SystemExit, match="13"):
        app._print_error(str(late), late.hint, late.exit_code, as_json=True, **late.data)
    assert '"written": [' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "state", "said"),
    [
        ("grant", "approved", f"the request is signed, but {LATE}"),
        ("decision", "pending_approval", f"your decision is signed, but {LATE}"),
        ("extend", "active", f"more time is signed, but {LATE}"),
        ("end", "active", f"its end is signed, but {LATE}, and its access is still live"),
        ("withdraw", "issued", f"your withdrawal is signed, but {LATE}, and its access is still live"),
        ("end", "ending", f"its end is signed, but {LATE}"),
        (None, "active", LATE),
    ],
)
def test_a_wait_that_is_over_says_what_was_signed_and_whether_access_is_still_live(
    kind: str | None, state: str, said: str
) -> None:
    document = honest(state=State(state), error=LAGS)
    later = NOW + timedelta(seconds=1)
    with pytest.raises(NoWorkerActed) as found:
        session._raise_not_done(wiring(*filter(None, [kind])), "t-1", document, later, LATE, begun=False)
    assert str(found.value) == f"task t-1: {said}: its last lines are missing"


def test_in_a_sandbox_the_hint_names_the_file_with_the_workers_identity() -> None:
    late = session.nobody_acted(wiring("end", sandbox=True), LATE)
    assert "where the worker's identity is (in this sandbox `source DIR/worker.env`): `jitvault worker`" in late.hint
    assert "worker.env" not in session.nobody_acted(wiring("end"), LATE).hint


def test_a_task_whose_token_may_not_have_been_made_is_not_granted() -> None:
    """Vault's answer to the create was lost: a script must not go on with an exit code of 0 and no token."""
    task = honest(state=State.ISSUING)
    with pytest.raises(WrongState, match="is issuing, and its token is not issued yet"):
        raise_for(task, waited=1.0)
    raise_for(task)
    raise_for(honest(state=State.ISSUED), waited=1.0)


@pytest.mark.parametrize(("other", "kind"), [("ending", NotConfirmed), ("issued", NoWorkerActed)])
def test_a_freeze_is_unproven_where_a_worker_ends_all_tasks_and_else_waits_for_one(
    other: str, kind: type[JitvaultError]
) -> None:
    states = {"t-1": "confirmed", "t-2": "ending", "t-3": other}
    with pytest.raises(kind, match=rf"2 of 3 tasks not proven to be ended: t-2 \(ending\), t-3 \({other}\)"):
        freeze._check_ended(wiring("freeze"), Scope(agent="a"), states, 9.0)
    freeze._check_ended(wiring(), Scope(agent="a"), {"t-1": "confirmed"}, 9.0)
