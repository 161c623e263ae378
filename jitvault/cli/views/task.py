"""Output about one task; nothing here adds a secret."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jitvault.cli.quiet import is_for_program, note
from jitvault.cli.views import output
from jitvault.cli.views.output import NewFile, to_json
from jitvault.cli.views.policy import window_cut
from jitvault.documents.illegible import illegible
from jitvault.documents.proof import CredentialProof, Proof
from jitvault.documents.published_parts import Ended
from jitvault.documents.published_task import PublishedTask
from jitvault.formats.plural import counted
from jitvault.formats.shorten import quoted
from jitvault.formats.time_window import format_duration
from jitvault.formats.token_pattern import without_tokens
from jitvault.lifecycle.record.check_words import NOT_ASKED, evidence_in_words
from jitvault.model.event_bodies import Refusal
from jitvault.model.proof_check import Check
from jitvault.model.revision_text import describe_unasked
from jitvault.model.spec import TaskSpec
from jitvault.model.states import EndReason, State
from jitvault.model.verifiers import unproven
from jitvault.policy.decision import Requirement

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_NOTE = 100
_LONGEST_REASON = 200
"""How much of a note stands in a headline; the fact `ended` has all of it."""
NEVER_HELD = frozenset({"denied", "cancelled", "lapsed"})
"""The states of a task that is over and never held access."""


def print_decision(document: PublishedTask, *, is_refused: bool = False) -> None:
    """Print the state of a task that was decided about.

    Whose approval is missing and the next command are printed as well. `is_refused` says that an error follows, which
    says why and what is next: who has both before them at a terminal reads it once.
    """
    task = document.task_id
    state = document.state.value
    steps = {
        "pending_approval": f"jitvault grant {task} --wait 30m",
        "approved": f"jitvault grant {task}",
        "denied": _after_a_denial(document),
    }
    shown: dict[str, Any] = {
        "task_id": task,
        "state": state,
        "digest": document.digest,
        "missing": document.missing,
        "next": steps.get(state, f"jitvault status {task}"),
    }
    ids = [task]
    if is_refused and document.state is not State.DENIED:
        # a script takes it for the id of a task that was submitted
        ids.clear()
    if output.print_for_scripts(shown, *ids):
        return
    console = output.console()
    console.print(f"Task {task} is", output.coloured(state))
    least = len("missing")
    output.print_facts(console, {"digest": document.digest}, least=least)
    is_said_by_error = is_refused and sys.stdout.isatty() and sys.stderr.isatty()
    if document.missing and not is_said_by_error:
        missing = {
            "waiting": f"for {missing_approvals(document.missing)}",
            "ask": ask_approvers(task, document.missing),
        }
        output.print_facts(console, missing, least=least)
    for one in uncounted(document.refused):
        output.print_facts(console, {"refused": one}, least=least)
    if not is_said_by_error:
        output.print_facts(console, {"because": document.why_denied, "next": shown["next"]}, least=least)


def next_step(document: PublishedTask) -> str | None:
    """Return what comes next for a task, for anybody who reads its `status`; None where nothing does."""
    task = document.task_id
    match document.state:
        case State.APPROVED:
            return f"jitvault grant {task}"
        case State.DENIED:
            return _after_a_denial(document)
        case State.ISSUED | State.ACTIVE:
            takes = _taken_by(document)
            return f"{takes}: {take_command(document)}" if takes else f"jitvault complete {task}, when the work is done"
        case _:
            return None


def _after_a_denial(document: PublishedTask) -> str:
    """Return what a requester does next.

    A person's denial of a revision is final, and policy's is not.
    """
    if any(one.decision == "deny" for one in document.decisions):
        return "change the spec and run `jitvault submit SPEC --revise`"
    return f"jitvault grant {document.task_id}, when the reason is gone"


def missing_approvals(missing: Sequence[Requirement]) -> str:
    """Return the missing approvals as `1 approval by A and 2 approvals by B`."""
    words = [f"{counted(each.count, 'approval')} by {each.group}" for each in missing]
    return " and ".join(words)


def ask_approvers(task: str, missing: Sequence[Requirement]) -> str:
    """Return whom to ask for the missing approvals, and for what."""
    groups = " and one of ".join(each.group for each in missing)
    return f"a member of {groups} to run `jitvault approve {task}`"


def how_to_go_on(document: PublishedTask) -> str:
    """Return what the requester of a grant does while approvals are missing."""
    task = document.task_id
    ask = f"Ask {ask_approvers(task, document.missing)}."
    if document.is_for_agent:
        return (
            f"{ask} The token then goes to the inbox of its agent, without another command. `jitvault cancel {task}` "
            "cancels that."
        )
    return f"{ask} `jitvault grant {task} --wait 30m` waits for that and takes the token."


def when_interrupted(spec: TaskSpec, *, queue: bool) -> str:
    """Return what becomes of a grant whose command is ended with Ctrl-C."""
    if queue or spec.spec.deliver == "agent":
        return (
            f"The request stays: the task is issued when nothing is missing. `jitvault status {spec.id}` shows it, "
            f"`jitvault cancel {spec.id}` cancels it."
        )
    return (
        "A worker that has not answered yet may still issue it. An approval that is given later issues nothing. "
        f"`jitvault grant {spec.id} --wait 30m` goes on, and takes a token that was issued already. "
        f"`jitvault cancel {spec.id}` cancels the task."
    )


def in_words(seconds: float) -> str:
    """Return a duration in whole seconds, as `10m`."""
    return format_duration(timedelta(seconds=round(seconds)))


def print_grant(document: PublishedTask, message: Mapping[str, Any] | None, *, out: NewFile | None) -> None:
    """Print a grant.

    `message` is the caller's inbox message with the wrapping token, which is shown only once.
    """
    stored = document.as_json()
    unasked = describe_unasked(document.full_revision.access, document.decision.obligations)
    shown = {
        **{key: stored[key] for key in ("task_id", "grant_id", "state", "digest", "expires_at", "ends_at", "ttl")},
        "target_asked": not unasked,
        "wrapping": list(message["wrapping"]) if message else [],
    }
    if out is not None:
        out.write(to_json(shown) + "\n")
        shown["wrapping"] = [{k: v for k, v in wrapping.items() if k != "token"} for wrapping in shown["wrapping"]]
    takes = _taken_by(document) if message is None else None
    if message is None and (is_for_program() or takes is None):
        note(why_no_token(document))
    tokens = [wrapping["token"] for wrapping in shown["wrapping"] if "token" in wrapping]
    if output.print_for_scripts(shown, *tokens):
        return
    console = output.console()
    console.print(f"Task {shown['task_id']} is", output.coloured(shown["state"]))
    console.print(f"  expires  {output.readable(shown['ends_at'])}")
    if cut := window_cut(document.full_revision.spec.spec.window, document.decision.obligations):
        console.print(f"  window   {cut}")
    for reason in unasked:
        console.print(output.indented(reason, console.width, first="  end      ", rest=" " * 11), soft_wrap=True)
    print_wrappings(console, shown["wrapping"], out)
    if takes is not None:
        for fetch in document.full_revision.fetches:
            console.print(f"  reads    {fetch.path}", soft_wrap=True)
        within = in_words(min(entry.wrap_ttl_s for entry in document.full_revision.access))
        console.print(f"  unwrap   within {within}, once, by {takes}:")
        console.print(f"           {take_command(document)}", soft_wrap=True)


def take_command(document: PublishedTask) -> str:
    """Return the command by which the agent takes a task's token.

    A task with a heartbeat ends soon after `unwrap --read`, since nobody looks its token up; `exec` does.
    """
    if document.full_revision.spec.spec.window.heartbeat is not None:
        return f"jitvault exec {document.task_id} -- CMD"
    return f"jitvault unwrap {document.task_id} --read"


def _taken_by(document: PublishedTask) -> str | None:
    """Return the agent that takes the wrapping token out of its inbox.

    None where it goes to the requester, or where it was taken.
    """
    if not document.is_for_agent or document.state != State.ISSUED:
        return None
    return str(document.full_revision.content.agent.name)


def print_wrappings(console: Console, wrappings: Sequence[Mapping[str, Any]], out: NewFile | None) -> None:
    """Print what each wrapping token gives, and how to unwrap it."""
    for wrapping in wrappings:
        for path in wrapping["reads"]:
            console.print(f"  reads    {path}")
            if body := (wrapping.get("sends") or {}).get(path):
                console.print(f"  sends    {output.pairs(body)}")
        if out is None:
            console.print(f"  token    {wrapping['token']}", soft_wrap=True)
        # a token on a command line is in the shell's history, and every user of the machine sees it
        command = f"jitvault unwrap {shlex.quote(str(out.path))}" if out else "jitvault unwrap -"
        asks = "" if out else "; the command asks for the token"
        console.print(f"  unwrap   within {in_words(wrapping['ttl'])}, once{asks}:")
        console.print(f"           {command}", soft_wrap=True)


def why_no_token(document: PublishedTask) -> str:
    """Return in words where the wrapping token of a granted task is.

    It is not in the caller's inbox.
    """
    revision = document.full_revision
    if revision.spec.spec.deliver == "agent":
        agent = revision.content.agent.name
        if document.state == State.ACTIVE:
            return f"The wrapping token was opened; it was in the inbox of {agent}."
        return f"The wrapping token is in the inbox of {agent}, who takes it with `{take_command(document)}`."
    return (
        "The wrapping token was printed before, or it was not fetched within ten minutes. It is never issued twice: "
        f"if it is lost, run `jitvault revoke {revision.spec.id}` and use another id."
    )


def print_end(document: PublishedTask) -> None:
    """Print the proof of a task's end."""
    proof = proof_in(document)
    if output.print_for_scripts(proof, document.task_id):
        return
    console = output.console()
    reason = f"({end_in_words(proof.end_reason, document.ended)})"
    console.print(f"Task {proof.task_id} is", output.coloured(proof.state), reason)
    print_proof(console, proof)


