"""Checks of the ledger and its tasks.

Is the ledger whole, has it free space, and is anything overdue?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jitvault.doctor.check import Ability, About, Check, Known, Unknown
from jitvault.errors import LedgerUnavailable, NotConfirmed, OlderRules, SecurityFinding, WaitTimedOut
from jitvault.formats.plural import counted, listed
from jitvault.formats.server_product import Product, another_server
from jitvault.model.ledger_facts import Finding, LedgerFacts, LedgerLogin, Room
from jitvault.model.rules_generation import GENERATION

_WORK = frozenset({Ability.GRANT, Ability.PROVE})
LEDGER = About("ledger", "usable", LedgerUnavailable, _WORK)
RIGHTS = About("ledger", "rights", LedgerUnavailable, _WORK)
SERVER = About("ledger", "server", LedgerUnavailable)
CHAINS = About("ledger", "chains", SecurityFinding, frozenset({Ability.PROVE}))
ROOM = About("ledger", "room", LedgerUnavailable)
LOG = About("ledger", "write-ahead log", LedgerUnavailable)
FINDINGS = About("tasks", "findings", SecurityFinding)
QUOTA = About("tasks", "over quota", WaitTimedOut)
OVERDUE = About("tasks", "overdue", WaitTimedOut)
UNPROVEN = About("tasks", "ending", NotConfirmed)
IRREVOCABLE = About("tasks", "not revocable", NotConfirmed)
OUTLIVING = About("tasks", "outliving leases", NotConfirmed)

MB = 1024 * 1024
LEAST_ROOM = 64 * MB
LITTLE_ROOM = 1024 * MB
LONG_LOG = 256 * MB
LATE = timedelta(minutes=1)
LONG = timedelta(minutes=5)
RECENT = timedelta(days=1)
_REPAIR_END = (
    "`jitvault status TASK` shows what prevents it: repair that at the target. The last resort is "
    "`jitvault revoke TASK --force --reason WHY`."
)


@dataclass(frozen=True, slots=True)
class Outliving:
    """A live lease that lasts longer in Vault than its task may hold access."""

    lease_id: str
    task_id: str
    expires_at: datetime
    ends_at: datetime


class Unusable(Unknown):
    """There is a ledger, but it cannot be used."""


@dataclass(frozen=True, slots=True)
class NoneYet:
    """There is no ledger that a worker has used.

    `is_new` says that there is one, which no worker has used yet. `published` is how many open tasks of this
    installation Vault knows of, `place` where the ledger would be, `login` who logs in to it if it is on PostgreSQL.
    """

    published: int
    room: Room | None
    place: str = ""
    is_new: bool = False
    login: LedgerLogin | None = None


def judge_ledger(record: Known[LedgerFacts | Unusable | NoneYet]) -> Iterator[Check]:
    if isinstance(record, LedgerFacts):
        yield _usable(record)
        yield from _rights(record.login)
        yield _chains(record)
        yield from _room(record.room)
    elif isinstance(record, NoneYet):
        yield _none_yet(record)
        yield from _rights(record.login)
        yield CHAINS.ok("there is nothing yet")
        yield from _room(record.room)
    else:
        yield LEDGER.fail(record.why, record.mend) if isinstance(record, Unusable) else LEDGER.skipped(record)
        yield from (about.skipped(record) for about in (CHAINS, ROOM, LOG))


def judge_server(record: Known[LedgerFacts | Unusable | NoneYet], product: Product | None) -> Iterator[Check]:
    """Warn where the ledger was last used with another product.

    Yields nothing where either is unknown.
    """
    if isinstance(record, LedgerFacts) and (why := another_server(record.product, product)):
        yield SERVER.warn(
            f"{why}: tasks that were held over the change are proven by look-ups and a listing, or not at all",
            "Find out who moved it: docs/servers.md.",
        )


def _usable(record: LedgerFacts) -> Check:
    if record.recovering is not None:
        return LEDGER.fail(
            f"it has had to be rebuilt since {_clock(record.recovering)}, and nothing is granted: Vault knows of more",
            "Run `jitvault ledger recover`, again after an interruption.",
        )
    if record.rules > GENERATION:
        return LEDGER.fail(
            f"a newer jitvault worked on it: it follows rules of generation {record.rules}, this one {GENERATION}",
            OlderRules.default_hint,
        )
    place = f"{record.place}: " if record.place else ""
    tasks = counted(record.tasks, "task")
    return LEDGER.ok(f"{place}schema {record.schema}, rules of generation {record.rules}, {tasks}")


def _rights(login: LedgerLogin | None) -> Iterator[Check]:
    """Judge the rights of the login to a ledger on PostgreSQL.

    More than is needed hinders no work, but whoever steals the login has it as well.
    """
    if login is None:
        return
    whose = "a worker" if login.writes else "a reader"
    if login.missing:
        yield RIGHTS.fail(f"{login.name} lacks {listed(login.missing)}, which {whose} needs", login.mend)
    elif login.owns:
        yield RIGHTS.warn(
            f"{login.name} owns the tables, so it can change and delete what {whose} cannot",
            f"Give it a role of its own: docs/operations/ledger.md. {login.mend}",
        )
    elif login.excess:
        yield RIGHTS.warn(f"{login.name} has more than {whose} needs: {listed(login.excess)}", login.mend)
    else:
        yield RIGHTS.ok(f"{login.name} has what {whose} needs, and nothing more")


def _none_yet(found: NoneYet) -> Check:
    at = f" at {found.place}" if found.place else ""
    what = f"the one{at} is new" if found.is_new else f"there is none{at}"
    if found.published:
        return LEDGER.fail(
            f"{what}, but Vault knows of {counted(found.published, 'open task')}: the ledger was lost, or "
            "JITVAULT_LEDGER names another one",
            "Restore it from a backup if there is one, else make a new one with `jitvault ledger upgrade`. Then "
            "`jitvault ledger recover` rebuilds what it lacks.",
        )
    if found.is_new:
        return LEDGER.warn(f"{what}: no worker has used it yet", "Start a worker: `jitvault worker`.")
    return LEDGER.warn(what, "`jitvault worker` makes it when it starts.")


def judge_tasks(record: Known[LedgerFacts | Unusable | NoneYet], now: datetime) -> Iterator[Check]:
    if isinstance(record, NoneYet):
        yield from (about.ok("there is no task yet") for about in (FINDINGS, QUOTA, OVERDUE, UNPROVEN, IRREVOCABLE))
        return
    if isinstance(record, Unknown):
        yield from (about.skipped(record) for about in (FINDINGS, QUOTA, OVERDUE, UNPROVEN, IRREVOCABLE))
        return
    yield _findings(record.findings, now)
    yield _quota(record.over_quota)
    late = [f"{task} since {_clock(at)}" for task, at in record.overdue if now - at > LATE]
    idle = "No worker does what is due: check that `jitvault worker` is running."
    yield OVERDUE.judged(late, idle, "nothing waits for longer than a minute")
    unproven = [f"{task} since {_clock(at)}" for task, at in record.ending if now - at > LONG]
    yield UNPROVEN.judged(unproven, _REPAIR_END, "no end has been unproven for 5 min")
    stuck = [f"{lease} of {task}" for lease, task in record.stuck]
    repair = "Vault could not revoke them; `jitvault status TASK` says why. Repair that at the target, not in Vault."
    yield IRREVOCABLE.judged(stuck, repair, "Vault could revoke every lease")


def judge_outliving(found: Known[tuple[int, Sequence[Outliving]]]) -> Check:
    """Judge the live leases.

    `found` is how many were looked up, and those that will outlive their task.
    """
    if isinstance(found, Unknown):
        return OUTLIVING.skipped(found)
    looked_at, leases = found
    if leases:
        shown = [f"{o.lease_id} of {o.task_id} until {_clock(o.expires_at)}, task {_clock(o.ends_at)}" for o in leases]
        return OUTLIVING.warn(
            listed(shown), "They end with their token, or when they are revoked. If both fail, they stay valid."
        )
    return OUTLIVING.ok(f"none of {looked_at} live leases")


def _chains(record: LedgerFacts) -> Check:
    if record.broken:
        return CHAINS.fail(
            f"changed by hand: {listed(record.broken)}", "Treat this as an incident, and restore the ledger."
        )
    return CHAINS.ok(f"whole, of {record.looked_at} of {counted(record.tasks, 'task')} that were read")


def _room(room: Room | None) -> Iterator[Check]:
    if room is None:
        elsewhere = Unknown("the ledger is on a database server", "Look at that server's own monitoring.")
        yield from (about.skipped(elsewhere) for about in (ROOM, LOG))
        return
    seen = f"{room.free // MB} MB are free on its disk"
    mend = "Free space on it: a full ledger grants nothing."
    if room.free < LEAST_ROOM:
        yield ROOM.fail(seen, mend)
    else:
        yield ROOM.warn(seen, mend) if room.free < LITTLE_ROOM else ROOM.ok(seen)
    size = f"{room.log // MB} MB"
    if room.log > LONG_LOG:
        yield LOG.warn(size, "A reader has held it open for a long time: look for a command that hangs.")
    else:
        yield LOG.ok(size)


def _quota(over: Sequence[tuple[str, int, datetime]]) -> Check:
    if not over:
        return QUOTA.ok("no author writes more than is processed")
    authors = [f"entity {author}: {waiting} documents or more wait since {_clock(at)}" for author, waiting, at in over]
    return QUOTA.warn(
        listed(authors),
        "Other authors do not wait for them. Documents that begin nothing are removed by their author, or by "
        "`jitvault tidy` once they are old. `bao write identity/entity/id/ENTITY disabled=true` stops an author.",
    )


def _findings(findings: Sequence[Finding], now: datetime) -> Check:
    fresh = [finding for finding in findings if now - finding.at <= RECENT]
    shown = listed([f"{finding.rule} ({finding.task_id or 'no task'})" for finding in fresh or findings])
    mend = (
        "`jitvault findings list` shows each with its number. Once it is understood, run "
        "`jitvault findings close NUMBER --reason WHY`."
    )
    if fresh:
        return FINDINGS.fail(f"{len(fresh)} of the last day: {shown}", mend)
    return FINDINGS.warn(f"{len(findings)} older: {shown}", mend) if findings else FINDINGS.ok("none is open")


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
