"""Whether each verdict of a receipt follows from the evidence in it.

The rules are those by which `jitvault.lifecycle.confirmation.checks` and `confirm` reach a verdict, written anew from
the outside: from the evidence alone.

1. The checks of a credential have their numbers, each number once.
2. A check that holds has evidence of a kind that this check can have.
3. A proven verdict has the checks that it needs, all of which hold.
4. The times fit: revoked after the issue, gone after the revocation, and check 4 covers exactly that interval.
5. The task is called confirmed if, and only if, each credential is proven and check 7 holds.
6. The lists of the receipt fit each other, and each lease is one of the access that was approved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from jitvault.documents.receipt import Receipt
from jitvault.formats.shorten import one_line
from jitvault.lifecycle.confirmation.timeline import prefix_of
from jitvault.model.evidence import Expiry, Interval, Line, NoToken, Quiet
from jitvault.model.proof_check import NAMES, QUIET_N, TARGET_N
from jitvault.model.states import DEAD, State, Verdict
from jitvault.verification.evidence import QUIET_MS, evidence_of, time_of
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE, Credential, accessors_of, credentials

_ALWAYS_NEEDED = (1, 2, 3, 4, 5)
# where Vault was made to forget a lease, its answers about the end do not count, and the target has to say it
_NEEDED_IF_FORCED = (1, 3, 5, TARGET_N)
_PROVEN = frozenset({Verdict.AUDIT_CONFIRMED, Verdict.TARGET_CONFIRMED, Verdict.EXPIRED})
_UNENDED = frozenset({Verdict.REVOKE_FAILED, Verdict.IRREVOCABLE, Verdict.UNVERIFIABLE})
_PROOF = f"{PREDICATE}/proof"
_CLOSED_CHILDREN = frozenset({State.SEALED, State.CANCELLED, State.DENIED, State.LAPSED})


def verdict_problems(receipt: Receipt) -> Iterator[Problem]:
    """Yield what does not follow in the receipt; nothing where all does."""
    for credential in credentials(receipt):
        yield from _check_problems(credential)
        if credential.proof.verdict in _PROVEN:
            yield from _missing_checks(credential, forced=receipt.proof.forced is not None)
            yield from _time_problems(credential)
            if not credential.lease_id and not credential.accessor:
                why = f"{credential.name} is called {credential.proof.verdict}, and no grant says which token it is"
                yield Problem(why, (credential.verdict_place, *credential.identity))
        elif credential.proof.verdict is Verdict.NEVER_ISSUED:
            yield from _never_issued(credential)
    yield from _list_problems(receipt)
    yield from _lease_problems(receipt)
    yield from _task_problems(receipt)


def _check_problems(credential: Credential) -> Iterator[Problem]:
    counts = Counter(check.n for check in credential.proof.checks)
    # 1
    for n, count in counts.items():
        if count > 1:
            yield Problem(f"{credential.name} has check {n} {count} times", (f"{credential.place}/checks",))
    for check in credential.proof.checks:
        if check.n not in NAMES:
            why = f"{credential.name} has a check {check.n}, and there is no such check"
            yield Problem(why, (credential.at(check.n, "n"),))
        elif check.n == QUIET_N and credential.lease_id:
            why = f"{credential.name} has check {QUIET_N}, which is about a task"
            yield Problem(why, (credential.at(check.n, "n"),))
        # 2
        elif check.ok and evidence_of(check) is None:
            kind = type(check.evidence).__struct_config__.tag
            why = f"{credential.name}, check {check.n} ({check.name}): its evidence shows nothing: {kind}"
            yield Problem(why, (credential.at(check.n, "evidence"), credential.at(check.n, "n")))


def _missing_checks(credential: Credential, *, forced: bool) -> Iterator[Problem]:
    # 3
    holds = {check.n for check in credential.proof.checks if check.ok}
    verdict = credential.proof.verdict
    if forced and verdict is Verdict.TARGET_CONFIRMED and holds.issuperset(_NEEDED_IF_FORCED):
        return
    needed = (*_ALWAYS_NEEDED, TARGET_N) if verdict is Verdict.TARGET_CONFIRMED else _ALWAYS_NEEDED
    for n in needed:
        if n not in holds:
            why = f"{credential.name} is called {verdict} although check {n} ({NAMES[n]}) does not hold"
            yield Problem(why, (credential.verdict_place, credential.at(n)))
    if TARGET_N in holds and verdict is Verdict.AUDIT_CONFIRMED:
        why = f"{credential.name} is called {verdict}, and check {TARGET_N} says more"
        yield Problem(why, (credential.verdict_place, credential.at(TARGET_N)))
    end = credential.evidence(2)
    has_expired = isinstance(end, Expiry)
    if end is not None and has_expired is not (verdict is Verdict.EXPIRED):
        shown = "its time was over" if has_expired else "it was revoked"
        why = f"{credential.name} is called {verdict}, and its evidence says that {shown}"
        yield Problem(why, (credential.verdict_place, credential.at(2, "evidence")))
    if credential.lease_id and verdict is Verdict.EXPIRED:
        why = f"{credential.name} is called expired: only a token can be proven in that way"
        yield Problem(why, (credential.verdict_place,))


def _time_problems(credential: Credential) -> Iterator[Problem]:
    # 4
    issue, end, gone, between = (credential.evidence(n) for n in (1, 2, 3, 4))
    begun, over = time_of(issue), time_of(gone)
    if begun is None or over is None:
        return
    steps = [("issued", 1, begun), ("revoked", 2, time_of(end)), ("seen gone", 3, over)]
    known = [(name, n, at) for name, n, at in steps if at is not None]
    for (before, n, first), (after, m, second) in pairwise(known):
        # an expiry and the look-up after it are shown by one time or by two, in either order
        if second < first and not (isinstance(end, Expiry) and after == "seen gone"):
            why = f"{credential.name} was {after} before it was {before}"
            yield Problem(why, (credential.at(n, "evidence", "at"), credential.at(m, "evidence", "at")))
    if isinstance(between, Interval):
        pairs = (("begin", 1, between.begin, begun), ("end", 3, between.end, over))
        for name, n, stated, shown in pairs:
            if stated != shown:
                why = f"{credential.name}: check 4 covers another interval than from its issue to its look-up"
                yield Problem(why, (credential.at(4, "evidence", name), credential.at(n, "evidence", "at")))


def _never_issued(credential: Credential) -> Iterator[Problem]:
    at = (credential.verdict_place,)
    if credential.lease_id:
        yield Problem(f"{credential.name} is called never issued, and a lease that is known was issued", at)
    elif credential.accessor:
        why = f"{credential.name} is called never issued, and its grant has an accessor, which Vault gives a token"
        yield Problem(why, (*at, *credential.identity))
    elif any(check.ok for check in credential.proof.checks if check.n != QUIET_N):
        yield Problem(
            f"{credential.name} is called never issued, and has checks of one that was",
            (*at, f"{credential.place}/checks"),
        )


def _list_problems(receipt: Receipt) -> Iterator[Problem]:
    """Yield where the receipt's lists do not fit each other."""
    # 6
    proof, grants = receipt.proof, f"{PREDICATE}/grants"
    made = [(n, grant) for n, grant in enumerate(receipt.grants[:-1]) if grant.accessor_hmac]
    if [grant.verdict for _, grant in made] != [token.verdict for token in proof.earlier_tokens]:
        differing = [
            place
            for (n, grant), (m, token) in zip(made, enumerate(proof.earlier_tokens), strict=False)
            if grant.verdict is not token.verdict
            for place in (f"{_PROOF}/earlier_tokens/{m}/verdict", f"{grants}/{n}/verdict")
        ]
        why = "the earlier tokens of the proof are not those of the grants"
        yield Problem(why, tuple(differing) or (f"{_PROOF}/earlier_tokens", grants))
    last = receipt.grants[-1].verdict if receipt.grants else Verdict.NEVER_ISSUED
    if proof.token.verdict is not last:
        at = f"{grants}/{len(receipt.grants) - 1}/verdict" if receipt.grants else grants
        why = f"the proof calls the task's token {proof.token.verdict}, and its grant {last}"
        yield Problem(why, (f"{_PROOF}/token/verdict", at))
    for name, at, values in (
        ("lease", f"{_PROOF}/leases", [lease.lease_id for lease in proof.leases]),
        ("token", grants, [grant.accessor_hmac for grant in receipt.grants if grant.accessor_hmac]),
        ("attempt", grants, [str(grant.attempt) for grant in receipt.grants]),
    ):
        for value, count in Counter(values).items():
            if count > 1:
                yield Problem(f"the {name} {one_line(str(value))} is listed {count} times", (at,))
    if proof.leases and not accessors_of(receipt):
        yield Problem("there are leases, and no token that can have read them", (grants,))
    ids = {grant.grant for grant in receipt.grants}
    for n, one in enumerate(receipt.extensions):
        if one.replaces is not None and one.replaces not in ids:
            why = f"extension {n + 1} replaced the token of a grant that is none of the receipt's"
            yield Problem(why, (f"{PREDICATE}/extensions/{n}/replaces", grants))
    yield from _shared_lines(receipt)


