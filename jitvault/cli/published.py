"""Read tasks as workers published them in Vault, where no ledger can be read.

A published document may lag behind, so it comes with its age, and with what it does not contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jitvault.cli.views.output import readable, warn
from jitvault.documents.illegible import illegible
from jitvault.documents.paths import PUBLISHED, published_path
from jitvault.documents.published_task import IllegibleDocument, PublishedRefusal, PublishedTask, read_published
from jitvault.errors import JitvaultError, LedgerUnreachable, NotFound, UnusedLedger
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.decision.unread import unread_documents
from jitvault.lifecycle.record import published_proof as proofs
from jitvault.lifecycle.record.published_proof import PublishedProof
from jitvault.lifecycle.record.report import parties_of, waiting_extension
from jitvault.model.revision_content import RevisionContent
from jitvault.model.states import OVER
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

UNKNOWN = ("uses", "timeline", "frozen", "children")
"""What only the ledger knows of a task: it is left out, never guessed."""
_ROW = ("task_id", "state", "end_reason", "digest", "requester", "agent", "parent", "ends_at")
NEARLY = 0.75
"""How much a misspelt id has to resemble the one that was meant, from 0 to 1."""


def has_ledger(wiring: Wiring) -> bool:
    """Return whether a ledger can be read here.

    A warning on stderr says that the one of the settings cannot. Raises LedgerUnavailable for a ledger that exists and
    cannot be used. With the worker's identity it is raised for every ledger that cannot be read, since the worker's
    work needs one.
    """
    if not wiring.has_ledger:
        # without the setting, and without the worker's work, the caller does not expect what only a ledger has
        if "ledger" in wiring.settings.model_fields_set or wiring.has_worker:
            _warn(f"there is no ledger at {wiring.ledger_place}")
        return False
    try:
        _ = wiring.ledger
    except UnusedLedger as error:
        _warn(str(error))
        return False
    except LedgerUnreachable as error:
        if wiring.has_worker or wiring.person_token is None:
            raise
        _warn(str(error))
        return False
    return True


def ledger_here(wiring: Wiring) -> Ledger | None:
    """Return the ledger where one can be read here, without a word where it cannot."""
    # without one, no database library is imported
    if wiring.has_ledger:
        with suppress(JitvaultError):
            return wiring.ledger
    return None


def published_proof(wiring: Wiring, task_id: str) -> tuple[PublishedTask, PublishedProof]:
    """Return what is published of a task, and whose signature confirms it.

    Raises NotFound, SecurityFinding.
    """
    newest = wiring.person.documents.read(published_path(task_id))
    if newest is None:
        raise unknown_task(wiring, task_id, None)
    found = proofs.published_proof(wiring.person.documents, wiring.person.signer, task_id, newest)
    if isinstance(found.document, PublishedRefusal):
        raise unknown_task(wiring, task_id, found.document)
    if isinstance(found.document, IllegibleDocument):
        raise illegible(task_id, found.document.place)
    return found.document, found


def with_source(wiring: Wiring, document: PublishedTask, found: PublishedProof) -> dict[str, Any]:
    """Return a published document as JSON data with its source and its age.

    `published` is `{at, age_s, vouched_by, vouched, problem, unknown}`; `age_s` is by this machine's clock.
    """
    at = document.written_at
    about = {
        "at": rfc3339(at),
        "age_s": _age_s(wiring, at),
        "vouched_by": found.by,
        "vouched": found.why,
        "problem": found.problem or None,
        "unknown": list(UNKNOWN),
    }
    shown = {key: value for key, value in document.as_json().items() if key not in ("body", "installation")}
    return {**shown, "published": about}


def rows(
    wiring: Wiring,
    names: Iterable[str],
    includes: Callable[[str, RevisionContent | None], bool],
    freeze_of: Callable[[RevisionContent | None], Mapping[str, Any] | None],
) -> list[dict[str, Any]]:
    """Return the rows of a task list from what is published.

    `published_at` and `age_s` say how old each is. `includes` says by its state, and the content of its revision,
    whether a task is listed; `freeze_of` gives the freeze that covers it.
    """
    found: list[dict[str, Any]] = []
    for name in names:
        stored = wiring.documents.read(published_path(name))
        if stored is None:
            continue
        said = read_published(name, stored.document, stored.written_at)
        revision = said.full_revision if isinstance(said, PublishedTask) else None
        content = revision.content if revision else None
        if not includes(str(said.state), content):
            continue
        row = dict.fromkeys((*_ROW, "more_time", "frozen"), None)
        row |= {"task_id": name, "state": str(said.state), "missing": [], "findings": 0}
        row |= parties_of(None)
        if isinstance(said, PublishedTask):
            row |= parties_of(revision, said.decision.obligations)
            values = said.as_json()
            row |= {key: values[key] for key in _ROW} | {"missing": said.missing, "findings": len(said.findings)}
            row["more_time"] = waiting_extension(said.state, said.extension)
            row["frozen"] = None if said.state in OVER else freeze_of(content)
        elif isinstance(said, PublishedRefusal):
            row["requester"] = said.requester
        found.append({**row, "published_at": rfc3339(said.written_at), "age_s": _age_s(wiring, said.written_at)})
    return found


def unknown_task(wiring: Wiring, task_id: str, document: PublishedRefusal | None) -> NotFound:
    """Return the error for a task of which nothing is published.

    It has the reason where that is known.
    """
    if document is not None:
        why = document.error
        return NotFound(f"there is no task {task_id}: its request was refused: {why.message}", hint=why.hint)
    not_admitted = request_not_admitted(wiring, task_id)
    if not_admitted is not None:
        return not_admitted
    return NotFound(
        f"there is no task {task_id} in Vault{meant_task(wiring, task_id)}",
        hint=f"{NotFound.default_hint} A task that was sealed long ago is removed from Vault, and kept in the ledger.",
    )


def meant_task(wiring: Wiring, task_id: str) -> str:
    """Return ` (did you mean …?)` where a task has nearly this id.

    The tasks are those that the caller may list: the published ones, or those in the caller's inbox.
    """
    places: list[Callable[[], str]] = [lambda: PUBLISHED, lambda: f"inbox/{wiring.person.entity}/"]
    for place in places:
        with suppress(JitvaultError):
            return nearest(task_id, wiring.documents.names(place()), likeness=NEARLY)
    return ""


def request_not_admitted(wiring: Wiring, task_id: str) -> NotFound | None:
    """Return the error for a task that is requested and of which nothing is published; None for others.

    Its data are what is signed about the task, as far as the caller may read it.
    """
    with suppress(JitvaultError):
        unread = unread_documents(wiring.person, task_id, None, {})
        for request in unread:
            if request.kind == "submit":
                error = NotFound(
                    f"there is no task {task_id} yet: no worker has admitted what {request.by} requested at "
                    f"{readable(request.at)}",
                    hint=f"Check that a worker is running. `jitvault cancel {task_id}` withdraws the request.",
                )
                error.data = {"unread": unread}
                return error
    return None


def _age_s(wiring: Wiring, at: datetime) -> int:
    """Return the age in seconds.

    It compares two clocks, so a recent time may seem to lie ahead: then it is 0.
    """
    return max(0, int((wiring.clock.agreed() - at).total_seconds()))


def _warn(why: str) -> None:
    warn(f"{why}: this is what is published in Vault")
