"""The documents that people signed and that a receipt embeds, as they were read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from jitvault.documents.receipt import Receipt
from jitvault.documents.signed import (
    DecisionDocument,
    EndDocument,
    ExtendDocument,
    FreezeDocument,
    SignedDocument,
    SubmitDocument,
)
from jitvault.verification.outcome import Problem

D = TypeVar("D", bound=SignedDocument)


@dataclass(frozen=True, slots=True)
class EmbeddedDocument(Generic[D]):
    """An embedded document and its place.

    `is_proven` says whether a key that the auditor brought signed it.
    """

    document: D
    place: str
    is_proven: bool


@dataclass(frozen=True, slots=True)
class EmbeddedExtension:
    """The request for an extension, None where it could not be read, and the approvals of it."""

    request: EmbeddedDocument[ExtendDocument] | None
    approvals: list[EmbeddedDocument[DecisionDocument]]


@dataclass(slots=True)
class EmbeddedDocuments:
    """All embedded documents that could be read, and what is wrong with them."""

    request: EmbeddedDocument[SubmitDocument] | None = None
    decisions: list[EmbeddedDocument[DecisionDocument]] = field(default_factory=list)
    ends: list[EmbeddedDocument[EndDocument]] = field(default_factory=list)
    freeze: EmbeddedDocument[FreezeDocument] | None = None
    extensions: list[EmbeddedExtension] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def number(self) -> int:
        """How many could be read."""
        return len(self._every)

    @property
    def unproven(self) -> list[str]:
        """The places of the documents that no key of the auditor's signed."""
        return [one.place for one in self._every if not one.is_proven]

    @property
    def _every(self) -> list[EmbeddedDocument[Any]]:
        every: list[EmbeddedDocument[Any] | None] = [self.request, *self.decisions, *self.ends, self.freeze]
        for extension in self.extensions:
            every += [extension.request, *extension.approvals]
        return [one for one in every if one is not None]

    def has_proof_of_approvals(self, receipt: Receipt) -> bool:
        """Return whether keys of the auditor signed an approval of each entity that is said to approve."""
        extensions = zip(receipt.extensions, self.extensions, strict=True)
        named = [({party.entity for party in one.approved_by}, signed.approvals) for one, signed in extensions]
        named.append(({*receipt.approved_by}, self.decisions))
        return all(entities <= {one.document.entity for one in signed if one.is_proven} for entities, signed in named)