def _lease_problems(receipt: Receipt) -> Iterator[Problem]:
    """Yield leases that none of the approved access gives, and those with an error although they ended."""
    for n, lease in enumerate(receipt.proof.leases):
        at = f"{_PROOF}/leases/{n}"
        paths = {one.path: one.template for one in receipt.access}
        path = lease.lease_id.rpartition("/")[0]
        if lease.template != paths.get(path, path):
            why = f"lease {one_line(lease.lease_id)} is not one of template {one_line(lease.template)!r:.80}"
            yield Problem(why, (f"{at}/template", f"{at}/lease_id", f"{PREDICATE}/access"))
        if lease.error is not None and lease.verdict not in _UNENDED:
            why = f"lease {one_line(lease.lease_id)} is called {lease.verdict} and has an error of its revocation"
            yield Problem(why, (f"{at}/error", f"{at}/verdict"))


def _shared_lines(receipt: Receipt) -> Iterator[Problem]:
    """Yield each line that is to show the end of two credentials."""
    owners: dict[tuple[int, str], Credential] = {}
    for credential in credentials(receipt):
        # one revocation by a prefix ends many tokens
        for n in (1, 2, 3):
            evidence = credential.evidence(n)
            if not isinstance(evidence, Line):
                continue
            if n == 2 and not credential.lease_id and prefix_of(evidence.path, "revoke-prefix") is not None:
                continue
            other = owners.setdefault((n, evidence.sha256), credential)
            if other != credential:
                both = f"{other.name} and of {credential.name}"
                at = (other.at(n, "evidence", "sha256"), credential.at(n, "evidence", "sha256"))
                yield Problem(f"line {evidence.sha256[:16]} is check {n} both of {both}", at)


