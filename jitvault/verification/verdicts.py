"""Whether each verdict of a receipt follows from the evidence in it.

The rules are those by which `jitvault.lifecycle.confirmation.checks` and `confirm` reach a verdict, written anew from
the outside: from the evidence alone.

1. The checks of a credential have their numbers, each number once.
2. A check that holds has evidence of a kind that this check can have.
3. A proven verdict has the checks that it needs, all of which hold.
4. The times fit: revoked after the issue, gone after the revocation, and check 4 covers exactly that interval.
5. The task is called confirmed if, and only if, each credential is proven and check 7 holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from jitvault.documents.receipt import Receipt
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.confirmation.timeline import prefix_of
from jitvault.model.evidence import Evidence, Expiry, Interval, Line, NoToken, Quiet
from jitvault.model.proof_check import NAMES, QUIET_N, TARGET_N
from jitvault.model.states import DEAD, State, Verdict
from jitvault.verification.evidence import QUIET_MS, stated, time_of
from jitvault.verification.receipt import Credential, credentials

_ALWAYS_NEEDED = (1, 2, 3, 4, 5)
# where Vault was made to forget a lease, its answers about the end do not count, and the target has to say it
_NEEDED_IF_FORCED = (1, 3, 5, TARGET_N)
_PROVEN = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED})
_CLOSED_CHILDREN = frozenset({State.SEALED, State.CANCELLED, State.DENIED, State.LAPSED})


def verdict_problems(receipt: Receipt) -> Iterator[str]:
    """Yield what does not follow in the receipt; nothing where all does."""
    for credential in credentials(receipt):
        yield from _check_problems(credential)
        if credential.said.verdict in _PROVEN:
            yield from _missing_checks(credential, forced=receipt.proof.forced is not None)
            yield from _time_problems(credential)
            if not credential.lease_id and not credential.accessor:
                yield f"{_called(credential)} is called {credential.said.verdict}, and no grant says which token it is"
        elif credential.said.verdict is Verdict.NEVER_ISSUED:
            yield from _never_issued(credential)
    yield from _list_problems(receipt)
    yield from _task_problems(receipt)


def _check_problems(credential: Credential) -> Iterator[str]:
    counts = Counter(check.n for check in credential.said.checks)
    # 1
    for n, count in counts.items():
        if count > 1:
            yield f"{_called(credential)} has check {n} {count} times"
    for check in credential.said.checks:
        if check.n not in NAMES:
            yield f"{_called(credential)} has a check {check.n}, and there is no such check"
        elif check.n == QUIET_N and credential.lease_id:
            yield f"{_called(credential)} has check {QUIET_N}, which is about a task"
        # 2
        elif check.ok and stated(check) is None:
            kind = type(check.evidence).__struct_config__.tag
            yield f"{_called(credential)}, check {check.n} ({check.name}): its evidence shows nothing: {kind}"


def _missing_checks(credential: Credential, *, forced: bool) -> Iterator[str]:
    # 3
    holds = {check.n for check in credential.said.checks if check.ok}
    verdict = credential.said.verdict
    if forced and verdict is Verdict.TARGET_CONFIRMED and holds.issuperset(_NEEDED_IF_FORCED):
        return
    needed = (*_ALWAYS_NEEDED, TARGET_N) if verdict is Verdict.TARGET_CONFIRMED else _ALWAYS_NEEDED
    for n in needed:
        if n not in holds:
            yield f"{_called(credential)} is called {verdict} although check {n} ({NAMES[n]}) does not hold"
    end = _stated(credential, 2)
    has_expired = isinstance(end, Expiry)
    if end is not None and has_expired is not (verdict is Verdict.EXPIRED):
        shown = "its time was over" if has_expired else "it was revoked"
        yield f"{_called(credential)} is called {verdict}, and its evidence says that {shown}"
    if credential.lease_id and verdict is Verdict.EXPIRED:
        yield f"{_called(credential)} is called expired: only a token can be proven in that way"


def _time_problems(credential: Credential) -> Iterator[str]:
    # 4
    issue, end, gone, between = (_stated(credential, n) for n in (1, 2, 3, 4))
    begun, over = time_of(issue), time_of(gone)
    if begun is None or over is None:
        return
    steps = [("issued", begun), ("revoked", time_of(end)), ("seen gone", over)]
    known = [(name, at) for name, at in steps if at is not None]
    for (before, first), (after, second) in pairwise(known):
        # an expiry and the look-up after it are shown by one time or by two, in either order
        if second < first and not (isinstance(end, Expiry) and after == "seen gone"):
            yield f"{_called(credential)} was {after} before it was {before}"
    if isinstance(between, Interval) and (between.begin, between.end) != (begun, over):
        yield f"{_called(credential)}: check 4 covers another interval than from its issue to its look-up"


def _never_issued(credential: Credential) -> Iterator[str]:
    if credential.lease_id:
        yield f"{_called(credential)} is called never issued, and a lease that is known was issued"
    elif credential.accessor:
        yield f"{_called(credential)} is called never issued, and its grant has an accessor, which Vault gives a token"
    elif any(check.ok for check in credential.said.checks if check.n != QUIET_N):
        yield f"{_called(credential)} is called never issued, and has checks of one that was"


def _list_problems(receipt: Receipt) -> Iterator[str]:
    """Yield where the receipt's lists do not fit each other."""
    proof = receipt.proof
    made = [grant for grant in receipt.grants[:-1] if grant.accessor_hmac]
    if [grant.verdict for grant in made] != [token.verdict for token in proof.earlier_tokens]:
        yield "the earlier tokens of the proof are not those of the grants"
    last = receipt.grants[-1].verdict if receipt.grants else Verdict.NEVER_ISSUED
    if proof.token.verdict is not last:
        yield f"the proof calls the task's token {proof.token.verdict}, and its grant {last}"
    for name, values in (
        ("lease", [lease.lease_id for lease in proof.leases]),
        ("token", [grant.accessor_hmac for grant in receipt.grants if grant.accessor_hmac]),
    ):
        for value, count in Counter(values).items():
            if count > 1:
                yield f"the {name} {one_line(str(value))} is listed {count} times"
    if proof.leases and not any(grant.accessor_hmac for grant in receipt.grants):
        yield "there are leases, and no token that can have read them"
    yield from _shared_lines(receipt)


