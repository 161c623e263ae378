"""What the tasks that a worker keeps go through: its death, Vault away for a minute, a restart, `revoke --all`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import func, select

from benchmarks.latency import working
from benchmarks.measure import Figure
from benchmarks.scene import Scene
from jitvault.ledger.storage import schema
from jitvault.ledger.storage.database import opened
from jitvault.model.kinds import OperationKind
from jitvault.model.states import State
from jitvault.vault.client import Connection, Vault

_REVOKED_WITHIN_S, _PROVEN_WITHIN_S, _LOOK_S = 580, 120, 1.0
_OVER = (State.CONFIRMED, State.SEALED)


def tried(world: Scene, names: Sequence[str], process: subprocess.Popen[bytes], ttl_s: float) -> list[Figure]:
    """Kill the worker that keeps the tasks, take Vault away for half of a TTL, restart the worker, and end all tasks.

    `keep_killed_expired`, `keep_away_expired`, `keep_restarted_expired`: tasks that ended or lost their token, seen a
    token's life after each. `keep_renewed_while_ending`: renewals that were sent from when `revoke --all` began until
    the last token was revoked; `keep_revoked_s` is how long that was. `keep_unproven`: tasks whose end is not proven
    two minutes later.
    """
    expired: dict[str, int] = {}
    process.kill()
    process.wait()
    with working(world):
        time.sleep(ttl_s)
        expired["killed"] = lost(world, names)
        server = world.world.servers.vault.pid
        os.kill(server, signal.SIGSTOP)
        try:
            time.sleep(ttl_s / 2)
        finally:
            # a stopped process would not end with the benchmark
            os.kill(server, signal.SIGCONT)
        time.sleep(ttl_s)
        expired["away"] = lost(world, names)
    with working(world):
        time.sleep(ttl_s)
        expired["restarted"] = lost(world, names)
        figures = _revoked(world, names)
    said = f"of {len(names):,} tasks"
    return [*(Figure(f"keep_{how}_expired", count, "tasks", said, bar=0) for how, count in expired.items()), *figures]


def lost(world: Scene, names: Sequence[str]) -> int:
    """Return how many of the tasks are not active, or have a token that Vault does not have."""
    database = opened(world.variables["JITVAULT_LEDGER"], create=False)
    task, grant = schema.tasks.c, schema.grants.c
    query = select(task.task_id, grant.wrapped_accessor).join(schema.grants, task.task_id == grant.task_id)
    with database.read() as connection:
        rows = connection.execute(query.where(task.state == State.ACTIVE)).all()
    active = {row.task_id: row.wrapped_accessor for row in rows}
    admin = Vault(Connection(world.world.address), world.world.admin_token)
    there = set(admin.list("auth/token/accessors"))
    return sum(active.get(name) not in there for name in names)


def _revoked(world: Scene, names: Sequence[str]) -> list[Figure]:
    """Run `revoke --all` beside the worker, and say what was renewed meanwhile and what is proven."""
    environment = {**os.environ, **world.environment, "VAULT_TOKEN": world.world.operator_token.reveal()}
    options = ["--all", "--yes", "--reason", "a benchmark", "--wait", f"{_REVOKED_WITHIN_S}s", "--quiet"]
    begun = datetime.now(UTC)
    # what it prints and its exit code are not measured: the ledger says what was done
    subprocess.run(
        [sys.executable, "-m", "jitvault", "revoke", *options],
        env=environment,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_REVOKED_WITHIN_S + 60,
    )
    deadline = time.monotonic() + _PROVEN_WITHIN_S
    while (unproven := _unproven(world, names)) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    database = opened(world.variables["JITVAULT_LEDGER"], create=False)
    op = schema.operations.c
    with database.read() as connection:
        revoked = select(func.max(op.answered_at)).where(op.kind == OperationKind.REVOKE_TOKEN)
        last = connection.execute(revoked).scalar_one() or datetime.now(UTC)
        renewed = select(func.count()).where(op.kind == OperationKind.RENEW_TOKEN, op.sent_at.between(begun, last))
        count = connection.execute(renewed).scalar_one()
    lasted = (last - begun).total_seconds()
    said = f"{len(names):,} tasks, `revoke --all` by an operator beside the worker"
    return [
        Figure("keep_renewed_while_ending", count, "renewals", said, bar=0),
        Figure("keep_revoked_s", lasted, "s", f"until the last token was revoked; {said}"),
        Figure("keep_unproven", unproven, "tasks", said, bar=0),
    ]


def _unproven(world: Scene, names: Sequence[str]) -> int:
    database = opened(world.variables["JITVAULT_LEDGER"], create=False)
    with database.read() as connection:
        rows = connection.execute(select(schema.tasks.c.task_id).where(schema.tasks.c.state.in_(_OVER))).scalars()
        return len(set(names).difference(rows))
