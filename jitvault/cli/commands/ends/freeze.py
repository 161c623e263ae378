"""`jitvault freeze` and `unfreeze`.

A freeze stops grants and renewals of a scope until it is lifted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated

import typer

from jitvault.cli import session
from jitvault.cli.commands.installation import audit_status as trust
from jitvault.cli.ends import kill_switch as killswitch
from jitvault.cli.ends.frozen_tasks import wait_for_frozen
from jitvault.cli.ends.kill_switch import in_scope
from jitvault.cli.lookups.names_in_tasks import NamesInTasks, contents_published
from jitvault.cli.options import DEFAULT_WAIT, Wait, Yes
from jitvault.cli.quiet import waits
from jitvault.cli.views import output
from jitvault.cli.views.freezes import print_frozen
from jitvault.cli.views.output import readable, warn
from jitvault.documents.paths import ANYONE, freeze_path
from jitvault.documents.signed import check_name, check_note
from jitvault.errors import InvalidInput, JitvaultError, NotConfirmed, NotFound, UsageError
from jitvault.formats.clocks import TOLERANCE
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.plural import counted, listed
from jitvault.lifecycle.requests.freeze_history import first_at, freeze_history
from jitvault.lifecycle.requests.freezes import all_freezes, freezes_seen_by_person
from jitvault.lifecycle.requests.sign import sign_freeze
from jitvault.model.scope import Scope
from jitvault.wiring import Wiring

Agent = Annotated[str, typer.Option("--agent", help="Tasks of this agent (its name or entity id).")]
Template = Annotated[str, typer.Option("--template", help="Tasks that use this template.")]
Owner = Annotated[str, typer.Option("--owner", help="Tasks of this owner (its name or entity id).")]


def freeze(
    reason: Annotated[str, typer.Option(help="The reason. Those who are refused read it.")],
    agent: Agent = "",
    template: Template = "",
    owner: Owner = "",
    all_: Annotated[bool, typer.Option("--all", help="All tasks.")] = False,
    unseen: Annotated[bool, typer.Option("--unseen", help="Freeze a name that no task has had yet.")] = False,
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Freeze an agent, template, owner or everything, and end held access.

    Nothing that the freeze covers is granted or renewed, and a worker ends its tasks that hold access. The command
    waits until all are proven to be ended. With --all it asks first; without a terminal it needs --yes. The freeze
    holds until an operator lifts it with `jitvault unfreeze`.

    Example: jitvault freeze --agent research-agent --reason "its host was compromised"
    """
    requested = _scope(agent, template, owner, all_, reason)
    wiring = session.open_session()
    if not unseen:
        check_name_is_used(wiring, agent or owner)
        _check_template_is_known(wiring, template)
    if all_ and not yes:
        _ask_for_all(wiring)
    earlier = _frozen_before(wiring, requested)
    begun = wiring.clock.agreed()
    # before anything is counted: nothing may keep the freeze from being signed, or delay it
    written_at = _sign(wiring, requested, reason=reason, freezes=True)
    waits(f"The freeze of {requested} is signed: nothing of it is granted or renewed. A worker ends what it holds.")
    ended = wait_for_frozen(wiring, requested, since=written_at or begun - TOLERANCE, wait=wait)
    print_frozen(requested, reason, ended)
    for line in earlier:
        warn(line)
    _check_ended(wiring, requested, ended, wait)


def _ask_for_all(wiring: Wiring) -> None:
    """Ask whether to freeze everything. Raises UsageError without a yes."""
    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was frozen: there is no terminal on which to ask about a freeze of everything",
            hint="--yes freezes everything without a question.",
        )
    what = "All tasks that hold access end"
    with suppress(JitvaultError):
        tasks = in_scope(wiring, Scope())
        what = f"End {counted(len(tasks), 'task')}" + (f" ({listed(tasks, 5)})" if tasks else "")
    session.ask(f"Freeze everything? {what}, and grant nothing until it is lifted", done="nothing was frozen")