def end_in_words(reason: str | None, ended: Ended | None) -> str:
    """Return why a task ended, for people; who revoked it, if so.

    Of a task that was given back it is what the signed end says.

    The reason `operator` is that of every `revoke`, also of one by the task's agent.
    """
    if reason == EndReason.COMPLETED and ended is not None and ended.note:
        # whoever gave it back said how: a program that was killed has completed nothing
        said = quoted(ended.note, _LONGEST_NOTE)
        return f"{ended.name}: {said}" if ended.name else said
    name = ended.name if ended else None
    by = f" by {name}" if name else ""
    if reason == EndReason.FROZEN:
        return f"frozen{by}"
    return f"revoked{by}" if reason == EndReason.OPERATOR else str(reason)


def by_whom(ended: Ended) -> str:
    """Return ` by NAME: "why"`, as far as each is known, on one line."""
    return (f" by {ended.name}" if ended.name else "") + quoted_note(ended)


def quoted_note(ended: Ended) -> str:
    """Return `: "why"` of an end, "" where nobody said why.

    What another person wrote stays in its quotation marks, and is read by programs and models: it has no token.
    """
    return f": {quoted(without_tokens(ended.note), _LONGEST_REASON)}" if ended.note else ""


def heading_end(reason: str | None, ended: Ended | None) -> list[str]:
    """Return why a task ended, in parentheses, as words of a heading.

    There are none where the line `ended` below it says the same: what the signed end says.
    """
    if not reason or (reason == EndReason.COMPLETED and ended is not None and ended.note):
        return []
    return [f"({end_in_words(reason, ended)})"]


