"""Output about more time for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitvault.cli.folding import folded
from jitvault.cli.quiet import note
from jitvault.cli.views import output
from jitvault.cli.views import task as render
from jitvault.cli.views.output import NewFile
from jitvault.documents.published_parts import GrantedExtension, PublishedExtension
from jitvault.documents.published_task import PublishedTask
from jitvault.formats.rfc3339 import rfc3339
from jitvault.model.extension import Extension, extension_id
from jitvault.model.states import State
from jitvault.policy.decision import Requirement

_LEFT = (
    "The new token waits in the inbox for the process that holds the task here. One that does not take it (`jitvault "
    "exec` without --on-change restart) leaves it there: `{command}`."
)


@dataclass(frozen=True, slots=True)
class Shown:
    """An extension that was made or waits.

    `content` is what was signed, and `replaces` says that it takes a new token.
    """

    state: str
    digest: str
    content: Extension | GrantedExtension
    replaces: bool
    missing: Sequence[Requirement]


def waits_for(extension: PublishedExtension) -> str:
    """Return for whom a published extension waits.

    It waits for approvals, or for its author, who takes the new token.
    """
    if extension.missing:
        return f"for {render.missing_approvals(extension.missing)}"
    return f"for {extension.content.by.name} to run the same command again and take the new token"


def facts(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the extensions of a task, and the request that was not granted.

    `shown` has `task_id`, `state`, `extension` and `extensions`. Of a request that waits it says for whom, until when,
    and the command that answers it.
    """
    found: dict[str, str] = {}
    if shown["extensions"]:
        given = (
            f"{render.in_words(each.seconds)} for {each.by.name} ({each.reason}){_approved_by(each)}"
            for each in shown["extensions"]
        )
        found["extended"] = ", ".join(given)
    last = shown["extension"]
    if shown["state"] not in ("issuing", "issued", "active") or last is None or last.state == "extended":
        return found
    content, task = last.content, shown["task_id"]
    asked = f"{render.in_words(content.seconds)} asked for by {content.by.name}"
    if last.error is not None:
        # refused, or cancelled by its author: nothing waits
        return {**found, "more time": f"{last.state}: {last.error.message} ({asked})"}
    name, until = extension_id(last.digest), output.readable(content.since)
    found["more time"] = f"{asked} ({content.reason}), extension {name}: waits {waits_for(last)}, until {until}"
    if last.missing:
        found["ask"] = render.ask_approvers(task, last.missing)
    return found


def _approved_by(extension: GrantedExtension) -> str:
    """Return who approved an extension; nothing where policy alone did."""
    names = " and ".join(each.name for each in extension.approved_by)
    return f", approved by {names}" if names else ""


def print_extension(
    document: PublishedTask,
    extension: Shown,
    message: Mapping[str, Any] | None,
    *,
    out: NewFile | None,
    made_at: str | None = None,
    is_held: bool = False,
) -> None:
    """Print an extension, and the new wrapping token in `message` once.

    `made_at` says that the extension was made by an earlier command, and when. With `is_held` a process of this user
    holds the task, and the new token was left to it.
    """
    wrappings = list(message["wrapping"]) if message else []
    name = extension_id(extension.digest)
    content = {
        key: getattr(extension.content, key) for key in ("by", "reason", "since", "seconds", "until", "window_s")
    }
    shown: dict[str, Any] = {
        "task_id": document.task_id,
        "grant_id": document.grant_id,
        "state": document.state.value,
        "ends_at": rfc3339(document.ends_at) if document.ends_at else None,
        "extension": {"id": name, "state": extension.state, "digest": extension.digest, **content},
        "made_at": made_at,
        "replaces": extension.replaces,
        "missing": extension.missing,
        "wrapping": wrappings,
    }
    if out is not None:
        out.write(output.to_json(shown) + "\n")
        shown["wrapping"] = [{k: v for k, v in wrapping.items() if k != "token"} for wrapping in wrappings]
    tokens = [wrapping["token"] for wrapping in shown["wrapping"] if "token" in wrapping]
    if output.print_for_scripts(shown, *tokens):
        return
    console = output.console()
    is_pending = extension.state == "pending"
    now = "is to be extended" if is_pending else "is extended"
    before = f" already, at {output.readable(made_at)}; nothing more was asked" if made_at else ""
    console.print(f"Task {shown['task_id']} {now}{before}")
    facts = {"id": name, "expires": output.readable(shown["ends_at"])}
    if is_pending:
        facts |= {"then": output.readable(extension.content.until), "digest": extension.digest}
    if extension.missing:
        facts["missing"] = render.missing_approvals(extension.missing)
    if made_at:
        facts["more"] = "the same command with --again"
    if extension.replaces and not made_at:
        agent = document.full_revision.content.agent.name
        when = "once it is extended" if is_pending else "from now on"
        facts["note"] = f"what {agent} read before is revoked {when}: it has to unwrap and read again"
    output.print_facts(console, facts, least=len("expires"))
    render.print_wrappings(console, shown["wrapping"], out)
    if extension.replaces and not is_pending and message is None:
        note(_where_left(document) if is_held else render.why_no_token(document))


def _where_left(document: PublishedTask) -> str:
    """Return where a new token is that was left to the task's process."""
    if document.state is State.ACTIVE:
        return "The new token was taken: its wrapping was opened."
    return _LEFT.format(command=render.take_command(document))


def print_cancelled(document: PublishedTask, digest: str) -> None:
    """Print that a request for more time was cancelled."""
    ends_at = rfc3339(document.ends_at) if document.ends_at else None
    name = extension_id(digest)
    extension = {"id": name, "state": "cancelled", "digest": digest}
    state = document.state.value
    shown = {"task_id": document.task_id, "state": state, "ends_at": ends_at, "extension": extension}
    if output.print_for_scripts(shown, document.task_id):
        return
    console = output.console()
    console.print(f"The request for more time for task {document.task_id} is cancelled (extension {name})")
    console.print(f"  expires  {output.readable(ends_at)}")


def print_decided(
    document: PublishedTask,
    extension: Extension,
    decision: str,
    expires: str | None,
    *,
    missing: Sequence[Requirement],
) -> None:
    """Print a decision about more time that was counted, and its result.

    `missing` are the approvals that the extension still lacks.
    """
    until = next((each.until for each in document.extensions if each.digest == extension.digest), None)
    shown = {
        "task_id": document.task_id,
        "decision": decision,
        "digest": extension.digest,
        "expires_at": expires,
        "state": document.state.value,
        "missing": missing,
        "extension": extension.id,
        "extended_until": until,
    }
    if output.print_for_scripts(shown, document.task_id):
        return
    console = output.console()
    past = "approved" if decision == "approve" else "denied"
    result = _result(extension, decision, until=until, is_missing=bool(missing))
    line = f"You {past} more time for task {document.task_id} (extension {extension.id}); {result}"
    console.print(folded(line, console.width, rest="  "), soft_wrap=True)
    if missing:
        console.print(f"  missing  {render.missing_approvals(missing)}")


def _result(extension: Extension, decision: str, *, until: str | None, is_missing: bool) -> str:
    """Return in words what became of more time after a decision about it."""
    if until is not None:
        return f"it is extended until {output.readable(until)}"
    if decision == "deny":
        return f"it ends at {output.readable(extension.since)}, as before"
    later = output.readable(extension.until)
    if is_missing:
        return f"the deadline moves to {later} once nothing is missing"
    again = "runs the same `jitvault extend` again and receives the new token"
    return f"the deadline moves to {later} when {extension.by.name} {again}"
