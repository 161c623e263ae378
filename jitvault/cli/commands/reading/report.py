"""`jitvault report`: one row for each lease, and the signed receipt."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli import session
from jitvault.cli.lookups.deleted_tasks import check_names, check_none_is_missing, check_not_missing
from jitvault.cli.lookups.names_in_tasks import NamesInTasks
from jitvault.cli.options import OfAgent, OfOwner, Out, task_id
from jitvault.cli.quiet import note
from jitvault.cli.views import output
from jitvault.errors import CorruptRecord, NotFound, SecurityFinding, UsageError, WrongState, readable
from jitvault.formats.plural import counted
from jitvault.lifecycle.record.csv_export import as_csv
from jitvault.lifecycle.record.report import REPORT_COLUMNS
from jitvault.lifecycle.record.report_filter import ReportFilter, parse_states, parse_time
from jitvault.model.revision import Revision
from jitvault.model.states import OVER

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger


class ReportFormat(StrEnum):
    """The formats of a report."""

    JSON = "json"
    CSV = "csv"


def report(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Report only this task.", callback=task_id)] = None,
    agent: OfAgent = "",
    owner: OfOwner = "",
    template: Annotated[str, typer.Option(metavar="NAME", help="Only leases by this template.")] = "",
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only tasks in this state. It can be repeated.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only what was alive at TIME or later: 2030-01-31T09:00:00Z, 7d."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only what was alive at TIME or before.")] = None,
    format_: ReportFormat | None = None,
    out: Out = None,
    receipt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the signed receipt of a sealed TASK to this new file."),
    ] = None,
) -> None:
    """Export one row for each lease, and the receipt of a sealed task.

    The receipt is signed and shows how each credential was confirmed to be revoked; `jitvault verify` checks it.

    The format is JSON, or what the ending of --out FILE says (.json, .csv).

    A TIME is absolute, a day (UTC), or how long ago it was. A lease counts from its issue until it was seen gone, a
    task without a lease from its request to its end.

    Example: jitvault report count-orders --out report.json --receipt receipt.json

    Example: jitvault report --agent research-agent --since 7d -o csv --out week.csv
    """
    wiring = session.open_session()
    now = wiring.clock.agreed()
    wanted = ReportFilter(
        agent=agent or None,
        owner=owner or None,
        template=template or None,
        states=parse_states(state or []),
        since=parse_time(since, "--since", now),
        until=parse_time(until, "--until", now, ends_day=True),
    )
    _check_options(task, wanted, out=out, receipt=receipt)
    format_ = _format_of(format_, out)
    if wanted.since and wanted.until and wanted.since > wanted.until:
        raise UsageError(f"--since {since} is after --until {until}", hint="No time is in between.")
    ledger = session.ledger_to_read(wiring)
    session.check_knows_tasks(wiring, ledger)
    if task is not None and ledger.unknown_tasks([task]):
        check_not_missing(wiring, task)
    found = _collect(ledger, task, wanted)
    if not found.rows and not found.left_out:
        named = {"agent": wanted.agent, "owner": wanted.owner, "template": wanted.template}
        check_names(wiring, ledger, found.names, **named)
    signed = _receipt_of(ledger, task) if receipt is not None and task is not None else None
    with output.new_files(out, receipt) as (report_file, receipt_file):
        if receipt_file is not None and signed is not None:
            receipt_file.write(output.to_json(signed) + "\n")
        output.text(_rendered(found.rows, format_), out=report_file)
    _say_what_is_missing(found, wanted, receipt)
    if task is None:
        check_none_is_missing(wiring, ledger)


def _say_what_is_missing(found: _Found, wanted: ReportFilter, receipt: Path | None) -> None:
    """Say what else was written, and that nothing matches.

    Raises SecurityFinding for tasks that cannot be read: whether they match nobody can tell. The report of the others
    was written nevertheless.
    """
    if receipt is not None:
        note(f"receipt written to {receipt}")
    if not found.rows:
        note(f"No task matches: {wanted}." if not wanted.is_empty else "There are no tasks.")
    if found.left_out:
        first = found.left_out[0]
        left_out = counted(len(found.left_out), "task")
        raise SecurityFinding(f"not in the report, because they cannot be read: {left_out}: {first}", hint=first.hint)


@dataclass(slots=True)
class _Found:
    """The rows of a report, and which names occur in the ledger.

    `left_out` are the tasks that cannot be read.
    """

    names: NamesInTasks
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[CorruptRecord] = field(default_factory=list)


def _check_options(task: str | None, wanted: ReportFilter, *, out: Path | None, receipt: Path | None) -> None:
    """Raise UsageError for options that contradict each other."""
    if receipt is None:
        return
    if task is None:
        raise UsageError("--receipt needs a TASK", hint="A receipt is about one task.")
    if not wanted.is_empty:
        raise UsageError("--receipt is about the whole TASK, so it takes no filter", hint="Leave the filters out.")
    if out is not None and out.absolute() == receipt.absolute():
        raise UsageError("--out and --receipt name the same file", hint="Name two new files.")


def _format_of(chosen: ReportFormat | None, out: Path | None) -> ReportFormat:
    """Return the format of the report: as chosen, or by its file's ending.

    Raises UsageError where both say something else, and for an ending of no format where none was chosen.
    """
    ending = out.suffix.lower().removeprefix(".") if out is not None else ""
    named = ReportFormat(ending) if ending in {each.value for each in ReportFormat} else None
    if ending and chosen is None and named is None:
        raise UsageError(
            f"--out {out}: a report is written as {' or '.join(each.value for each in ReportFormat)}, not as {ending}",
            hint="Name a file that ends with .json or .csv, or choose the format with -o.",
        )
    if chosen and named and chosen is not named:
        raise UsageError(
            f"-o {chosen.value} and --out {out} name two formats",
            hint=f"Leave -o out, or name a file that ends with .{chosen.value}.",
        )
    return chosen or named or ReportFormat.JSON


def _collect(ledger: Ledger, task: str | None, wanted: ReportFilter) -> _Found:
    """Return the rows.

    Raises NotFound for a task that is not there, UsageError for one that the filter excludes.
    """
    found = _Found(NamesInTasks())
    for name in [task] if task else [row.task_id for row in ledger.tasks()]:
        try:
            with readable(name):
                file = ledger.record(name)
                if file is None and task:
                    raise NotFound(f"there is no task {task}")
                if file is None:
                    continue
                excluded = wanted.contradiction(file) if task and not wanted.is_empty else None
                found.names.note(Revision.of(file.revision.body).content)
                found.rows += wanted.rows(file)
        except CorruptRecord as error:
            found.left_out.append(error)
            continue
        if excluded:
            raise UsageError(f"task {task} is not in a report of {wanted}: {excluded}", hint="Leave the filter out.")
    return found


def _receipt_of(ledger: Ledger, task: str) -> dict[str, Any]:
    """Return the signed receipt. Raises WrongState before the seal."""
    row = ledger.task(task)
    if row is None or row.receipt is None:
        state = row.state if row else "gone"
        is_over = row is not None and row.state in OVER
        when = "a receipt is for an end that is sealed" if is_over else "its receipt is written when it is sealed"
        raise WrongState(f"task {task} is {state}: {when}")
    return dict(row.receipt)


def _rendered(rows: list[dict[str, Any]], format_: ReportFormat) -> str:
    return as_csv(rows, REPORT_COLUMNS) if format_ is ReportFormat.CSV else output.to_json({"leases": rows}) + "\n"
