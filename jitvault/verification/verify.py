"""Verify a receipt: one check after the other, by the names under which they are printed.

- `signature`: by a key that the auditor has, and that was there at the seal.
- `content`: a receipt in the one form in which jitvault signs; the revision has the digest that was approved, and says
  what the receipt says.
- `verdicts`: each follows from the evidence that stands beside it.
- `certificates`: what their issuers signed is about those of the receipt's leases, and calls them over.
- `documents`: what people signed is about this task, by who the receipt says signed it.
- `approvals`: approvers, policy, extensions and digests fit each other.
- `history`, with `status --json`: it is the one whose hash the receipt names.
- `lines`, with audit files: each line that the receipt names is there and shows what the receipt says.
- `left out`, with audit files: they show no lease, token, use or act that the receipt leaves out.
- `worker`, with the ids of jitvault's namespace and of the worker's entities: those lines are of that namespace, and
  the worker's where they have to be.
- `closed`: with proof.

A check without its input was not made: then nothing is said to hold as a whole. The history is no such input, since
whoever can have a receipt signed can write one as well. What no check derives again is listed by its place as attested.

Nothing here knows Vault, a ledger or settings: an auditor runs it on copies of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jitvault.documents.receipt import Receipt, Statement
from jitvault.documents.signed import RECEIPT_KEY
from jitvault.formats.plural import counted
from jitvault.formats.shorten import one_line
from jitvault.model.proof_check import TARGET_N
from jitvault.verification.approvals import (
    approval_problems,
    extension_problems,
    may_be_lost,
    needed_approvals,
)
from jitvault.verification.approved_revision import revision_problems
from jitvault.verification.attested import attested
from jitvault.verification.audit_scan import Scan, named_lines, scan_files
from jitvault.verification.callers import check_callers
from jitvault.verification.embedded_documents import EmbeddedDocuments
from jitvault.verification.history import History, history_problems
from jitvault.verification.issuer_answers import IssuerAnswers, read_answers
from jitvault.verification.keys import ReceiptKey
from jitvault.verification.left_out import left_out_problems, unclaimed_tokens
from jitvault.verification.line_claims import line_problems, unshown_by_lines
from jitvault.verification.log_lines import LogLine
from jitvault.verification.outcome import Basis, Checked, Outcome, Problem
from jitvault.verification.receipt import PREDICATE, credentials, read_content
from jitvault.verification.signature import SignedPayload, open_envelope
from jitvault.verification.signed_documents import read_documents
from jitvault.verification.trust import NO_TRUST, Trust
from jitvault.verification.verdicts import verdict_problems

_NOT_ASKED = "revoked at Vault; the target was not asked"
_ANSWERED = "what a target answered (check 6): the worker asked it, and no line shows the answer"
Files = Sequence[Iterable[LogLine]]


@dataclass(frozen=True, slots=True)
class Verified:
    """A receipt whose signature holds, and what else was found about it."""

    statement: Statement
    signed: SignedPayload
    outcome: Outcome

    @property
    def receipt(self) -> Receipt:
        return self.statement.predicate


def verify(
    data: bytes, keys: Sequence[ReceiptKey], *, history: History | None, files: Files, trust: Trust = NO_TRUST
) -> Verified:
    """Return what holds of a receipt.

    Raises InvalidInput for a file that is no receipt, and SecurityFinding for one that none of `keys` signed or that
    has no receipt's content: then nothing in it can be believed, and nothing further is checked.
    """
    signed = open_envelope(data, keys)
    statement = read_content(signed.payload)
    receipt, embedded = statement.predicate, read_documents(statement, trust)
    scan = scan_files(receipt, files) if files else None
    answers = read_answers(receipt, trust.issuers, scan.last if scan is not None else None)
    outcome = Outcome(remarks=list(_remarks(receipt)))
    outcome.checked += [
        _signature(signed, receipt),
        Checked("content", "a receipt, in the one form that jitvault signs", tuple(revision_problems(statement))),
        Checked("verdicts", _verdicts_seen(receipt), tuple(verdict_problems(receipt))),
        *_certificates(answers, has_log=bool(files)),
        _documents(embedded),
        _approvals(statement, embedded),
    ]
    if history is not None:
        seen = f"the {receipt.chain.events} events of the history end in the hash that the receipt names"
        outcome.checked.append(Checked("history", seen, tuple(history_problems(statement, history))))
    outcome.checked += [*_audit_checks(receipt, scan, trust), check_callers(receipt, scan, trust)]
    outcome.checked.append(_closing(receipt, answers))
    outcome.not_checked += _not_checked(receipt, signed, scan, trust, has_history=history is not None)
    if any(one.check(TARGET_N) and one.lease_id not in answers.proven for one in credentials(receipt)):
        outcome.not_checked.append(_ANSWERED)
    has_log = scan is not None
    outcome.attested += attested(statement, embedded, answers, has_log=has_log, has_history=history is not None)
    return Verified(statement, signed, outcome)


def _signature(signed: SignedPayload, receipt: Receipt) -> Checked:
    seen = f"by version {signed.version} of {RECEIPT_KEY}; SHA-256 of the key: {signed.key.fingerprint}"
    made = signed.key.made_at
    is_older = made is not None and receipt.sealed_at < made
    why = f"this version of the key was made at {made}, after the receipt was sealed"
    problems = (Problem(why, (f"{PREDICATE}/sealed_at",)),) if is_older else ()
    return Checked("signature", seen, problems)


def _certificates(answers: IssuerAnswers, *, has_log: bool) -> Iterator[Checked]:
    """Yield what issuers signed, if anything; that a certificate is the lease's own, the log alone shows."""
    unproven = len(answers.unproven)
    every = unproven + len(answers.proven)
    by = _brought(unproven, "an issuer")
    seen = f"{counted(every, 'lease')} whose certificate is over, as its issuer signed; {by}"
    if every:
        yield Checked("certificates", seen, tuple(answers.problems), basis=_basis(has_log and not unproven))


