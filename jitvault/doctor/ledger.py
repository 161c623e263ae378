"""The ledger and what it says of tasks: is it whole, has it room, and is anything left undone?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jitvault.doctor.check import Ability, About, Check, Known, Unknown, listed
from jitvault.errors import LedgerUnavailable, NotConfirmed, OlderRules, SecurityFinding, WaitTimedOut
from jitvault.formats.product import Product, another_server
from jitvault.model.generation import GENERATION
from jitvault.model.ledger_facts import Finding, LedgerFacts, Room

_WORK = frozenset({Ability.GRANT, Ability.PROVE})
LEDGER = About("ledger", "usable", LedgerUnavailable, _WORK)
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
LEAST_ROOM, LITTLE_ROOM, LONG_LOG = 64 * MB, 1024 * MB, 256 * MB
LATE, LONG = timedelta(minutes=1), timedelta(minutes=5)
RECENT = timedelta(days=1)
_MENDS_END = (
    "`jitvault status TASK` says what keeps it: mend that at the target. The last resort is "
    "`jitvault revoke TASK --force --reason WHY`."
)


@dataclass(frozen=True, slots=True)
class Outliving:
    """A live lease that Vault will keep longer than its task may hold access."""

    lease_id: str
    task_id: str
    expires_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Unusable:
    """There is a ledger, and it cannot be used."""

    why: str
    mend: str


@dataclass(frozen=True, slots=True)
class NoneYet:
    """There is no ledger where the worker would make one. `published` is how many tasks Vault knows of."""

    published: int
    room: Room | None


def judge_ledger(record: Known[LedgerFacts | Unusable | NoneYet]) -> Iterator[Check]:
    if isinstance(record, LedgerFacts):
        yield _usable(record)
        yield _chains(record)
        yield from _room(record.room)
    elif isinstance(record, NoneYet):
        yield _none_yet(record)
        yield CHAINS.ok("there is nothing yet")
        yield from _room(record.room)
    else:
        yield LEDGER.skipped(record) if isinstance(record, Unknown) else LEDGER.fail(record.why, record.mend)
        unknown = Unknown(record.why, record.mend)
        yield from (about.skipped(unknown) for about in (CHAINS, ROOM, LOG))


def judge_server(record: Known[LedgerFacts | Unusable | NoneYet], product: Product | None) -> Iterator[Check]:
    """Whether it is the product that the ledger was last used with; nothing is said where nobody knows."""
    if isinstance(record, LedgerFacts) and (why := another_server(record.product, product)):
        yield SERVER.warn(
            f"{why}: what is held over the change is proven by look-ups and a listing, or not at all",
            "Find out who moved it: docs/servers.md.",
        )


def _usable(record: LedgerFacts) -> Check:
    if record.recovering is not None:
        return LEDGER.fail(
            f"it is being rebuilt since {_clock(record.recovering)}: nothing is granted",
            "`jitvault ledger recover` goes on with it.",
        )
    if record.rules > GENERATION:
        return LEDGER.fail(
            f"a newer jitvault worked on it: it follows rules of generation {record.rules}, this one {GENERATION}",
            OlderRules.default_hint,
        )
    return LEDGER.ok(f"schema {record.schema}, rules of generation {record.rules}, {record.tasks} tasks")


def _none_yet(found: NoneYet) -> Check:
    if found.published:
        return LEDGER.fail(
            f"there is none, and Vault knows of {found.published} tasks: it was lost, or JITVAULT_LEDGER names another",
            "Put it back from its backup where there is one; then `jitvault ledger recover` rebuilds what it lacks.",
        )
    return LEDGER.warn("there is none yet", "The worker makes it with its first task.")


def judge_tasks(record: Known[LedgerFacts | Unusable | NoneYet], now: datetime) -> Iterator[Check]:
    if isinstance(record, NoneYet):
        yield from (about.ok("there is no task yet") for about in (FINDINGS, QUOTA, OVERDUE, UNPROVEN, IRREVOCABLE))
        return
    if not isinstance(record, LedgerFacts):
        unknown = Unknown(record.why, record.mend)
        yield from (about.skipped(unknown) for about in (FINDINGS, QUOTA, OVERDUE, UNPROVEN, IRREVOCABLE))
        return
    yield _findings(record.findings, now)
    yield _quota(record.over_quota)
    late = [f"{task} since {_clock(at)}" for task, at in record.overdue if now - at > LATE]
    if late:
        yield OVERDUE.fail(listed(late), "Nobody does what is due: is `jitvault worker` running?")
    else:
        yield OVERDUE.ok("nothing waits for longer than a minute")
    long = [f"{task} since {_clock(at)}" for task, at in record.ending if now - at > LONG]
    yield UNPROVEN.fail(listed(long), _MENDS_END) if long else UNPROVEN.ok("no end has been unproven for 5 min")
    stuck = [f"{lease} of {task}" for lease, task in record.stuck]
    if stuck:
        yield IRREVOCABLE.fail(
            listed(stuck),
            "Vault could not revoke them, and `jitvault status TASK` says why. Mend that at the target, not in Vault.",
        )
    else:
        yield IRREVOCABLE.ok("no lease resists")


def judge_outliving(found: Known[tuple[int, Sequence[Outliving]]]) -> Check:
    """`found` is how many live leases were looked at, and those that will outlive their task."""
    if isinstance(found, Unknown):
        return OUTLIVING.skipped(found)
    looked_at, leases = found
    if leases:
        told = [f"{o.lease_id} of {o.task_id} until {_clock(o.expires_at)}, task {_clock(o.ends_at)}" for o in leases]
        return OUTLIVING.warn(listed(told), "They end with their token and are revoked; without both they live on.")
    return OUTLIVING.ok(f"none of {looked_at} live leases")


def _chains(record: LedgerFacts) -> Check:
    if record.broken:
        return CHAINS.fail(f"changed by hand: {listed(record.broken)}", "Treat it as an incident; restore the ledger.")
    return CHAINS.ok(f"whole, of {record.looked_at} of {record.tasks} tasks that were read")


def _room(room: Room | None) -> Iterator[Check]:
    if room is None:
        elsewhere = Unknown("the ledger is a database server's", "Look at that server's own monitoring.")
        yield from (about.skipped(elsewhere) for about in (ROOM, LOG))
        return
    seen, mend = f"{room.free // MB} MB are free on its disk", "Free space: a full ledger grants nothing."
    if room.free < LEAST_ROOM:
        yield ROOM.fail(seen, mend)
    else:
        yield ROOM.warn(seen, mend) if room.free < LITTLE_ROOM else ROOM.ok(seen)
    told = f"{room.log // MB} MB"
    mend = "A reader has held it open for long: look for a command that hangs."
    yield LOG.warn(told, mend) if room.log > LONG_LOG else LOG.ok(told)


def _quota(over: Sequence[tuple[str, int, datetime]]) -> Check:
    if not over:
        return QUOTA.ok("nobody writes more than is taken in")
    told = listed(
        [f"entity {author}: {waiting} documents or more wait since {_clock(at)}" for author, waiting, at in over]
    )
    return QUOTA.warn(
        told,
        "Nobody else waits for them. What begins nothing its author removes, or `jitvault tidy` does once it is old; "
        "`bao write identity/entity/id/ENTITY disabled=true` stops whoever goes on.",
    )


def _findings(findings: Sequence[Finding], now: datetime) -> Check:
    fresh = [finding for finding in findings if now - finding.at <= RECENT]
    told = listed([f"{finding.rule} ({finding.task_id or 'no task'})" for finding in fresh or findings])
    mend = (
        "`jitvault status TASK` has the evidence; `jitvault close-findings AGENT --reason WHY` once it is understood."
    )
    if fresh:
        return FINDINGS.fail(f"{len(fresh)} of the last day: {told}", mend)
    return FINDINGS.warn(f"{len(findings)} older: {told}", mend) if findings else FINDINGS.ok("none is open")


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
