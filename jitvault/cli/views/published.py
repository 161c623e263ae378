"""What is shown where no ledger can be read: what a worker last published in Vault, how old that is, and what nobody
can know from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from jitvault.documents.published_task import ILLEGIBLE
from jitvault.errors import JitvaultError, LedgerUnreachable, NotFound, SecurityFinding

if TYPE_CHECKING:
    from jitvault.lifecycle.record.vouched import Vouched
    from jitvault.wiring import Wiring

UNKNOWN = ("uses", "timeline", "frozen", "children")
"""What the ledger says of a task and no published document does: it is left out, never guessed."""
_HELD = ("issuing", "issued", "active")
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def has_ledger(wiring: Wiring) -> bool:
    """Whether a ledger can be read here; where the one that was named cannot, that is said on stderr.

    Raises LedgerUnavailable for one that is there and cannot be used, and, with the worker's identity, for any: nobody
    does the worker's work without it.
    """
    if not wiring.has_ledger:
        # without one nobody expects what only it has
        if "ledger" in wiring.settings.model_fields_set:
            _say("there is no ledger where JITVAULT_LEDGER says")
        return False
    try:
        _ = wiring.ledger
    except LedgerUnreachable as error:
        if wiring.has_worker or wiring.settings.person is None:
            raise
        _say(str(error))
        return False
    return True


def vouched(wiring: Wiring, task_id: str) -> Vouched:
    """What is published of a task, and who vouches for it. Raises NotFound, SecurityFinding."""
    from jitvault.lifecycle.record import vouched

    newest = wiring.person.documents.read(f"tasks/{task_id}")
    if newest is None:
        raise unknown_task(wiring, task_id, None)
    found = vouched.vouched(wiring.person.documents, wiring.person.signer, task_id, newest)
    if found.document["state"] == ILLEGIBLE:
        raise illegible(task_id)
    return found


def told(wiring: Wiring, document: Mapping[str, Any], found: Vouched) -> dict[str, Any]:
    """A published document with `published`: `{at, age_s, vouched_by, vouched, problem, unknown}`, `age_s` by this
    machine's clock.
    """
    at = document["published_at"]
    about = {
        "at": at.isoformat(),
        "age_s": _age_s(wiring, at),
        "vouched_by": found.by,
        "vouched": found.why,
        "problem": found.problem or None,
        "unknown": list(UNKNOWN),
    }
    return {**{k: v for k, v in document.items() if k != "published_at"}, "published": about}


def facts(shown: Mapping[str, Any], now: datetime) -> dict[str, str]:
    """For people: since when nothing newer is known, and what is not known at all."""
    from jitvault.cli.views.output import readable

    published, deadline, found = shown["published"], shown["ends_at"], {}
    if shown["state"] in _HELD and deadline:
        over = datetime.fromisoformat(deadline) <= now
        found["deadline"] = readable(deadline) + (", which is over: its end is not published yet" if over else "")
    ago = age(published["age_s"])
    return {
        **found,
        "as of": f"{readable(published['at'])}, {ago} ago: what a worker last published in Vault, and it may lag",
        "vouched": f"by {'nobody: ' if published['vouched_by'] == 'nobody' else ''}{published['vouched']}",
        "unknown": "what its tokens did, its timeline, what it handed on, whether a tripwire froze everything since: "
        "the ledger has it",
    }


def age(seconds: int) -> str:
    """`40 s`, `3 min`, `26 h`, `12 d`: rounded down, so that no unit is below two of the next smaller one."""
    for unit, size in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def rows(wiring: Wiring, names: Iterable[str]) -> list[dict[str, Any]]:
    """What is published of these tasks, as a list shows it; `published_at` and `age_s` say how old that is."""
    keys = ("task_id", "state", "end_reason", "digest", "requester", "agent", "parent", "ends_at")
    found = []
    for name in names:
        stored = wiring.person.documents.read(f"tasks/{name}")
        if stored is None:
            continue
        said = {key: stored.document.get(key) for key in keys}
        # it is read by its name, and one that somebody else wrote must not hide the others
        row: dict[str, Any] = {key: None if value is None else str(value) for key, value in said.items()}
        findings = stored.document.get("findings")
        row |= {"task_id": name, "findings": len(findings) if isinstance(findings, list) else 0}
        row |= {"published_at": stored.written_at.isoformat(), "age_s": _age_s(wiring, stored.written_at)}
        found.append(row)
    return found


def illegible(task_id: str) -> SecurityFinding:
    """That what is published of a task is no document of a worker's."""
    return SecurityFinding(
        f"what is published of task {task_id} was not written by a worker",
        hint="Somebody has a worker's token, or an administrator's. What the task holds can be ended all the same: "
        f"`jitvault revoke {task_id}`.",
    )


def unknown_task(wiring: Wiring, task_id: str, document: Mapping[str, Any] | None) -> NotFound:
    """That Vault has nothing of a task, and why that may be so."""
    if document is not None:
        why = document["error"]
        return NotFound(f"there is no task {task_id}: its request was refused: {why['message']}", hint=why["hint"])
    if (asked := asked_at(wiring, task_id)) is not None:
        from jitvault.cli.views.output import readable

        return NotFound(
            f"there is no task {task_id} yet: no worker has taken your request of {readable(asked.isoformat())} in",
            hint=f"Is a worker running? `jitvault cancel {task_id}` withdraws the request.",
        )
    return NotFound(
        f"there is no task {task_id} in Vault",
        hint="Run `jitvault list` to see the tasks there are. What was sealed long ago is removed from Vault, and kept "
        "in the ledger.",
    )


def asked_at(wiring: Wiring, task_id: str) -> datetime | None:
    """When the caller asked for the task, if they did and it can still begin something: whoever may not ask has not.

    What was published of an older request may have been removed.
    """
    from jitvault.documents.paths import is_stale

    if wiring.settings.person is None:
        return None
    with suppress(JitvaultError):
        stored = wiring.person.documents.read(f"requests/{wiring.person.entity}/{task_id}/submit")
        if stored is not None and not is_stale(stored.written_at, wiring.clock.agreed()):
            return stored.written_at
    return None


def _age_s(wiring: Wiring, at: datetime) -> int:
    """By two clocks, so that a moment ago may seem to come."""
    return max(0, int((wiring.clock.agreed() - at).total_seconds()))


def _say(why: str) -> None:
    typer.echo(f"{why}: this is what lies in Vault", err=True)
