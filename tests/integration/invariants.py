"""What holds whatever breaks, each as a function over a rig that gives what is wrong; `check` asserts all of them.

Vault, the target and the audit file are asked directly, never through jitvault. The rig's ledger has to be the only one
that its Vault is worked with since that ledger's first task.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from commands import Result
from rig import PREFIX, Rig, rests_on

from jitvault.documents.paths import INBOX
from jitvault.errors import VaultRejected
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.receipt import proof_of
from jitvault.model.event_bodies import ledger_part
from jitvault.model.event_chain import chain_problems
from jitvault.model.states import ENDED, PROVEN, State, Verdict

PREFIXES = (PREFIX, "database/creds/app-readwrite")
# what Vault must not have any more when the ledger says this of a credential
DEAD = frozenset(
    {Verdict.GONE, Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED, Verdict.NEVER_ISSUED}
)
# when each lease was issued, which never changes
_ISSUED: dict[str, datetime] = {}
EXITS = frozenset({0, 3, 4, 5, 6, 7, 9, 11, 12, 13})


@dataclass(frozen=True)
class Seen:
    """What the ledger and Vault have at one moment."""

    files: list[TaskRecord]
    tokens: list[dict[str, Any]]


def check(rig: Rig, *results: Result, about: str | None = None, killed: bool = False) -> None:
    """Assert everything that has to hold at any moment, of every task of the rig's ledger.

    `about` is the task that the last command looked at, if it was one alone. One that was `killed` names no reason.
    """
    leases = unknown_leases(rig)
    # once the stream was read to its end
    seen = Seen(files(rig), live_tokens(rig))
    wrong = [
        *unknown_tokens(rig, seen),
        *leases,
        *(() if killed else stuck(seen, about, *results)),
        *lies(rig, seen),
        *broken_chains(rig, seen),
        *second_deliveries(rig, seen),
        *(problem for result in results for problem in not_understandable(result)),
    ]
    assert not wrong, (wrong, [(result.code, result.stderr) for result in results])


def check_over(rig: Rig, task: str) -> None:
    """Assert that a task is proven, and that nothing of it is left anywhere."""
    check(rig)
    record = rig.record(task)
    assert record.task.state in PROVEN, (record.task.state, reasons(record))
    assert rig.task_tokens(task) == []
    assert not [lease.lease_id for lease in record.leases if rig.lease_is_live(lease.lease_id)]
    assert not at_target(rig, record)


# -- a: nothing lives that the ledger does not know ---------------------------------------------------------------


def live_tokens(rig: Rig) -> list[dict[str, Any]]:
    """Every task token in Vault of the rig's tasks: any task that its ledger ever had."""
    return rig.tokens_of(set(_tasks(rig)))


def live_leases(rig: Rig, known: Iterable[TaskRecord]) -> dict[str, datetime]:
    """Every lease below the templates' paths that was made since the ledger's first task, with its issue time."""
    begun = min((file.task.created_at for file in known), default=None)
    found = {}
    for prefix in PREFIXES:
        for key in rig.admin.list(f"sys/leases/lookup/{prefix}/"):
            lease_id = f"{prefix}/{key}"
            if begun is None or _ISSUED.get(lease_id, begun) < begun:
                # an earlier test's
                continue
            try:
                record = rig.admin.write("sys/leases/lookup", {"lease_id": lease_id})["data"]
            except VaultRejected:
                continue
            issued_at = _ISSUED[lease_id] = datetime.fromisoformat(record["issue_time"])
            if issued_at >= begun:
                found[lease_id] = issued_at
    return found


def unknown_tokens(rig: Rig, seen: Seen | None = None) -> list[str]:
    """Live task tokens of which the ledger has no grant that is still to be ended."""
    seen = seen or Seen(files(rig), live_tokens(rig))
    grants = {grant.grant_id: grant for file in seen.files for grant in file.grants}
    wrong = []
    for facts in seen.tokens:
        name = f"a token of task {facts['meta']['jitvault_task']}, grant {facts['meta']['jitvault_grant']}"
        known = grants.get(facts["meta"]["jitvault_grant"])
        if known is None:
            wrong.append(f"{name} lives, and the ledger has no such grant")
        elif known.settled:
            wrong.append(f"{name} lives, and its attempt is settled")
    return wrong


