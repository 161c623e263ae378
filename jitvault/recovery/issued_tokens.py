"""Find issued tokens without the ledger.

They show in the audit lines of their creation, and in Vault's list.
"""

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
    """A task token that the stream shows as created between `since` and `at`.

    `accessor` is the HMAC of its accessor, and `task` and `grant` are the HMACs of the ids in its metadata. `lease` is
    its own lease, where Vault still has the token and no other token can be meant; `issued_at` is then Vault's issue
    time. `unclear` says that Vault has a token which may or may not be this one.
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
class ListedToken:
    """A token that Vault lists below a role."""

    lease: str
    role: str
    issued_at: datetime
    expires_at: datetime | None


def issued_tokens(lines: Iterable[Observation]) -> list[IssuedToken]:
    """Return every token that a worker created through jitvault's roles.

    They are sorted by the time in their audit lines. A worker is any holder of the worker's policy.
    """
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


def worker_sessions(lines: Iterable[Observation]) -> dict[str, datetime]:
    """Return the accessor HMACs of worker sessions.

    Each has the time of its last line. A session is a worker's if its lines have the worker's policy. Vault itself
    writes a token's policies into its lines, so this rests on no header or metadata.
    """
    found: dict[str, datetime] = {}
    for o in lines:
        if o.actor and o.detail.get("worker"):
            found[o.actor] = max(o.at, found.get(o.actor, o.at))
    return found


def with_leases(made: Sequence[IssuedToken], alive: Sequence[ListedToken]) -> list[IssuedToken]:
    """Return the issued tokens, with their leases where the match is unique.

    Vault lists tokens without their accessors, but the issue time lies between the request and its answer. A match is
    unique where exactly one listed token fits the issued one, and fits no other.
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
