"""What a tripwire returns, what a task's lines are compared with, words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from jitvault.audit.observation import Observation, Place
from jitvault.formats.networks import addresses_in
from jitvault.formats.strict_yaml import shown
from jitvault.model.states import EndReason

# old paths that name a token show it in plain
_A_TOKEN = re.compile(r"(hv[sbr]|\b[sbr])\.[\w.-]{16,}")


class Rule(StrEnum):
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - not a password
    UNKNOWN_RENEWAL = "unknown_renewal"
    UNKNOWN_PUBLICATION = "unknown_publication"
    UNKNOWN_SIGNATURE = "unknown_signature"
    UNWRAP_BY_WORKER = "unwrap_by_worker"
    UNWRAP_OUTSIDE_NETWORK = "unwrap_outside_network"
    UNWRAP_REFUSED = "unwrap_refused"
    REWRAPPED = "rewrapped"
    WRAPPING_READ = "wrapping_read"
    DENIED = "denied"
    OUTSIDE_TEMPLATE = "outside_template"
    BEFORE_WINDOW = "before_window"
    AFTER_END = "after_end"
    OVER_BUDGET = "over_budget"
    WRAPPED_LEASE = "wrapped_lease"
    RENEWED_BY_OTHERS = "renewed_by_others"


FREEZING = frozenset(
    {
        Rule.UNKNOWN_TOKEN,
        Rule.UNKNOWN_RENEWAL,
        Rule.UNKNOWN_PUBLICATION,
        Rule.UNKNOWN_SIGNATURE,
        Rule.UNWRAP_BY_WORKER,
    }
)
INTERCEPTIONS = frozenset(
    {
        Rule.UNWRAP_BY_WORKER,
        Rule.UNWRAP_OUTSIDE_NETWORK,
        Rule.UNWRAP_REFUSED,
        Rule.REWRAPPED,
        Rule.WRAPPING_READ,
    }
)
"""Rules that show that somebody else may hold what was meant for the agent."""
OF_AGENT = frozenset(Rule) - FREEZING - {Rule.RENEWED_BY_OTHERS}
"""Rules that a task's own lines break. Until the finding is examined, the task's agent is granted nothing more. What
others sign or do, or what a listing shows, is no reason for that: otherwise anybody could shut an agent out.
"""


@dataclass(frozen=True, slots=True)
class TripwireHit:
    """A rule that a line broke.

    `line` is the SHA-256 of the audit line, `at` Vault's time of it. `message` is a sentence for an operator; paths
    and addresses in it are escaped, and it holds no secret.
    """

    rule: Rule
    at: datetime
    line: str
    request_id: str
    message: str
    reason: EndReason
    freezes: bool


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """What one task's lines are compared with.

    `tokens` are the accessor HMACs of its grants, `leases` the ids of its leases, `networks` the CIDRs that it
    works from (none: any), `paths` the Vault paths that its templates have, each of which issues leases, `workers`
    the accessor HMACs of the worker's tokens. `ended_at` is Vault's time of the token's revocation line, None while
    the token lives, and `ended_in` the place of that line. `agent_knew` says that the agent itself completed the
    task, so that whoever uses the token knew of the end; without it, a use during `grace` is no hit. `hashed_leases`
    are the HMACs of leases, by which a request's body names them.
    """

    tokens: frozenset[str]
    leases: frozenset[str]
    networks: tuple[str, ...]
    paths: frozenset[str]
    opens_at: datetime | None
    ended_at: datetime | None
    ended_in: Place | None
    agent_knew: bool
    grace: timedelta
    lease_budget: int
    denied_limit: int
    workers: frozenset[str]
    hashed_leases: frozenset[str] = frozenset()


Hit = tuple[Observation, str]
"""A line that breaks a rule, and the message about it."""


def trips(hits: Iterable[tuple[Rule, Hit]]) -> list[TripwireHit]:
    """Return the first hit of each rule for each request, by time."""
    found: dict[tuple[Rule, str], tuple[Observation, TripwireHit]] = {}
    for rule, (o, message) in hits:
        reason = EndReason.INTERCEPTED if rule in INTERCEPTIONS else EndReason.TRIPWIRE
        trip = TripwireHit(rule, o.at, o.line, o.request_id, message, reason, rule in FREEZING)
        found.setdefault((rule, request(o)), (o, trip))
    return [trip for _, trip in sorted(found.values(), key=lambda pair: (order(pair[0]), pair[1].rule))]


def in_order(lines: Iterable[Observation]) -> list[Observation]:
    """Return each line once, by Vault's time.

    The order in which the lines were read changes nothing.
    """
    return sorted({o.line: o for o in lines}.values(), key=order)


def order(o: Observation) -> tuple[datetime, str, int, int, str]:
    return o.at, o.place.source, o.place.epoch, o.place.offset, o.line


def precedes(one: Observation, other: Observation) -> bool:
    if (one.place.source, one.place.epoch) == (other.place.source, other.place.epoch):
        return one.place.offset < other.place.offset
    return one.at < other.at


def request(o: Observation) -> str:
    """Return what the two entries of one request have in common."""
    return o.request_id or o.line


def by_request(lines: Iterable[Observation]) -> list[Observation]:
    """Return the first line of each request."""
    found: dict[str, Observation] = {}
    for o in lines:
        found.setdefault(request(o), o)
    return list(found.values())


def done(o: Observation) -> bool:
    return o.closing and not o.failed


def path_of(o: Observation) -> str:
    return shown(_A_TOKEN.sub("(a token)", o.path), 120)


def origin(o: Observation) -> str:
    found = addresses_in(o.remote)
    return str(found[-1]) if found else f"an unknown address ({shown(o.remote, 64)})"


def clock(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC"


def ago(length: timedelta) -> str:
    return f"{length.total_seconds():.1f} s"


def counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
