"""Whether the documents that a receipt embeds are about its task, and say what it says.

1. Each is of the one form, about this task, and of the entity that its content names.
2. Where the auditor brings that entity's key, it signed exactly these bytes.
3. The request asks for the intent and the access of the revision, and is by the requester.
4. The decisions are approvals of the revision's digest, one by each entity that the receipt names.
5. An extension has the request for just that time, and approvals of its digest.
6. Ends and a freeze are those that the receipt names (`signed_ends`).

A key in the receipt would be the worker's word, so there is none: without the auditor's, a document is attested.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from jitvault.documents.receipt import Receipt, StatedExtension, Statement
from jitvault.documents.signed import (
    DOCUMENT_TYPE,
    DecisionDocument,
    EndDocument,
    ExtendDocument,
    FreezeDocument,
    SubmitDocument,
    parse_signed,
    signer_key,
)
from jitvault.errors import SecurityFinding
from jitvault.formats.rfc3339 import rfc3339
from jitvault.formats.shorten import one_line
from jitvault.model.signed_document import SignedByPerson
from jitvault.verification.outcome import Problem
from jitvault.verification.papers import P, Paper, Papers
from jitvault.verification.receipt import PREDICATE, differences
from jitvault.verification.signature import is_signed
from jitvault.verification.signed_ends import end_problems, freeze_problems
from jitvault.verification.trust import Trust

_DOCUMENTS = f"{PREDICATE}/documents"


def read_documents(statement: Statement, trust: Trust) -> Papers:
    """Return the embedded documents, with everything that contradicts them."""
    receipt, papers = statement.predicate, Papers()
    reader = _Reader(receipt.task, trust, papers.problems)
    documents = receipt.documents
    if documents.request is not None:
        papers.request = reader.read(documents.request, SubmitDocument, f"{_DOCUMENTS}/request")
    papers.decisions = reader.all(documents.decisions, DecisionDocument, f"{_DOCUMENTS}/decisions")
    papers.ends = reader.all(documents.ends, EndDocument, f"{_DOCUMENTS}/ends")
    if documents.freeze is not None:
        papers.freeze = reader.read(documents.freeze, FreezeDocument, f"{_DOCUMENTS}/freeze")
    for n, one in enumerate(receipt.extensions):
        at = f"{PREDICATE}/extensions/{n}"
        request = reader.read(one.signed_request, ExtendDocument, f"{at}/signed_request")
        papers.extensions.append((request, reader.all(one.signed, DecisionDocument, f"{at}/signed")))
    papers.problems += [
        *_request_problems(statement, papers),
        *_decision_problems(statement, papers.decisions),
        *_extension_problems(statement, papers),
        # 6
        *end_problems(receipt, papers),
        *freeze_problems(receipt, papers.freeze),
    ]
    return papers


@dataclass(frozen=True, slots=True)
class _Reader:
    task: str
    trust: Trust
    problems: list[Problem]

    def all(self, envelopes: Sequence[SignedByPerson], model: type[P], place: str) -> list[Paper[P]]:
        read = (self.read(one, model, f"{place}/{n}") for n, one in enumerate(envelopes))
        return [one for one in read if one is not None]

    def read(self, envelope: SignedByPerson, model: type[P], place: str) -> Paper[P] | None:
        """Return a document, or None for one that is another's or another task's; the problem is noted."""
        # 1
        signature = envelope.signatures[0]
        at = f"{place}/signatures/0"
        if envelope.payload_type != DOCUMENT_TYPE:
            self._note(f"what is embedded is {one_line(envelope.payload_type)!r:.80}", f"{place}/payloadType")
            return None
        try:
            payload, sig = (base64.b64decode(text, validate=True) for text in (envelope.payload, signature.sig))
            content = msgspec.json.decode(payload, type=dict)
            about = self.task
            if model is FreezeDocument:
                # it is about a scope, and no task
                about = str(content.get("task"))
            said = parse_signed(model, content, task=about, entity=str(content.get("entity")))
        except (SecurityFinding, ValueError, RecursionError) as error:
            why = one_line(str(error)) if isinstance(error, SecurityFinding) else type(error).__name__
            self._note(f"an embedded document is not one about this task: {why}", f"{place}/payload")
            return None
        key, _, version = signature.keyid.rpartition(":v")
        if key != signer_key(said.entity) or not version.isdecimal():
            self._note(f"a document of entity {one_line(said.entity)} is signed by another", f"{at}/keyid")
            return None
        # 2
        known = self.trust.signers.get((said.entity, int(version)))
        if known is not None and not is_signed(known, sig, payload, DOCUMENT_TYPE):
            self._note(f"entity {one_line(said.entity)} did not sign this", f"{at}/sig", f"{place}/payload", at)
            return None
        return Paper(said, place, known is not None)

    def _note(self, text: str, *places: str) -> None:
        self.problems.append(Problem(text, places))


def _request_problems(statement: Statement, papers: Papers) -> Iterator[Problem]:
    # 3
    receipt, request = statement.predicate, papers.request
    at = f"{_DOCUMENTS}/request"
    if receipt.documents.request is None:
        if not receipt.recovered:
            yield Problem("the signed request is missing, and no record was rebuilt", (at,))
        return
    if request is None:
        return
    if request.said.entity != receipt.requester.entity:
        why = "the request was signed by another entity than the requester"
        yield Problem(why, (f"{at}/payload", f"{PREDICATE}/requester/entity"))
    spec = request.said.spec.get("spec")
    body = spec if isinstance(spec, dict) else {}
    access = [{"template": one.template, "with": one.with_} for one in receipt.access]
    asked = body.get("access")
    if isinstance(asked, list) and all(isinstance(one, dict) for one in asked):
        # a template without parameters needs none, and why it is needed decides nothing
        asked = [{"template": one.get("template"), "with": one.get("with", {})} for one in asked]
    for name, said, shown in (("intent", receipt.intent, body.get("intent")), ("access", access, asked)):
        if any(differences(said, shown)):
            yield Problem(f"the signed request has another {name}", (f"{at}/payload", f"{PREDICATE}/{name}"))


def _decision_problems(statement: Statement, decisions: Sequence[Paper[DecisionDocument]]) -> Iterator[Problem]:
    # 4
    receipt = statement.predicate
    yield from _not_approvals(decisions, statement.digest, receipt.revision, receipt.requester.entity)
    places = {entity: f"{PREDICATE}/approved_by/{n}" for n, entity in enumerate(receipt.approved_by)}
    yield from _unnamed(receipt, decisions, places, f"{PREDICATE}/approved_by")


def _not_approvals(
    decisions: Iterable[Paper[DecisionDocument]], digest: str, revision: int, requester: str
) -> Iterator[Problem]:
    for one in decisions:
        said = (one.said.decision, one.said.digest, one.said.revision, one.said.requester)
        if said != ("approve", digest, revision, requester):
            why = f"entity {one_line(one.said.entity)} signed no approval of this"
            yield Problem(why, (f"{one.place}/payload",))


def _unnamed(
    receipt: Receipt, decisions: Sequence[Paper[DecisionDocument]], named: dict[str, str], at: str
) -> Iterator[Problem]:
    """Yield approvals by entities that are not named, and named entities without one."""
    signed = Counter(one.said.entity for one in decisions)
    for one in decisions:
        if one.said.entity not in named or signed[one.said.entity] > 1:
            why = f"entity {one_line(one.said.entity)} signed an approval, and is not named once for it"
            yield Problem(why, (f"{one.place}/payload", at))
    for entity, place in named.items():
        if entity not in signed and not receipt.recovered:
            yield Problem(f"the signed approval of entity {one_line(entity)} is missing", (place,))


def _extension_problems(statement: Statement, papers: Papers) -> Iterator[Problem]:
    # 5
    receipt = statement.predicate
    for n, (one, (request, decisions)) in enumerate(zip(receipt.extensions, papers.extensions, strict=True)):
        at = f"{PREDICATE}/extensions/{n}"
        if request is not None:
            yield from _other_request(statement, one, request, at)
        yield from _not_approvals(decisions, one.digest, receipt.revision, one.by.entity)
        places = {party.entity: f"{at}/approved_by/{m}/entity" for m, party in enumerate(one.approved_by)}
        yield from _unnamed(receipt, decisions, places, f"{at}/approved_by")


def _other_request(
    statement: Statement, one: StatedExtension, request: Paper[ExtendDocument], at: str
) -> Iterator[Problem]:
    said = request.said
    shown = {
        "by/entity": (said.entity, one.by.entity),
        "reason": (said.reason, one.reason),
        "seconds": (said.seconds, one.seconds),
        "since": (rfc3339(said.ends_at), one.since),
    }
    for name, (signed, stated) in shown.items():
        if signed != stated:
            yield Problem(
                "the signed request for more time says otherwise", (f"{at}/{name}", f"{request.place}/payload")
            )
    if said.digest != statement.digest or said.cancels is not None:
        yield Problem("what is signed is no request for more time of this revision", (f"{request.place}/payload",))
