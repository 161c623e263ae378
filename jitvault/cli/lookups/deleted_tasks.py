"""Notice the tasks that Vault knows of and the ledger lacks."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from jitvault.cli import session
from jitvault.cli.lookups.names_in_tasks import NamesInTasks
from jitvault.errors import LostTask, NotFound, SecurityFinding, UsageError, VaultRefused, VaultUnavailable
from jitvault.formats.plural import counted, listed
from jitvault.lifecycle.record.missing_tasks import is_own, lost, missing_tasks
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


def check_none_is_missing(wiring: Wiring, ledger: Ledger) -> None:
    """Raise SecurityFinding where Vault knows of tasks that the ledger lacks.

    A command calls this after it has shown what the ledger has. What was published before a worker first used the
    ledger, or before its last recovery began, is what that recovery left, unless it is still to be done. Nothing is
    raised where the caller may not ask Vault.
    """
    if wiring.unverified:
        return
    begun = filter(None, (ledger.begun_at(), ledger.recovered_at()))
    since = None if ledger.recovering() else max(begun, default=None)
    names: list[str] = []
    with suppress(VaultRefused, VaultUnavailable, UsageError):
        found = missing_tasks(wiring.documents, ledger, ledger.installation(), since=since)
        names = [said.task_id for said in found]
    if names:
        raise SecurityFinding(
            f"missing in the ledger: {counted(len(names), 'task')} that Vault knows of: {listed(names)}",
            hint=f"`jitvault ledger check` says what differs besides. {LostTask.default_hint}",
        )


def check_names(
    wiring: Wiring, ledger: Ledger, names: NamesInTasks, *, agent: str | None, owner: str | None, template: str | None
) -> None:
    """Raise NotFound for an agent, owner or template that nobody has.

    Raises SecurityFinding where a task is missing in the ledger: it may have the name.
    """
    try:
        names.check(wiring, agent=agent, owner=owner, template=template)
    except NotFound:
        check_none_is_missing(wiring, ledger)
        raise


def check_not_missing(wiring: Wiring, task_id: str) -> None:
    """Raise LostTask for a task that Vault knows of.

    A command calls this for a task that the ledger does not have. Nothing is raised where the caller may not ask Vault.
    """
    if wiring.unverified:
        return
    with suppress(VaultRefused, VaultUnavailable, UsageError):
        said = session.published(wiring, task_id)
        if said is not None and is_own(said, wiring.unchecked_ledger.installation()):
            raise lost(said)
