"""Several processes at once: one token a task, one proof, nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from commands import Cli, Result, without_limits
from invariants import check
from ledgers import ask, new_file
from mortal import time_passes
from rig import Rig

from jitvault.cli import inbox
from jitvault.errors import JitvaultError
from jitvault.ledger import claims
from jitvault.lifecycle import advance
from jitvault.lifecycle.issuance import issue
from jitvault.lifecycle.record import integrity
from jitvault.lifecycle.requests import publish
from jitvault.lifecycle.requests.sign import sign_grant_request
from jitvault.model.event_chain import chain_problems
from jitvault.model.spec import parse_spec
from jitvault.model.states import Verdict
from jitvault.vault import facts
from jitvault.vault.documents import Documents
from jitvault.vault.facts import RECENT_S

Spec = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_claim_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped past its claim knows by its clock that the claim may be lost."""
    monkeypatch.setattr(claims, "_FRESH_S", 0.0)


def at_once(cli: Cli, *commands: tuple[str, ...], processes: int) -> list[Result]:
    """Each command as an operator, in a process of its own."""
    with ThreadPoolExecutor(max_workers=processes) as pool:
        jobs = [pool.submit(cli, "operator", *command, "--json", code=None) for command in commands]
        return [job.result() for job in jobs]


def whole(rig: Rig, task: str) -> bool:
    record = rig.record(task)
    return chain_problems(record.events, head=record.task.head) == [] and not record.findings


def grant_loses_its_task(rig: Rig, file: Path) -> None:
    """A worker is stopped while it grants a request, and finds that another one took the task over."""
    rig.cli("operator", "grant", file, "--wait", "0", worker=False, code=13)
    assert "another process took over" in str(rig.turn(file.stem, code=9))


@pytest.mark.parametrize("known", [True, False])
def test_two_that_grant_the_same_task_make_one_token(rig: Rig, spec: Spec, known: bool) -> None:
    file = spec()
    rig("operator", "submit", file if known else spec())
    results = at_once(rig.cli, *[("grant", str(file))] * 2, processes=2)
    assert [result.code for result in results] == [0, 0], [result.stderr for result in results]
    answers = [result.json for result in results]
    assert len({answer["grant_id"] for answer in answers}) == 1
    printed = {w["token"] for answer in answers for w in answer["wrapping"]}
    assert len(printed) == 1
    assert len(rig.task_tokens(file.stem)) == 1
    assert whole(rig, file.stem)


