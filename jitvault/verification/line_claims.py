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
from jitvault.model.evidence import Line, SignedAnswer
from jitvault.model.proof_check import TARGET_N
from jitvault.verification.audit_scan import Scan, ScannedLine, SupportingLine, supporting_lines
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
_FAILED = "shows an error, and no revocation"
_NAMING_A_LEASE = (Kind.LEASE_REVOKED, Kind.RENEWED)


def line_problems(receipt: Receipt, scan: Scan) -> Iterator[Problem]:
    """Yield each named line that is missing, or does not show what it should."""
    for support in supporting_lines(receipt):
        yield from _problems_of(support, scan)
    if not receipt.recovered:
        yield from (Problem(why, (support.place,)) for support, why in _not_joined(receipt, scan))
    for credential in credentials(receipt):
        yield from expiry_problems(credential, scan)
    yield from _several_namespaces(receipt, scan)
    yield from _shared_names(receipt, scan)
    for number, one in enumerate(receipt.findings, 1):
        if one.line and one.line not in scan.named:
            why = f"line {one_line(one.line)[:16]} of finding {number} ({one_line(one.rule)}) is in none of the files"
            yield Problem(why, (f"{PREDICATE}/findings/{number - 1}/line",))


def unshown_by_lines(receipt: Receipt, scan: Scan) -> Iterator[str]:
    """Yield what the receipt says of a token, and no line can show of that very one.

    A record that was rebuilt has lost the token's accessor, so that the worker ends the token by its own lease.
    """
    if receipt.recovered:
        yield from (why for _, why in _not_joined(receipt, scan))
    for credential in credentials(receipt):
        yield from unshown_expiry(credential, scan)


def _not_joined(receipt: Receipt, scan: Scan) -> Iterator[tuple[SupportingLine, str]]:
    """Yield each line that shows the end of a used token by its own lease."""
    for support, line in _checks_lines(receipt, scan):
        if support.check.n == 1 or support.credential.lease_id:
            continue
        by_name = line.kind in _NAMING_A_LEASE and _is_own_lease(line.subject, support.credential)
        if (by_name or line.kind is Kind.LEASE_LOOKUP) and _is_used(support.credential, scan):
            why = "is about a lease of the role, and the token was opened or used: nothing shows that the lease is its"
            yield support, f"{support.name} {why}"


def _checks_lines(receipt: Receipt, scan: Scan) -> Iterator[tuple[SupportingLine, Observation]]:
    """Yield each line that is to show what its check says, where the files have it, with what it shows."""
    for support in supporting_lines(receipt):
        scanned = scan.named.get(support.sha256)
        if support.purpose == "check" and scanned is not None and scanned.observation is not None:
            yield support, scanned.observation


def _problems_of(support: SupportingLine, scan: Scan) -> Iterator[Problem]:
    name = support.name
    evidence = support.check.evidence
    scanned = scan.named.get(support.sha256)
    if scanned is None:
        yield Problem(f"{name} is in none of the files", (support.place,))
    elif scanned.observation is None:
        yield Problem(f"{name} is no line of Vault's about tokens or leases", (support.place,))
    elif why := _why_not_shown(support, scanned, scanned.observation, scan):
        yield Problem(f"{name} {why}", (support.place, *support.credential.identity))
    elif isinstance(evidence, Line):
        yield from _differing_fields(support, evidence, scanned.observation)
        yield from _another_certificate(support, scanned.observation)


def _differing_fields(support: SupportingLine, evidence: Line, line: Observation) -> Iterator[Problem]:
    """Yield where the receipt says something else of a line than the line shows."""
    fields = {
        "at": (line.at, evidence.at),
        "path": (line.path, evidence.path),
        "request_id": (line.request_id, evidence.request_id),
        "operation": (str(line.kind), evidence.operation),
    }
    differing = [name for name, (shown, stated) in fields.items() if shown != stated]
    if differing:
        why = f"is {line.kind} of {one_line(line.path)!r:.120} at {rfc3339(line.at)}, and the receipt says otherwise"
        places = tuple(support.credential.at(support.check.n, "evidence", name) for name in differing)
        yield Problem(f"{support.name} {why}", places)


def _another_certificate(support: SupportingLine, line: Observation) -> Iterator[Problem]:
    """Yield where the issuer called another certificate revoked than the lease's."""
    answer = support.credential.evidence(TARGET_N)
    shown = line.detail.get("target_name")
    if support.check.n == 1 and isinstance(answer, SignedAnswer) and shown != answer.question:
        why = f"shows certificate {one_line(str(shown))!r:.120}, and the issuer's answer is about another one"
        places = (support.credential.at(TARGET_N, "evidence", "question"), support.place)
        yield Problem(f"{support.name} {why}", places)


def _why_not_shown(support: SupportingLine, scanned: ScannedLine, line: Observation, scan: Scan) -> str | None:
    """Return why a line does not show what it is to show; None where it does. So do all `_why` below."""
    match support.purpose:
        case "listing":
            is_listing = scanned.operation == "list" and line.path.startswith(_LISTING)
            return None if is_listing and done(line) else "is no listing of leases"
        case "alive":
            return _why_not_alive(support.credential, line)
    credential = support.credential
    if not line.closing:
        return "is a request, and only Vault's answer shows that something was done"
    if support.check.n == 1:
        return _why_not_issued(credential, line)
    if scanned.wrapped:
        return "has its answer in a wrapping, so that nobody sees what Vault did"
    match support.check.n, credential.is_token:
        case 2, True:
            return _why_token_not_revoked(credential, line, scan)
        case 2, False:
            return _why_lease_not_revoked(credential, line)
        case _, True:
            return _why_token_not_gone(credential, scanned, line)
    return _why_lease_not_gone(credential, scanned, line)


def _why_not_issued(credential: Credential, line: Observation) -> str | None:
    if line.failed:
        return "shows an error, and no issue"
    if credential.lease_id:
        is_issue = line.kind is Kind.LEASE_ISSUED and line.subject == credential.lease_id
        return None if is_issue else "does not show the issue of this lease"
    if line.kind is not Kind.TOKEN_CREATED or line.subject != credential.accessor:
        return "does not show the creation of this token"
    if credential.grant is not None and line.path != f"auth/token/create/{credential.grant.role}":
        return "shows a token of another role than the grant says"
    return None


def _why_token_not_revoked(credential: Credential, line: Observation, scan: Scan) -> str | None:
    prefix = prefix_of(line.path, "revoke-prefix")
    if prefix is not None and not is_below(_role_path(credential), prefix):
        return "revokes by a prefix that does not cover this token"
    if prefix is not None:
        return _FAILED if line.error else None
    if line.kind is Kind.LEASE_REVOKED and _is_own_lease(line.subject, credential):
        # a token whose accessor was lost in a crash is revoked by its own lease
        return _FAILED if line.failed else None
    if with_subjects([*scan.observations, line])[-1].subject != credential.accessor:
        return "is about another token"
    has_begun = line.kind is Kind.TOKEN_LOOKUP and done(line) and "revocation_begun" in line.detail
    is_repeated = line.kind is Kind.TOKEN_REVOKED and "warnings" in line.detail
    if (has_begun or is_repeated) and not _has_unanswered_revocation(credential, scan):
        return "shows no revocation that was done: the token was gone already"
    if has_begun or is_repeated:
        return None
    if line.kind is not Kind.TOKEN_REVOKED:
        return "shows no revocation"
    return _FAILED if line.failed else None


def _has_unanswered_revocation(credential: Credential, scan: Scan) -> bool:
    """Return whether an earlier revocation of the token has no answer, and so may have been done."""
    named = (o for o in scan.observations if o.kind is Kind.TOKEN_REVOKED and o.subject == credential.accessor)
    revocations = [o for o in named if "denied" not in o.detail]
    answered = {o.request_id for o in revocations if o.closing}
    return any(o.request_id not in answered for o in revocations)


def _why_lease_not_revoked(credential: Credential, line: Observation) -> str | None:
    if line.kind is not Kind.LEASE_REVOKED:
        return "shows no revocation of a lease"
    # a request with the id in its body shows the id's HMAC, and the worker sends none
    if line.subject != credential.lease_id:
        return "is about another lease"
    return _FAILED if line.failed else None


