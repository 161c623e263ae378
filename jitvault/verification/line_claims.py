"""Whether a line that a receipt names shows what the receipt says of it.

By the check that rests on the line:

1. the response of the issue: of the token with the grant's accessor, or of the lease with its id, and of the
   certificate that its issuer called revoked (check 6);
2. a response of the revocation, without an error, about that token or lease;
3. a look-up that says that there is no such token or lease. A look-up's line names its lease by an HMAC that nobody can
   compare without Vault, but two leases have two names;
5. a listing of leases, or a look-up that found the credential.

That a token expired is shown by no line; `expiry` compares the time with what lines show of its life.

All of them are of one namespace; `callers` looks at which one, and at who caused them.

A line is about a token by the HMAC of its accessor, which Vault makes. If the audit device was set up again in between,
later lines have another HMAC, and count as another token's. A token's own lease has another name, and nothing joins the
two: a revocation and a look-up by it count only for a token that nobody opened or used, as after a crash.
"""

from __future__ import annotations

from collections.abc import Iterator

from jitvault.audit.audit_form import is_hashed
from jitvault.audit.observation import Kind, Observation, is_token_lease
from jitvault.audit.trail import derived_tokens, done, owning_token, with_subjects
from jitvault.documents.receipt import Receipt
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.confirmation.timeline import is_below, prefix_of
from jitvault.model.evidence import Evidence, Line, SignedAnswer
from jitvault.model.proof_check import TARGET_N
from jitvault.verification.audit_scan import Rest, Scan, SeenLine, resting_lines
from jitvault.verification.evidence import stated
from jitvault.verification.expiry import expiry_problems, unshown_expiry
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE, Credential, credentials

_LISTING = "sys/leases/lookup/"
# Vault's words for what is not there, by the kind of line that asked
_GONE = {
    Kind.TOKEN_LOOKUP: "invalid accessor",
    Kind.LEASE_LOOKUP: "invalid lease",
    Kind.RENEWED: "lease not found",
}
_INVALID = "invalid request"
_NAMING_A_LEASE = (Kind.LEASE_REVOKED, Kind.RENEWED)


def line_problems(receipt: Receipt, found: Scan) -> Iterator[Problem]:
    """Yield each named line that is missing, or does not show what it should."""
    for rest in resting_lines(receipt):
        told = stated(rest.check)
        if told is not None:
            yield from _problems_of(rest, told, found)
    if not receipt.recovered:
        yield from (Problem(why, (rest.place,)) for rest, why in _not_joined(receipt, found))
    for credential in credentials(receipt):
        yield from expiry_problems(credential, found)
    yield from _several_namespaces(receipt, found)
    yield from _shared_names(receipt, found)
    for number, one in enumerate(receipt.findings, 1):
        if one.line and one.line not in found.named:
            why = f"line {one_line(one.line)[:16]} of finding {number} ({one_line(one.rule)}) is in none of the files"
            yield Problem(why, (f"{PREDICATE}/findings/{number - 1}/line",))


def unshown_by_lines(receipt: Receipt, found: Scan) -> Iterator[str]:
    """Yield what is said of a token, and no line can show of that very one.

    A record that was rebuilt has lost the token's accessor, so that the worker ends the token by its own lease.
    """
    if receipt.recovered:
        yield from (why for _, why in _not_joined(receipt, found))
    for credential in credentials(receipt):
        yield from unshown_expiry(credential, found)


def _not_joined(receipt: Receipt, found: Scan) -> Iterator[tuple[Rest, str]]:
    """Yield each line that shows the end of a used token by its own lease."""
    for rest in resting_lines(receipt):
        seen = found.named.get(rest.line)
        line = seen.observation if seen is not None else None
        if rest.part != "line" or rest.check.n == 1 or rest.credential.lease_id or line is None:
            continue
        by_name = line.kind in _NAMING_A_LEASE and _is_own_lease(line.subject, _below(rest.credential))
        if (by_name or line.kind is Kind.LEASE_LOOKUP) and _is_used(rest.credential, found):
            why = "is about a lease of the role, and the token was opened or used: nothing shows that the lease is its"
            yield rest, f"{rest.called} {why}"


def _problems_of(rest: Rest, told: Evidence, found: Scan) -> Iterator[Problem]:
    where = rest.called
    seen = found.named.get(rest.line)
    if seen is None:
        yield Problem(f"{where} is in none of the files", (rest.place,))
    elif seen.observation is None:
        yield Problem(f"{where} is no line of Vault's about tokens or leases", (rest.place,))
    elif why := _problem(rest, seen, seen.observation, found):
        yield Problem(f"{where} {why}", (rest.place, *rest.credential.identity))
    elif isinstance(told, Line):
        yield from _told_otherwise(rest, told, seen.observation)
        yield from _another_certificate(rest, seen.observation)


