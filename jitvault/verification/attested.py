"""Which values of a receipt are the word of whoever signed it, with what the auditor brings.

The values that are not listed are derived again: from the revision's bytes, from documents by the keys of those who
signed them, from audit lines, from the history, or from the evidence that stands beside them. docs/receipt.md has this
for each field, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import msgspec

from jitvault.documents.receipt import Statement
from jitvault.verification.embedded_documents import EmbeddedDocuments
from jitvault.verification.issuer_answers import IssuerAnswers
from jitvault.verification.receipt import PREDICATE
from jitvault.verification.signed_ends import end_document, force_document

_ALWAYS = (
    "children",
    "approvers/*/name",
    "ended/name",
    "policy",
    "grants/*/grant",
    "grants/*/attempt",
    "grants/*/requested_ttl_s",
    "grants/*/ttl_s",
    "grants/*/step_s",
    "grants/*/issued_at",
    "grants/*/expires_at",
    "extensions/*/approved_by/*/name",
    "extensions/*/by/name",
    "extensions/*/rules",
    "extensions/*/policy_digest",
    "extensions/*/at",
    "findings/*/rule",
    "findings/*/message",
    "proof/reopened",
    "proof/forced/name",
    "proof/dead_ms",
    "proof/confirmed_ms",
    "proof/not_proven",
    "recovered",
    "sealed_at",
)
_BY_LOG = ("grants/*/accessor_hmac", "grants/*/role", "findings/*/line", "proof/leases/*/lease_id")
_BY_HISTORY = ("chain", "ended/at")
_CREDENTIALS = ("token", "leases/*", "earlier_tokens/*")
# by the kind of the evidence, what of it nobody can derive again, and what only the log shows
_EVIDENCE_ALWAYS = {
    "line": ("source",),
    "contiguous": ("source", "begin", "end"),
    "gap": ("closed",),
    "target_answer": ("engine", "question", "answer"),
    "signed_answer": ("answer",),
    "quiet": ("ms", "listed"),
    "missing": ("",),
}
_EVIDENCE_BY_LOG = {
    "line": ("sha256", "request_id", "operation", "path", "at"),
    "expiry": ("at",),
    "gap": ("listing", "line"),
    "signed_answer": ("question",),
}
_EVIDENCE_BY_ISSUER = ("engine", "question", "form", "sha256", "der")


def attested(
    statement: Statement, embedded: EmbeddedDocuments, answers: IssuerAnswers, *, has_log: bool, has_history: bool
) -> list[str]:
    """Return the JSON pointers of the values that nothing derives again, each with all that is below it."""
    plain: dict[str, Any] = msgspec.to_builtins(statement.predicate)
    patterns = [*_ALWAYS, *_unsupported(statement, embedded)]
    patterns += () if has_log else _BY_LOG
    patterns += () if has_history else _BY_HISTORY
    places = [place for pattern in patterns for place, _ in _matching(plain, pattern.split("/"), PREDICATE)]
    unsigned = map("/".join, product(answers.unproven, _EVIDENCE_BY_ISSUER))
    found = [*places, *_of_evidence(plain["proof"], has_log=has_log), *embedded.unproven, *unsigned]
    return list(dict.fromkeys(found))


def _unsupported(statement: Statement, embedded: EmbeddedDocuments) -> Iterator[str]:
    """Yield what only a signed document supports, where the auditor brings no key for one."""
    receipt = statement.predicate
    end, force = end_document(receipt, embedded), force_document(receipt, embedded)
    if end is None or not end.is_proven:
        yield from ("ended/by", "ended/note", "ended/reason", "proof/end_reason")
    if force is None or not force.is_proven:
        yield "proof/forced"
    if not embedded.has_proof_of_approvals(receipt):
        yield from ("approved_by", "extensions/*/approved_by")
    if embedded.request is None:
        yield "documents/request"


def _of_evidence(proof: dict[str, Any], *, has_log: bool) -> Iterator[str]:
    """Yield what of the checks' evidence, and whether an expiry, nobody derives again."""
    for pattern in _CREDENTIALS:
        for place, check in _matching(proof, [*pattern.split("/"), "checks", "*"], f"{PREDICATE}/proof"):
            kind = check["evidence"]["kind"]
            names = [*_EVIDENCE_ALWAYS.get(kind, ())]
            names += () if has_log else _EVIDENCE_BY_LOG.get(kind, ())
            yield from (f"{place}/evidence/{name}".rstrip("/") for name in names)


def _matching(value: Any, pattern: list[str], place: str) -> Iterator[tuple[str, Any]]:
    """Yield each value that a pattern names, after its pointer; `*` is each item of a list."""
    if not pattern:
        yield place, value
        return
    first, *rest = pattern
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, list) and first == "*":
        inner = ((str(n), one) for n, one in enumerate(value))
    elif isinstance(value, dict) and first in value:
        inner = ((first, value[first]),)
    for key, one in inner:
        yield from _matching(one, rest, f"{place}/{key}")
