"""The documents that people signed and that a receipt embeds, as they were read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

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

P = TypeVar("P", bound=SignedDocument)


@dataclass(frozen=True, slots=True)
class Paper(Generic[P]):
    """An embedded document and its place.

    `is_proven` says whether a key that the auditor brought signed it.
    """

    said: P
    place: str
    is_proven: bool


@dataclass(slots=True)
class Papers:
    """All embedded documents that could be read, and what is wrong with them."""

    request: Paper[SubmitDocument] | None = None
    decisions: list[Paper[DecisionDocument]] = field(default_factory=list)
    ends: list[Paper[EndDocument]] = field(default_factory=list)
    freeze: Paper[FreezeDocument] | None = None
    extensions: list[tuple[Paper[ExtendDocument] | None, list[Paper[DecisionDocument]]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def number(self) -> int:
        """How many could be read."""
        return len(list(self._states()))

    @property
    def unproven(self) -> list[str]:
        """The places of the documents that no key of the auditor's signed."""
        return [place for place, is_proven in self._states() if not is_proven]

    def _states(self) -> Iterator[tuple[str, bool]]:
        requests = (self.request, *(request for request, _ in self.extensions))
        yield from ((one.place, one.is_proven) for one in requests if one is not None)
        yield from ((one.place, one.is_proven) for one in self._approvals)
        yield from ((one.place, one.is_proven) for one in (*self.ends, self.freeze) if one is not None)

    @property
    def _approvals(self) -> list[Paper[DecisionDocument]]:
        return [*self.decisions, *(one for _, decisions in self.extensions for one in decisions)]

    def has_proof_of_approvals(self, receipt: Receipt) -> bool:
        """Return whether keys of the auditor signed an approval of each entity that is said to approve."""
        extensions = zip(receipt.extensions, self.extensions, strict=True)
        named = [({party.entity for party in one.approved_by}, signed) for one, (_, signed) in extensions]
        named.append(({*receipt.approved_by}, self.decisions))
        return all(entities <= {one.said.entity for one in signed if one.is_proven} for entities, signed in named)
