"""`jitvault freeze`, `unfreeze` and `freezes`.

A freeze stops grants and renewals of a scope until it is lifted.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.options import Debug, Json

if TYPE_CHECKING:
    from jitvault.model.scope import Scope
    from jitvault.wiring import Wiring

Agent = Annotated[str, typer.Option("--agent", help="Tasks of this agent (its name or entity id).")]
Template = Annotated[str, typer.Option("--template", help="Tasks that use this template.")]
Owner = Annotated[str, typer.Option("--owner", help="Tasks of this owner (its name or entity id).")]


def freeze(
    reason: Annotated[str, typer.Option("--reason", help="The reason. Those who are refused read it.")],
    agent: Agent = "",
    template: Template = "",
    owner: Owner = "",
    all_: Annotated[bool, typer.Option("--all", help="All tasks.")] = False,
    unseen: Annotated[bool, typer.Option("--unseen", help="Freeze a name that no task has had yet.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Freeze an agent, a template, an owner or everything.

    Nothing that the freeze covers is granted or renewed, and its tasks that hold access end: a worker ends them, or
    this command if it has the worker's identity. The freeze holds until an operator lifts it with `jitvault unfreeze`.

    Example: jitvault freeze --agent research-agent --reason "its host was compromised"
    """
    from jitvault.cli import session
    from jitvault.cli.commands import kill_switch as killswitch
    from jitvault.cli.views import output
    from jitvault.documents.paths import Kept
    from jitvault.errors import JitvaultError
    from jitvault.kill_switch.triggers import covered_by_freeze, end_all
    from jitvault.model.scope import Scope

    wiring = session.open_session()
    requested = Scope(agent, template, owner)
    if not unseen:
        check_name_is_used(wiring, agent or owner)
    sign(agent, template, owner, all_, reason=reason, freezes=True)
    ended = {}
    if wiring.has_worker:
        # the audit line of this freeze may not have been read yet
        wiring.worker.ledger.note_written(Kept.FREEZE, wiring.person.entity, requested.key)
        ended = end_all(wiring.worker, covered_by_freeze(wiring.worker), lambda words: typer.echo(words, err=True))
        check_in_force(wiring, requested)
    # only now, and whatever its result: a doubt about the name must not keep access alive
    with suppress(JitvaultError):
        if template and not killswitch.is_known(wiring, Scope(template=template)):
            # the template is frozen nevertheless: its first task may be about to be granted
            typer.echo(f"no task ever had {template!r:.80}: is the name right?", err=True)
    scope = {"agent": agent, "template": template, "owner": owner}
    shown = {"frozen": {part: name for part, name in scope.items() if name}, "reason": reason, "ended": ended}
    if json_:
        typer.echo(output.to_json(shown))
    else:
        typer.echo(
            f"frozen; {len(ended)} task(s) were ended" if wiring.has_worker else "frozen; a worker ends the rest"
        )


def check_in_force(wiring: Wiring, scope: Scope) -> None:
    """Raise NotConfirmed where an unfreeze is dated later than a new freeze.

    The freeze was signed just now.
    """
    from jitvault.errors import NotConfirmed
    from jitvault.lifecycle.requests.freeze_documents import freezes as in_force

    if not any(word.scope.is_same(scope) for word in in_force(wiring.worker)):
        hint = "Vault's clock was set back since an operator lifted it. Freeze it again in some seconds."
        raise NotConfirmed(f"the freeze of {scope} is signed but has no effect: a lift is dated later", hint=hint)


