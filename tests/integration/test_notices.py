"""People outside hear of what waits and what happened, from real servers over real HTTP, and nobody waits for them."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attended import Attended
from psycopg import sql
from rig import Rig

from jitvault.notices.channels import NOTICE_ID, SIGNATURE
from jitvault.notices.interface import Messenger
from jitvault.notices.notifier import Notifier
from jitvault.settings import load
from jitvault.wiring import Wiring

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]


@dataclass
class Hook:
    """A webhook on loopback: it keeps what it took, and answers as it is told."""

    key: str
    path: Path
    port: int = 0
    status: int = 204
    slow_s: float = 0.0
    taken: list[dict[str, Any]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    def up(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.status
                hook.seen.append(self.headers[NOTICE_ID])
                if hook.slow_s:
                    time.sleep(hook.slow_s)
                genuine = hmac.new(hook.key.encode(), body, hashlib.sha256).hexdigest()
                assert self.headers[SIGNATURE] == f"sha256={genuine}"
                if status < 300:
                    hook.bodies.append(body)
                    hook.taken.append(json.loads(body))
                self.send_response(status)
                self.send_header("Location", f"http://127.0.0.1:{hook.port}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def extra(self) -> dict[str, str]:
        return {
            "JITVAULT_NOTIFY_URL": f"http://127.0.0.1:{self.port}/hook",
            "JITVAULT_NOTIFY_KEY_FILE": str(self.path),
        }

    def events(self, task: str) -> list[str]:
        return [one["event"] for one in self.taken if one["task_id"] == task]

    def heard(self, task: str, events: list[str]) -> None:
        """Nothing else came about the task. A command waits a second for its notices, and they may still come then."""
        until(lambda: len(self.events(task)) >= len(events))
        assert self.events(task) == events


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    key = tmp_path / "hook.key"
    made = Hook(secrets.token_hex(16), key)
    key.touch(0o600)
    key.write_text(made.key)
    made.up()
    yield made
    made.down()


def notices(rig: Rig, task: str) -> list[tuple[str, int, bool]]:
    """Of each notice what it is, how often it was sent, and whether it arrived."""
    rows = rig.rows("SELECT kind, tries, told_at FROM notices WHERE task_id = ? ORDER BY at", task)
    return [(kind, tries, bool(told)) for kind, tries, told in rows]


def due_now(rig: Rig) -> None:
    """The pauses between tries are over."""
    rig.sql("UPDATE notices SET due_at = '2020-01-01 00:00:00' WHERE due_at IS NOT NULL")


def test_who_is_asked_to_approve_hears_that_the_task_is_frozen(rig: Rig, spec: Spec, hook: Hook) -> None:
    frozen = ("--template", "postgres-readonly", "--reason", "look first")
    # tasks of other tests' ledgers may be held, and nobody ends those
    rig("operator", "freeze", *frozen, code=None)
    file = spec(criticality="medium")
    rig("operator", "submit", file, extra=hook.extra)
    hook.heard(file.stem, ["pending"])
    told = hook.taken[0]["frozen"]
    assert (told["kind"], told["scope"], told["by"], told["reason"]) == (
        *("operator", {"template": "postgres-readonly"}, "operator", "look first"),
    )
    rig("operator", "unfreeze", *frozen)
    other = spec(criticality="medium")
    rig("operator", "submit", other, extra=hook.extra)
    hook.heard(other.stem, ["pending"])
    assert hook.taken[-1]["frozen"] is None


def told_again(rig: Rig, hook: Hook, task: str) -> None:
    """What was put off comes with a later command, once its pause is over."""

    def came() -> bool:
        # again, since who put it off may have been slow and come only now
        due_now(rig)
        rig("operator", "grant", task, code=4, extra=hook.extra)
        return hook.events(task) == ["pending"]

    until(came)


def test_a_task_is_told_from_its_request_to_its_end_signed_and_without_a_secret(
    rig: Rig, spec: Spec, hook: Hook
) -> None:
    file = spec(criticality="high")
    rig("operator", "grant", file, code=4, extra=hook.extra)
    for who in ("approver-1", "approver-2"):
        rig(who, "approve", file.stem, "--yes", extra=hook.extra)
    granted = rig("operator", "grant", file.stem, extra=hook.extra).json
    held = rig.use(granted)
    rig("operator", "complete", file.stem, extra=hook.extra)
    hook.heard(file.stem, ["pending", "approved", "ended"])
    first, _, last = hook.taken
    assert (first["state"], first["requester"], first["agent"]) == ("pending_approval", "operator", "research-agent")
    assert (first["frozen"], last["frozen"]) == (None, None)
    assert (last["state"], last["end_reason"], last["notify"]) == ("ending", "completed", ["security"])
    assert first["digest"] == granted["digest"] and len({one["id"] for one in hook.taken}) == 3
    everything = b"".join(hook.bodies).decode()
    for secret in (granted["wrapping"][0]["token"], held.token, held.login["password"], *rig.cli.variables.values()):
        assert secret not in everything or not secret.startswith(("s.", "hvs.", "b.", "hvb."))
    assert held.token not in everything and held.login["password"] not in everything


def test_findings_and_what_cannot_be_proven_are_told_once(rig: Rig, spec: Spec, hook: Hook) -> None:
    file = spec()
    held = rig.active(file)
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        # a role that owns something cannot be dropped: every revocation fails
        target.execute(sql.SQL("CREATE SCHEMA kept AUTHORIZATION {}").format(sql.Identifier(held.login["user"])))
        try:
            for _ in range(2):
                rig("operator", "complete", file.stem, code=6, extra=hook.extra)
        finally:
            target.execute("DROP SCHEMA kept")
    rig.wiring().ledger.finding(file.stem, "ledger_edited", "somebody edited it", rig.wiring().worker.now())
    rig("operator", "complete", file.stem, code=12, extra=hook.extra)
    assert sorted(hook.events(file.stem)) == ["ended", "finding", "unconfirmed"]
    (found,) = (one for one in hook.taken if one["event"] == "finding")
    assert (found["rule"], found["message"]) == ("ledger_edited", "somebody edited it")


def test_a_task_that_is_closed_without_proof_is_told_as_ended_and_not_as_unconfirmed_again(
    rig: Rig, spec: Spec, hook: Hook
) -> None:
    file = spec()
    held = rig.active(file)
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(sql.SQL("CREATE SCHEMA closed AUTHORIZATION {}").format(sql.Identifier(held.login["user"])))
        rig("operator", "revoke", file.stem, code=6, extra=hook.extra)
        rig("operator", "revoke", file.stem, "--force", "--yes", "--reason", "Kept.", code=6, extra=hook.extra)
        target.execute(sql.SQL("DROP SCHEMA closed; DROP ROLE {}").format(sql.Identifier(held.login["user"])))
    hook.heard(file.stem, ["ended", "unconfirmed", "ended"])
    assert (hook.taken[-1]["state"], hook.taken[-1]["message"]) == ("unverified", "Kept.")


def test_notices_begin_when_they_are_switched_on_and_a_denial_says_why(rig: Rig, spec: Spec, hook: Hook) -> None:
    before, file = spec(criticality="medium"), spec(criticality="medium")
    rig("operator", "grant", before, code=4)
    rig("operator", "grant", file, code=4, extra=hook.extra)
    rig("approver-1", "deny", file.stem, "--yes", "--reason", "Too many rows.", extra=hook.extra)
    assert [(one["task_id"], one["event"]) for one in hook.taken] == [(file.stem, "pending"), (file.stem, "ended")]
    assert (hook.taken[-1]["state"], hook.taken[-1]["message"]) == ("denied", 'approver-1 denied it: "Too many rows."')
    # from now on also what comes of a process that tells nobody
    rig("approver-1", "approve", before.stem, "--yes")
    rig("operator", "grant", before.stem, extra=hook.extra)
    hook.heard(before.stem, ["approved"])


def test_a_webhook_that_is_down_costs_nothing_and_hears_it_later(rig: Rig, spec: Spec, hook: Hook) -> None:
    hook.down()
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4, extra=hook.extra)
    until(lambda: notices(rig, file.stem) == [("pending", 1, False)])
    hook.up()
    # not before its pause is over
    rig("operator", "grant", file.stem, code=4, extra=hook.extra)
    told_again(rig, hook, file.stem)
    until(lambda: notices(rig, file.stem)[0][2])


@pytest.mark.parametrize("status", [500, 302, 404])
def test_what_is_no_yes_is_told_again_with_the_same_id(rig: Rig, spec: Spec, hook: Hook, status: int) -> None:
    hook.status = status
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4, extra=hook.extra)
    until(lambda: bool(hook.seen))
    hook.status = 200
    told_again(rig, hook, file.stem)
    assert len(hook.seen) > 1 and len(set(hook.seen)) == 1


def test_a_webhook_that_hangs_holds_no_command_back(rig: Rig, spec: Spec, hook: Hook) -> None:
    file = spec(criticality="medium")
    begun = time.monotonic()
    rig("operator", "grant", file, code=4, extra=hook.extra)
    quick = time.monotonic() - begun
    hook.slow_s, patient = 20, {**hook.extra, "JITVAULT_NOTIFY_TIMEOUT": "15s"}
    begun = time.monotonic()
    rig("approver-1", "approve", file.stem, "--yes", extra=patient)
    assert time.monotonic() - begun < quick + 6, "the story takes as long as it does"
    rig("operator", "grant", file.stem, extra=patient)
    assert rig("operator", "status", file.stem).json["state"] == "issued"


def test_a_command_hears_it_as_well(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    out = tmp_path / "told"
    script = tmp_path / "hook.py"
    script.write_text(f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read() + chr(10))")
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4, extra={"JITVAULT_NOTIFY_COMMAND": f"{sys.executable} {script}"})
    (line,) = out.read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["task_id"]) == ("pending", file.stem)


@pytest.mark.parametrize("wrong", ["no key", "open key", "no url", "a quote"])
def test_what_is_not_set_up_as_a_whole_is_refused_before_the_worker_does_anything(
    rig: Rig, spec: Spec, hook: Hook, wrong: str
) -> None:
    extra = dict(hook.extra)
    if wrong == "no key":
        del extra["JITVAULT_NOTIFY_KEY_FILE"]
    elif wrong == "open key":
        hook.path.chmod(0o644)
    elif wrong == "no url":
        extra["JITVAULT_NOTIFY_URL"] = "ftp://x"
    else:
        extra["JITVAULT_NOTIFY_COMMAND"] = "say 'it"
    file = spec()
    rig("operator", "grant", file, "--wait", "0", alone=True, code=13)
    assert "JITVAULT_NOTIFY_" in str(rig.turn(file.stem, code=2, extra=extra))
    assert rig.state(file.stem) is None


def test_a_worker_tells_on_while_the_webhook_comes_and_goes(rig: Rig, spec: Spec, hook: Hook) -> None:
    hook.down()
    file, others = spec(criticality="medium"), [spec(criticality="medium") for _ in range(3)]
    rig("operator", "audit", "status")
    rig.cli.variables = {**rig.cli.variables, **hook.extra}
    with Attended(rig) as worker:
        until(lambda: bool(rig.rows("SELECT 1 FROM notices WHERE kind = 'begun'")))
        for one in (file, *others):
            rig("operator", "grant", one, code=4)
        # the command has tried once or twice itself
        until(lambda: notices(rig, file.stem)[0][1] > 3)
        hook.status = 500
        hook.up()
        until(lambda: bool(hook.seen))
        hook.status = 204
        until(lambda: hook.events(file.stem) == ["pending"])
        until(lambda: bool(worker.log.all_of("notices are delivered again")))
    # once for each reason, however many there are and however often they are tried
    told = [str(values.get("why", "again")) for event, values in worker.log.entries if event.startswith("notices ")]
    assert told[0].endswith("Connection refused") and told[-1] == "again"
    assert len(told) <= 5 and all(one != other for one, other in pairwise(told)), told


def until(holds: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)


class Slow:
    """A messenger that takes its time and counts."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, notice_id: str, body: bytes, timeout_s: float) -> str | None:
        time.sleep(0.3)
        self.sent.append(notice_id)
        return None


