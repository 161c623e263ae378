"""The names that occur in tasks, and what a misspelt one was meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jitvault.errors import NotFound
from jitvault.formats.did_you_mean import nearest

if TYPE_CHECKING:
    from jitvault.model.revision_content import RevisionContent
    from jitvault.wiring import Wiring

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
                    f"no task has the {part} {who!a:.80}{nearest(who, names)}", hint=f"Tasks have: {_listed(names)}."
                )
        if template and template not in self.templates:
            here = set(wiring.templates)
            if template not in here:
                known = here | self.templates
                raise NotFound(
                    f"there is no template {template!a:.80}{nearest(template, known)}",
                    hint=f"There are: {_listed(known)}.",
                )


def _listed(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_MOST_NAMES]) or "none"
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown
