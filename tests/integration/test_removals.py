"""What is left of requests can be removed, by their authors and by an administrator, and nothing is granted by that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from commands import Quick
from floods import write_all
from rig import Rig

from jitvault.documents import tidy as rules
from jitvault.errors import InvalidInput, NotFound
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.requests.pending import Backlog
from jitvault.lifecycle.requests.sign import sign_submission
from jitvault.model.spec import parse_spec
from jitvault.provision.tidy import remove, survey

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
# Vault tells its time in whole seconds
NO_TIME = timedelta(seconds=-2)


@contextmanager
def a_month_later() -> Iterator[None]:
    """Every document that lies in Vault is old."""
    with mock.patch.object(rules, "REQUEST_LIFE", NO_TIME):
        yield


def is_refused(rig: Rig, file: Path) -> None:
    """It is signed without the look at it that `submit` has first, and the worker refuses it."""
    wiring = rig.wiring()
    sign_submission(wiring.person, parse_spec(file.read_bytes()), revise=False)
    with pytest.raises(InvalidInput):
        advance(wiring.worker, file.stem)


def removes(rig: Rig, who: str, task: str, kind: str = "submit") -> None:
    """Its author removes a request, with the author's own token."""
    entity = rig.entity("research-agent" if who == "agent" else who)
    rig.vault(rig.token_of(who)).delete(f"jitvault/metadata/requests/{entity}/{task}/{kind}")


def paths_of(rig: Rig, task: str) -> list[str]:
    with a_month_later():
        return [path for one in survey(rig.admin, older_than=NO_TIME) if one.task_id == task for path in one.paths]


def test_an_administrator_removes_what_was_never_granted_and_nothing_else(rig: Rig, spec: Spec) -> None:
    refused, cancelled, pending, held = spec(choices="{database: nowhere}"), spec(), spec(criticality="medium"), spec()
    is_refused(rig, refused)
    rig("operator", "submit", cancelled)
    rig("operator", "cancel", cancelled.stem)
    rig("operator", "submit", pending)
    token = rig.active(held).token
    agent, operator = rig.entity("research-agent"), rig.entity("operator")
    junk = [f"requests/{agent}/{refused.stem}-{n}/end" for n in range(3)]
    write_all(rig, "agent", junk)
    assert all(paths_of(rig, path.split("/")[2]) == [path] for path in junk)
    assert paths_of(rig, refused.stem) == [f"requests/{operator}/{refused.stem}/submit", f"tasks/{refused.stem}"]
    assert paths_of(rig, cancelled.stem)[-1] == f"tasks/{cancelled.stem}"
    assert paths_of(rig, pending.stem) == paths_of(rig, held.stem) == [], "they are open"
    with a_month_later():
        found = [one for one in survey(rig.admin, older_than=NO_TIME) if one.task_id.startswith(refused.stem)]
        # its author has signed it again in the meantime
        write_all(rig, "agent", junk[:1])
        assert remove(rig.admin, found) == 4
    assert paths_of(rig, refused.stem) == [] and paths_of(rig, junk[0].split("/")[2]) == junk[:1]
    worker = rig.wiring().worker
    with pytest.raises(NotFound):
        advance(worker, refused.stem)
    assert rig.is_live(token) and rig.state(pending.stem) == "pending_approval"
    rig("operator", "revoke", held.stem)


def test_the_command_shows_what_it_would_remove_and_asks(rig: Rig) -> None:
    here = Quick(rig.cli.variables, rig.cli.home)
    assert "at least 7d" in here("admin", "tidy", "--older-than", "6d", code=2).stderr
    assert here("admin", "tidy", "--plan", "--json").json == {"removed": 0, "tasks": []}, "all of it is young"
    assert here("agent", "tidy", code=10).stdout == ""
    write_all(rig, "agent", [path := f"requests/{rig.entity('research-agent')}/asked-{rig.cli.home.name[-8:]}/end"])
    task = path.split("/")[2]
    time.sleep(2.1)
    with a_month_later(), mock.patch("jitvault.cli.commands.installation.tidy.REQUEST_LIFE", NO_TIME):
        options = ("tidy", "--older-than", "1s")
        assert task in here("admin", *options, "--plan").stdout
        said = here("admin", *options, code=2, given="n\n").stderr
        assert task in said and "nothing was removed" in said and paths_of(rig, task) == [path]
        assert here("admin", *options, "--yes", "--json").json["removed"] >= 1
    assert paths_of(rig, task) == []


def test_deleting_a_request_withdraws_it(rig: Rig, spec: Spec) -> None:
    pending, held = spec(criticality="medium"), spec()
    rig("operator", "submit", pending)
    token = rig.active(held).token
    for file in (pending, held):
        removes(rig, "operator", file.stem)
        rig("operator", "status", file.stem, code=None)
    assert rig.state(pending.stem) == "cancelled"
    assert rig("operator", "status", pending.stem).json["ended"]["note"] == "the request was removed from Vault"
    assert rig.record(held.stem).task.end_reason == "drift" and not rig.is_live(token)
    assert rig.findings(pending.stem) == [], "nothing is wrong with it"


def test_a_request_deleted_and_written_again_grants_nothing_twice(rig: Rig, spec: Spec) -> None:
    file, wrong = spec(), spec(choices="{database: nowhere}")
    rig.granted(file)
    rig("operator", "revoke", file.stem)
    is_refused(rig, wrong)
    operator = rig.entity("operator")
    worker = rig.wiring().worker
    path = f"requests/{operator}/{wrong.stem}/submit"
    first = worker.ledger.judged(path)
    assert first is not None and first.judgement == "refused"
    for task in (file.stem, wrong.stem):
        signed = rig.document(f"requests/{operator}/{task}/submit")
        removes(rig, "operator", task)
        write_all(rig, "operator", [f"requests/{operator}/{task}/submit"], signed)
    # the ledger knows every task that there was
    advance(worker, file.stem)
    assert rig.state(file.stem) in ("confirmed", "sealed") and rig.tokens_made(file.stem) == 1
    # a worker that does not follow the stream finds the other one by its line
    rig("operator", "audit", "status")
    backlog = Backlog(worker)
    backlog.list_again()
    assert dict(backlog.some(backlog.left, lambda _: True)).get(wrong.stem) == operator


def test_what_its_author_removed_is_forgotten(rig: Rig) -> None:
    agent, task = rig.entity("research-agent"), f"junk-{rig.cli.home.name[-8:]}"
    path = f"requests/{agent}/{task}/submit"
    write_all(rig, "agent", [path])
    worker = rig.wiring().worker
    with pytest.raises(NotFound):
        advance(worker, task, hint=agent)
    assert worker.ledger.judged(path) is not None
    removes(rig, "agent", task)
    Backlog(worker).list_again()
    assert worker.ledger.judged(path) is None
