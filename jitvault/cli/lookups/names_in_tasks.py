"""The names that occur in tasks, and what a misspelt one was meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jitvault.cli import session
from jitvault.documents.paths import PUBLISHED
from jitvault.documents.published_task import IllegibleDocument, PublishedTask
from jitvault.errors import CorruptRecord, NotFound
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.plural import listed
from jitvault.model.revision import Revision
from jitvault.model.revision_content import RevisionContent
from jitvault.model.scope import Scope
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

_MOST_NAMES = 20


@dataclass(slots=True)
class NamesInTasks:
    """Agents and owners of tasks, as entity id to name, and templates."""

    agents: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    templates: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, contents: Iterable[RevisionContent]) -> NamesInTasks:
        """Return the names that occur in the contents of revisions."""
        found = cls()
        for content in contents:
            found.note(content)
        return found

    def note(self, content: RevisionContent) -> None:
        """Note who is named in the content of a task's revision."""
        self.agents[content.agent.entity] = content.agent.name
        self.owners[content.owner.entity] = content.owner.name
        self.templates |= {entry.template for entry in content.access}

    def check(self, wiring: Wiring, *, agent: str | None, owner: str | None, template: str | None) -> None:
        """Raise NotFound for an agent, owner or template that nobody has.

        A template that is known here and that no task has used is no mistake.
        """
        for part, who, there in (("agent", agent, self.agents), ("owner", owner, self.owners)):
            names = set(there.values())
            if who and who not in there and who.casefold() not in {name.casefold() for name in names}:
                raise NotFound(
                    f"no task has the {part} {who!a:.80}{nearest(who, names)}",
                    hint=f"Tasks have: {listed(sorted(names), _MOST_NAMES) or 'none'}.",
                )
        if template and template not in self.templates:
            here = set(wiring.templates)
            if template not in here:
                known = here | self.templates
                raise NotFound(
                    f"there is no template {template!a:.80}{nearest(template, known)}",
                    hint=f"There are: {listed(sorted(known), _MOST_NAMES)}.",
                )


def published_in(wiring: Wiring, scope: Scope) -> dict[str, PublishedTask | None]:
    """Return what is published of each task of a scope.

    None for a document that cannot be read, since it may belong to a task of the scope.
    """
    found: dict[str, PublishedTask | None] = {}
    for name in wiring.documents.names(PUBLISHED):
        document = session.published(wiring, name)
        if isinstance(document, PublishedTask) and scope.covers(document.full_revision.content):
            found[name] = document
        elif isinstance(document, IllegibleDocument):
            found[name] = None
    return found


def contents_in(ledger: Ledger) -> Iterator[RevisionContent]:
    """Yield the content of each task's revision that can be read."""
    for body in ledger.current_bodies([row.task_id for row in ledger.tasks()]).values():
        with suppress(CorruptRecord, KeyError):
            yield Revision.of(body).content


def contents_published(wiring: Wiring) -> Iterator[RevisionContent]:
    """Yield the content of each published task that can be read."""
    for shown in published_in(wiring, Scope()).values():
        if shown is not None:
            yield shown.full_revision.content
