"""Whether a receipt's lines are of jitvault's namespace, and its worker's.

Namespaces and entities are compared by their ids, as the auditor gave them. The same paths exist in every namespace,
and whoever administers another one can name a policy there as they like.

The revocation of a token by its accessor counts by whomever, since Vault itself says that it was done. A lease counts
only if the worker revoked it first: where somebody else did, nobody knows whether the target was reached, and the
worker's own revocation then found nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterator

from jitvault.audit.observation import Kind, Observation
from jitvault.documents.receipt import Receipt
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.confirmation.timeline import prefix_of
from jitvault.verification.audit_scan import Scan, ScannedLine, SupportingLine, supporting_lines
from jitvault.verification.outcome import Checked, Problem
from jitvault.verification.trust import Trust


def check_callers(receipt: Receipt, scan: Scan | None, trust: Trust) -> Checked:
    """Check by whom, and in which namespace, the receipt's lines were caused."""
    missing = [
        *(["--audit FILE"] if scan is None else ()),
        *(() if trust.namespace_id else ["--namespace ID"]),
        *(() if trust.workers else ["--worker-entity ID"]),
    ]
    problems = tuple(_problems(receipt, scan, trust)) if scan is not None else ()
    lines = list(supporting_lines(receipt))
    absent = sum(line.sha256 not in scan.named for line in lines) if scan is not None else 0
    why_not_made = f"not looked at: {absent} of {len(lines)} lines, which are in none of the files" if absent else ""
    if missing:
        why_not_made = f"not checked whether the lines are the worker's, in jitvault's namespace ({', '.join(missing)})"
    ours = one_line(trust.namespace_id)
    seen = f"{len(lines)} lines are of namespace {ours}, and by the worker where they have to be"
    return Checked("worker", seen, problems, why_not_made=why_not_made)


def _problems(receipt: Receipt, scan: Scan, trust: Trust) -> Iterator[Problem]:
    ours = trust.namespace_id
    for support in supporting_lines(receipt):
        scanned = scan.named.get(support.sha256)
        if scanned is None or scanned.observation is None:
            # that is a problem of the lines
            continue
        line = scanned.observation
        if ours and scanned.namespace_id != ours and not scanned.opens_wrapping:
            why = f"{support.name} is of namespace {_quoted(scanned.namespace_id)}, and jitvault's is {_quoted(ours)}"
            yield Problem(why, (support.place,))
        if not trust.workers:
            continue
        if scanned.entity not in trust.workers and not _counts_by_anyone(support, line):
            why = f"{support.name} was caused by entity {_quoted(scanned.entity)}, which is none of the worker's"
            yield Problem(why, (support.place,))
        elif support.check.n == 2 and support.credential.lease_id:
            yield from _revoked_before(support, line, scan, trust)


def _counts_by_anyone(support: SupportingLine, line: Observation) -> bool:
    """Return whether a line counts whoever caused it: a lease's issue, or a token's revocation."""
    match support.purpose, support.check.n, support.credential.is_token:
        case "check", 1, False:
            # the task's token read the lease
            return True
        case "check", 2, True:
            by_accessor = line.kind is Kind.TOKEN_REVOKED and "warnings" not in line.detail
            return by_accessor or prefix_of(line.path, "revoke-prefix") is not None
    return False


def _revoked_before(support: SupportingLine, line: Observation, scan: Scan, trust: Trust) -> Iterator[Problem]:
    """Yield the revocation of a lease by somebody else before the worker's."""
    lease = support.credential
    for other in scan.about:
        if other.entity not in trust.workers and _revokes(other, lease.lease_id, before=line):
            by = _quoted(other.entity)
            why = f"{lease.name} was revoked before by entity {by}: the worker's own proves nothing then"
            yield Problem(why, (support.place,))
            return


def _revokes(scanned: ScannedLine, lease_id: str, *, before: Observation) -> bool:
    line = scanned.observation
    if line is None or line.kind is not Kind.LEASE_REVOKED or not line.closing or "denied" in line.detail:
        return False
    return line.subject == lease_id and line.at < before.at


def _quoted(text: str) -> str:
    return f"{one_line(text)!r:.80}"