def unknown_leases(rig: Rig) -> list[str]:
    """Live leases that no task has, once the stream was read: they are known from there alone."""
    known = files(rig)
    unknown = live_leases(rig, known).keys() - leases_of(known)
    if unknown:
        rig("operator", "audit", "status", code=None)
        known = files(rig)
        unknown = live_leases(rig, known).keys() - leases_of(known)
    return [f"lease {lease} lives, and the ledger does not know it" for lease in sorted(unknown)]


def leases_of(known: Iterable[TaskRecord]) -> set[str]:
    return {lease.lease_id for file in known for lease in file.leases}


# -- b: nothing is stuck -------------------------------------------------------------------------------------------


def reasons(record: TaskRecord) -> list[str]:
    """Why a task is not proven, as an operator can read it: checks that failed, and answers that did not come."""
    failed = [f"check {check.n} of {check.subject}: {rests_on(check)}" for check in record.checks if not check.ok]
    unanswered = [
        f"{op.kind}: {op.answer or op.state}" for op in record.operations if op.state in ("unknown", "intended")
    ]
    refused = [f"{op.kind}: {op.answer}" for op in record.operations if op.state == "abandoned"]
    return [*failed, *unanswered, *refused]


def stuck(seen: Seen, about: str | None, *results: Result) -> list[str]:
    """Tasks that are ending, or being issued, and say nothing of why: neither the task itself nor the last command.

    Another's may have ended in what has no place in the ledger (a Vault that was sealed), which it said then. What is
    published and shown of a task always has a reason.
    """
    mute = [
        f"task {file.task.task_id} is ending, and its proof says nothing of why"
        for file in seen.files
        if file.task.state is State.ENDING and not getattr(proof_of(file), "unproven_because", None)
    ]
    if results and results[-1].code not in (0, 6):
        return mute
    waiting = (State.ENDING, State.ISSUING)
    return mute + [
        f"task {file.task.task_id} is {file.task.state} and names no reason"
        for file in seen.files
        if about in (None, file.task.task_id)
        and file.task.state in waiting
        and not reasons(file)
        and file.events[-1].kind != "ending"
    ]


# -- c: nothing is called dead that lives --------------------------------------------------------------------------


def lies(rig: Rig, seen: Seen) -> list[str]:
    """What the ledger, or what it published, calls dead or proven while it lives in Vault or at the target."""
    wrong = []
    tokens = {facts["meta"]["jitvault_grant"] for facts in seen.tokens}
    for file in seen.files:
        proven = file.task.state in PROVEN
        for grant in file.grants:
            never = grant.verdict is Verdict.NEVER_ISSUED and not grant.settled
            if grant.grant_id in tokens and (proven or (grant.verdict in DEAD and not never)):
                wrong.append(
                    f"{file.task.task_id}: a token is {grant.verdict} and the task {file.task.state}; it lives"
                )
        for lease in file.leases:
            if (proven or lease.verdict in DEAD) and rig.lease_is_live(lease.lease_id):
                wrong.append(f"{lease.lease_id} is {lease.verdict} and the task {file.task.state}; it lives")
        if proven:
            wrong += [f"{file.task.task_id} is {file.task.state}, and {left}" for left in at_target(rig, file)]
        elif _published(rig, file.task.task_id).get("state") in [state.value for state in PROVEN]:
            wrong.append(f"{file.task.task_id} is {file.task.state} and was published as proven")
    return wrong


def at_target(rig: Rig, record: TaskRecord) -> list[str]:
    """The task's logins that still exist at the target, and sessions that are open."""
    names = [lease.target_name for lease in record.leases if lease.target_name]
    if not names:
        return []
    with closing(psycopg.connect(rig.world.target_dsn, autocommit=True)) as target:
        roles = target.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (names,)).fetchall()
        open_ = target.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = ANY(%s) OR"
            " (usesysid IS NOT NULL AND usesysid NOT IN (SELECT oid FROM pg_roles))",
            (names,),
        ).fetchall()
    return [*(f"the role {name} exists" for (name,) in roles), *(f"session {pid} is open" for (pid,) in open_)]


# -- d: the chain is whole -----------------------------------------------------------------------------------------


