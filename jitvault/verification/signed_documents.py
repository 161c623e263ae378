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
from jitvault.verification.embedded_documents import D, EmbeddedDocument, EmbeddedDocuments, EmbeddedExtension
from jitvault.verification.outcome import Problem
from jitvault.verification.receipt import PREDICATE, differences
from jitvault.verification.signature import is_signed
from jitvault.verification.signed_ends import end_problems, freeze_problems
from jitvault.verification.trust import Trust

_DOCUMENTS = f"{PREDICATE}/documents"


def read_documents(statement: Statement, trust: Trust) -> EmbeddedDocuments:
    """Return the embedded documents, with everything that contradicts them."""
    receipt, embedded = statement.predicate, EmbeddedDocuments()
    reader = _Reader(receipt.task, trust, embedded.problems)
    documents = receipt.documents
    if documents.request is not None:
        embedded.request = reader.read(documents.request, SubmitDocument, f"{_DOCUMENTS}/request")
    embedded.decisions = reader.all(documents.decisions, DecisionDocument, f"{_DOCUMENTS}/decisions")
    embedded.ends = reader.all(documents.ends, EndDocument, f"{_DOCUMENTS}/ends")
    if documents.freeze is not None:
        embedded.freeze = reader.read(documents.freeze, FreezeDocument, f"{_DOCUMENTS}/freeze")
    for n, one in enumerate(receipt.extensions):
        at = f"{PREDICATE}/extensions/{n}"
        request = reader.read(one.signed_request, ExtendDocument, f"{at}/signed_request")
        approvals = reader.all(one.signed, DecisionDocument, f"{at}/signed")
        embedded.extensions.append(EmbeddedExtension(request, approvals))
    embedded.problems += [
        *_request_problems(statement, embedded),
        *_decision_problems(statement, embedded),
        *_extension_problems(statement, embedded),
        # 6
        *end_problems(receipt, embedded),
        *freeze_problems(receipt, embedded.freeze),
    ]
    return embedded


@dataclass(frozen=True, slots=True)
class _Reader:
    task: str
    trust: Trust
    problems: list[Problem]

    def all(self, envelopes: Sequence[SignedByPerson], model: type[D], place: str) -> list[EmbeddedDocument[D]]:
        read = (self.read(one, model, f"{place}/{n}") for n, one in enumerate(envelopes))
        return [one for one in read if one is not None]

    def read(self, envelope: SignedByPerson, model: type[D], place: str) -> EmbeddedDocument[D] | None:
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
            document = parse_signed(model, content, task=about, entity=str(content.get("entity")))
        except (SecurityFinding, ValueError, RecursionError) as error:
            why = one_line(str(error)) if isinstance(error, SecurityFinding) else type(error).__name__
            self._note(f"an embedded document is not one about this task: {why}", f"{place}/payload")
            return None
        key, _, version = signature.keyid.rpartition(":v")
        entity = document.entity
        if key != signer_key(entity) or not version.isdecimal():
            self._note(f"a document of entity {one_line(entity)} is signed by another", f"{at}/keyid")
            return None
        # 2
        public_key = self.trust.signers.get((entity, int(version)))
        if public_key is not None and not is_signed(public_key, sig, payload, DOCUMENT_TYPE):
            self._note(f"entity {one_line(entity)} did not sign this", f"{at}/sig", f"{place}/payload", at)
            return None
        return EmbeddedDocument(document, place, public_key is not None)

    def _note(self, text: str, *places: str) -> None:
        self.problems.append(Problem(text, places))


