"""What was published of a task that is sealed for long is removed from Vault, and nothing is granted again by that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from attended import Attended, wait_for
from commands import Quick
from rig import Held, Rig

from jitvault.context import WorkerContext
from jitvault.documents import paths as intake
from jitvault.errors import AuditUntrusted, InvalidInput, SecurityFinding, VaultNotServing
from jitvault.ledger.model import OpState
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.requests import retention
from jitvault.lifecycle.requests.pending import Backlog
from jitvault.lifecycle.requests.retention import Removals, removable, remove
from jitvault.model.kinds import OperationKind
from jitvault.stream.reading import observe
from jitvault.vault.documents import Documents
from jitvault.wiring import SystemClock
from jitvault.worker import loops
from jitvault.worker.health import metrics

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
MONTH, NO_TIME = timedelta(days=30), timedelta(0)


@contextmanager
def a_month_later() -> Iterator[None]:
    """Every request that lies in Vault is too old to begin anything."""
    with mock.patch.object(intake, "REQUEST_LIFE", NO_TIME):
        yield


@pytest.fixture
def worker(rig: Rig) -> WorkerContext:
    return rig.wiring().worker


def begins(worker: WorkerContext) -> dict[str, str]:
    """The requests in Vault that no task was made of and that begin one, each with its author."""
    backlog = Backlog(worker)
    backlog.list_again()
    return dict(backlog.some(backlog.left, lambda _author: True))


def person(rig: Rig, who: str, *arguments: str | Path, code: int = 0, ledger: bool = False) -> Any:
    """A command of somebody without the worker's identity, with the ledger to read or with Vault alone."""
    extra = {"JITVAULT_LEDGER": rig.cli.variables["JITVAULT_LEDGER"]} if ledger else {}
    return Quick(rig.cli.variables, rig.cli.home)(who, *arguments, "--json", code=code, worker=False, extra=extra)


def ended_by_its_agent(rig: Rig, held: Held) -> None:
    """Nobody signs for this end: in Vault nothing but what the worker published tells of it."""
    rig.vault(held.token).write("auth/token/revoke-self")


def seal(rig: Rig, task: str) -> None:
    rig("operator", "status", task)
    rig.settle()
    assert rig("operator", "status", task).json["state"] == "sealed"


def sealed(rig: Rig, file: Path) -> Held:
    held = rig.active(file)
    ended_by_its_agent(rig, held)
    seal(rig, file.stem)
    return held


def restored(rig: Rig, copy: Path) -> None:
    """Put an older ledger in the place of this one. It reads of a token that it never meant to make, and freezes
    everything; the operator knows why and lifts that.
    """
    rig.put_back(copy)
    rig("operator", "audit", "status", code=None)
    rig("operator", "unfreeze", "--reason", "the ledger was restored")


def is_published(rig: Rig, task: str) -> bool:
    return rig.admin.read(f"jitvault/metadata/tasks/{task}") is not None


def removals(rig: Rig) -> list[tuple[str, str]]:
    return [
        tuple(row)
        for row in rig.rows("SELECT subject, state FROM operations WHERE kind = ?", OperationKind.REMOVE_PUBLISHED)
    ]


# -- what is removed, and what is not ------------------------------------------------------------------------------


def test_what_is_sealed_for_long_is_removed_and_the_ledger_goes_on_telling(
    rig: Rig, worker: WorkerContext, spec: Spec
) -> None:
    file, active, asked = spec(), spec(), spec(criticality="medium")
    rig.active(active)
    rig("operator", "submit", asked)
    sealed(rig, file)
    # the lines of the seal's own look-ups
    observe(worker)
    before = rig.record(file.stem)
    assert Removals(worker, MONTH).some() == 0 and is_published(rig, file.stem), "it is too early"
    with a_month_later():
        assert Removals(worker, NO_TIME).some() == 1
    assert not is_published(rig, file.stem), "with all its versions"
    assert is_published(rig, active.stem) and is_published(rig, asked.stem)
    # what its author signed is theirs
    assert rig.document(f"requests/{rig.entity('operator')}/{file.stem}/submit")
    after = rig.record(file.stem)
    assert (after.task, after.events, after.operations) == (before.task, before.events, before.operations)
    shown = person(rig, "auditor", "status", file.stem, ledger=True).json
    assert (shown["state"], shown["published"], shown["proof"]["confirmed"]) == ("sealed", None, True)
    with a_month_later():
        alone = person(rig, "operator", "status", file.stem, code=9).error
    # its own request lies there, and says nothing of what became of it
    assert alone["message"] == f"there is no task {file.stem} in Vault" and "kept in the ledger" in alone["hint"]
    # an act like any other: its line is in the stream, which is trusted because of that
    time.sleep(1.1)
    assert rig("operator", "audit", "status").json["state"] == "trusted"
    assert removals(rig) == [(f"tasks/{file.stem}", OpState.SETTLED.value)]
    assert rig("operator", "ledger", "check").json["ok"]


