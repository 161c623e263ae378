"""The freezes that whoever runs a command can see."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jitvault.errors import JitvaultError
from jitvault.lifecycle.requests.freezes import all_freezes, freezes_of_everything, freezes_seen_by_person
from jitvault.model.revision_content import RevisionContent
from jitvault.model.scope import Scope
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


class SeenFreezes:
    """The freezes that the caller can see.

    Whoever may not read them, as an agent, or cannot ask Vault, sees the tasks without them.
    """

    def __init__(self, wiring: Wiring, ledger: Ledger | None) -> None:
        self._found = freezes_of_everything(ledger) if ledger is not None else []
        with suppress(JitvaultError):
            # a list takes no ledger into use that no worker has used yet
            if wiring.has_worker and ledger is not None:
                self._found = all_freezes(wiring.worker_without_session)
            elif wiring.person_token is not None and not wiring.unverified:
                self._found += freezes_seen_by_person(wiring.person)

    def of(self, content: RevisionContent | None) -> dict[str, Any] | None:
        """Return the first freeze that covers a task, as `{kind, scope}`.

        `content` is that of the task's revision.
        """
        freeze = self.covering(content)
        return {"kind": freeze["kind"], "scope": freeze["scope"]} if freeze else None

    def covering(self, content: RevisionContent | None) -> dict[str, Any] | None:
        """Return the first freeze that covers a task, as `freezes` has it."""
        for freeze in self._found:
            scope = Scope(**freeze["scope"])
            if scope.is_all or (content is not None and scope.covers(content)):
                return freeze
        return None
