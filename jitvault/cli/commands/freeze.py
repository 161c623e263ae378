"""Hold the door closed: nothing of a scope is granted or renewed until it is lifted."""

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
    reason: Annotated[str, typer.Option("--reason", help="Why; whoever is refused reads it.")],
    agent: Agent = "",
    template: Template = "",
    owner: Owner = "",
    all_: Annotated[bool, typer.Option("--all", help="All tasks.")] = False,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="The name is right although no task has had it yet.")
    ] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Grant and renew nothing more of an agent, template or owner, or of all, and end what is held of it.

    It holds until an operator lifts it with `jitvault unfreeze`. A worker ends what is held; where this command has its
    identity, it does so itself.
    """
    from jitvault.cli import session
    from jitvault.cli.commands import kill_switch as killswitch
    from jitvault.cli.views import output
    from jitvault.documents.paths import Kept
    from jitvault.errors import JitvaultError
    from jitvault.kill_switch.triggers import covered, end_all
    from jitvault.model.scope import Scope

    wiring, asked = session.open_session(), Scope(agent, template, owner)
    if not unseen:
        check_somebody(wiring, agent or owner)
    sign(agent, template, owner, all_, reason=reason, freezes=True)
    ended = {}
    if wiring.has_worker:
        # its line may be on its way
        wiring.worker.ledger.note_written(Kept.FREEZE, wiring.person.entity, asked.key)
        ended = end_all(wiring.worker, covered(wiring.worker), lambda words: typer.echo(words, err=True))
        check_in_force(wiring, asked)
    # only now, and whatever comes of it: a doubt keeps no access alive
    with suppress(JitvaultError):
        if template and not killswitch.is_known(wiring, Scope(template=template)):
            # it is frozen all the same: the first task of it may be on its way
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
    """Raise NotConfirmed where a lift is dated later than the freeze that was signed just now."""
    from jitvault.errors import NotConfirmed
    from jitvault.lifecycle.requests.freeze_documents import freezes as in_force

    if not any(word.scope.is_same(scope) for word in in_force(wiring.worker)):
        hint = "Vault's clock was set back since somebody lifted it. Freeze it again in some seconds."
        raise NotConfirmed(f"the freeze of {scope} is signed and not in force: a lift is dated later", hint=hint)


def unfreeze(
    reason: Annotated[str, typer.Option("--reason", help="Why it is safe again; kept in Vault or the ledger.")],
    agent: Agent = "",
    template: Template = "",
    owner: Owner = "",
    all_: Annotated[bool, typer.Option("--all", help="All that operators froze.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Let tasks be granted again: of what an operator froze, or without a scope after a tripwire froze everything.

    What is still held after a tripwire is ended first; that needs the worker's identity.
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


def check_somebody(wiring: Wiring, name: str) -> None:
    """Raise NotFound for the name of an agent or owner that nobody has: in a hurry it must not look like a success.

    Whether there is such an entity only the worker's identity can ask; without it somebody's task has to have the name.
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
        hint = "Take it from `jitvault list` or the spec; --unseen freezes a name that no task has had yet."
        raise NotFound(f"nobody has the name {name!r:.80}: nothing was frozen", hint=hint)


def sign(agent: str, template: str, owner: str, all_: bool, *, reason: str, freezes: bool) -> dict[str, str]:
    """Sign it as an operator; gives the scope's named parts. Raises UsageError, InvalidInput, VaultRefused."""
    from jitvault.cli import session
    from jitvault.documents.signed import check_note
    from jitvault.errors import InvalidInput, UsageError
    from jitvault.lifecycle.requests.sign import sign_freeze
    from jitvault.model.scope import Scope

    if sum(map(bool, (agent, template, owner, all_))) != 1:
        raise UsageError("it takes one of --agent, --template, --owner and --all")
    if not check_note(reason):
        raise InvalidInput("--reason: expected a reason", hint="It is what everybody reads who is refused.")
    scope, person = Scope(agent, template, owner), session.open_session().person
    with session.signing(f"{'freeze' if freezes else 'unfreeze'} {scope}", "operators"):
        sign_freeze(person, scope, freezes=freezes, reason=reason)
    return scope.as_json()


def freezes(json_: Json = False, debug: Debug = False) -> None:
    """Show the freezes in force: of what, by whom, since when and why.

    With the worker's identity they are verified and named; without it a tripwire's freeze shows only beside a ledger.
    """
    from jitvault.cli import session
    from jitvault.cli.views import output
    from jitvault.cli.views import published as fallback
    from jitvault.lifecycle.requests.freezes import frozen_by_all, frozen_by_operators
    from jitvault.model.scope import Scope

    wiring = session.open_session()
    known = wiring.has_worker or fallback.has_ledger(wiring)
    if wiring.has_worker:
        found = frozen_by_all(wiring.worker)
    else:
        tripped = wiring.ledger.freeze() if known else None
        with session.signing("see what is frozen", "operators and auditors"):
            found = frozen_by_operators(wiring.person, tripped=tripped)
    if json_:
        typer.echo(output.to_json({"freezes": found, "tripwires_known": known}))
        return
    table = output.new_table("what", "by", "since", "why")
    for one in found:
        by = one["by"] or ("jitvault ledger recover" if one["kind"] == "recovery" else "a tripwire")
        table.add_row(str(Scope(**one["scope"])), by, output.readable(one["at"]), one["reason"])
    nothing = "Nothing is frozen." if known else "Nothing is frozen by operators."
    output.console().print(table if found else nothing)
    if not known:
        typer.echo("Whether a tripwire froze everything is not known here: the ledger has it.")