def _request_problems(statement: Statement, embedded: EmbeddedDocuments) -> Iterator[Problem]:
    # 3
    receipt, request = statement.predicate, embedded.request
    at = f"{_DOCUMENTS}/request"
    if receipt.documents.request is None:
        if not receipt.recovered:
            yield Problem("the signed request is missing, and no record was rebuilt", (at,))
        return
    if request is None:
        return
    if request.document.entity != receipt.requester.entity:
        why = "the request was signed by another entity than the requester"
        yield Problem(why, (f"{at}/payload", f"{PREDICATE}/requester/entity"))
    spec = request.document.spec.get("spec")
    body = spec if isinstance(spec, dict) else {}
    access = [{"template": one.template, "with": one.with_} for one in receipt.access]
    asked = body.get("access")
    if isinstance(asked, list) and all(isinstance(one, dict) for one in asked):
        # a template without parameters needs none, and why it is needed decides nothing
        asked = [{"template": one.get("template"), "with": one.get("with", {})} for one in asked]
    for name, stated, signed in (("intent", receipt.intent, body.get("intent")), ("access", access, asked)):
        if any(differences(stated, signed)):
            yield Problem(f"the signed request has another {name}", (f"{at}/payload", f"{PREDICATE}/{name}"))


def _decision_problems(statement: Statement, embedded: EmbeddedDocuments) -> Iterator[Problem]:
    # 4
    receipt = statement.predicate
    yield from _not_approvals(embedded.decisions, statement.digest, receipt.revision, receipt.requester.entity)
    places = {entity: f"{PREDICATE}/approved_by/{n}" for n, entity in enumerate(receipt.approved_by)}
    yield from _unnamed(receipt, embedded.decisions, places, f"{PREDICATE}/approved_by")


def _not_approvals(
    decisions: Iterable[EmbeddedDocument[DecisionDocument]], digest: str, revision: int, requester: str
) -> Iterator[Problem]:
    for one in decisions:
        signed = one.document
        about = (signed.decision, signed.digest, signed.revision, signed.requester)
        if about != ("approve", digest, revision, requester):
            why = f"entity {one_line(signed.entity)} signed no approval of this"
            yield Problem(why, (f"{one.place}/payload",))


def _unnamed(
    receipt: Receipt, decisions: Sequence[EmbeddedDocument[DecisionDocument]], named: dict[str, str], at: str
) -> Iterator[Problem]:
    """Yield approvals by entities that are not named, and named entities without one."""
    signers = Counter(one.document.entity for one in decisions)
    for one in decisions:
        entity = one.document.entity
        if entity not in named or signers[entity] > 1:
            why = f"entity {one_line(entity)} signed an approval, and is not named once for it"
            yield Problem(why, (f"{one.place}/payload", at))
    for entity, place in named.items():
        if entity not in signers and not receipt.recovered:
            yield Problem(f"the signed approval of entity {one_line(entity)} is missing", (place,))


def _extension_problems(statement: Statement, embedded: EmbeddedDocuments) -> Iterator[Problem]:
    # 5
    receipt = statement.predicate
    for n, (one, signed) in enumerate(zip(receipt.extensions, embedded.extensions, strict=True)):
        at = f"{PREDICATE}/extensions/{n}"
        if signed.request is not None:
            yield from _other_request(statement, one, signed.request, at)
        yield from _not_approvals(signed.approvals, one.digest, receipt.revision, one.by.entity)
        places = {party.entity: f"{at}/approved_by/{m}/entity" for m, party in enumerate(one.approved_by)}
        yield from _unnamed(receipt, signed.approvals, places, f"{at}/approved_by")


def _other_request(
    statement: Statement, one: StatedExtension, request: EmbeddedDocument[ExtendDocument], at: str
) -> Iterator[Problem]:
    document = request.document
    fields = {
        "by/entity": (document.entity, one.by.entity),
        "reason": (document.reason, one.reason),
        "seconds": (document.seconds, one.seconds),
        "since": (rfc3339(document.ends_at), one.since),
    }
    for name, (signed, stated) in fields.items():
        if signed != stated:
            places = (f"{at}/{name}", f"{request.place}/payload")
            yield Problem("the signed request for more time says otherwise", places)
    if document.digest != statement.digest or document.cancels is not None:
        yield Problem("what is signed is no request for more time of this revision", (f"{request.place}/payload",))