def unfreeze(
    reason: Annotated[str, typer.Option("--reason", help="Why it is safe again. Vault or the ledger keeps it.")],
    agent: Agent = "",
    template: Template = "",
    owner: Owner = "",
    all_: Annotated[bool, typer.Option("--all", help="Lift all freezes by operators.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Lift a freeze, so that tasks can be granted again.

    Name the scope of a freeze by an operator. Without a scope the command lifts the freeze of everything by a tripwire:
    it first ends what is still held, and needs the worker's identity.

    Example: jitvault unfreeze --agent research-agent --reason "the host was rebuilt"
    """
    from jitvault.cli.commands import audit_status as trust
    from jitvault.cli.views import output

    if not (agent or template or owner or all_):
        trust.lift_tripwires(reason, as_json=json_)
        return
    scope = sign(agent, template, owner, all_, reason=reason, freezes=False)
    if json_:
        typer.echo(output.to_json({"lifted": scope, "reason": reason}))
    else:
        typer.echo("lifted; tasks that were ended stay ended")


def check_name_is_used(wiring: Wiring, name: str) -> None:
    """Raise NotFound for the name of an agent or owner that no entity has.

    A typing error must not look like a success. Only the worker's identity can ask Vault for an entity. Without it, the
    agent or owner of some task has to have the name.
    """
    from jitvault.cli.commands import kill_switch as killswitch
    from jitvault.documents.signed import check_name
    from jitvault.errors import NotFound
    from jitvault.model.scope import Scope

    if not name:
        return
    check_name(name)
    if wiring.has_worker and (wiring.worker.identity.by_name(name) or wiring.worker.identity.by_id(name)):
        return
    if not any(killswitch.is_known(wiring, scope) for scope in (Scope(agent=name), Scope(owner=name))):
        hint = "Take the name from `jitvault list` or the spec. --unseen freezes a name that no task has had yet."
        raise NotFound(f"no agent or owner has the name {name!r:.80}: nothing was frozen", hint=hint)


def sign(agent: str, template: str, owner: str, all_: bool, *, reason: str, freezes: bool) -> dict[str, str]:
    """Sign a freeze, or its lift, and return the scope's named parts.

    The caller signs as an operator; `freezes` False signs the lift. Raises UsageError, InvalidInput, VaultRefused.
    """
    from jitvault.cli import session
    from jitvault.documents.signed import check_note
    from jitvault.errors import InvalidInput, UsageError
    from jitvault.lifecycle.requests.sign import sign_freeze
    from jitvault.model.scope import Scope

    if sum(map(bool, (agent, template, owner, all_))) != 1:
        raise UsageError("a freeze takes one of --agent, --template, --owner and --all")
    if not check_note(reason):
        raise InvalidInput("--reason: expected a reason", hint="Everyone who is refused reads the reason.")
    scope = Scope(agent, template, owner)
    person = session.open_session().person
    with session.signing(f"{'freeze' if freezes else 'unfreeze'} {scope}", "operators"):
        sign_freeze(person, scope, freezes=freezes, reason=reason)
    return scope.as_json()


def freezes(json_: Json = False, debug: Debug = False) -> None:
    """List the active freezes: of what, by whom, since when and why.

    With the worker's identity their signatures are verified and their authors named. Without it, a freeze by a tripwire
    is shown only where there is a ledger.
    """
    from jitvault.cli import session
    from jitvault.cli.views import output
    from jitvault.cli.views import published as fallback
    from jitvault.lifecycle.requests.freezes import all_freezes, freezes_seen_by_person
    from jitvault.model.scope import Scope

    wiring = session.open_session()
    known = wiring.has_worker or fallback.has_ledger(wiring)
    if wiring.has_worker:
        found = all_freezes(wiring.worker)
    else:
        tripped = session.ledger_to_read(wiring).freeze() if known else None
        with session.signing("see what is frozen", "operators and auditors"):
            found = freezes_seen_by_person(wiring.person, tripped=tripped)
    if json_:
        typer.echo(output.to_json({"freezes": found, "tripwires_known": known}))
        return
    table = output.new_table("what", "by", "since", "why")
    for row in found:
        author = row["by"] or ("jitvault ledger recover" if row["kind"] == "recovery" else "a tripwire")
        table.add_row(str(Scope(**row["scope"])), author, output.readable(row["at"]), row["reason"])
    nothing = "Nothing is frozen." if known else "Nothing is frozen by operators."
    output.console().print(table if found else nothing)
    if not known:
        typer.echo("Whether a tripwire froze everything is not known here: only the ledger records it.")
