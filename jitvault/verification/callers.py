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
from jitvault.verification.audit_scan import Rest, Scan, SeenLine, resting_lines
from jitvault.verification.outcome import Checked, Problem
from jitvault.verification.trust import Trust


def check_callers(receipt: Receipt, found: Scan | None, trust: Trust) -> Checked:
    """Check by whom, and in which namespace, the receipt's lines were caused."""
    missing = [
        *(["--audit FILE"] if found is None else ()),
        *(() if trust.namespace else ["--namespace ID"]),
        *(() if trust.workers else ["--worker-entity ID"]),
    ]
    problems = tuple(_problems(receipt, found, trust)) if found is not None else ()
    rests = list(resting_lines(receipt))
    absent = sum(rest.line not in found.named for rest in rests) if found is not None else 0
    why_not_made = f"not looked at: {absent} of {len(rests)} lines, which are in none of the files" if absent else ""
    if missing:
        why_not_made = f"not checked whether the lines are the worker's, in jitvault's namespace ({', '.join(missing)})"
    seen = f"{len(rests)} lines are of namespace {one_line(trust.namespace)}, and by the worker where they have to be"
    return Checked("worker", seen, problems, why_not_made=why_not_made)


def _problems(receipt: Receipt, found: Scan, trust: Trust) -> Iterator[Problem]:
    for rest in resting_lines(receipt):
        seen = found.named.get(rest.line)
        if seen is None or seen.observation is None:
            # that is a problem of the lines
            continue
        where = rest.called
        if trust.namespace and seen.namespace_id != trust.namespace and not seen.opens_wrapping:
            why = f"{where} is of namespace {_called(seen.namespace_id)}, and jitvault's is {_called(trust.namespace)}"
            yield Problem(why, (rest.place,))
        if not trust.workers:
            continue
        if _is_the_workers(rest, seen.observation) and seen.entity not in trust.workers:
            why = f"{where} was caused by entity {_called(seen.entity)}, which is none of the worker's"
            yield Problem(why, (rest.place,))
        elif rest.check.n == 2 and rest.credential.lease_id:
            yield from _revoked_before(rest, seen.observation, found, trust)


def _is_the_workers(rest: Rest, line: Observation) -> bool:
    """Return whether a line counts only if the worker caused it."""
    if rest.part == "line" and rest.check.n == 1 and rest.credential.lease_id:
        # the task's token read it
        return False
    if rest.part != "line" or rest.check.n != 2 or rest.credential.lease_id:
        return True
    by_anyone = line.kind is Kind.TOKEN_REVOKED and "warnings" not in line.detail
    return not by_anyone and prefix_of(line.path, "revoke-prefix") is None


def _revoked_before(rest: Rest, line: Observation, found: Scan, trust: Trust) -> Iterator[Problem]:
    """Yield the revocation of a lease by somebody else before the worker's."""
    for other in found.about:
        if other.entity not in trust.workers and _revokes(other, rest.credential.lease_id, before=line):
            name = one_line(rest.credential.name)
            why = f"{name} was revoked before by entity {_called(other.entity)}: the worker's own proves nothing then"
            yield Problem(why, (rest.place,))
            return


def _revokes(seen: SeenLine, lease_id: str, *, before: Observation) -> bool:
    line = seen.observation
    if line is None or line.kind is not Kind.LEASE_REVOKED or not line.closing or "denied" in line.detail:
        return False
    return line.subject == lease_id and line.at < before.at


def _called(text: str) -> str:
    return f"{one_line(text)!r:.80}"
