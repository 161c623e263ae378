"""Output of `jitvault list`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from jitvault.cli.folding import wrapped
from jitvault.cli.quiet import note
from jitvault.cli.views import output
from jitvault.cli.views.listing import Cell, Column, print_listing
from jitvault.cli.views.published import age
from jitvault.cli.views.task import end_in_words
from jitvault.lifecycle.record.check_words import NOT_ASKED
from jitvault.model.scope import Scope
from jitvault.model.states import LIVE_STATES, PROVEN
from jitvault.policy.decision import Requirement

_UNASKED = "target not asked"
_LAGS = (
    "This is what a worker last published of each task in Vault. What was not done or not published yet is not shown, "
    "nor are tasks that were removed after their seal: the ledger has them."
)


def print_tasks(rows: Sequence[Mapping[str, Any]], *, now: datetime, published: bool, what: str) -> None:
    """Print a list of tasks.

    `published` says that the rows come from Vault and no ledger was read. `what` names the tasks if there are none.
    """
    ids = (row["task_id"] for row in rows)
    if output.print_for_scripts({"tasks": list(rows), "published": published}, *ids):
        return
    console = output.console()
    if rows:
        _print_rows(console, rows, now)
    else:
        console.print(f"There are no {what}.", soft_wrap=True)
    if any(map(is_unasked, rows)):
        note(wrapped(f"{_UNASKED}: {NOT_ASKED}", sys.stderr))
    if published:
        ages = sorted(row["age_s"] for row in rows)
        oldest = f" The oldest was published {age(ages[-1])} ago." if ages else ""
        note(wrapped(_LAGS + oldest, sys.stderr))


def _print_rows(console: Console, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Print the rows.

    On a terminal the reason of an end is beside the state, and times are relative.
    """
    columns = [Column("task"), Column("state"), Column("ended"), Column("findings")]
    columns += [Column("agent", spare=2), Column("template", spare=5), Column("risk", spare=3)]
    columns += [Column("due"), Column("as of", spare=4), Column("proof"), Column("waits for", spare=1)]
    is_terminal = console.is_terminal
    found = []
    for row in rows:
        state = row["state"] or "?"
        reason = row["end_reason"] or ""
        words = end_in_words(reason, None) if reason else ""
        beside = f" ({words})" if words and is_terminal else ""
        found.append(
            [
                row["task_id"],
                Cell(state + beside, output.colour_of(state)),
                "" if is_terminal else words,
                Cell(str(row["findings"]) if row["findings"] else "", "red"),
                row["agent_name"] or "",
                ",".join(row["templates"] or ()),
                row["risk"] or "",
                _when(due_at(row), now, is_terminal=is_terminal),
                _published(row, is_terminal=is_terminal),
                _UNASKED if is_unasked(row) else "",
                waits_for(row),
            ]
        )
    print_listing(console, columns, found)


def is_unasked(row: Mapping[str, Any]) -> bool:
    """Return whether the task's end rests on Vault's word alone."""
    return row["state"] in PROVEN and row["target_asked"] is False


def due_at(row: Mapping[str, Any]) -> str | None:
    """Return when the task is due, an RFC 3339 time or None.

    Of a task that holds access that is its deadline, of one that is ending when its end is tried again.
    """
    found = row.get("due_at") if row["end_reason"] else row.get("ends_at") or row.get("due_at")
    return str(found) if found else None


def _when(at: str | None, now: datetime, *, is_terminal: bool) -> str:
    """Return a time as `in 17m` or `3m ago`, in a pipe as RFC 3339 in UTC."""
    if at is None:
        return ""
    # anyone may have written what is published
    try:
        moment = datetime.fromisoformat(at).astimezone(UTC)
    except ValueError:
        return ""
    if not is_terminal:
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    seconds = int((moment - now).total_seconds())
    words = age(abs(seconds)).replace(" min", "m").replace(" ", "")
    return f"in {words}" if seconds >= 0 else f"{words} ago"


def _published(row: Mapping[str, Any], *, is_terminal: bool) -> str:
    """Return how old a published row is, in a pipe when it was published."""
    if "published_at" not in row:
        return ""
    return f"{age(row['age_s'])} ago" if is_terminal else f"{row['published_at'][:19]}Z"


def waits_for(row: Mapping[str, Any]) -> str:
    """Return who has to act for the task to go on.

    More time that was asked for is added.
    """
    more_time = row["more_time"]
    if more_time is None:
        return _waits_for(row)
    asked = f"more time: {_groups(more_time['missing']) or more_time['by']}"
    return "; ".join(filter(None, (_waits_for(row), asked)))


def _groups(missing: Sequence[Requirement]) -> str:
    return ", ".join(f"{each.count} of {each.group}" for each in missing)


def _unfreezes(freeze: Mapping[str, Any]) -> str:
    """Return who lifts a freeze, and how."""
    match freeze["kind"]:
        case "operator":
            return f"frozen; an operator: unfreeze {Scope(**freeze['scope']).options}"
        case "recovery":
            return "frozen; the worker's identity: ledger recover"
        case _:
            return "frozen by a tripwire; the worker's identity: unfreeze"


def _waits_for(row: Mapping[str, Any]) -> str:
    if row["frozen"] is not None and row["state"] in ("pending_approval", "approved"):
        # an approval is taken under a freeze as well
        return "; ".join(filter(None, (_unfreezes(row["frozen"]), _groups(row["missing"]))))
    if row["frozen"] is not None and row["frozen"]["kind"] != "recovery" and row["state"] in LIVE_STATES:
        return "a worker: end it, because it is frozen"
    match row["state"]:
        case "pending_approval":
            return _groups(row["missing"]) or "an approval"
        case "approved":
            return f"{row['requester_name']}: grant"
        case "issued" if row["deliver"] == "requester" and row["requester"] != row["agent"]:
            return f"{row['requester_name']}: hand it to {row['agent_name']}"
        case "issued":
            return f"{row['agent_name']}: unwrap"
        case "issuing":
            return "a worker"
        case "ending":
            return "the proof of its end"
        case _:
            return ""