def _documents(embedded: EmbeddedDocuments) -> Checked:
    unproven = len(embedded.unproven)
    every = counted(embedded.number, "document")
    seen = f"{every} that people signed, about this task and what it says; {_brought(unproven, 'a key')}"
    if embedded.number == 0:
        # of a record that was rebuilt: any other receipt without the request is refused
        return Checked("documents", "none that people signed", tuple(embedded.problems), basis=Basis.ATTESTED)
    return Checked("documents", seen, tuple(embedded.problems), basis=_basis(not unproven))


def _brought(unproven: int, signer: str) -> str:
    if unproven:
        return f"{unproven} of them by {signer} that you did not bring"
    return f"each by {signer} that you brought"


def _basis(is_rederived: bool) -> Basis:
    if is_rederived:
        return Basis.REDERIVED
    return Basis.ATTESTED


def _approvals(statement: Statement, embedded: EmbeddedDocuments) -> Checked:
    receipt = statement.predicate
    problems = (*approval_problems(receipt), *extension_problems(statement))
    lost = f"not counted: the record was rebuilt, and may have lost some ({_approvals_seen(receipt)})"
    why_not_made = lost if may_be_lost(receipt) else ""
    basis = _basis(embedded.has_proof_of_approvals(receipt))
    return Checked("approvals", _approvals_seen(receipt), problems, why_not_made=why_not_made, basis=basis)


def _audit_checks(receipt: Receipt, scan: Scan | None, trust: Trust) -> Iterator[Checked]:
    if scan is None:
        yield Checked(
            "lines", "", why_not_made="not looked for: whoever has the worker's token can have anything signed"
        )
        yield Checked("left out", "", why_not_made="not looked for: nobody but Vault's log shows it (--audit FILE)")
        return
    unshown = "; ".join(unshown_by_lines(receipt, scan))
    read, problems = _files_read(scan), tuple(line_problems(receipt, scan))
    yield Checked("lines", _lines_seen(receipt, scan), problems, why_not_made=unshown, read=read)
    left_out = tuple(left_out_problems(receipt, scan, trust.namespace_id))
    yield Checked("left out", _nothing_left_out(scan), left_out, read=read)


def _closing(receipt: Receipt, answers: IssuerAnswers) -> Checked:
    proof = receipt.proof
    if proof.confirmed and _rests_on_the_target(receipt, answers):
        how = "by force: Vault forgot a lease, and only the worker says that the target refused it"
        return Checked("closed", "", why_not_made=how)
    if proof.confirmed:
        how = _NOT_ASKED if proof.target_asked is False else "with proof"
        return Checked("closed", f"{how}: sealed at {receipt.sealed_at:%Y-%m-%d %H:%M:%S} UTC")
    who = f" by {one_line(proof.forced.name)}: {one_line(proof.forced.reason)}" if proof.forced else ""
    return Checked(
        "closed", "", (Problem(f"the task was closed WITHOUT PROOF{who}", (f"{PREDICATE}/proof/confirmed",)),)
    )