def _check_ended(wiring: Wiring, scope: Scope, ended: Mapping[str, str], wait: float) -> None:
    """Raise an error while a task of the freeze is not proven to be ended.

    Raises NotConfirmed where a worker has begun to end each of them, else NoWorkerActed.
    """
    left = {task: state for task, state in ended.items() if state not in session.DONE}
    if not left:
        return
    names = listed((f"{task} ({state})" for task, state in left.items()), 5)
    message = (
        f"the freeze of {scope} holds; {len(left)} of {counted(len(ended), 'task')} not proven to be ended: {names}"
    )
    if {*left.values()} == session.ENDING:
        hint = f"`jitvault status {next(iter(left))}` shows what is missing. The worker tries again."
        raise NotConfirmed(message, hint=hint)
    raise session.nobody_acted(
        wiring,
        f"{message}; no worker has done this within {wait:g} s",
        hint=f"The freeze is signed, and a worker ends them when it reads it. {session.how_to_start(wiring)} Then "
        f"`jitvault revoke {scope.options} --reason WHY` waits for the rest, and tells of each task.",
    )


def unfreeze(
    reason: Annotated[str, typer.Option(help="Why it is safe again. Vault or the ledger keeps it.")],
    agent: Agent = "",
    template: Template = "",
    owner: Owner = "",
    all_: Annotated[bool, typer.Option("--all", help="Lift all freezes by operators.")] = False,
    unseen: Annotated[
        bool,
        typer.Option("--unseen", help="Sign the lift though no such freeze is found, for example after a restore."),
    ] = False,
) -> None:
    """Lift a freeze, so that tasks can be granted again.

    Name the scope of a freeze by an operator. A scope that nobody froze is refused (exit 9). Without a scope the
    command lifts the freeze of everything by a tripwire: it first ends what is still held, and needs the worker's
    identity.

    Example: jitvault unfreeze --agent research-agent --reason "the host was rebuilt"
    """
    if not (agent or template or owner or all_):
        if not session.open_session().has_worker:
            raise UsageError(
                "without a scope the freeze by a tripwire is lifted, and this needs the worker's identity",
                hint="Name the scope of an operator's freeze; --all lifts all of these. `jitvault freezes` shows them.",
            )
        trust.lift_tripwires(reason)
        return
    scope = _scope(agent, template, owner, all_, reason)
    wiring = session.open_session()
    lifted = _freezes_in(wiring, scope)
    if not lifted and not unseen:
        raise _nothing_frozen(scope)
    _sign(wiring, scope, reason=reason, freezes=False)
    lines = [f"lifted: {what}, frozen since {output.readable(since)}" for what, since in lifted]
    if lines:
        lines.append("tasks that were ended stay ended")
    nothing = f"the lift of {scope} is signed; no freeze of it was found here"
    output.print_lines({"lifted": scope.as_json(), "reason": reason}, *(lines or [nothing]))


def _freezes_in(wiring: Wiring, scope: Scope) -> list[tuple[str, str]]:
    """Return the operators' freezes that a lift of `scope` ends.

    Each has the time since when it holds. With the worker's identity those count as well that only its ledger knows.
    """
    with session.signing(f"unfreeze {scope}", "operators", writes=freeze_path(ANYONE, scope.key)):
        found = freezes_seen_by_person(wiring.person)
        history = freeze_history(wiring.person.documents)
    if wiring.has_worker:
        found = [*found, *(one for one in all_freezes(wiring.worker) if one["kind"] == "operator")]
    named = ((Scope(**one["scope"]), first_at(one, history)) for one in found)
    lifted = {str(each): at for each, at in named if scope.is_all or each.is_same(scope)}
    return list(lifted.items())