def proof_in(document: PublishedTask) -> Proof:
    """Return the proof of a task that ended.

    Raises SecurityFinding for a task that is published as ended without one, which no worker does.
    """
    if document.proof is None:
        raise illegible(document.task_id)
    return document.proof


def not_proven(document: PublishedTask) -> Sequence[str]:
    """Return what no check of the task's proof looks at, or will look at."""
    if document.proof is not None:
        return document.proof.not_proven
    return unproven(document.full_revision.access) if document.state not in NEVER_HELD else ()


def print_counted_decision(
    document: PublishedTask,
    decision: str,
    digest: str,
    expires: str | None,
    *,
    missing: Sequence[Requirement],
    again: str = "",
) -> None:
    """Print a decision that was counted, and the task's state after it.

    `missing` are the approvals that are missing for what was decided about. `again` follows the decision where the same
    one of the caller counted before.
    """
    shown = {
        "task_id": document.task_id,
        "decision": decision,
        "digest": digest,
        "expires_at": expires,
        "state": document.state.value,
        "missing": missing,
    }
    if output.print_for_scripts(shown, document.task_id):
        return
    console = output.console()
    past = {"approve": "approved task", "deny": "denied task", "withdraw": "withdrew your approval of task"}[decision]
    has_ended = document.state in ("ending", "confirmed", "sealed", "unverified")
    what = "its access is revoked, and the task is" if has_ended else "it is"
    console.print(f"You {past} {document.task_id}{again}; {what}", output.coloured(document.state))
    if missing:
        console.print(f"  missing  {missing_approvals(missing)}")


