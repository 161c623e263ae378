"""One sentence that says what an approver gives.

Whatever others chose is one word in it, or stands in quotation marks: it can neither end the sentence nor begin another
one.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from jitvault.cli.folding import ID
from jitvault.cli.views.output import pairs
from jitvault.documents.receipt import StatedAccess
from jitvault.formats.time_window import spell_duration
from jitvault.lifecycle.decision.pending_approvals import ApprovalSubject
from jitvault.model.extension import Extension
from jitvault.model.revision import Revision
from jitvault.model.revision_content import Access


def sentence(subject: ApprovalSubject) -> str:
    """Return what an approval of the subject gives, in one sentence."""
    revision = subject.revision
    agent = word(revision.content.agent.name)
    if subject.extension is not None and subject.request is not None:
        given = f"keeps its access to {_targets(revision)} {_longer(subject.extension)}"
        if subject.request.replaces:
            given += ", with a new token after the end of its present one is proven"
    else:
        given = f"gets {_access(revision)}"
    return f"If approved, {agent} {given}{_allowed(revision)}."


def word(text: str) -> str:
    """Return a name as one word, quoted where it is anything but an id.

    An entity's name in Vault may hold blanks and quotation marks, and whole sentences.
    """
    return text if ID.fullmatch(text) else quoted(text)


def quoted(text: str) -> str:
    """Return text in quotation marks, with those that are in it escaped."""
    return json.dumps(text, ensure_ascii=False)


def chosen(entry: Access | StatedAccess) -> str:
    """Return an access of a revision by its template and the choices."""
    choices = f" with {pairs({name: word(value) for name, value in entry.with_.items()})}" if entry.with_ else ""
    return f"{word(entry.template)}{choices}"


def utc(at: datetime) -> str:
    """Return a time as `2024-05-01 12:00:00 UTC`."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _access(revision: Revision) -> str:
    """Return what a revision gives, how long, and through whom."""
    window = revision.window
    if window.for_ is not None:
        given = f"{spell_duration(window.for_)} of access to {_targets(revision)}, from the moment it is granted"
    else:
        given = f"access to {_targets(revision)} until {utc(window.until)}" if window.until else ""
    if window.not_before is not None:
        given += f", not before {utc(window.not_before)}"
    if revision.delegation:
        above = revision.delegation[-1]
        given += f", handed on by {word(above.agent.name)} from task {word(above.task)}, with which it ends"
    if revision.spec.spec.deliver == "agent":
        return f"{given}, delivered to its own inbox"
    return f"{given}, delivered through {word(revision.content.requester.name)}"


def _longer(extension: Extension) -> str:
    more = spell_duration(timedelta(seconds=extension.seconds), more=True)
    whole = spell_duration(timedelta(seconds=extension.window_s))
    return f"for {more}, until {utc(extension.until)} ({whole} in all)"


def _targets(revision: Revision) -> str:
    """Return what the accesses reach.

    Where they are several, each is named with its template.
    """
    if len(revision.access) == 1:
        return _target(revision.access[0])
    templates: dict[str, list[str]] = {}
    for entry in revision.access:
        templates.setdefault(_target(entry), []).append(word(entry.template))
    return " and ".join(f"{target} by {' and '.join(names)}" for target, names in templates.items()) or "nothing"


def _target(entry: Access) -> str:
    facts = entry.connection
    if facts is None:
        return chosen(entry)
    address = word(facts.address)
    return f"database {word(facts.database)} at {address}" if facts.database else address


def _allowed(revision: Revision) -> str:
    """Return the template's description, as the end of the sentence.

    With several accesses it would be no sentence any more: then it is among the terms of each.
    """
    if len(revision.access) != 1:
        return ""
    return f": {quoted(revision.access[0].description.rstrip('.'))}"