def test_two_processes_do_not_tell_the_same_at_once(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "audit", "status")
    wiring, messenger = rig.wiring(), Slow()
    messengers: list[Messenger] = [messenger]
    tellers = [Notifier(wiring.ledger, wiring.clock, messengers, timedelta(seconds=5)) for _ in range(4)]
    rig("operator", "grant", file, code=4)
    threads = [threading.Thread(target=teller.tell) for teller in tellers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(messenger.sent) == len(set(messenger.sent)) == 1


def test_a_notice_that_another_has_taken_cannot_be_taken(rig: Rig, spec: Spec) -> None:
    rig("operator", "audit", "status")
    rig("operator", "grant", spec(criticality="medium"), code=4)
    wiring = rig.wiring()
    now = wiring.worker.now()
    (notice,) = wiring.ledger.due_notices(now + timedelta(minutes=1), 9)
    later = now + timedelta(minutes=5)
    # both have seen it before either took it
    assert [wiring.ledger.take_notice(notice, later) for _ in range(2)] == [True, False]


def test_what_is_older_than_a_day_is_not_told_any_more(rig: Rig, spec: Spec, hook: Hook) -> None:
    file = spec(criticality="medium")
    hook.down()
    rig("operator", "grant", file, code=4, extra=hook.extra)
    assert rig.sql("UPDATE notices SET at = '2020-01-01 00:00:00' WHERE task_id = ?", file.stem) == 1
    hook.up()
    due_now(rig)
    rig("operator", "grant", file.stem, code=4, extra=hook.extra)
    assert hook.taken == [] and notices(rig, file.stem) == [("pending", 1, False)]


def test_a_tripwire_is_told_before_what_one_author_made_come(rig: Rig, hook: Hook) -> None:
    rig("operator", "audit", "status")
    with rig.environment("operator", hook.extra):
        wiring = Wiring(load())
    now = wiring.clock.now() - timedelta(seconds=2)
    wiring.ledger.begin_notices(now - timedelta(minutes=1))
    for rule in ("forged_document", "not_entitled"):
        for n in range(15):
            wiring.ledger.finding(None, rule, f"{rule} {n}", now, author="e-1")
    wiring.ledger.finding(None, "forged_document", "of somebody else", now + timedelta(seconds=1), author="e-2")
    wiring.ledger.finding(None, "unknown_token", "a tripwire", now + timedelta(seconds=1))
    wiring.teller.tell_for(30)
    until(lambda: len(hook.taken) >= 3)
    said = [one["message"] for one in hook.taken]
    assert said[0] == "a tripwire" and said.index("of somebody else") == 2
