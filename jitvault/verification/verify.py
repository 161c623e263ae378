"""Verify a receipt: what it rests on, one thing after the other.

1. The signature, by a key that the auditor has, and the key's version.
2. The content: a receipt in the one form in which jitvault signs.
3. Each verdict follows from the evidence that stands beside it.
4. Approvals, extensions and digests fit each other.
5. With `status --json`: the history is the one whose hash the receipt names.
6. With audit files: each line that the receipt names is there and shows what the receipt says.
7. With audit files: they show no lease, token, use or act that the receipt leaves out.
8. With the ids of jitvault's namespace and of the worker's entities: those lines are of that namespace, and the
   worker's where they have to be.
9. The task was closed with proof.

A check without its input was not made: then nothing is said to hold as a whole. The history is no such input, since
whoever can have a receipt signed can write one as well.

Nothing here knows Vault, a ledger or settings: an auditor runs it on copies of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jitvault.documents.receipt import Receipt
from jitvault.documents.signed import RECEIPT_KEY
from jitvault.formats.shorten import one_line
from jitvault.model.proof_check import NOT_ASKED, TARGET_N
from jitvault.verification.approvals import (
    approval_problems,
    extension_problems,
    may_be_lost,
    needed_approvals,
)
from jitvault.verification.audit_scan import Scan, scan, wanted_lines
from jitvault.verification.callers import check_callers
from jitvault.verification.history import History, history_problems
from jitvault.verification.keys import ReceiptKey
from jitvault.verification.left_out import left_out_problems, unclaimed_tokens
from jitvault.verification.line_claims import line_problems, unshown_by_lines
from jitvault.verification.log_lines import LogLine
from jitvault.verification.outcome import Checked, Outcome
from jitvault.verification.receipt import credentials, read_content
from jitvault.verification.signature import Signed, open_envelope
from jitvault.verification.trust import NO_TRUST, Trust
from jitvault.verification.verdicts import verdict_problems

Files = Sequence[Iterable[LogLine]]


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt whose signature holds, and what else was found about it."""

    receipt: Receipt
    signed: Signed
    outcome: Outcome


def verify(
    data: bytes, keys: Sequence[ReceiptKey], *, history: History | None, files: Files, trust: Trust = NO_TRUST
) -> Verified:
    """Return what holds of a receipt.

    Raises InvalidInput for a file that is no receipt, and SecurityFinding for one that none of `keys` signed or that
    has no receipt's content: then nothing in it can be believed, and nothing further is checked.
    """
    # 1
    signed = open_envelope(data, keys)
    # 2
    receipt = read_content(signed.payload)
    outcome = Outcome(told=list(_told(receipt)))
    outcome.checked += [
        _signature(signed, receipt),
        Checked("content", "a receipt, in the one form that jitvault signs", tuple(_content_problems(receipt))),
        Checked("verdicts", _verdicts_seen(receipt), tuple(verdict_problems(receipt))),
        _approvals(receipt),
    ]
    if history is not None:
        seen = f"the {receipt.chain.events} events of the history have the hash of the receipt, and so has the revision"
        outcome.checked.append(Checked("history", seen, tuple(history_problems(receipt, history))))
    found = scan(receipt, files) if files else None
    outcome.checked += [*_audit_checks(receipt, found, trust), check_callers(receipt, found, trust)]
    outcome.checked.append(_closing(receipt))
    outcome.not_checked += _not_checked(receipt, signed, found, trust, has_history=history is not None)
    return Verified(receipt, signed, outcome)


def _signature(signed: Signed, receipt: Receipt) -> Checked:
    seen = f"by version {signed.version} of {RECEIPT_KEY}; SHA-256 of the key: {signed.key.fingerprint}"
    made = signed.key.made_at
    is_older = made is not None and receipt.sealed_at < made
    problems = (f"this version of the key was made at {made}, after the receipt was sealed",) if is_older else ()
    return Checked("signature", seen, problems)


def _content_problems(receipt: Receipt) -> Iterator[str]:
    if receipt.kind != "Receipt":
        yield f"its kind is {one_line(receipt.kind)!r:.60}, and not Receipt"
    numbers = [grant.attempt for grant in receipt.grants]
    if len(set(numbers)) != len(numbers):
        yield "two of its grants are the same attempt"
    asked = receipt.proof.target_asked
    if asked is not None and asked is not is_target_asked(receipt):
        yield f"it says that the target was {'' if asked else 'not '}asked, and its checks say otherwise"


def _approvals(receipt: Receipt) -> Checked:
    # 4
    problems = (*approval_problems(receipt), *extension_problems(receipt))
    lost = f"not counted: the record was rebuilt, and may have lost some ({_approvals_seen(receipt)})"
    return Checked("approvals", _approvals_seen(receipt), problems, unchecked=lost if may_be_lost(receipt) else "")


def _audit_checks(receipt: Receipt, found: Scan | None, trust: Trust) -> Iterator[Checked]:
    # 6
    if found is None:
        yield Checked("lines", "", unchecked="not looked for: whoever has the worker's token can have anything signed")
        yield Checked("left out", "", unchecked="not looked for: nobody but Vault's log shows it (--audit FILE)")
        return
    unshown = "; ".join(unshown_by_lines(receipt, found))
    read, problems = _files_read(found), tuple(line_problems(receipt, found))
    yield Checked("lines", _lines_seen(receipt, found), problems, unchecked=unshown, read=read)
    # 7
    left_out = tuple(left_out_problems(receipt, found, trust.namespace))
    yield Checked("left out", _nothing_left_out(found), left_out, read=read)