def _shared_lines(receipt: Receipt) -> Iterator[str]:
    """Yield each line that is to show the end of two credentials."""
    owners: dict[tuple[int, str], str] = {}
    for credential in credentials(receipt):
        # one revocation by a prefix ends many tokens
        for n in (1, 2, 3):
            found = _stated(credential, n)
            if not isinstance(found, Line):
                continue
            if n == 2 and not credential.lease_id and prefix_of(found.path, "revoke-prefix") is not None:
                continue
            other = owners.setdefault((n, found.sha256), credential.name)
            if other != credential.name:
                yield f"line {found.sha256[:16]} is check {n} both of {one_line(other)} and of {_called(credential)}"


def _task_problems(receipt: Receipt) -> Iterator[str]:
    # 5
    proof = receipt.proof
    if proof.task_id != receipt.task:
        yield f"the proof is about task {one_line(proof.task_id)!r:.80}, and the receipt is about another one"
    if (proof.state, proof.confirmed) not in ((State.CONFIRMED, True), (State.UNVERIFIED, False)):
        yield f"it says {proof.state} with confirmed: {str(proof.confirmed).lower()}, which no closed task is"
    if proof.confirmed:
        yield from _unproven_credentials(receipt)
        yield from _not_quiet(receipt)


def _unproven_credentials(receipt: Receipt) -> Iterator[str]:
    """Yield what is not proven dead, which a confirmed task cannot have."""
    for credential in credentials(receipt):
        if credential.said.verdict not in DEAD:
            yield f"the task is called confirmed, and {_called(credential)} is {credential.said.verdict}"
        elif (target := credential.check(TARGET_N)) is not None and not target.ok:
            yield f"the task is called confirmed, and check {TARGET_N} of {_called(credential)} does not hold"
    if receipt.policy.obligations.confirm == "target":
        for lease in receipt.proof.leases:
            if lease.verdict is not Verdict.TARGET_CONFIRMED:
                yield f"policy demands proof by the target, and lease {one_line(lease.lease_id)} is {lease.verdict}"
    for child in receipt.children:
        if child.state not in _CLOSED_CHILDREN:
            yield f"the task is called confirmed, and its delegated task {one_line(child.task)} is {child.state}"


def _not_quiet(receipt: Receipt) -> Iterator[str]:
    quiet = next((check for check in receipt.proof.token.checks if check.n == QUIET_N), None)
    found = stated(quiet)
    if quiet is None or not quiet.ok:
        yield f"the task is called confirmed without check {QUIET_N} ({NAMES[QUIET_N]})"
    elif found is not None and isinstance(found, NoToken) is any(grant.accessor_hmac for grant in receipt.grants):
        yield f"check {QUIET_N} and the grants disagree whether there was a token"
    elif isinstance(found, Quiet) and found.ms < QUIET_MS:
        yield f"check {QUIET_N} has {found.ms} ms of quiet, and needs {QUIET_MS}"


def _stated(credential: Credential, n: int) -> Evidence | None:
    """Return the evidence of a check that holds, None where it does not hold."""
    return stated(credential.check(n))


def _called(credential: Credential) -> str:
    return one_line(credential.name)
