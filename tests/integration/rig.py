"""What the hostile tests share: a ledger of its own, the commands in this process, and hands on everything.

The commands run in this process. Where the death of a process or its output as a whole matters, tests use the
`cli` fixture instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import psycopg
import pytest
from commands import PEOPLE, Cli, Quick, Result, without_limits
from ledgers import LedgerPlace, address, ask, bind, has_table, kind_of, new_place

from jitvault.agent.unwrap import TaskToken, read_all, unwrap
from jitvault.documents.paths import vault_path
from jitvault.errors import JitvaultError, VaultRefused
from jitvault.formats.secret import Secret
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, OperationRow, TaskRecord, TaskRow
from jitvault.ledger.row_digests import DIGESTED
from jitvault.ledger.rows import of_task
from jitvault.ledger.storage.database import opened
from jitvault.ledger.storage.dialect import guards
from jitvault.ledger.storage.schema import APPEND_ONLY
from jitvault.lifecycle.record.check_words import evidence_in_words
from jitvault.model.event_chain import Event, chain_problems, link
from jitvault.model.kinds import EventKind
from jitvault.model.proof_check import Check
from jitvault.model.vault_access import REVOCATION_BEGUN
from jitvault.provision.template_check import record as template_check
from jitvault.provision.template_check.steps import STEPS, Outcome, Step
from jitvault.provision.template_check.trial import basis_of
from jitvault.sandbox.world import World, shipped_want
from jitvault.settings import load
from jitvault.vault.client import Connection, Vault
from jitvault.wiring import Wiring

ROLE = "auth/token/create/jitvault-15m"
PREFIX = "database/creds/app-readonly"
ENGINE_ROLE = "database/roles/app-readonly"
# by accessor; None of a token that is no task's
_TASK_OF: dict[str, str | None] = {}


@dataclass
class Held:
    """What an agent holds after it unwrapped and read."""

    task: TaskToken
    secrets: list[dict[str, Any]]

    @property
    def token(self) -> str:
        return self.task.token.reveal()

    @property
    def lease_id(self) -> str:
        return str(self.secrets[0]["lease_id"])

    @property
    def login(self) -> dict[str, str]:
        fields = self.secrets[0]["fields"]
        return {"user": fields["username"], "password": fields["password"]}


@dataclass
class Rig:
    """One world with one ledger of this test's own."""

    world: World
    cli: Cli
    place: LedgerPlace
    since: int = 0
    """How long the audit file was when the rig was made: it has the lines of all tests that share the server."""
    _ledgers: dict[str, Ledger] = field(default_factory=dict, repr=False)
    """What was looked into, by its place: to open one takes longer than most looks."""

    @property
    def ledger_path(self) -> Path:
        """Its file, for tests that lay hands on it; those are of SQLite alone."""
        if not isinstance(self.place, Path):
            pytest.skip("lays hands on the file of a SQLite ledger")
        return self.place

    @property
    def admin(self) -> Vault:
        return Vault(Connection(self.world.address), self.world.admin_token)

    @property
    def elsewhere(self) -> str:
        """A superuser's connection to another database of the target: what a login owns there keeps it from being
        dropped, since Vault's login cannot remove it.
        """
        return self.world.servers.postgres.dsn()

    def vault(self, token: str) -> Vault:
        return Vault(Connection(self.world.address), Secret(token))

    def token_of(self, who: str) -> str:
        return self.cli.variables[PEOPLE[who]]

    # -- the commands --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def environment(self, who: str | None, extra: dict[str, str] | None = None) -> Iterator[None]:
        with mock.patch.dict(os.environ, {**self.cli.environment(who), **(extra or {})}, clear=True):
            yield

    def wiring(self, who: str | None = "operator") -> Wiring:
        with self.environment(who):
            return Wiring(load())

    @contextlib.contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Open for a moment: who waits for something looks thousands of times, and a server has so many connections."""
        # unchecked, since asking Vault whose it is would leave a line in the audit stream each time
        place = self.cli.variables["JITVAULT_LEDGER"]
        if place not in self._ledgers:
            self._ledgers[place] = Ledger(opened(place, create=False))
        ledger = self._ledgers[place]
        try:
            yield ledger
        finally:
            ledger.close()

    def state(self, task: str) -> str | None:
        """What the ledger says of it without anybody looking after it; None where it does not know it."""
        # whoever waits for a state asks hundreds of times: opening the ledger as a command does takes ten times as long
        rows = self.rows("SELECT state FROM tasks WHERE task_id = ?", task)
        return str(rows[0][0]) if rows else None

    def __call__(
        self,
        who: str | None,
        *args: str | Path,
        code: int | None = 0,
        alone: bool = False,
        extra: dict[str, str] | None = None,
    ) -> Result:
        """`jitvault ARGS… --json` as `who`, in this process. Not for two threads at once."""
        here = Quick(self.cli.variables, self.cli.home)
        result = here(who, *args, "--json", code=code, alone=alone, extra=extra)
        assert result.code != 1, (args, result)
        return result

    def turn(self, task: str, *, code: int = 0, extra: dict[str, str] | None = None) -> JitvaultError | None:
        """Let a worker do what is due for the task; `code` is that of what keeps it from that, 0 for nothing."""
        return self.cli.turn(task, code=code, extra=extra)

    def settle(self) -> None:
        """Wait until the settle window of its commands is over."""
        with self.environment(None):
            time.sleep(load().settle_window.total_seconds() + 0.2)

    # -- a task on its way ---------------------------------------------------------------------------

    def granted(self, file: Path) -> dict[str, Any]:
        return dict(self("operator", "grant", file).json)

    def use(self, granted: dict[str, Any], *, read: bool = True) -> Held:
        vault = self.vault(self.token_of("agent"))
        held = unwrap(vault, Secret(granted["wrapping"][0]["token"]))
        return Held(held, [each.as_json() for each in read_all(vault, held)] if read else [])

    def active(self, file: Path) -> Held:
        return self.use(self.granted(file))

    def record(self, task: str) -> TaskRecord:
        with self.ledger() as ledger:
            found = ledger.record(task)
        assert found is not None
        return found

    def operations(self, task: str) -> tuple[OperationRow, ...]:
        """All of them, also the renewals that are over."""
        with self.ledger() as ledger, ledger._db.read() as connection:
            return of_task(connection, OperationRow, task, "sent_at")

    def connect(self, login: dict[str, str]) -> psycopg.Connection[Any]:
        return psycopg.connect(self.world.servers.postgres.dsn("app", **login), autocommit=True)

    # -- what is really there ------------------------------------------------------------------------

    def is_live(self, token: str) -> bool:
        """Whether Vault still knows the token. The token itself is not used: that would be a use after its end."""
        try:
            self.admin.write("auth/token/lookup", {"token": token})
        except VaultRefused:
            return False
        return True

    def task_tokens(self, task: str) -> list[dict[str, Any]]:
        """Every token in Vault whose metadata names the task."""
        return self.tokens_of({task})

    def tokens_of(self, tasks: Collection[str]) -> list[dict[str, Any]]:
        """Every token in Vault whose metadata names one of the tasks.

        Those of other tests live beside them, and what a token's metadata names never changes: of each of these it is
        asked once.
        """
        found = []
        for accessor in self.admin.list("auth/token/accessors/"):
            if _TASK_OF.get(accessor, "") not in {"", *tasks}:
                continue
            try:
                facts = self.admin.write("auth/token/lookup-accessor", {"accessor": accessor})["data"]
            except VaultRefused:
                # it is gone; of one that goes at this moment Vault says that permission is denied
                continue
            task = _TASK_OF[accessor] = (facts.get("meta") or {}).get("jitvault_task")
            # Vault accepts no token whose revocation has begun, and may keep it after a crash
            if facts["num_uses"] != REVOCATION_BEGUN and task in tasks:
                found.append(facts)
        return found

    def tokens_made(self, task: str) -> int:
        """How many task tokens were ever created for the task, by its grants' accessors in the ledger."""
        return sum(1 for grant in self.record(task).grants if grant.accessor_hmac)

    def lease_is_live(self, lease_id: str) -> bool:
        """By Vault's storage: a look-up may find what exists in Vault's memory alone."""
        path, _, key = lease_id.rpartition("/")
        return key in self.admin.list(f"sys/leases/lookup/{path}/")

    def database_roles(self) -> set[str]:
        with psycopg.connect(self.world.target_dsn) as connection:
            rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'").fetchall()
        return {row[0] for row in rows}

    # -- hands on the ledger and on Vault's documents --------------------------------------------------

    def sql(self, statement: str, *values: object) -> int:
        """Edit the ledger behind jitvault's back; gives the number of changed rows."""
        return ask(self.place, statement, values, keys=False)[1]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return ask(self.place, query, values)[0]

    def has_table(self, table: str) -> bool:
        return has_table(self.place, table)

    def drop_triggers(self) -> None:
        for name in sorted(guards("sqlite", APPEND_ONLY)) if isinstance(self.place, Path) else ():
            self.sql(f"DROP TRIGGER IF EXISTS {name}")

    def forget(self, task: str) -> None:
        """Take every row of the task out of the ledger, with its history."""
        self.drop_triggers()
        for table in ("checks", "operations", "leases", "grants", "decisions", "revisions", "events", "findings"):
            self.sql(f"DELETE FROM {table} WHERE task_id = ?", task)
        assert self.sql("DELETE FROM tasks WHERE task_id = ?", task) == 1

    def rewrite_events(self, task: str, keep: Callable[[Event], bool], *more: tuple[str, dict[str, Any]]) -> None:
        """Replace the task's history by a chain that is whole: what `keep` keeps, then `more`."""
        self.drop_triggers()
        record = self.record(task)
        events: list[Event] = []
        said = [(e.kind, e.at, dict(e.body)) for e in record.events if keep(e)]
        said += [(kind, record.events[-1].at, body) for kind, body in more]
        for kind, at, body in said:
            prev = events[-1].hash if events else "0" * 64
            events.append(link(task, len(events) + 1, prev, kind, at, body))
        assert chain_problems(events, head=events[-1].hash) == []
        self.sql("DELETE FROM events WHERE task_id = ?", task)
        for e in events:
            self.sql(
                "INSERT INTO events (task_id, seq, prev, hash, kind, at, body) VALUES (?,?,?,?,?,?,?)",
                *(task, e.seq, e.prev, e.hash, e.kind, e.at, json.dumps(dict(e.body))),
            )
        self.sql("UPDATE tasks SET head = ?, seq = ? WHERE task_id = ?", events[-1].hash, len(events), task)

    def redigest(self, task: str) -> None:
        """Let the chain vouch for the task's rows as they are now, as whoever writes the database can."""
        record = self.record(task)
        columns = {name: getattr(record.task, name) for name in DIGESTED[TaskRow] if name not in ("task_id", "state")}
        rows = (record.revision, *record.grants, *record.leases, *record.checks)
        change = Change(EventKind.QUEUE_INTENDED, state=record.task.state, fields=columns, rows=rows)
        with self.ledger() as ledger, ledger.claim(task) as claim:
            ledger.apply(task, change, claim=claim, at=datetime.now(UTC))

    def snapshot(self, to: Path) -> Path:
        """A consistent copy of the ledger as it is now."""
        source, copy = sqlite3.connect(self.ledger_path), sqlite3.connect(to)
        with contextlib.closing(source), contextlib.closing(copy):
            source.backup(copy)
        return to

    def put_back(self, copy: Path) -> None:
        """Make the whole ledger file an older one."""
        for name in (self.ledger_path, *self.ledger_path.parent.glob(self.ledger_path.name + "-*")):
            name.unlink(missing_ok=True)
        self.ledger_path.write_bytes(copy.read_bytes())

    def entity(self, name: str) -> str:
        return self.world.entity_ids[name]

    def document(self, path: str) -> dict[str, Any]:
        found = self.admin.read(vault_path("data", path))
        assert found is not None, path
        return dict(found["data"]["data"])

    def put(self, path: str, document: dict[str, Any]) -> None:
        """Write a document with the administrator's token, over every author rule."""
        self.admin.write(vault_path("data", path), {"data": document})

    def vouch(self, **basis: Any) -> None:
        """Write, as an administrator who lies, that the shipped templates passed their check as everything is now."""
        want = shipped_want()
        for template in want.templates.values():
            book = template_check.CheckRecorder(self.admin, template.name)
            for choices in template.all_choices():
                path = template.resolve(choices)
                now = replace(basis_of(self.admin, want.engines[template.spec.engine], template, path), **basis)
                steps = tuple(Step(n, ok=True, evidence="so he says", mend="") for n in STEPS)
                book.enter(Outcome(path, choices, now, steps, (), 1))

    def recheck(self) -> None:
        """Check the templates that need it: an engine's configuration that was put back is another one to Vault."""
        want = shipped_want()
        for name in [n for n in want.templates if template_check.unchecked(self.admin, want.templates, want.engines)]:
            self("admin", "templates", "check", name)

    def own_lines(self) -> list[bytes]:
        """Every line of the audit file since the rig was made, with its end."""
        with self.world.audit_file.open("rb") as audit:
            audit.seek(self.since)
            return audit.read().splitlines(keepends=True)

    def line_of(self, lease_id: str) -> str:
        """The line of the read that gave this lease."""
        (line,) = [line for line in self.own_lines() if f'"lease_id":"{lease_id}"'.encode() in line]
        return line.decode()

    def findings(self, task: str) -> list[str]:
        return [row[0] for row in self.rows("SELECT rule FROM findings WHERE task_id = ?", task)]