def _closing(receipt: Receipt) -> Checked:
    # 9
    proof = receipt.proof
    if proof.confirmed and _rests_on_the_target(receipt):
        how = "by force: Vault forgot a lease, and that the target refused it is the worker's word alone"
        return Checked("closed", "", unchecked=how)
    if proof.confirmed:
        how = NOT_ASKED if is_target_asked(receipt) is False else "with proof"
        return Checked("closed", f"{how}: sealed at {receipt.sealed_at:%Y-%m-%d %H:%M:%S} UTC")
    who = f" by {one_line(proof.forced.name)}: {one_line(proof.forced.reason)}" if proof.forced else ""
    return Checked("closed", "", (f"the task was closed WITHOUT PROOF{who}",))


def is_target_asked(receipt: Receipt) -> bool | None:
    """Return whether each lease has the target's answer; None without one."""
    leases = [lease.check(TARGET_N) for lease in credentials(receipt) if lease.lease_id]
    return None not in leases if leases else None


def _rests_on_the_target(receipt: Receipt) -> bool:
    """Return whether a lease is proven by the target's answer alone."""
    revoked = (lease.check(2) for lease in credentials(receipt) if lease.lease_id)
    return receipt.proof.forced is not None and any(check is None or not check.ok for check in revoked)


def _verdicts_seen(receipt: Receipt) -> str:
    every = list(credentials(receipt))
    checks = sum(len(one.said.checks) for one in every)
    return f"those of {_count(len(every), 'credential')} follow from the evidence of {_count(checks, 'check')}"


def _approvals_seen(receipt: Receipt) -> str:
    needed = needed_approvals(receipt)
    approved = f"{_count(len(set(receipt.approved_by)), 'entity', 'entities')} approved, policy demands {needed}"
    if not receipt.extensions:
        return approved
    return f"{approved}; {_count(len(receipt.extensions), 'extension')} with the digest of its content"


def _lines_seen(receipt: Receipt, found: Scan) -> str:
    there = sum(1 for name in wanted_lines(receipt) if name in found.named)
    named = len(wanted_lines(receipt))
    return f"{there} of {named} that the receipt names are in {_files_read(found)}, and show what it says"


def _nothing_left_out(found: Scan) -> str:
    return f"{_files_read(found)} show no lease, token or later use that the receipt leaves out"


def _files_read(found: Scan) -> str:
    covered = f", {found.first:%Y-%m-%d %H:%M:%S} to {found.last:%Y-%m-%d %H:%M:%S} UTC" if found.first else ""
    return f"{_count(found.files, 'file')} ({_count(found.lines, 'line')}{covered})"


def _told(receipt: Receipt) -> Iterator[str]:
    """Yield what the receipt itself says that an auditor should not overlook."""
    for one in receipt.findings:
        yield f"finding {one_line(one.rule)}: {one_line(one.message)}"
    for text in receipt.proof.not_proven:
        yield f"not proven: {one_line(text)}"
    if receipt.proof.reopened:
        yield f"its end was called proven and reopened {_count(receipt.proof.reopened, 'time')}"
    if receipt.recovered:
        yield f"the record of the task was rebuilt {_count(len(receipt.recovered), 'time')} from what was published"
    if receipt.proof.forced and receipt.proof.confirmed:
        yield f"{one_line(receipt.proof.forced.name)} had Vault forget a lease; the target proved its end"
    if receipt.children:
        names = ", ".join(one_line(child.task) for child in receipt.children)
        yield f"access was delegated to {names}: each has a receipt of its own"


def _not_checked(
    receipt: Receipt, signed: Signed, found: Scan | None, trust: Trust, *, has_history: bool
) -> Iterator[str]:
    """Yield in words what these inputs cannot show."""
    yield "that the key is Vault's: compare its SHA-256 with what Vault's administrator says"
    if signed.key.version is None:
        yield f"that the key is version {signed.version}: PEM does not say it, unless a line before the key does"
    if found is not None:
        yield _unclaimed(unclaimed_tokens(receipt, found, trust.namespace))
        yield "that the audit files are whole and Vault's own: keep them where the worker cannot write"
        if any(lease.verdict.value != "never_issued" for lease in receipt.proof.leases):
            yield "that a look-up is about its lease: its line names the lease by an HMAC that only Vault can compute"
        if found.strange:
            yield f"{_count(found.strange, 'line')} of the files that are no audit entries"
    if not has_history:
        yield f"the {receipt.chain.events} events of its history, of which it has the last hash alone (--status FILE)"
    if receipt.approved_by or receipt.extensions:
        yield "the approvers' own signatures, and their groups: they are in Vault"
    if receipt.extensions:
        yield "how many approvals policy demanded for an extension"
    if any(one.check(TARGET_N) for one in credentials(receipt)):
        yield "what a target answered (check 6): the worker asked it, and no line shows the answer"


def _unclaimed(number: int) -> str:
    one = "token" if number == 1 else "tokens"
    return f"{number:,} {one} that the worker's roles gave in the task's time: a creation does not say for which task"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