def uncounted(decisions: Iterable[Refusal]) -> list[str]:
    """Return the decisions that do not count, each with the reason."""
    return [f"{one.name} {one.why}" for one in decisions]


def _took(proof: Proof) -> str:
    """Return in words how long the end took.

    It is by the clocks of the processes that worked on it. What no target was asked about is never called proven.
    """
    dead = proof.dead_ms
    proven = proof.confirmed_ms
    is_asked = proof.target_asked is not False
    what = "revoked and proven" if is_asked else NOT_ASKED
    if dead is None or proven is None:
        return f"{what}; a clock was wrong, so how long it took is not known"
    if not is_asked:
        return f"{what} (revoked after {dead} ms, seen in the audit stream after {proven} ms)"
    return f"revoked after {dead} ms, proven after {proven} ms"


def print_proof(console: Console, proof: Proof) -> None:
    """Print each credential with its checks, why a task is still open, and what no check looks at."""
    if proof.confirmed:
        console.print(f"  every credential {_took(proof)}")
    _print_verdict(console, "task token", proof.token)
    for token in proof.earlier_tokens:
        _print_verdict(console, "old token", token)
    for lease in proof.leases:
        _print_verdict(console, "lease", lease)
        # an id has a line of its own and is never folded, so that it can be copied
        console.print(f"    {lease.lease_id}", soft_wrap=True)
        if lease.error:
            console.print(f"    {lease.error}", style="red", soft_wrap=True)
    lines = [f"check {check.n} ({check.name}): {evidence_in_words(check.evidence)}" for check in proof.failed]
    if proof.open_besides:
        lines.append(f"{'not sealed' if proof.confirmed else 'not proven'}: {proof.open_besides}")
    if proof.reopened:
        lines.append(f"its end was reopened {proof.reopened} times: it had been proven, or a revocation was undone")
    for line in lines:
        console.print(output.indented(line, console.width), style="red", soft_wrap=True)
    for line in proof.not_proven:
        console.print(output.indented(f"not proven: {line}", console.width), style="yellow", soft_wrap=True)


def _print_verdict(console: Console, what: str, owner: CredentialProof) -> None:
    console.print(f"  {what:<12}{owner.verdict.value:<18}{_checks(owner.checks)}")


def _checks(checks: Sequence[Check]) -> str:
    return " ".join(f"{c.n}{'✓' if c.ok else '✗'}" for c in checks)
