"""Whether a line that a receipt names shows what the receipt says of it.

By the check that rests on the line:

1. the response of the issue: of the token with the grant's accessor, or of the lease with its id;
2. a response of the revocation, without an error, about that token or lease;
3. a look-up by the worker that failed, about that token; a look-up's line names its lease by an HMAC that nobody can
   compare without Vault;
5. a listing of leases by the worker, or a look-up by the worker that found the credential.

A line is about a token by the HMAC of its accessor, which Vault makes. If the audit device was set up again in between,
later lines have another HMAC, and count as another token's.
"""

from __future__ import annotations

from collections.abc import Iterator

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.trail import done
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.confirmation.timeline import is_below, prefix_of
from jitvault.verification.audit_scan import Scan, SeenLine
from jitvault.verification.evidence import Stated, stated
from jitvault.verification.receipt import Credential, Receipt, StatedCheck, credentials

_LISTING = "sys/leases/lookup/"
_GONE = "invalid accessor"


def line_problems(receipt: Receipt, found: Scan) -> Iterator[str]:
    """Yield each named line that is missing, or does not show what it should."""
    for credential in credentials(receipt):
        for check in credential.said.checks:
            told = stated(check) if check.ok else None
            if told is not None:
                yield from _problems_of(credential, check, told, found)
    for number, one in enumerate(receipt.findings, 1):
        if one.line and one.line not in found.named:
            yield f"line {one_line(one.line)[:16]} of finding {number} ({one_line(one.rule)}) is in none of the files"


def _problems_of(credential: Credential, check: StatedCheck, told: Stated, found: Scan) -> Iterator[str]:
    for name, judged in ((told.line, _main_problem), (told.listing, _listing_problem), (told.alive, _alive_problem)):
        if not name:
            continue
        where = f"line {name} ({one_line(credential.name)}, check {check.n})"
        seen = found.named.get(name)
        if seen is None:
            yield f"{where} is in none of the files"
        elif seen.observation is None:
            yield f"{where} is no line of Vault's about tokens or leases"
        elif (why := judged(credential, check.n, told, seen, seen.observation, found)) is not None:
            yield f"{where} {why}"


def _main_problem(
    credential: Credential, n: int, told: Stated, seen: SeenLine, line: Observation, found: Scan
) -> str | None:
    if line.at != told.at or line.path != told.path:
        return f"is about {one_line(line.path)!r:.120} at {line.at.isoformat()}, and the receipt says otherwise"
    if not line.closing:
        return "is a request, and only Vault's answer shows that something was done"
    if n == 1:
        return _issue_problem(credential, seen, line, found)
    if n == 2:
        revoked = _lease_revoked if credential.lease_id else _token_revoked
        return revoked(credential, seen, line, found)
    return _gone_problem(credential, seen, line)


def _issue_problem(credential: Credential, seen: SeenLine, line: Observation, found: Scan) -> str | None:
    if line.failed:
        return "shows an error, and no issue"
    if credential.lease_id:
        issued = line.kind is Kind.LEASE_ISSUED and line.subject == credential.lease_id
        return None if issued else "does not show the issue of this lease"
    if line.kind is not Kind.TOKEN_CREATED or line.subject != credential.accessor:
        return "does not show the creation of this token"
    if credential.grant is not None and line.path != f"auth/token/create/{credential.grant.role}":
        return "shows a token of another role than the grant says"
    return None if seen.by_worker else "shows a token that was not created by the worker"