def test_who_asks_with_the_workers_identity_is_told_and_it_is_removed_again(
    rig: Rig, worker: WorkerContext, spec: Spec
) -> None:
    file = spec()
    sealed(rig, file)
    with a_month_later():
        remove(worker, [file.stem])
        assert rig("operator", "status", file.stem).json["state"] == "sealed"
        assert rig("operator", "complete", file.stem).json["confirmed"]
        assert is_published(rig, file.stem)
        assert Removals(worker, NO_TIME).some() == 1 and not is_published(rig, file.stem)
    assert rig.findings(file.stem) == []


def test_whoever_signs_it_again_after_its_end_has_it_told_for_as_long_again(
    rig: Rig, worker: WorkerContext, spec: Spec
) -> None:
    file, keep = spec(), timedelta(seconds=2)
    sealed(rig, file)
    time.sleep(2.1)
    with a_month_later():
        assert removable(worker, [file.stem], keep) == [file.stem]
        assert "is sealed" in rig("operator", "grant", file, code=9).error["message"]
        assert removable(worker, [file.stem], keep) == []


def test_where_the_clocks_do_not_agree_nothing_is_removed(rig: Rig, worker: WorkerContext, spec: Spec) -> None:
    file = spec()
    sealed(rig, file)

    class Ahead(SystemClock):
        def now(self) -> datetime:
            return super().now() + MONTH

    with pytest.raises(AuditUntrusted, match="clock"):
        Removals(replace(worker, clock=Ahead()), timedelta(days=8)).some()
    assert is_published(rig, file.stem) and removals(rig) == []


def test_a_pass_is_bounded_and_the_next_one_goes_on(rig: Rig, worker: WorkerContext, spec: Spec) -> None:
    files = [spec() for _ in range(3)]
    for file in files:
        rig.granted(file)
    for file in files:
        rig("operator", "revoke", file.stem)
    rig.settle()
    for file in files:
        assert rig("operator", "status", file.stem).json["state"] == "sealed"
    with a_month_later(), mock.patch.multiple(retention, _LOOKED_AT=3, _REMOVED=2):
        some, done = Removals(worker, NO_TIME), list[int]()
        # what others published in this Vault is gone through as well
        while sum(done) < 3 and len(done) < 50:
            done.append(some.some())
        assert max(done) <= 2 and sum(done) == 3
    assert not any(is_published(rig, file.stem) for file in files)


def test_what_is_too_much_for_one_pass_comes_first_in_the_next(rig: Rig, worker: WorkerContext, spec: Spec) -> None:
    first, second = spec(), spec()
    for file in (first, second):
        rig.granted(file)
        rig("operator", "revoke", file.stem)
    rig.settle()
    for file in (first, second):
        assert rig("operator", "status", file.stem).json["state"] == "sealed"
    listing = mock.patch.object(Documents, "names", autospec=True, side_effect=Documents.names)
    with a_month_later(), mock.patch.object(retention, "_REMOVED", 1), listing as listed:
        some = Removals(worker, NO_TIME)
        # all names are looked at in the first pass
        assert [some.some(), some.some()] == [1, 1]
    assert listed.call_count == 1, "the rest of a round is not left to the next one"


# -- nothing is granted again --------------------------------------------------------------------------------------