def _task_problems(receipt: Receipt) -> Iterator[Problem]:
    # 5
    proof = receipt.proof
    if proof.task_id != receipt.task:
        why = f"the proof is about task {one_line(proof.task_id)!r:.80}, and the receipt is about another one"
        yield Problem(why, (f"{_PROOF}/task_id", f"{PREDICATE}/task"))
    if (proof.state, proof.confirmed) not in ((State.CONFIRMED, True), (State.UNVERIFIED, False)):
        why = f"it says {proof.state} with confirmed: {str(proof.confirmed).lower()}, which no closed task is"
        yield Problem(why, (f"{_PROOF}/state", f"{_PROOF}/confirmed"))
    if receipt.ended is not None and receipt.ended.reason != proof.end_reason:
        why = f"the task ended because of {one_line(receipt.ended.reason)}, and its proof says {proof.end_reason}"
        yield Problem(why, (f"{PREDICATE}/ended/reason", f"{_PROOF}/end_reason"))
    asked = _is_target_asked(receipt)
    if proof.target_asked is not asked:
        why = f"it says that the target was {'' if proof.target_asked else 'not '}asked, and its checks say otherwise"
        yield Problem(why, (f"{_PROOF}/target_asked",))
    if proof.confirmed:
        yield from _unproven_credentials(receipt)
        yield from _not_quiet(receipt)


def _is_target_asked(receipt: Receipt) -> bool | None:
    """Return whether each lease has the target's answer; None without one."""
    leases = [lease.check(TARGET_N) for lease in receipt.proof.leases]
    return None not in leases if leases else None


def _unproven_credentials(receipt: Receipt) -> Iterator[Problem]:
    """Yield what is not proven dead, which a confirmed task cannot have."""
    at = f"{_PROOF}/confirmed"
    for credential in credentials(receipt):
        if credential.proof.verdict not in DEAD:
            why = f"the task is called confirmed, and {credential.name} is {credential.proof.verdict}"
            yield Problem(why, (credential.verdict_place, at))
        elif (target := credential.check(TARGET_N)) is not None and not target.ok:
            why = f"the task is called confirmed, and check {TARGET_N} of {credential.name} does not hold"
            yield Problem(why, (credential.at(TARGET_N, "ok"), at))
    if receipt.policy.obligations.confirm == "target":
        for n, lease in enumerate(receipt.proof.leases):
            if lease.verdict is not Verdict.TARGET_CONFIRMED:
                why = f"policy demands proof by the target, and lease {one_line(lease.lease_id)} is {lease.verdict}"
                yield Problem(why, (f"{_PROOF}/leases/{n}/verdict", f"{PREDICATE}/policy/obligations/confirm"))
    for n, child in enumerate(receipt.children):
        if child.state not in _CLOSED_CHILDREN:
            why = f"the task is called confirmed, and its delegated task {one_line(child.task)} is {child.state}"
            yield Problem(why, (f"{PREDICATE}/children/{n}/state", at))


def _not_quiet(receipt: Receipt) -> Iterator[Problem]:
    token = next(credentials(receipt))
    quiet = token.check(QUIET_N)
    evidence = token.evidence(QUIET_N)
    if quiet is None or not quiet.ok:
        why = f"the task is called confirmed without check {QUIET_N} ({NAMES[QUIET_N]})"
        yield Problem(why, (token.at(QUIET_N),))
    elif evidence is not None and isinstance(evidence, NoToken) is bool(accessors_of(receipt)):
        why = f"check {QUIET_N} and the grants disagree whether there was a token"
        yield Problem(why, (token.at(QUIET_N, "evidence"), f"{PREDICATE}/grants"))
    elif isinstance(evidence, Quiet) and evidence.ms < QUIET_MS:
        why = f"check {QUIET_N} has {evidence.ms} ms of quiet, and needs {QUIET_MS}"
        yield Problem(why, (token.at(QUIET_N, "evidence", "ms"),))
