"""Who got a token, when the ledger that knew it is lost: the lines of its creation, and what Vault lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import done

_CREATE = "auth/token/create/"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A task token that the stream shows as made between `since` and `at`.

    `accessor` is the HMAC of its accessor, `task` and `grant` those of the ids in its metadata. `lease` is its own
    lease where Vault still has it and nothing else can be meant, `issued_at` Vault's time of it then. `unclear` says
    that Vault has one of which nobody can say whether it is this one.
    """

    accessor: str
    role: str
    op: str
    since: datetime
    at: datetime
    line: str
    source: str
    task: str
    grant: str
    lease: str | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Alive:
    """A token that Vault lists below a role."""

    lease: str
    role: str
    issued_at: datetime
    expires_at: datetime | None


def made_of(lines: Iterable[Observation]) -> list[IssuedToken]:
    """Every token that was made through our roles by a holder of the worker's policy, in the order of Vault's time."""
    created = [o for o in lines if o.kind is Kind.TOKEN_CREATED]
    begun = {o.request_id: o.at for o in created if not o.closing}
    found = {
        o.subject: IssuedToken(
            accessor=o.subject,
            role=o.path.removeprefix(_CREATE),
            op=o.op,
            since=begun.get(o.request_id, o.at),
            at=o.at,
            line=o.line,
            source=o.place.source,
            task=str(o.detail.get("task", "")),
            grant=str(o.detail.get("grant", "")),
        )
        for o in created
        if done(o) and o.subject and o.detail.get("worker")
    }
    return sorted(found.values(), key=lambda one: (one.at, one.accessor))


def sessions_of(lines: Iterable[Observation]) -> dict[str, datetime]:
    """The HMACs of the accessors with which somebody acted under the worker's policy, and when they did last.

    Vault writes a token's policies into its lines, so neither header nor metadata says it.
    """
    found: dict[str, datetime] = {}
    for o in lines:
        if o.actor and o.detail.get("worker"):
            found[o.actor] = max(o.at, found.get(o.actor, o.at))
    return found


def with_leases(made: Sequence[IssuedToken], alive: Sequence[Alive]) -> list[IssuedToken]:
    """Each with its own lease, where exactly one token that Vault has can be it and that one can be no other.

    Vault lists tokens without their accessors; the time of issue lies between the request and its answer.
    """
    fits = [
        (n, token)
        for n, one in enumerate(made)
        for token in alive
        if token.role == one.role and one.since <= token.issued_at <= one.at
    ]
    of_made, of_token = Counter(n for n, _ in fits), Counter(token.lease for _, token in fits)
    sure = {n: token for n, token in fits if of_made[n] == 1 and of_token[token.lease] == 1}
    found = []
    for n, one in enumerate(made):
        if token := sure.get(n):
            found.append(
                replace(one, lease=token.lease, issued_at=token.issued_at, expires_at=token.expires_at),
            )
        else:
            found.append(replace(one, unclear=n in of_made))
    return found