def broken_chains(rig: Rig, seen: Seen) -> list[str]:
    """Breaks in the tasks' chains; and what was published of them that the chain does not have."""
    wrong = []
    for file in seen.files:
        wrong += [f"{file.task.task_id}: {problem}" for problem in chain_problems(file.events, head=file.task.head)]
        said = _published(rig, file.task.task_id).get("chain")
        if said and {e.seq: e.hash for e in file.events}.get(said["seq"]) != said["head"]:
            wrong.append(f"{file.task.task_id}: the published head is not in its chain")
        if file.task.state in ENDED and file.task.end_reason is None:
            wrong.append(f"{file.task.task_id} is {file.task.state} for no reason")
    return wrong


# -- e: nothing is delivered twice ---------------------------------------------------------------------------------


def deliveries(rig: Rig, task: str) -> Counter[str]:
    """How often a wrapping token was put into an inbox for the task, by operation id, as the audit lines say."""
    return Counter(op for of, op in _delivered(rig) if of == task)


def second_deliveries(rig: Rig, seen: Seen) -> list[str]:
    """Tasks with two tokens that live, or with one that was delivered twice."""
    lives = Counter(facts["meta"]["jitvault_task"] for facts in seen.tokens)
    wrong = [f"{count} tokens of task {task} live" for task, count in lives.items() if count > 1]
    tasks = {file.task.task_id for file in seen.files}
    made = Counter((task, op) for task, op in _delivered(rig) if task in tasks)
    wrong += [f"{task}: delivered {n} times by {op}" for (task, op), n in made.items() if n > 1]
    for file in seen.files:
        subjects = (subject for event in file.events for subject in ledger_part(event).ops.values())
        intents = sum(subject.startswith(INBOX) for subject in subjects)
        if intents > len(file.grants):
            wrong.append(f"{file.task.task_id}: {intents} deliveries of {len(file.grants)} grants")
    return wrong


def _delivered(rig: Rig) -> Iterator[tuple[str, str]]:
    """The task and the operation id of every wrapping token that was put into an inbox."""
    for entry in audit_entries(rig, b"jitvault-inbox/data/"):
        request = entry["request"]
        put = entry["type"] == "response" and request["operation"] in ("create", "update") and not entry.get("error")
        if put and request["path"].startswith("jitvault-inbox/data/"):
            yield request["path"].rpartition("/")[2], (request.get("headers") or {}).get("x-jitvault-op", ["?"])[0]


def audit_entries(rig: Rig, about: bytes = b"") -> Iterator[dict[str, Any]]:
    """Every whole line of the rig's audit files that has `about` in it."""
    for name in rig.cli.variables["JITVAULT_AUDIT_FILE"].split(":"):
        path = Path(name)
        for part in sorted(path.glob("*.log")) if path.is_dir() else [path]:
            for line in part.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n") and line.startswith(b"{") and about in line:
                    # what a full disk cut off is no entry, nor what was written behind it
                    with suppress(ValueError):
                        yield json.loads(line)


# -- f: what is said is understood at night --------------------------------------------------------------------------


def not_understandable(result: Result) -> list[str]:
    """What an operator could not act on in how a command ended."""
    if result.code == 0:
        return []
    if result.code not in EXITS or "Traceback" in result.stderr:
        return [f"exit {result.code}: {result.stderr[-500:]}"]
    error = result.error
    wrong = [] if error["exit_code"] == result.code else [f"it says {error['exit_code']} and exits with {result.code}"]
    if not error["message"].strip() or not error["hint"].strip() or "bug" in error["hint"]:
        wrong.append(f"no advice: {error}")
    return wrong


# -- reading --------------------------------------------------------------------------------------------------------


def files(rig: Rig) -> list[TaskRecord]:
    """Every task of the rig's ledger; none while there is no ledger."""
    tasks = _tasks(rig)
    if not tasks:
        return []
    with rig.ledger() as ledger:
        return [file for task in tasks if (file := ledger.record(task)) is not None]


def _tasks(rig: Rig) -> list[str]:
    if not rig.has_table("tasks"):
        return []
    return [str(task) for (task,) in rig.rows("SELECT task_id FROM tasks ORDER BY task_id")]


def verdicts(rig: Rig, task: str) -> list[str]:
    """Of the tokens, then of the leases."""
    record = rig.record(task)
    rows: Iterable[Any] = (*record.grants, *record.leases)
    return [row.verdict.value for row in rows]


def _published(rig: Rig, task: str) -> dict[str, Any]:
    found = rig.admin.read(f"jitvault/data/tasks/{task}")
    return dict(found["data"]["data"]) if found else {}