def test_a_ledger_from_before_the_request_does_not_take_it_in_again(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec()
    rig("operator", "audit", "status")
    copy = rig.snapshot(tmp_path / "before.db")
    sealed(rig, file)
    with a_month_later():
        remove(rig.wiring().worker, [file.stem])
        restored(rig, copy)
        worker = rig.wiring().worker
        assert file.stem not in begins(worker)
        with Attended(rig, list_s=0.1) as working:
            time.sleep(1.5)
            assert working.log.states(file.stem) == []
        # news about it, such as another wish to have it granted
        refused = rig("operator", "grant", file.stem, code=8).error
        assert "neither the ledger nor Vault says what became of it" in refused["message"]
        assert "sign it anew" in refused["hint"]
        assert person(rig, "operator", "grant", file.stem, code=8).error == refused, "it is settled"
        assert rig.state(file.stem) is None
    assert rig.task_tokens(file.stem) == []
    # signed anew it is another request, and decided as one
    assert rig.granted(file)["state"] == "issued"
    rig("operator", "revoke", file.stem)


def test_without_its_age_that_request_would_be_granted(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    """What the test above is about: were the request young, nothing else would keep it from a second grant."""
    file = spec()
    rig("operator", "audit", "status")
    copy = rig.snapshot(tmp_path / "before.db")
    sealed(rig, file)
    remove(rig.wiring().worker, [file.stem])
    restored(rig, copy)
    assert begins(rig.wiring().worker)[file.stem] == rig.entity("operator")
    advance(rig.wiring().worker, file.stem)
    assert len(rig.task_tokens(file.stem)) == 1
    rig("operator", "revoke", file.stem)


def test_a_ledger_in_which_it_may_still_be_granted_does_not_grant_it_again(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    file = spec()
    rig("operator", "submit", file)
    copy = rig.snapshot(tmp_path / "before.db")
    sealed(rig, file)
    with a_month_later():
        remove(rig.wiring().worker, [file.stem])
        restored(rig, copy)
        with pytest.raises(SecurityFinding, match="the ledger or Vault was restored"):
            advance(rig.wiring().worker, file.stem)
        assert rig("operator", "grant", file.stem, code=12).stdout == ""
    assert rig.findings(file.stem) == ["ledger_rolled_back"] and rig.task_tokens(file.stem) == []
    assert not is_published(rig, file.stem), "what cannot be believed is not told either"


def test_a_ledger_in_which_it_was_held_ends_it_and_gives_nothing(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    copy = rig.snapshot(tmp_path / "before.db")
    ended_by_its_agent(rig, held)
    seal(rig, file.stem)
    with a_month_later():
        remove(rig.wiring().worker, [file.stem])
        rig.put_back(copy)
        # what was published since has no intent in this ledger
        assert "without an intent" in rig("operator", "status", file.stem, code=12).error["message"]
        rig.settle()
        assert rig("operator", "status", file.stem, code=12).json["state"] == "sealed"
    assert rig.tokens_made(file.stem) == 1 and rig.task_tokens(file.stem) == []


# -- whatever breaks -----------------------------------------------------------------------------------------------


class Died(BaseException):
    """As SIGKILL does it: nothing more is written."""


@pytest.mark.parametrize("done", [True, False], ids=["after", "before"])
def test_a_crash_between_a_removal_and_its_record_converges(
    rig: Rig, worker: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    file = spec()
    sealed(rig, file)
    destroy = Documents.destroy

    def dies(documents: Documents, path: str, *, op: str | None = None) -> None:
        if done:
            destroy(documents, path, op=op)
        raise Died

    with a_month_later():
        with monkeypatch.context() as patched, pytest.raises(Died):
            patched.setattr(Documents, "destroy", dies)
            Removals(worker, NO_TIME).some()
        assert [state for _, state in removals(rig)] == ["intended"] and is_published(rig, file.stem) is not done
        monkeypatch.setattr(retention, "_IN_HAND", NO_TIME)
        assert Removals(worker, NO_TIME).some() == (0 if done else 1)
    assert not is_published(rig, file.stem)
    time.sleep(1.1)
    assert rig("operator", "audit", "status").json["state"] == "trusted"
    states = sorted(state for _, state in removals(rig))
    assert states == (["settled"] if done else ["abandoned", "settled"])
    assert person(rig, "auditor", "status", file.stem, ledger=True).json["state"] == "sealed"


def test_what_vault_does_not_take_is_told_and_tried_in_the_next_round(
    rig: Rig, worker: WorkerContext, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spec()
    sealed(rig, file)

    def away(_: Documents, path: str, *, op: str | None = None) -> None:
        raise VaultNotServing(f"{path} {op}")

    with a_month_later():
        with monkeypatch.context() as patched, pytest.raises(VaultNotServing):
            patched.setattr(Documents, "destroy", away)
            Removals(worker, NO_TIME).some()
        assert [state for _, state in removals(rig)] == ["abandoned"]
        assert Removals(worker, NO_TIME).some() == 1


def test_it_is_a_loop_of_the_worker_that_lives_without_the_right_to_it(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, policy = spec(), "sys/policies/acl/jitvault-worker"
    sealed(rig, file)
    monkeypatch.setattr(loops, "Removals", lambda worker, keep: Removals(worker, keep - MONTH))
    text = (rig.admin.read(policy) or {})["data"]["policy"]
    older = text.replace('["list", "read", "delete"]', '["list", "read"]')
    assert older != text
    rig.admin.write(policy, {"policy": older})
    try:
        with a_month_later(), Attended(rig, remove_s=0.1, retry_s=0.2) as working:
            (told,) = wait_for(lambda: [t for t in working.log.all_of("trouble") if t["loop"] == "retention"])
            assert "published documents cannot be deleted" in str(told["error"]) and is_published(rig, file.stem)
            rig.admin.write(policy, {"policy": text})
            wait_for(lambda: not is_published(rig, file.stem))
            wait_for(lambda: working.log.all_of("removed what was published of sealed tasks"))
            wait_for(lambda: "jitvault_worker_removed_total 1" in metrics({"": working.started.pool._health.state()}))
    finally:
        rig.admin.write(policy, {"policy": text})


def test_a_request_that_is_too_old_is_never_the_first_word(rig: Rig, spec: Spec) -> None:
    """Also where nothing was removed: no worker was there for a long time, and nobody expects an answer any more."""
    file = spec()
    person(rig, "operator", "grant", file, "--wait", "0", code=13)
    with a_month_later():
        with pytest.raises(InvalidInput, match="begins nothing once it is"):
            advance(rig.wiring().worker, file.stem)
        assert person(rig, "operator", "grant", file.stem, code=8).stdout == ""
    assert rig.task_tokens(file.stem) == []