def _why_lease_not_gone(credential: Credential, scanned: ScannedLine, line: Observation) -> str | None:
    is_lookup = line.kind is Kind.LEASE_LOOKUP and is_hashed(line.subject)
    is_renewal = line.kind is Kind.RENEWED and line.subject == credential.lease_id
    if is_lookup or is_renewal:
        return _why_not_gone(scanned, line, "lease")
    return "is no look-up of this lease"


def _why_token_not_gone(credential: Credential, scanned: ScannedLine, line: Observation) -> str | None:
    is_lookup = line.kind is Kind.LEASE_LOOKUP and is_hashed(line.subject)
    is_renewal = line.kind is Kind.RENEWED and _is_own_lease(line.subject, credential)
    if is_lookup or is_renewal:
        return _why_not_gone(scanned, line, "lease")
    if line.kind is not Kind.TOKEN_LOOKUP:
        return "is no look-up of a token"
    if line.subject != credential.accessor:
        return "is about another token"
    if done(line) and "revocation_begun" in line.detail:
        return None
    return _why_not_gone(scanned, line, "token")


def _why_not_gone(scanned: ScannedLine, line: Observation, what: str) -> str | None:
    """Return why a look-up does not say that something is gone.

    Of a lease the reason may be an HMAC. Then the error is plain: neither a refusal nor a parameter of a wrong type is
    an invalid request.
    """
    if not line.failed:
        return f"found the {what} alive"
    says_so = _GONE[line.kind] in line.error
    is_hidden = is_hashed(line.error) and line.kind is not Kind.TOKEN_LOOKUP and _INVALID in scanned.error
    if says_so or is_hidden:
        return None
    return f"failed for another reason than that there is no such {what}"


def _why_not_alive(credential: Credential, line: Observation) -> str | None:
    # a token whose accessor is not known any more, as after a recovery, is looked up by its own lease
    kinds = {Kind.LEASE_LOOKUP, Kind.RENEWED} | ({Kind.TOKEN_LOOKUP} if credential.is_token else set())
    if line.kind not in kinds or not done(line):
        return "is no look-up that found it"
    is_other = line.kind is Kind.TOKEN_LOOKUP and line.subject != credential.accessor
    return "is about another token" if is_other else None


def _role_path(credential: Credential) -> str:
    """Return the path below which Vault keeps the leases of a token's role."""
    return f"auth/token/create/{credential.grant.role if credential.grant else ''}/"


def _is_own_lease(lease_id: str, token: Credential) -> bool:
    return lease_id.startswith(_role_path(token)) and is_token_lease(lease_id)


def _is_used(credential: Credential, scan: Scan) -> bool:
    """Return whether somebody opened a token's wrapping, or used the token."""
    lines = scan.observations
    derived = derived_tokens(lines)
    opened = (Kind.UNWRAPPED, Kind.REWRAPPED, Kind.CUBBYHOLE_READ)
    return any(
        o.actor == credential.accessor or (o.kind in opened and owning_token(o, derived) == credential.accessor)
        for o in lines
    )


def _several_namespaces(receipt: Receipt, scan: Scan) -> Iterator[Problem]:
    """Yield where the receipt's lines are of several namespaces."""
    named = ((support, scan.named.get(support.sha256)) for support in supporting_lines(receipt))
    known = [(support, one) for support, one in named if one is not None and one.observation is not None]
    places = {one.namespace_id: support.place for support, one in known if not one.opens_wrapping}
    if len(places) > 1:
        ids = ", ".join(f"{one_line(each)!r:.40}" for each in sorted(places))
        yield Problem(f"the lines are of {len(places)} namespaces: {ids}", tuple(places.values()))


def _shared_names(receipt: Receipt, scan: Scan) -> Iterator[Problem]:
    """Yield where the look-ups of two credentials name one lease."""
    owners: dict[str, SupportingLine] = {}
    for support, line in _checks_lines(receipt, scan):
        if support.check.n != 3 or line.kind is not Kind.LEASE_LOOKUP:
            continue
        other = owners.setdefault(line.subject, support)
        if other.credential.place != support.credential.place:
            both = f"{other.credential.name} and {support.credential.name}"
            why = f"line {support.sha256[:16]} looks up the same lease for {both}"
            yield Problem(why, (other.place, support.place))
