"""What it costs to see that nothing is due, with a million tasks behind and ten thousand at work."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from sqlalchemy import text

from benchmarks.measure import Figure, milliseconds
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.storage.database import Database, raw, upgrade
from jitvault.sandbox.postgres import Postgres

SEALED = 1_000_000
ACTIVE = 10_000
TIMES = 50
_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)",
    "postgresql": "WITH numbers(n) AS (SELECT generate_series(CAST(:first AS integer), CAST(:last AS integer)))",
}
_TASKS = """
    INSERT INTO tasks (task_id, state, revision, digest, requester, agent, version, seq, head, created_at, due_at)
    {numbers} SELECT 'bench-' || n, '{state}', 1, :digest, 'nobody', 'nobody', 9, 9, :head, :then, :due FROM numbers
"""
_ACCESSES = """
    INSERT INTO accesses (task_id, revision, template, agent, owner, lease_budget)
    SELECT task_id, 1, 'bench', 'nobody', 'nobody', 1 FROM tasks
"""
# each was told of some time
_NOTICES = """
    INSERT INTO notices (id, task_id, kind, at, body, told_at)
    {numbers} SELECT 'bench-' || n, 'bench-' || n, 'ended', :then, '{{}}', :then FROM numbers
"""


def run(directory: Path) -> list[Figure]:
    """The ledger's part of a pass in which nothing happened, that of a worker who shares, and what a grant counts."""
    figures: list[Figure] = []
    for name, databases in (("sqlite", _sqlite), ("postgresql", _postgresql)):
        with databases(directory) as database:
            _fill(database, name)
            figures += _measured(Ledger(database), name)
    return figures


def _measured(ledger: Ledger, name: str) -> list[Figure]:
    now = datetime.now(UTC)

    def idle() -> None:
        if ledger.take_due(now, 16) or ledger.due_notices(now, 16) or ledger.freeze():
            raise RuntimeError("there is something to do")
        ledger.written_documents(since=now - timedelta(minutes=1))

    def counted() -> None:
        held = ledger.load("nobody", "nobody", ["bench"], besides="", since=now)["bench"]
        if held.agent_leases != ACTIVE:
            raise RuntimeError(f"{held} are held")

    said = f"{SEALED:,} sealed and {ACTIVE:,} active tasks on {name}, none due, {TIMES} times"
    return [
        Figure(f"idle_{name}_ms", _median(idle), "ms", said, bar=20),
        Figure(
            f"held_{name}_ms",
            _median(ledger.live_tasks),
            "ms",
            "the list of those that hold access, in the same ledger",
        ),
        Figure(f"load_{name}_ms", _median(counted), "ms", "how much is held, counted twice for each grant; the same"),
    ]


def _median(act: Callable[[], object]) -> float:
    act()
    return median(milliseconds(act) for _ in range(TIMES))


@contextmanager
def _sqlite(directory: Path) -> Iterator[Database]:
    yield _made(str(directory / "idle.db"))


@contextmanager
def _postgresql(directory: Path) -> Iterator[Database]:
    with Postgres(directory / "idle-postgres") as server:
        login = f"{server.superuser}:{server.superuser_password}"
        yield _made(f"postgresql://{login}@{server.host}:{server.port}/postgres")


def _made(ledger: str) -> Database:
    database = raw(ledger)
    upgrade(database)
    return database


def _fill(database: Database, name: str) -> None:
    now = datetime.now(UTC)
    given = {"digest": "sha256:" + "0" * 64, "head": secrets.token_hex(32), "then": now - timedelta(days=30)}
    sealed = {**given, "first": 1, "last": SEALED, "due": None}
    active = {**given, "first": SEALED + 1, "last": SEALED + ACTIVE, "due": now + timedelta(hours=1)}
    with database.engine.connect() as connection:
        for state, values in (("sealed", sealed), ("active", active)):
            connection.execute(text(_TASKS.format(numbers=_NUMBERS[name], state=state)), values)
        connection.execute(text(_ACCESSES))
        notices = {"first": 1, "last": SEALED, "then": given["then"]}
        connection.execute(text(_NOTICES.format(numbers=_NUMBERS[name])), notices)
        connection.execute(text("ANALYZE"))
        connection.commit()
