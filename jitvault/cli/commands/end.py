"""How access is ended: by whoever is done with it, or by an operator, for one task or many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli.options import DEFAULT_WAIT, Debug, Json, Reason, Task, Wait, Yes, task_id

if TYPE_CHECKING:
    from jitvault.cli.session import Published
    from jitvault.errors import JitvaultError, NotConfirmed
    from jitvault.wiring import Wiring

_OPEN = frozenset({"pending_approval", "approved"})
"""The states of a task that holds nothing and may be granted without another request."""

Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Close it even if that cannot be proven: Vault is made to forget what it cannot revoke."
    ),
]


def complete(task: Task, wait: Wait = DEFAULT_WAIT, json_: Json = False, debug: Debug = False) -> None:
    """End a task that is done: revoke its access and prove it."""
    from jitvault.model.states import EndReason

    _end(task, EndReason.COMPLETED, note="", wait=wait, as_json=json_)


def revoke(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="The task's id.", callback=task_id)] = None,
    agent: Annotated[str, typer.Option("--agent", help="End every task of this agent (its name or entity id).")] = "",
    template: Annotated[str, typer.Option("--template", help="End every task that uses this template.")] = "",
    owner: Annotated[str, typer.Option("--owner", help="End every task of this owner (its name or entity id).")] = "",
    all_: Annotated[bool, typer.Option("--all", help="End every task, and every token of our roles in Vault.")] = False,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="First freeze the same, so that none of it is granted again.")
    ] = False,
    reason: Reason = "",
    force: Force = False,
    yes: Yes = False,
    wait: Wait = DEFAULT_WAIT,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """End a task at once, whatever it is doing, or all tasks of an agent, template or owner, or all there are.

    Access is taken away first, then its end is proven. With --agent, --template, --owner or --all the doors of all of
    them are closed before anything else is done; what is interrupted goes on when the command is run again.
    """
    from jitvault.errors import UsageError
    from jitvault.model.states import EndReason

    if sum(map(bool, (task, agent, template, owner, all_))) != 1:
        raise UsageError("revoke takes one of TASK, --agent, --template, --owner and --all")
    if task is None:
        from jitvault.cli.commands.kill_switch import revoke_scope
        from jitvault.model.scope import Scope

        if force:
            raise UsageError("--force is for one task", hint="What cannot be proven is looked at one by one.")
        scope = Scope(agent, template, owner)
        revoke_scope(scope, note=reason, yes=yes, freeze=freeze, wait=wait, as_json=json_)
        return
    if freeze:
        raise UsageError("--freeze is for --agent, --template, --owner and --all", hint="A task is granted only once.")
    _end(task, EndReason.OPERATOR, note=reason, wait=wait, as_json=json_, force=force, yes=yes)


def _end(
    task: str, reason: Any, *, note: str, wait: float, as_json: bool, force: bool = False, yes: bool = False
) -> None:
    from jitvault.cli import session
    from jitvault.cli.views import task as render
    from jitvault.documents.published_task import ILLEGIBLE
    from jitvault.errors import AuditUntrusted, LedgerUnavailable, OutcomeUnknown, WaitTimedOut, WrongState
    from jitvault.lifecycle.requests.sign import sign_end
    from jitvault.model.states import EndReason

    wiring = session.open_session()
    withdrawn = _withdrawn(wiring, task, note, wait) if reason is EndReason.OPERATOR else None
    if withdrawn is not None and withdrawn["state"] == "cancelled":
        render.decided(withdrawn, as_json=as_json)
        typer.echo(f"task {task} was never granted: there was nothing to revoke, and now it never is", err=True)
        return
    document = withdrawn or session.current(wiring, task)
    state = session.state_here(wiring, task, document)
    if state in {"cancelled", *session.BEFORE}:
        hint = "There is nothing to revoke." + (f" `jitvault cancel {task}` withdraws it." if state in _OPEN else "")
        raise WrongState(f"task {task} is {state}: it was never granted", hint=hint)
    if force:
        _check_forceable({**document, "state": state}, note)
        if not yes:
            question = f"Close task {task} for good even if nothing proves that its credentials are dead?"
            session.ask(question, done="nothing was closed")
    if note and withdrawn is None and state in session.DONE:
        typer.echo(f"task {task} is {state} already: this reason is not kept", err=True)
    unsealed = force and state == "confirmed"
    if state in {*session.GRANTED, ILLEGIBLE} or unsealed or (state == "ending" and (force or note)):
        with session.signing(f"end task {task}", "operators and the task's agent"):
            sign_end(wiring.person, task, reason=reason, note=note, force=force)
    done = session.DONE - {"confirmed"} if unsealed else session.DONE
    if state not in done:
        try:
            document = session.settle(wiring, task, lambda d: d["state"] in done, wait)
        except (AuditUntrusted, OutcomeUnknown, WaitTimedOut) as error:
            document = session.known(wiring, task)
            if document["proof"]:
                render.ended(document, as_json=as_json)
                raise _cut_short(task, error) from None
            raise
        except LedgerUnavailable as error:
            raise session.revoke_without_ledger(wiring, task, error) from None
    render.ended(document, as_json=as_json)
    if not document["proof"]["confirmed"]:
        raise _not_confirmed(document)
    session.check_findings(document)


def _withdrawn(wiring: Wiring, task: str, note: str, wait: float) -> Published | None:
    """Sign the end of a task that may still be granted, before anything else is done for it; gives what became of it.

    None for one that is granted or over by what was published. It may be granted meanwhile: the same end holds then.
    """
    from jitvault.cli import session
    from jitvault.cli.views import published as fallback
    from jitvault.lifecycle.requests.sign import sign_end
    from jitvault.model.states import EndReason

    document = session.published(wiring, task)
    # a request that no worker has taken in would be granted by the first one that does
    waits = document["state"] in _OPEN if document is not None else fallback.asked_at(wiring, task) is not None
    if not waits:
        return None
    with session.signing(f"end task {task}", "operators and the task's agent"):
        sign_end(wiring.person, task, reason=EndReason.OPERATOR, note=note)
    signed = session.Signed(at=session.written_at(wiring, f"requests/{wiring.person.entity}/{task}/end"))
    still = {*_OPEN, *session.GRANTED, "ending"}
    return session.settle(wiring, task, lambda d: d["state"] not in still, wait, signed)


def _check_forceable(document: Published, note: str) -> None:
    """Closing a task without proof needs a reason, and a task that is not proven. Raises UsageError, WrongState."""
    from jitvault.errors import UsageError, WrongState

    if not note:
        raise UsageError("--force needs --reason WHY", hint="It is all that is left of this decision.")
    task, state, proof = document["task_id"], document["state"], document["proof"] or {}
    if state == "sealed":
        raise WrongState(f"task {task} is sealed: it is proven, nothing is to be forced")
    if state == "confirmed" and not proof.get("unproven_because"):
        before = f", as it was {times} before" if (times := _times(proof.get("reopened", 0))) else ""
        raise WrongState(
            f"task {task} is confirmed{before}: nothing is to be forced",
            hint="Its proof is looked at once more when its settle window is over. Should that not hold, or should it "
            f"not be sealed then, `jitvault status {task}` says why, and --force closes it.",
        )


def _cut_short(task: str, error: JitvaultError) -> JitvaultError:
    """What kept the task from being ended and proven, where Vault said at least how far it came."""
    from jitvault.errors import AuditUntrusted, NotConfirmed, OutcomeUnknown

    if isinstance(error, AuditUntrusted):
        message = f"task {task} is revoked as far as Vault says, and nothing is proven: {error}"
        return type(error)(message, hint=error.hint)
    if isinstance(error, OutcomeUnknown):
        # Vault itself answers: what hangs is behind it
        hint = "Look at the target, then run the same command again; a worker tries again, too."
        return NotConfirmed(f"task {task} is NOT known to be revoked: {error}", hint=hint)
    return error


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times" if count else ""


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _not_confirmed(document: Published) -> NotConfirmed:
    from jitvault.errors import NotConfirmed
    from jitvault.lifecycle.record.receipt import is_past_proof, unproven_because

    task, forced = document["task_id"], document["proof"]["forced"]
    if document["state"] == "unverified":
        return NotConfirmed(
            f"task {task} was closed without proof: {forced['reason']}",
            hint="Nothing more will be done about it: look at the target yourself, a credential may still work there. "
            "It stays in every list and report as unverified.",
        )
    alive = [lease for lease in document["proof"]["leases"] if lease["verdict"] in ("revoke_failed", "irrevocable")]
    if alive:
        return NotConfirmed(
            f"task {task} is NOT revoked: Vault could not end {_number(len(alive), 'lease')}, which may still work: "
            f"{alive[0]['error'] or 'no reason given'}",
            hint="Mend that at the target (a write to its engine's role or connection in Vault would cost the proof), "
            "then run the same command again; a worker tries again, too, and Vault is trying or has given up. "
            f"`jitvault status {task}` names the leases.",
        )
    if is_past_proof(document["proof"]):
        return NotConfirmed(
            f"task {task} is revoked as far as Vault says, and cannot be proven any more: "
            f"{unproven_because(document['proof'])}",
            hint="Look at the target: does the credential still work there? Then "
            f"`jitvault revoke {task} --force --reason WHY` closes it without proof.",
        )
    return NotConfirmed(
        f"task {task} is revoked as far as Vault says, and not proven: {unproven_because(document['proof'])}",
        hint=f"The same command tries again; `jitvault status {task}` shows the check that failed. If it can never be "
        f"proven: `jitvault revoke {task} --force --reason WHY` closes it without proof.",
    )
