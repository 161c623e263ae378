"""Neither a corrupt record nor a bug in the work on one task stops the kill switch, and each is told as what it is."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest

from jitvault.errors import CorruptRecord, JitvaultError, VaultUnavailable
from jitvault.kill_switch import ended_before
from jitvault.kill_switch import kill as switch
from jitvault.kill_switch.threads import TaskPool, ThreadContext, report_nothing
from jitvault.model.revision import Revision
from jitvault.model.scope import Scope

A_SECRET = "s.what-nobody-may-read"


@pytest.fixture
def calm() -> Iterator[None]:
    """Nothing is collected at the bottom of a deep recursion: its finalizers would fail there."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    "body", [b"", b"[", b"[]", b"null", b"5", b'{"agent": 1}', b"\xff", b"[" * 200_000], ids=lambda b: repr(b[:12])
)
def test_a_body_that_cannot_be_read_is_called_that(body: bytes) -> None:
    with pytest.raises(CorruptRecord):
        _ = Revision.of(body).content


class Ledger:
    """Held tasks, some of whose records raise when they are read."""

    def __init__(self, **held: Exception | None) -> None:
        self.held = held

    def task_ids(self, _states: object) -> list[str]:
        return list(self.held)

    def children(self, _task_id: str) -> list[str]:
        return []

    def record(self, task_id: str) -> None:
        error = self.held[task_id]
        if error is not None:
            raise error


class Worker:
    """As much of a worker as who decides what the kill switch ends needs."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def now(self) -> Any:
        return ended_before.EARLIER


def test_one_task_s_bug_is_reported_as_its_failure_and_the_others_have_their_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def act(_context: ThreadContext, task_id: str, _note: str) -> bool:
        if task_id == "corrupt":
            raise CorruptRecord("its row")
        if task_id == "bug":
            cast(Any, None).this_is_a_bug(A_SECRET)
        if task_id == "away":
            raise VaultUnavailable("no answer")
        done.append(task_id)
        return True

    done: list[str] = []
    pool = TaskPool(lambda: cast(Any, None), report_nothing)
    failed = pool.each("ended", act, ["first", "corrupt", "bug", "away", "last"], "why")
    assert sorted(done) == ["first", "last"]
    assert {task: type(error) for task, error in failed.items()} == {
        "corrupt": CorruptRecord,
        "bug": JitvaultError,
        "away": VaultUnavailable,
    }
    assert failed["bug"].exit_code == 1 and "AttributeError" in str(failed["bug"])
    (logged,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "task bug" in logged and "test_threads.py" in logged and "this_is_a_bug" in logged


def test_a_task_of_which_the_scope_is_not_known_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    held = Ledger(a=None, corrupt=CorruptRecord("its row"), bug=AttributeError(A_SECRET), b=None)
    found = switch.tasks_in_scope(cast(Any, Worker(held)), Scope())
    # a and b are not in the ledger any more
    assert found == ["corrupt", "bug"]
    assert "task bug" in caplog.text and A_SECRET not in caplog.text and "task corrupt" not in caplog.text


def test_a_task_of_which_the_end_is_not_known_did_not_end_earlier(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = Ledger(bug=AttributeError(A_SECRET), corrupt=CorruptRecord("its row"))
    assert ended_before.ended_earlier(cast(Any, Worker(held)), ["bug", "corrupt"]) == frozenset()
    assert "task bug" in caplog.text


def test_a_bug_in_telling_one_result_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(record: Any) -> None:
        raise CorruptRecord("its events") if record == "corrupt" else KeyError("leases")

    monkeypatch.setattr(switch, "proof_of", broken)
    results = {
        name: switch._result_or_bug(name, cast(Any, record), None, ended_earlier=False)
        for name, record in (("bug", "bug"), ("corrupt", "corrupt"), ("none", None))
    }
    assert {name: type(result.error) for name, result in results.items()} == {
        "bug": JitvaultError,
        "corrupt": CorruptRecord,
        "none": type(None),
    }
    assert not any(result.confirmed for result in results.values())