def _nothing_frozen(scope: Scope) -> NotFound:
    return NotFound(
        f"no operator froze {scope}: nothing was lifted",
        hint="`jitvault freezes` shows the active freezes with their scopes. After a restore a worker may know one "
        "that Vault has lost: --unseen signs the lift all the same. Without a scope, and with the worker's identity, "
        "`jitvault unfreeze --reason WHY` lifts a tripwire's freeze.",
    )


def check_name_is_used(wiring: Wiring, name: str) -> None:
    """Raise NotFound for the name of an agent or owner that no entity has.

    A typing error must not look like a success. Only the worker's identity can ask Vault for an entity. Without it, the
    agent or owner of some task has to have the name.
    """
    if not name:
        return
    check_name(name)
    if wiring.has_worker and (wiring.worker.identity.by_name(name) or wiring.worker.identity.by_id(name)):
        return
    if not any(killswitch.is_known(wiring, scope) for scope in (Scope(agent=name), Scope(owner=name))):
        hint = "Take the name from `jitvault list` or the spec. --unseen freezes a name that no task has had yet."
        names = NamesInTasks.of(contents_published(wiring))
        meant = nearest(name, {*names.agents.values(), *names.owners.values()})
        raise NotFound(f"no agent or owner has the name {name!r:.80}{meant}: nothing was frozen", hint=hint)


def _check_template_is_known(wiring: Wiring, name: str) -> None:
    """Raise NotFound for a template that is neither here nor in a task."""
    if not name:
        return
    here: set[str] = set()
    # a broken file of another template must not keep a freeze from being signed
    with suppress(JitvaultError):
        here = set(wiring.templates)
    if name in here or killswitch.is_known(wiring, Scope(template=name)):
        return
    hint = "`jitvault templates list` shows all templates. --unseen freezes a name that nothing has had yet."
    raise NotFound(f"there is no template {name!r:.80}{nearest(name, here)}: nothing was frozen", hint=hint)


def _scope(agent: str, template: str, owner: str, all_: bool, reason: str) -> Scope:
    """Return the scope that the options name. Raises UsageError, InvalidInput."""
    if sum(map(bool, (agent, template, owner, all_))) != 1:
        raise UsageError("a freeze takes one of --agent, --template, --owner and --all")
    if not check_note(reason):
        raise InvalidInput("--reason: expected a reason", hint="Everyone who is refused reads the reason.")
    return Scope(agent, template, owner)


def _sign(wiring: Wiring, scope: Scope, *, reason: str, freezes: bool) -> datetime | None:
    """Sign a freeze as an operator, or its lift; return Vault's time of it.

    `freezes` False signs the lift. Raises InvalidInput, VaultRefused.
    """
    act = f"{'freeze' if freezes else 'unfreeze'} {scope}"
    with session.signing(act, "operators", writes=freeze_path(ANYONE, scope.key)):
        sign_freeze(wiring.person, scope, freezes=freezes, reason=reason)
    return session.written_at(wiring, freeze_path(wiring.person.entity, scope.key))


def _frozen_before(wiring: Wiring, scope: Scope) -> list[str]:
    """Return in words who froze the same scope before, since when and why.

    The caller's own freeze is replaced by another one; those of others hold as well. Nothing where Vault does not show
    the freezes: a doubt about them must not keep the new one from being signed.
    """
    found: list[str] = []
    with suppress(JitvaultError):
        same = [one for one in freezes_seen_by_person(wiring.person) if Scope(**one["scope"]).is_same(scope)]
        history = freeze_history(wiring.person.documents) if same else []
        for one in same:
            own = one["by"] == "you"
            then = "your new reason replaces that one" if own else "both reasons hold, and one lift ends both"
            by = one["by"] if own else _name(wiring, one["by"])
            since = readable(first_at(one, history))
            found.append(f"{scope} was frozen already, by {by} since {since}: {one['reason']}; {then}")
    return found


def _name(wiring: Wiring, entity: str) -> str:
    """Return an entity's name, or its id where nobody here may ask Vault."""
    known = wiring.worker.identity.by_id(entity) if wiring.has_worker else None
    return known.name if known is not None else entity