def rests_on(check: Mapping[str, Any] | Check) -> str:
    """What a check rests on or lacks, in words."""
    return evidence_in_words((check if isinstance(check, Check) else msgspec.convert(check, Check)).evidence)


def own_rig(world: World, variables: dict[str, str], directory: Path) -> Rig:
    """A rig whose ledger lies in `directory` and belongs to one test, with policies that count nothing."""
    kind = kind_of(variables["JITVAULT_LEDGER"])
    ledger = bind(new_place(world.servers.postgres, directory / "own-ledger.db", kind), world.installation)
    own = {"JITVAULT_LEDGER": address(ledger), "JITVAULT_POLICIES": str(without_limits(directory / "policies"))}
    # a server whose only device is another one has no file
    since = world.audit_file.stat().st_size if world.audit_file.exists() else 0
    return Rig(world, Cli({**variables, **own}, directory), ledger, since)


@contextlib.contextmanager
def role_with(rig: Rig, **change: object) -> Iterator[None]:
    """The engine's role of the reading template, changed while the block lasts."""
    before = (rig.admin.read(ENGINE_ROLE) or {})["data"]
    fields = {"db_name", "default_ttl", "max_ttl", "creation_statements", "revocation_statements"}
    kept = {name: before[name] for name in fields}
    rig.admin.write(ENGINE_ROLE, {**kept, **change})
    try:
        yield
    finally:
        rig.admin.write(ENGINE_ROLE, kept)
