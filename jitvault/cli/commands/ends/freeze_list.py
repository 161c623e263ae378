"""`jitvault freezes`: the active freezes, and those that were lifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from jitvault.cli import published as fallback
from jitvault.cli import session
from jitvault.cli.lookups.names_in_tasks import contents_in, contents_published
from jitvault.cli.views import output
from jitvault.cli.views.freezes import print_freezes, print_lifted_freezes
from jitvault.documents.paths import PUBLISHED
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, SecurityFinding
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.requests.freeze_history import PastFreeze, first_at, freeze_history
from jitvault.lifecycle.requests.freezes import all_freezes, freezes_of_everything, freezes_seen_by_person
from jitvault.model.scope import Scope
from jitvault.model.states import BEFORE_GRANT, EndReason
from jitvault.wiring import Wiring

Row = dict[str, Any]


def freezes(
    all_: Annotated[bool, typer.Option("--all", help="Also those that were lifted, with who lifted them.")] = False,
) -> None:
    """List the active freezes: of what, by whom, since when and why.

    With the worker's identity their signatures are verified and their authors named. Without it, a freeze by a tripwire
    is shown only where there is a ledger; elsewhere the command names the tasks that a tripwire ended or held up. A
    freeze that was signed anew is shown since it was signed first. --all has as many as Vault keeps versions of.

    Example: jitvault freezes
    """
    wiring = session.open_session()
    known = wiring.has_worker or fallback.has_ledger(wiring)
    with session.allowed("see what is frozen", "operators, approvers and auditors"):
        found = _in_force(wiring, known=known)
        history = freeze_history(wiring.worker.documents if wiring.has_worker else wiring.documents)
    found = [{**row, "first_at": first_at(row, history)} for row in found]
    lifted = _lifted(wiring, history, found, known=known) if all_ else []
    names = _names(wiring, [*found, *lifted])
    signs = [] if known else _tripwire_signs(wiring)
    scopes = [str(Scope(**row["scope"])) for row in found]
    shown: Row = {"freezes": _named(found, names), "tripwires_known": known, "signs": signs}
    if all_:
        shown["lifted"] = _named(lifted, names)
    if output.print_for_scripts(shown, *scopes):
        return
    # a program does not know who `you` is
    own = {**names, wiring.person.entity: "you"} if wiring.person_token else names
    print_freezes(_named(found, own), signs, tripwires_known=known)
    if all_:
        print_lifted_freezes(_named(lifted, own))


def _in_force(wiring: Wiring, *, known: bool) -> list[Row]:
    if wiring.has_worker:
        return all_freezes(wiring.worker)
    of_everything = freezes_of_everything(session.ledger_to_read(wiring)) if known else []
    me = wiring.person.entity
    signed = freezes_seen_by_person(wiring.person)
    return [*of_everything, *({**row, "by": me if row["by"] == "you" else row["by"]} for row in signed)]


def _lifted(wiring: Wiring, history: Sequence[PastFreeze], found: Sequence[Row], *, known: bool) -> list[Row]:
    """Return the freezes that were lifted, the oldest first.

    Each has its lift. One that is in force all the same is left out: the author of its lift is no operator.
    """
    in_force = [(row["scope"], row["at"]) for row in found]
    rows: list[Row] = [
        {
            "kind": "operator",
            "scope": past.last.scope.as_json(),
            "by": past.last.by,
            "at": rfc3339(past.first.at),
            "reason": past.last.reason,
            "line": None,
            "lifted": {"by": past.lift.by, "at": rfc3339(past.lift.at), "reason": past.lift.reason},
        }
        for past in history
        if past.lift is not None and (past.last.scope.as_json(), rfc3339(past.last.at)) not in in_force
    ]
    if known:
        ledger = wiring.worker.ledger if wiring.has_worker else session.ledger_to_read(wiring)
        rows += [
            {
                "kind": "tripwire",
                "scope": {},
                "by": None,
                "at": rfc3339(one.at),
                "reason": one.reason,
                "line": one.line,
                "lifted": {"by": None, "at": rfc3339(one.lifted_at), "reason": one.lifted_why},
            }
            for one in ledger.lifted_freezes()
        ]
    return sorted(rows, key=lambda row: str(row["at"]))


def _named(rows: Sequence[Row], names: Mapping[str, str]) -> list[Row]:
    """Return the rows with the names of entities in place of their ids."""
    named = [{**row, "by": names.get(row["by"], row["by"])} for row in rows]
    for row in named:
        if lift := row.get("lifted"):
            row["lifted"] = {**lift, "by": names.get(lift["by"], lift["by"])}
    return named


def _names(wiring: Wiring, rows: Sequence[Row]) -> dict[str, str]:
    """Return the names of the authors, by entity id.

    Only the worker may ask Vault for the name of an entity. Without its identity they are those of entities with a part
    in some task. Nothing is read where nobody froze anything.
    """
    authors = {one for row in rows for one in (row["by"], (row.get("lifted") or {}).get("by")) if one}
    names: dict[str, str] = {}
    if not authors:
        return names
    with suppress(JitvaultError):
        if wiring.has_worker:
            identity = wiring.worker.identity
            return {one: known.name for one in authors if (known := identity.by_id(one)) is not None}
        has_ledger = fallback.has_ledger(wiring)
        for content in contents_in(wiring.ledger) if has_ledger else contents_published(wiring):
            names |= content.names
    return names


def _tripwire_signs(wiring: Wiring) -> list[dict[str, Any]]:
    """Return `{task_id, at, message}` for each such task, the newest first.

    A sign says nothing about now: the freeze may have been lifted since.
    """
    found = []
    for task_id in wiring.documents.names(PUBLISHED):
        document = session.published(wiring, task_id)
        if isinstance(document, PublishedTask):
            sign = _sign(document)
            if sign is not None:
                found.append({"task_id": task_id, **sign})
    return sorted(found, key=lambda sign: sign["at"], reverse=True)


def _sign(document: PublishedTask) -> dict[str, str] | None:
    """Return when and how a tripwire concerned the task, None if none did."""
    refusal = document.refused_grant
    if refusal is not None and refusal.error.exit_code == SecurityFinding.exit_code:
        return {"at": rfc3339(refusal.at), "message": f"its grant was refused: {refusal.error.message}"}
    error = document.error
    if error is not None and error.exit_code == SecurityFinding.exit_code and document.state in BEFORE_GRANT:
        return {"at": rfc3339(document.written_at), "message": f"it waits: {error.message}"}
    ended = document.ended
    # an operator's freeze has an author
    if document.end_reason is EndReason.FROZEN and ended is not None and ended.by is None:
        return {"at": rfc3339(ended.at), "message": f"it was ended, since everything was frozen: {ended.note}"}
    return None