def _told_otherwise(rest: Rest, told: Line, line: Observation) -> Iterator[Problem]:
    """Yield what the receipt says of a line, and the line does not."""
    shown = {
        "at": (line.at, told.at),
        "path": (line.path, told.path),
        "request_id": (line.request_id, told.request_id),
        "operation": (str(line.kind), told.operation),
    }
    differing = [name for name, (seen, said) in shown.items() if seen != said]
    if differing:
        why = f"is {line.kind} of {one_line(line.path)!r:.120} at {rfc3339(line.at)}, and the receipt says otherwise"
        places = tuple(rest.credential.at(rest.check.n, "evidence", name) for name in differing)
        yield Problem(f"{rest.called} {why}", places)


def _another_certificate(rest: Rest, line: Observation) -> Iterator[Problem]:
    """Yield where the issuer called another certificate revoked than the lease's."""
    answer = stated(rest.credential.check(TARGET_N))
    shown = line.detail.get("target_name")
    if rest.check.n == 1 and isinstance(answer, SignedAnswer) and shown != answer.question:
        why = f"shows certificate {one_line(str(shown))!r:.120}, and the issuer's answer is about another one"
        yield Problem(f"{rest.called} {why}", (rest.credential.at(TARGET_N, "evidence", "question"), rest.place))


def _problem(rest: Rest, seen: SeenLine, line: Observation, found: Scan) -> str | None:
    if rest.part == "listing":
        listed = seen.operation == "list" and line.path.startswith(_LISTING)
        return None if listed and done(line) else "is no listing of leases"
    if rest.part == "alive":
        return _alive_problem(rest.credential, line)
    return _main_problem(rest, seen, line, found)


def _main_problem(rest: Rest, seen: SeenLine, line: Observation, found: Scan) -> str | None:
    if not line.closing:
        return "is a request, and only Vault's answer shows that something was done"
    if rest.check.n != 1 and seen.wrapped:
        return "has its answer in a wrapping, so that nobody sees what Vault did"
    credential = rest.credential
    if rest.check.n == 1:
        return _issue_problem(credential, line)
    if rest.check.n == 2:
        return _lease_revoked(credential, line) if credential.lease_id else _token_revoked(credential, line, found)
    if credential.lease_id:
        return _lease_gone(credential, seen, line)
    return _token_gone(credential, seen, line, found)


def _issue_problem(credential: Credential, line: Observation) -> str | None:
    if line.failed:
        return "shows an error, and no issue"
    if credential.lease_id:
        issued = line.kind is Kind.LEASE_ISSUED and line.subject == credential.lease_id
        return None if issued else "does not show the issue of this lease"
    if line.kind is not Kind.TOKEN_CREATED or line.subject != credential.accessor:
        return "does not show the creation of this token"
    if credential.grant is not None and line.path != f"auth/token/create/{credential.grant.role}":
        return "shows a token of another role than the grant says"
    return None


def _token_revoked(credential: Credential, line: Observation, found: Scan) -> str | None:
    below = _below(credential)
    prefix = prefix_of(line.path, "revoke-prefix")
    if prefix is not None:
        covers = not line.error and is_below(below, prefix)
        return None if covers else "revokes by a prefix that does not cover this token"
    if line.kind is Kind.LEASE_REVOKED and _is_own_lease(line.subject, below):
        # a token whose accessor was lost in a crash is revoked by its own lease
        if line.failed:
            return "shows an error, and no revocation"
        return None
    if with_subjects([*found.observations, line])[-1].subject != credential.accessor:
        return "is about another token"
    begun = line.kind is Kind.TOKEN_LOOKUP and done(line) and "revocation_begun" in line.detail
    repeated = line.kind is Kind.TOKEN_REVOKED and "warnings" in line.detail
    if begun or repeated:
        done_before = _unanswered(credential, found)
        return None if done_before else "shows no revocation that was done: the token was gone already"
    if line.kind is not Kind.TOKEN_REVOKED:
        return "shows no revocation"
    return "shows an error, and no revocation" if line.failed else None


def _unanswered(credential: Credential, found: Scan) -> bool:
    """Return whether an earlier revocation of the token has no answer."""
    named = (o for o in found.observations if o.kind is Kind.TOKEN_REVOKED and o.subject == credential.accessor)
    revocations = [o for o in named if "denied" not in o.detail]
    answered = {o.request_id for o in revocations if o.closing}
    return any(o.request_id not in answered for o in revocations)


def _lease_revoked(credential: Credential, line: Observation) -> str | None:
    if line.kind is not Kind.LEASE_REVOKED:
        return "shows no revocation of a lease"
    # a request with the id in its body shows the id's HMAC, and the worker sends none
    if line.subject != credential.lease_id:
        return "is about another lease"
    return "shows an error, and no revocation" if line.failed else None


def _lease_gone(credential: Credential, seen: SeenLine, line: Observation) -> str | None:
    named = line.kind is Kind.LEASE_LOOKUP and is_hashed(line.subject)
    renewed = line.kind is Kind.RENEWED and line.subject == credential.lease_id
    if not named and not renewed:
        return "is no look-up of this lease"
    return _why_not_gone(seen, line, "lease")


def _token_gone(credential: Credential, seen: SeenLine, line: Observation, found: Scan) -> str | None:
    by_lease = line.kind is Kind.LEASE_LOOKUP and is_hashed(line.subject)
    by_lease = by_lease or (line.kind is Kind.RENEWED and _is_own_lease(line.subject, _below(credential)))
    if line.kind is not Kind.TOKEN_LOOKUP and not by_lease:
        return "is no look-up of a token"
    if by_lease:
        return _why_not_gone(seen, line, "lease")
    if line.subject != credential.accessor:
        return "is about another token"
    if done(line) and "revocation_begun" in line.detail:
        return None
    return _why_not_gone(seen, line, "token")


def _why_not_gone(seen: SeenLine, line: Observation, what: str) -> str | None:
    """Return why a look-up does not say that something is gone.

    The result is None if it does. Of a lease the reason may be an HMAC. Then the error is plain: neither a refusal nor
    a parameter of a wrong type is an invalid request.
    """
    if not line.failed:
        return f"found the {what} alive"
    is_hidden = is_hashed(line.error) and line.kind is not Kind.TOKEN_LOOKUP and _INVALID in seen.error
    if not is_hidden and _GONE[line.kind] not in line.error:
        return f"failed for another reason than that there is no such {what}"
    return None


def _alive_problem(credential: Credential, line: Observation) -> str | None:
    # a token whose accessor is not known any more, as after a recovery, is looked up by its own lease
    kinds = {Kind.LEASE_LOOKUP, Kind.RENEWED} | (set() if credential.lease_id else {Kind.TOKEN_LOOKUP})
    if line.kind not in kinds or not done(line):
        return "is no look-up that found it"
    is_other = line.kind is Kind.TOKEN_LOOKUP and line.subject != credential.accessor
    return "is about another token" if is_other else None


def _below(credential: Credential) -> str:
    """Return the path below which Vault keeps the leases of a token's role."""
    return f"auth/token/create/{credential.grant.role if credential.grant else ''}/"


def _is_own_lease(lease_id: str, below: str) -> bool:
    return lease_id.startswith(below) and is_token_lease(lease_id)


def _is_used(credential: Credential, found: Scan) -> bool:
    """Return whether somebody opened a token's wrapping, or used the token."""
    lines = found.observations
    derived = derived_tokens(lines)
    opened = (Kind.UNWRAPPED, Kind.REWRAPPED, Kind.CUBBYHOLE_READ)
    return any(
        o.actor == credential.accessor or (o.kind in opened and owning_token(o, derived) == credential.accessor)
        for o in lines
    )


def _several_namespaces(receipt: Receipt, found: Scan) -> Iterator[Problem]:
    """Yield where the receipt's lines are of several namespaces."""
    seen = ((rest, found.named.get(rest.line)) for rest in resting_lines(receipt))
    known = [(rest, one) for rest, one in seen if one is not None and one.observation is not None]
    places = {one.namespace_id: rest.place for rest, one in known if not one.opens_wrapping}
    if len(places) > 1:
        ids = ", ".join(f"{one_line(each)!r:.40}" for each in sorted(places))
        yield Problem(f"the lines are of {len(places)} namespaces: {ids}", tuple(places.values()))


def _shared_names(receipt: Receipt, found: Scan) -> Iterator[Problem]:
    """Yield where the look-ups of two credentials name one lease."""
    owners: dict[str, Rest] = {}
    for rest in resting_lines(receipt):
        seen = found.named.get(rest.line)
        line = seen.observation if seen is not None else None
        if rest.check.n != 3 or line is None or line.kind is not Kind.LEASE_LOOKUP:
            continue
        other = owners.setdefault(line.subject, rest)
        if other.credential.name != rest.credential.name:
            both = f"{one_line(other.credential.name)} and {one_line(rest.credential.name)}"
            why = f"line {rest.line[:16]} looks up the same lease for {both}"
            yield Problem(why, (other.place, rest.place))
