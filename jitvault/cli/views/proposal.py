"""Show an approver what is decided about.

That is a table, one sentence, the terms, the requester's words, what has changed, and the digest that is signed.
What the requester wrote stands apart, and each of its lines is marked. So no text of theirs begins a line where one of
jitvault's own begins, however long it is and whatever characters it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.text import Text

from jitvault.cli.folding import MARK, folded
from jitvault.cli.views import output
from jitvault.cli.views.proposal_facts import Fact, asked, freeze, more_time, open_questions, own_words, policy, terms
from jitvault.cli.views.proposal_sentence import sentence, word
from jitvault.formats.time_window import format_duration, spell_duration
from jitvault.lifecycle.decision.pending_approvals import ApprovalSubject, PendingApproval
from jitvault.model.revision import Revision

_COLUMN = 16
"""The column of the values."""
_INDENT = "    "
"""The prefix of the sentence's lines: no row and no heading begins in this column."""
_CHANGED = "*"
"""The prefix of a fact that is not as in the revision that was approved."""


def print_proposal(
    subject: ApprovalSubject,
    changes: Sequence[str] | None,
    groups: Sequence[str],
    *,
    frozen: Mapping[str, Any] | None = None,
) -> None:
    """Print to stderr what an approver is about to sign.

    `changes` are the differences to the last approved revision, `groups` are those in whose name is signed, and
    `frozen` is the freeze that covers the task.
    """
    console = output.console(stderr=True)
    for line in proposal_lines(subject, changes, groups, console.width, frozen=frozen):
        console.print(line, soft_wrap=True)


def question(subject: ApprovalSubject, decision: str) -> str:
    """Return the question before the signature, with task and risk."""
    task = subject.document.task_id
    if subject.extension is not None:
        task = f"{format_duration(timedelta(seconds=subject.extension.seconds))} more for {task}"
    return f"{decision.capitalize()} {task} (risk {word(subject.revision.content.risk)})?"


def proposal_lines(
    subject: ApprovalSubject,
    changes: Sequence[str] | None,
    groups: Sequence[str],
    width: int,
    *,
    frozen: Mapping[str, Any] | None = None,
) -> Iterator[Text]:
    """Yield the lines of a proposal, the digest last.

    Everything but the digest is folded to `width` columns: a line may hold several, with line ends between them.
    """
    revision = subject.revision
    approved = Revision.of(subject.document.approved) if changes and subject.document.approved else None
    yield _line(_title(subject), width, "bold")
    yield _line("", width)
    yield from _rows(more_time(subject), width)
    yield from _rows(asked(revision), width, before=asked(approved) if approved else None)
    yield from _rows([*open_questions(subject), Fact("you sign for", " and ".join(groups)), *freeze(frozen)], width)
    yield _line("", width)
    yield _line(f"{_INDENT}{sentence(subject)}", width)
    yield _line("", width)
    yield _line("On these terms", width, "bold")
    yield from _rows(policy(subject), width)
    before = terms(approved, subject.obligations) if approved else None
    yield from _rows(terms(revision, subject.obligations), width, before=before)
    yield _line("", width)
    if subject.extension is not None:
        yield _line(f"In the words of {word(subject.extension.by.name)}, who asks for more time", width, "bold")
        yield from _rows([Fact("reason", subject.extension.reason)], width, mark=MARK)
        yield _line("", width)
    yield _line(f"In the words of {word(revision.content.requester.name)}, the requester", width, "bold")
    yield from _rows(own_words(revision), width, before=own_words(approved) if approved else None, mark=MARK)
    yield _line("", width)
    if changes is not None:
        yield from _changes(changes, approved, width)
    yield Text(f"Digest: {subject.digest}")


def _title(subject: ApprovalSubject) -> str:
    extension = subject.extension
    document = subject.document
    title = f"Task {document.task_id}, revision {subject.revision.content.revision}, is {document.state}"
    if extension is None:
        return title
    return f"{title}; {spell_duration(timedelta(seconds=extension.seconds), more=True)} requested"


def _line(text: str, width: int, style: str = "") -> Text:
    """Return a paragraph.

    What is continued stands further right than every row and heading.
    """
    return Text(folded(text, width, rest=_INDENT, keep_ids=False), style)


def _rows(facts: Sequence[Fact], width: int, *, before: Sequence[Fact] | None = None, mark: str = "") -> Iterator[Text]:
    """Yield facts in two columns.

    A fact that is not among those of `before` is starred. Each line of a value begins with `mark`.
    """
    for fact in facts:
        star = " " if before is None or fact in before else _CHANGED
        name = f"{star} {fact.name}".ljust(_COLUMN)
        # an id that is wider than the terminal would go on where a line of ours begins
        lines = folded(fact.value, width, first=name + mark, rest=" " * _COLUMN + mark, keep_ids=False)
        for line in lines.split("\n"):
            row = Text(line)
            row.stylize(fact.style, _COLUMN)
            yield row


def _changes(changes: Sequence[str], approved: Revision | None, width: int) -> Iterator[Text]:
    """Yield what is different in the revision that was approved last."""
    if approved is None:
        yield _line("Nothing has changed since it was approved", width, "bold")
    else:
        since = f"since revision {approved.content.revision}, which was approved"
        yield _line(f"Changed ({_CHANGED}) {since}", width, "bold")
    for change in changes:
        yield Text(folded(change, width, first="  ", keep_ids=False))
    yield _line("", width)


def print_pending(found: Sequence[PendingApproval], frozen: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Print what waits for one approver, a block for each task.

    `frozen` has the freeze that covers a task, by its id, None where none is seen.
    """
    ids = (pending.task_id for pending in found)
    tasks = [{**pending.as_json(), "frozen": frozen[pending.task_id]} for pending in found]
    if output.print_for_scripts({"tasks": tasks}, *ids):
        return
    console = output.console()
    for pending in found:
        # folded in a pipe, too: a terminal may be behind it, and would fold where a line of ours begins
        freeze = frozen[pending.task_id]
        for line in proposal_lines(pending.subject, pending.changes, pending.groups, console.width, frozen=freeze):
            console.print(line, soft_wrap=True)
        last = {"next": f"jitvault approve {pending.task_id}"}
        if pending.signed_at is not None:
            last = {"signed": f"by you at {output.readable(pending.signed_at)}, waits for a worker"}
        output.print_facts(console, last)
        console.print()
    if not found:
        console.print("No task waits for your approval.")
