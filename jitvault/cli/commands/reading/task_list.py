"""`jitvault list`: the tasks of the ledger, or those that are published."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli import published as fallback
from jitvault.cli import session
from jitvault.cli.lookups.deleted_tasks import check_names, check_none_is_missing
from jitvault.cli.lookups.names_in_tasks import NamesInTasks, contents_in, contents_published
from jitvault.cli.lookups.seen_freezes import SeenFreezes
from jitvault.cli.options import OfAgent, OfOwner
from jitvault.cli.views import task_list as views
from jitvault.documents.paths import PUBLISHED
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import CorruptRecord, JitvaultError
from jitvault.lifecycle.record.receipt import extension_in
from jitvault.lifecycle.record.report import parties_of, summary_of, waiting_extension
from jitvault.model.revision import Revision
from jitvault.model.revision_content import RevisionContent
from jitvault.model.scope import Scope
from jitvault.model.states import LIVE_STATES, OVER, State
from jitvault.policy.decision import NO_OBLIGATIONS, Decision
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

# a request that was refused never became a task, and is published all the same
_REFUSED = "refused"
_NAMES = [*(state.value for state in State), _REFUSED]


def _states(incomplete: str) -> list[str]:
    return [name for name in _NAMES if name.startswith(incomplete)]


Open = Annotated[bool, typer.Option("--open", help="Only tasks that wait, hold access or are not sealed yet.")]
OfTemplate = Annotated[str, typer.Option("--template", metavar="NAME", help="Only tasks that use this template.")]
InState = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="Only tasks in this state. May be repeated.", autocompletion=_states),
]


def list_(
    open_: Open = False,
    state: InState = None,
    agent: OfAgent = "",
    owner: OfOwner = "",
    template: OfTemplate = "",
) -> None:
    """List tasks: whose they are, what they hold and who is waited for.

    A terminal that is too narrow shows fewer columns; a pipe gets all of them, and one line a task. Without a ledger
    the command lists the tasks that a worker has published in Vault, and how old that is.

    Example: jitvault list --open --agent research-agent
    """
    wanted = _Wanted(_checked(state or []), Scope(agent, template, owner), only_open=open_)
    wiring = session.open_session()
    if has_ledger := fallback.has_ledger(wiring):
        ledger = session.ledger_to_read(wiring)
        session.check_knows_tasks(wiring, ledger)
        rows = _rows_of_ledger(wiring, ledger, wanted, SeenFreezes(wiring, ledger))
        if not rows:
            names = NamesInTasks.of(contents_in(ledger))
            check_names(wiring, ledger, names, agent=agent, owner=owner, template=template)
    else:
        with session.allowed("list the tasks", "operators, approvers and auditors"):
            published = wiring.documents.names(PUBLISHED)
        rows = fallback.rows(wiring, published, wanted.includes, SeenFreezes(wiring, None).of)
        if not rows and not wanted.scope.is_all:
            names = NamesInTasks.of(contents_published(wiring))
            names.check(wiring, agent=agent, owner=owner, template=template)
    views.print_tasks(rows, now=wiring.clock.agreed(), published=not has_ledger, what=str(wanted))
    if has_ledger:
        check_none_is_missing(wiring, ledger)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which tasks are listed."""

    states: frozenset[str]
    scope: Scope
    only_open: bool

    def includes(self, state: str, content: RevisionContent | None) -> bool:
        """Return whether a task is listed, by the content of its revision.

        One whose content cannot be read may be of any agent, owner and template, so it is listed.
        """
        if self.states and state not in self.states:
            return False
        if self.only_open and state in (*OVER, _REFUSED):
            return False
        return content is None or self.scope.covers(content)

    def __str__(self) -> str:
        """Return the tasks in words, for a list without any."""
        named = f" of {self.scope}" if not self.scope.is_all else ""
        where = f" in the state {' or '.join(sorted(self.states))}" if self.states else ""
        return f"{'open ' if self.only_open else ''}tasks{named}{where}"


def _checked(states: Sequence[str]) -> frozenset[str]:
    """Return the states. Raises typer.BadParameter for one that no task has."""
    for each in states:
        if each not in _NAMES:
            raise typer.BadParameter(f"expected one of {', '.join(_NAMES)}, got {each!a:.40}", param_hint="--state")
    return frozenset(states)


def _rows_of_ledger(wiring: Wiring, ledger: Ledger, wanted: _Wanted, freezes: SeenFreezes) -> list[dict[str, Any]]:
    """Return the rows of the tasks that the ledger knows."""
    left_out = OVER if wanted.only_open else frozenset[State]()
    tasks = ledger.tasks(frozenset(State) - left_out)
    bodies = ledger.current_bodies([task.task_id for task in tasks])
    decisions = ledger.current_decisions([task.task_id for task in tasks])
    findings = ledger.finding_counts()
    extensions = ledger.last_extensions([task.task_id for task in tasks if task.state in LIVE_STATES])
    rows = []
    for task in tasks:
        revision = None
        obligations = NO_OBLIGATIONS
        with suppress(CorruptRecord, KeyError):
            revision = Revision.of(bodies[task.task_id]).check_form()
            obligations = Decision.of(decisions[task.task_id]).obligations
        content = revision.content if revision else None
        if wanted.includes(task.state, content):
            last = extensions.get(task.task_id)
            more_time = waiting_extension(task.state, extension_in(*last) if last else None)
            own = {"missing": [], "findings": findings.get(task.task_id, 0), "more_time": more_time}
            own["frozen"] = None if task.state in OVER else freezes.of(content)
            rows.append({**summary_of(task), **parties_of(revision, obligations), **own})
    return _with_missing(wiring, rows)


def _with_missing(wiring: Wiring, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the approvals that are missing.

    The ledger does not have them, so they are as published; none where Vault cannot be asked.
    """
    if wiring.unverified:
        return rows
    with suppress(JitvaultError):
        for row in rows:
            if row["state"] == State.PENDING_APPROVAL:
                document = session.published(wiring, row["task_id"])
                row["missing"] = document.missing if isinstance(document, PublishedTask) else []
    return rows
