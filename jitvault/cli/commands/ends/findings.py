"""`jitvault findings`: list findings, and close them.

A finding is something that must not have happened; it is closed when somebody has looked into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from jitvault.cli import session
from jitvault.cli.commands.installation.audit_status import checked_reason
from jitvault.cli.options import task_id
from jitvault.cli.quiet import note
from jitvault.cli.views import output
from jitvault.cli.views.findings import print_findings
from jitvault.context import WorkerContext
from jitvault.errors import CorruptRecord, NotFound, UsageError, WrongState
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.plural import counted
from jitvault.ledger.model import Closing
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Party
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

_MOST_NAMES = 20
_ENTITY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


Why = Annotated[str, typer.Option("--reason", help="Why it is safe again. The ledger keeps it.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="The agent's Vault entity name.")]


def list_(
    all_: Annotated[bool, typer.Option("--all", help="List closed findings as well.")] = False,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Only those of this task.", callback=task_id)] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="ENTITY", help="Only those of this agent, by entity id or name.")
    ] = None,
) -> None:
    """List open findings with their numbers.

    Findings that belong to no task are among them.

    They come from the ledger. A name is looked up in Vault with the worker's identity, and without it in the ledger's
    tasks.

    Example: jitvault findings list --all --task count-orders
    """
    wiring = session.open_session()
    ledger = session.ledger_to_read(wiring)
    entity = _entity_of(wiring, ledger, agent) if agent else None
    rows = msgspec.to_builtins(ledger.findings(closed=all_, task_id=task, agent=entity))
    names = _names_of(ledger, rows)
    rows = [{**row, "agent_name": names.get(row["agent"]), "author_name": names.get(row["author"])} for row in rows]
    if not rows:
        session.check_knows_tasks(wiring, ledger)
    numbers = (str(row["id"]) for row in rows)
    if not output.print_for_scripts({"findings": rows}, *numbers):
        print_findings(rows, closed=all_)
        if not rows and not all_ and (closed := ledger.findings(closed=True, task_id=task, agent=entity)):
            note(f"{counted(len(closed), 'closed one')}: `jitvault findings list --all` also shows who closed it.")


def close(
    reason: Why,
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="NUMBER", help="The numbers that `findings list` shows.")
    ] = None,
    agent: Agent = None,
    rule: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="All open ones of this rule. May be repeated.")
    ] = None,
) -> None:
    """Close findings by number, by rule, or all of an agent's tasks.

    Policy counts the tripwires of an agent's tasks as long as they are open. Every finding can be closed by its number,
    also one of no task. It stays in the ledger, with the reason, the time and who closed it. Closing lifts no freeze.

    The command needs the worker's identity. The name that is recorded is that of VAULT_TOKEN; without it, the worker's.

    Example: jitvault findings close 12 --reason "the clock was set"

    Example: jitvault findings close --rule unknown_publication --reason restored
    """
    if sum(map(bool, (numbers, agent is not None, rule))) != 1:
        raise UsageError(
            "findings close takes one of numbers, --rule RULE and --agent NAME",
            hint="`jitvault findings list` shows numbers and rules.",
        )
    worker, closing = _closing(reason)
    wanted, rules = sorted(set(numbers or ())), sorted(set(rule or ()))
    if agent is not None:
        closed = close_of_agent(worker, agent, closing)
    elif rules:
        closed = close_of_rules(worker, rules, closing)
    else:
        closed = worker.ledger.close_findings_by_number(wanted, closing)
    answer = {"agent": agent, "findings": wanted, "rules": rules, "closed": closed, **_recorded(closing)}
    whose = f" of {agent or ', '.join(rules)}" if agent or rules else ""
    output.print_lines(answer, f"closed {counted(closed, 'finding')}{whose}, by {closing.name}")


def _closing(reason: str) -> tuple[WorkerContext, Closing]:
    """Return the worker, and what is recorded of a close.

    The caller's own token says whose name that is. Where none is set, the name is that of the worker's identity, and
    nobody knows whose hand it was.
    """
    why = checked_reason(reason)
    wiring = session.open_session()
    worker = wiring.worker
    me = wiring.caller
    entity = worker.identity.by_id(me.entity_id) if me.entity_id else None
    name = entity.name if entity else me.display_name
    return worker, Closing(name=name, entity=me.entity_id or None, why=why, at=worker.now())


def _recorded(closing: Closing) -> dict[str, Any]:
    return {"reason": closing.why, "by": closing.name, "by_entity": closing.entity}


def close_of_agent(worker: WorkerContext, agent: str, closing: Closing) -> int:
    """Return how many findings of an agent's tasks were closed.

    Raises NotFound for an agent that Vault does not know, and WrongState where it has no open finding.
    """
    entity = worker.identity.by_name(agent)
    if entity is None:
        raise NotFound(
            f"there is no Vault entity named {agent!r:.80}", hint="`bao list identity/entity/name` shows all entities."
        )
    closed = worker.ledger.close_findings(entity.id, closing)
    if not closed:
        raise WrongState(f"{agent} has no open finding", hint="`jitvault policy explain SPEC` says what keeps it out.")
    return closed


def close_of_rules(worker: WorkerContext, rules: Sequence[str], closing: Closing) -> int:
    """Return how many findings of these rules were closed.

    Raises WrongState where none was open, as for a misspelt rule.
    """
    known = {row.rule for row in worker.ledger.findings(closed=False)}
    for rule in rules:
        if rule not in known:
            raise WrongState(
                f"no open finding has the rule {rule!a:.80}{nearest(rule, known)}",
                hint="`jitvault findings list` shows the rules.",
            )
    return worker.ledger.close_findings_by_rule(rules, closing)


def _names_of(ledger: Ledger, rows: Sequence[Mapping[str, Any]]) -> dict[str | None, str]:
    """Return the names of entities that the ledger's tasks name, by id.

    The tasks are those of the findings, and all where an author is to be named.
    """
    if any(row["author"] for row in rows):
        bodies = list(ledger.revision_bodies())
    else:
        bodies = list(ledger.current_bodies({row["task_id"] for row in rows if row["task_id"]}).values())
    return {party.entity: party.name for body in bodies for party in _parties(body)}


def _entity_of(wiring: Wiring, ledger: Ledger, who: str) -> str:
    """Return the id of the entity that `who` names, or is.

    A name is looked up in Vault with the worker's identity, and without it among those in the ledger's tasks. Raises
    NotFound for a name that nobody has, since an empty list would say that nothing was found about them.
    """
    if _ENTITY.fullmatch(who):
        return who
    entity = wiring.worker.identity.by_name(who) if wiring.has_worker else None
    if entity is not None:
        return entity.id
    named: dict[str, set[str]] = {}
    for body in ledger.revision_bodies():
        for party in _parties(body):
            named.setdefault(party.name.casefold(), set()).add(party.entity)
    found = named.get(who.casefold(), set())
    if len(found) > 1:
        ids = ", ".join(sorted(found))
        raise UsageError(f"{who!a:.80} is the name of {len(found)} entities", hint=f"Name one by its id: {ids}.")
    if not found:
        known = ", ".join(sorted(named)[:_MOST_NAMES]) or "nobody"
        raise NotFound(f"no task names {who!a:.80}", hint=f"Tasks name: {known}. An entity's id works as well.")
    return found.pop()


def _parties(body: bytes) -> Iterator[Party]:
    """Yield whom a stored revision names; nobody where it cannot be read."""
    with suppress(CorruptRecord):
        content = Revision.of(body).content
        yield from (content.agent, content.requester, content.owner)