def _token_revoked(credential: Credential, seen: SeenLine, line: Observation, found: Scan) -> str | None:
    role = credential.grant.role if credential.grant else ""
    below = f"auth/token/create/{role}/"
    prefix = prefix_of(line.path, "revoke-prefix")
    if prefix is not None:
        covers = not line.error and is_below(below, prefix)
        return None if covers else "revokes by a prefix that does not cover this token"
    if line.kind is Kind.LEASE_REVOKED and (line.subject.startswith((below, "hmac-")) and seen.by_worker):
        # a token whose accessor was lost in a crash is revoked by its own lease, whose name is another hash
        return None if not line.failed else "shows an error, and no revocation"
    if line.subject != credential.accessor:
        return "is about another token"
    begun = line.kind is Kind.TOKEN_LOOKUP and seen.by_worker and done(line) and "revocation_begun" in line.detail
    repeated = line.kind is Kind.TOKEN_REVOKED and "warnings" in line.detail
    if begun or repeated:
        done_before = _unanswered(credential, found)
        return None if done_before else "shows no revocation that was done: the token was gone already"
    if line.kind is not Kind.TOKEN_REVOKED:
        return "shows no revocation"
    return "shows an error, and no revocation" if line.failed else None


def _unanswered(credential: Credential, found: Scan) -> bool:
    """Return whether an earlier revocation of the token has no answer."""
    own = [one.observation for one in found.about if one.observation is not None]
    revocations = [o for o in own if o.kind is Kind.TOKEN_REVOKED and o.subject == credential.accessor]
    answered = {o.request_id for o in revocations if o.closing}
    return any(o.request_id not in answered for o in revocations)


def _lease_revoked(credential: Credential, seen: SeenLine, line: Observation, found: Scan) -> str | None:
    if line.kind is not Kind.LEASE_REVOKED:
        return "shows no revocation of a lease"
    # a request with the id in its body shows the id's HMAC
    if line.subject != credential.lease_id and not line.subject.startswith("hmac-"):
        return "is about another lease"
    if line.failed:
        return "shows an error, and no revocation"
    return None if seen.by_worker else "shows a revocation by somebody else than the worker, which proves nothing"


def _gone_problem(credential: Credential, seen: SeenLine, line: Observation) -> str | None:
    if not seen.by_worker:
        return "is not the worker's look-up"
    if credential.lease_id:
        named = line.kind is Kind.LEASE_LOOKUP and line.subject.startswith("hmac-")
        renewed = line.kind is Kind.RENEWED and line.subject == credential.lease_id
        if not named and not renewed:
            return "is no look-up of this lease"
        return None if line.failed else "found the lease alive"
    begun = line.kind is Kind.TOKEN_LOOKUP and done(line) and "revocation_begun" in line.detail
    by_lease = line.kind in (Kind.LEASE_LOOKUP, Kind.RENEWED)
    if line.kind is not Kind.TOKEN_LOOKUP and not by_lease:
        return "is no look-up of a token"
    if not by_lease and line.subject != credential.accessor:
        return "is about another token"
    if not line.failed and not begun:
        return "found the token alive"
    plain = line.error and not line.error.startswith("hmac-")
    return "failed for another reason than that there is no such token" if _is_other(plain, by_lease, line) else None


def _is_other(plain: str | bool, by_lease: bool, line: Observation) -> bool:
    """Return whether a failed look-up says that it failed otherwise."""
    return bool(plain) and line.failed and not by_lease and _GONE not in line.error


def _listing_problem(
    credential: Credential, n: int, told: Stated, seen: SeenLine, line: Observation, found: Scan
) -> str | None:
    listed = seen.operation == "list" and line.path.startswith(_LISTING)
    return None if listed and done(line) and seen.by_worker else "is no listing of leases by the worker"


def _alive_problem(
    credential: Credential, n: int, told: Stated, seen: SeenLine, line: Observation, found: Scan
) -> str | None:
    # a token whose accessor is not known any more, as after a recovery, is looked up by its own lease
    kinds = {Kind.LEASE_LOOKUP, Kind.RENEWED} | (set() if credential.lease_id else {Kind.TOKEN_LOOKUP})
    if line.kind not in kinds or not done(line) or not seen.by_worker:
        return "is no look-up by the worker that found it"
    is_other = line.kind is Kind.TOKEN_LOOKUP and line.subject != credential.accessor
    return "is about another token" if is_other else None
