"""Output about a request for a grant that waits."""

from __future__ import annotations

from datetime import datetime

from jitvault.cli.views import output
from jitvault.cli.views.output import NewFile
from jitvault.cli.views.task import missing_approvals
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import WaitTimedOut
from jitvault.formats.rfc3339 import rfc3339


def print_queued(document: PublishedTask, until: datetime, *, out: NewFile | None) -> None:
    """Print that a request for a grant waits.

    It says for what and until when the request waits, and how to cancel it.

    Raises WaitTimedOut where the token was to be written to a file, which would be missing.
    """
    task = document.task_id
    why = _waits_for(document)
    shown = {
        "task_id": task,
        "state": document.state.value,
        "digest": document.digest,
        "missing": document.missing,
        "queued": {"until": rfc3339(until), "why": why},
        "next": f"jitvault cancel {task}",
    }
    if out is not None:
        hint = f"Run `jitvault grant {task} --out FILE` again to take the token. `jitvault cancel {task}` cancels it."
        raise WaitTimedOut(f"task {task} waits until {output.readable(until)}: {why}", hint=hint)
    if output.print_for_scripts(shown, task):
        return
    console = output.console()
    console.print(f"Task {task} waits, and is issued as soon as nothing holds it up")
    facts = {"waits for": why, "until": f"{output.readable(until)}, then the request lapses"}
    if document.is_for_agent:
        facts["then"] = f"the token is in the inbox of {document.full_revision.content.agent.name}"
    else:
        facts["then"] = f"jitvault grant {task}, within minutes: it prints the token"
    output.print_facts(console, {**facts, "cancel": f"jitvault cancel {task}"})


def _waits_for(document: PublishedTask) -> str:
    """Return in words what holds a request for a grant up."""
    if document.missing:
        return missing_approvals(document.missing)
    if document.error is not None:
        return document.error.message
    return f"its window, which begins at {window_start(document)}"


def window_start(document: PublishedTask) -> str:
    """Return when the task's window begins."""
    begins = document.full_revision.spec.window.not_before
    return output.readable(begins) if begins else "once"