def _rests_on_the_target(receipt: Receipt, answers: IssuerAnswers) -> bool:
    """Return whether a lease is proven by an answer of the target alone, which nobody signed."""
    revoked = (one.check(2) for one in credentials(receipt) if one.lease_id and one.lease_id not in answers.proven)
    return receipt.proof.forced is not None and any(check is None or not check.ok for check in revoked)


def _verdicts_seen(receipt: Receipt) -> str:
    every = list(credentials(receipt))
    checks = sum(len(one.proof.checks) for one in every)
    return f"those of {counted(len(every), 'credential')} follow from the evidence of {counted(checks, 'check')}"


def _approvals_seen(receipt: Receipt) -> str:
    needed = needed_approvals(receipt)
    approved = f"{counted(len(set(receipt.approved_by)), 'approval')}, policy demands {needed}"
    if not receipt.extensions:
        return approved
    return f"{approved}; {counted(len(receipt.extensions), 'extension')} with the digest of its content"


def _lines_seen(receipt: Receipt, scan: Scan) -> str:
    named = named_lines(receipt)
    there = len(named & scan.named.keys())
    return f"{there} of {len(named)} that the receipt names are in {_files_read(scan)}, and show what it says"


def _nothing_left_out(scan: Scan) -> str:
    show = "shows" if scan.files == 1 else "show"
    return f"{_files_read(scan)} {show} no lease, token or later use that the receipt leaves out"


def _files_read(scan: Scan) -> str:
    covered = f", {scan.first:%Y-%m-%d %H:%M:%S} to {scan.last:%Y-%m-%d %H:%M:%S} UTC" if scan.first else ""
    return f"{counted(scan.files, 'file')} ({counted(scan.lines, 'line')}{covered})"


def _remarks(receipt: Receipt) -> Iterator[str]:
    """Yield what the receipt itself says that an auditor should not overlook."""
    for one in receipt.findings:
        yield f"finding {one_line(one.rule)}: {one_line(one.message)}"
    for text in receipt.proof.not_proven:
        yield f"not proven: {one_line(text)}"
    if receipt.proof.reopened:
        yield f"its end was called proven and reopened {counted(receipt.proof.reopened, 'time')}"
    if receipt.recovered:
        yield f"the record of the task was rebuilt {counted(len(receipt.recovered), 'time')} from what was published"
    if receipt.proof.forced and receipt.proof.confirmed:
        name = one_line(receipt.proof.forced.name)
        yield f"{name} had Vault forget a lease; its end rests on what the target answered"
    if receipt.children:
        names = ", ".join(one_line(child.task) for child in receipt.children)
        yield f"access was delegated to {names}: each has a receipt of its own"


def _not_checked(
    receipt: Receipt, signed: SignedPayload, scan: Scan | None, trust: Trust, *, has_history: bool
) -> Iterator[str]:
    """Yield in words what these inputs cannot show."""
    yield "that the key is Vault's: compare its SHA-256 with what Vault's administrator says"
    if signed.key.version is None:
        yield f"that the key is version {signed.version}: PEM does not say it, unless a line before the key does"
    if scan is not None:
        unclaimed = counted(unclaimed_tokens(receipt, scan, trust.namespace_id), "token")
        yield f"{unclaimed} that the worker's roles gave in the task's time: a creation does not say for which task"
        yield "that the audit files are whole and Vault's own: keep them where the worker cannot write"
        if any(lease.verdict.value != "never_issued" for lease in receipt.proof.leases):
            yield "that a look-up is about its lease: its line names the lease by an HMAC that only Vault can compute"
        if scan.strange:
            yield f"{counted(scan.strange, 'line')} of the files that are no audit entries"
    if not has_history:
        yield f"the {receipt.chain.events} events of its history, of which it has the last hash alone (--status FILE)"
    if receipt.approved_by or receipt.extensions:
        yield "the approvers' groups: they are in Vault"
    if receipt.extensions:
        yield "how many approvals policy demanded for an extension"