def test_two_that_complete_the_same_task_say_the_same(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    first, second = at_once(rig.cli, *[("complete", file.stem)] * 2, processes=2)
    assert (first.code, second.code) == (0, 0), (first, second)
    # on a busy machine the settle window is over before the second one looks
    assert {**first.json, "state": ""} == {**second.json, "state": ""}
    assert {first.json["state"], second.json["state"]} <= {"confirmed", "sealed"}
    assert first.json["confirmed"]
    assert not rig.is_live(held.token)
    assert whole(rig, file.stem)


def test_a_process_that_was_stopped_past_its_claim_leaves_no_token_of_what_others_ended(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between intent and create; nothing shows then that a request is still to come."""
    file, create = spec(), issue._create

    def stopped(worker: Any, *rest: Any) -> Any:
        time_passes(rig)
        for _ in range(5):
            ended = rig.cli("operator", "revoke", file.stem, "--json", code=None)
            if "is known in" not in ended.stderr:
                break
            time.sleep(3)
        assert ended.json["confirmed"]
        return create(worker, *rest)

    monkeypatch.setattr(issue, "_create", stopped)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_ROLLING_STEP": "10s"}
    grant_loses_its_task(rig, file)
    assert rig.task_tokens(file.stem) == []
    # only the stopped process knew the token's accessor: to others it is proven dead by its lease, or by its expiry
    deadline = time.monotonic() + 60
    while (shown := rig("operator", "status", file.stem, code=12).json)["state"] != "sealed":
        assert time.monotonic() < deadline, shown["proof"]
        time.sleep(0.5)
    (late,) = rig.record(file.stem).grants
    assert late.verdict in (Verdict.AUDIT_CONFIRMED, Verdict.EXPIRED)
    # nobody can tell it from a thief, who would use the same intent
    assert "intent was given up" in shown["frozen"]["why"]


class Stopped:
    """A function that is called after this process was stopped for longer than its claims live, the `n`th time.

    Meanwhile another process does `commands` for the task, until the last one says that it is done.
    """

    def __init__(self, rig: Rig, task: str, real: Callable[..., Any], *commands: str, n: int = 1) -> None:
        self._rig, self._task, self._real, self._commands, self._left = rig, task, real, commands, n

    def __call__(self, *args: Any, **named: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            time_passes(self._rig)
            for command in self._commands:
                for _ in range(5):
                    done = self._rig.cli("operator", command, self._task, "--json", code=None)
                    if "is known in" not in done.stderr:
                        break
                    time.sleep(3)
                assert done.code == 0, done
            # it goes by no answer from before it was stopped
            time.sleep(RECENT_S)
        return self._real(*args, **named)


def test_a_process_that_was_stopped_right_before_it_delivers_leaves_no_wrapping_of_what_others_ended(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, put = spec(), Documents.put
    stopped = Stopped(rig, file.stem, put, "revoke")

    def late(documents: Documents, path: str, document: Any, **named: Any) -> Any:
        return (stopped if path.startswith("inbox/") else put)(documents, path, document, **named)

    monkeypatch.setattr(Documents, "put", late)
    grant_loses_its_task(rig, file)
    assert rig.document(f"inbox/{rig.entity('operator')}/{file.stem}")["wrapping"] == []
    # what it wrote last had an intent as well
    assert rig("operator", "status", file.stem).json["state"] in ("confirmed", "sealed")


def test_a_process_that_was_stopped_after_its_intent_delivers_nothing(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spec()
    monkeypatch.setattr(issue, "_put", Stopped(rig, file.stem, issue._put, "revoke"))
    grant_loses_its_task(rig, file)
    assert rig.admin.read(f"jitvault-inbox/data/{rig.entity('operator')}/{file.stem}") is None


def test_a_process_that_was_stopped_prints_no_wrapping_of_what_others_ended(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spec()
    take = inbox.message_for
    revoked = Stopped(rig, file.stem, lambda found: found, "revoke")
    monkeypatch.setattr(inbox, "message_for", lambda *args: revoked(take(*args)))
    result = rig("operator", "grant", file, code=9)
    assert "wrapping" not in result.stdout
    assert f"task {file.stem} is" in result.error["message"]


def test_a_process_that_was_stopped_publishes_nothing_older_than_what_others_did(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right before it writes: nothing that it could ask before that would have told it."""
    file = spec()
    monkeypatch.setattr(publish, "publish", Stopped(rig, file.stem, publish.publish, "revoke"))
    grant_loses_its_task(rig, file)
    assert rig.document(f"tasks/{file.stem}")["state"] in ("confirmed", "sealed")


@pytest.mark.parametrize("n", [1, 2], ids=["before it is verified", "after it published"])
def test_a_process_that_was_stopped_before_its_intent_takes_no_newer_state_for_a_ledger_that_was_restored(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    file = spec()
    # claims live for longer than any fact
    monkeypatch.setattr(facts, "AGE_S", 0.0)
    monkeypatch.setattr(integrity, "published", Stopped(rig, file.stem, integrity.published, "grant", "revoke", n=n))
    grant_loses_its_task(rig, file)
    assert rig.document(f"tasks/{file.stem}")["state"] in ("confirmed", "sealed")
    shown = rig("operator", "status", file.stem).json
    assert shown["state"] in ("confirmed", "sealed") and shown["findings"] == []


def test_four_processes_grant_ten_tasks_on_one_ledger(rig: Rig, spec: Spec) -> None:
    rig("operator", "submit", spec())
    files = [spec() for _ in range(10)]
    results = at_once(rig.cli, *[("grant", str(file)) for file in files], processes=4)
    assert [result.code for result in results] == [0] * 10, [r.stderr for r in results if r.code]
    assert len({result.json["wrapping"][0]["token"] for result in results}) == 10
    for file in files:
        (token,) = rig.task_tokens(file.stem)
        assert token["meta"]["jitvault_grant"] == rig.record(file.stem).grants[-1].grant_id
        assert whole(rig, file.stem)


def test_two_processes_that_begin_a_new_ledger_beside_open_tasks_mark_it_once(
    cli: Cli, spec: Callable[..., Path], tmp_path: Path
) -> None:
    cli("operator", "grant", spec())
    ledger = new_file(tmp_path / "new" / "ledger.db")
    new = {"JITVAULT_LEDGER": f"sqlite:///{ledger}"}
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(
            lambda file: cli("operator", "grant", file, "--json", extra=new, code=12), [spec(), spec()]
        ):
            assert "has had to be rebuilt" in done.error["message"]
    assert ask(ledger, "SELECT (SELECT count(*) FROM freezes), count(*) FROM installation")[0] == [(1, 1)]


ONE_AT_A_TIME = '@id("one") forbid (principal, action == Action::"grant", resource) when { context.owner_leases > 0 };'


@pytest.mark.parametrize("siblings", [False, True], ids=["budget", "siblings"])
def test_of_three_that_are_decided_at_once_and_are_too_much_together_one_is_granted(
    rig: Rig, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: bool
) -> None:
    more = ""
    if siblings:
        top = spec()
        rig.active(top)
        more = f"  parent: {top.stem}\n"
    else:
        policies = without_limits(tmp_path / "one")
        (policies / "one.cedar").write_text(ONE_AT_A_TIME)
        rig.cli.variables = {**rig.cli.variables, "JITVAULT_POLICIES": str(policies)}
    files = [spec(window="5m", more=more) for _ in range(3)]
    for file in files:
        rig("operator", "submit", file)
        sign_grant_request(rig.wiring().person, parse_spec(file.read_bytes()))
    workers = {file.stem: rig.wiring().worker for file in files}
    decided, met = threading.Barrier(3), set[str]()

    def together(worker: object, found: advance.TaskRecord) -> None:
        if found.task.task_id not in met:
            met.add(found.task.task_id)
            decided.wait(timeout=30)

    monkeypatch.setattr(advance, "check_not_frozen", together)

    def grant(task: str) -> str:
        try:
            return advance.advance(workers[task], task).task.state.value
        except JitvaultError as error:
            return str(error.exit_code)

    with ThreadPoolExecutor(3) as pool:
        came = sorted(pool.map(grant, workers))
    # who lost was decided anew: a denial, or what its parent has left
    assert came == (["8", "8", "issued"] if siblings else ["denied", "denied", "issued"])
    assert met == workers.keys()
    assert sum(len(rig.task_tokens(task)) for task in workers) == 1
    check(rig)
