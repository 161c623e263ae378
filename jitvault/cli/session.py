"""How a command gets something done: by itself where it has the worker's identity, else by waiting for a worker.

Either way the result is what the worker publishes in Vault, so both ways show the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import typer

from jitvault.cli.closing import on_exit
from jitvault.cli.views import published as fallback
from jitvault.cli.views.task import revision_of
from jitvault.documents.published_task import ILLEGIBLE, unpacked
from jitvault.errors import (
    AuditUntrusted,
    Denied,
    InvalidInput,
    JitvaultError,
    LedgerUnavailable,
    SecurityFinding,
    UsageError,
    VaultRefused,
    VaultRejected,
    WaitTimedOut,
)
from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, State
from jitvault.settings import load
from jitvault.wiring import Wiring

Published = Mapping[str, Any]

_FIRST_POLL_S, _POLL_S = 0.02, 0.2
# denied (a freeze), invalid (a template lost its check), a security finding: somebody has to do something first
_FINAL = frozenset({Denied.exit_code, InvalidInput.exit_code, SecurityFinding.exit_code})
_TELL_S = 1.0
BEFORE, GRANTED = BEFORE_GRANT, LIVE_STATES
DONE = frozenset({State.CONFIRMED, State.SEALED, State.UNVERIFIED})
ENDING = frozenset({State.ENDING})


def open_session() -> Wiring:
    """What this command can reach, until it ends."""
    wiring = Wiring(load())
    on_exit.callback(wiring.close)
    return wiring


def published(wiring: Wiring, task_id: str) -> Published | None:
    """What the worker last said of the task, and `published_at`, when that was by Vault's clock.

    None for a task that nobody took in, and for one that was sealed so long ago that it was removed from Vault.
    """
    documents = wiring.person.documents if wiring.settings.person else wiring.worker.documents
    stored = documents.read(f"tasks/{task_id}")
    return {**unpacked(task_id, stored.document), "published_at": stored.written_at} if stored is not None else None


def known(wiring: Wiring, task_id: str) -> Published:
    """The same, for a task that has to be there. Raises NotFound, and SecurityFinding for what no worker wrote."""
    document = _there(wiring, task_id)
    if document["state"] == ILLEGIBLE:
        raise fallback.illegible(task_id)
    return document


def _there(wiring: Wiring, task_id: str) -> Published:
    document = published(wiring, task_id)
    if document is None or document["state"] == "refused":
        raise fallback.unknown_task(wiring, task_id, document)
    return document


def state_here(wiring: Wiring, task_id: str, document: Published) -> str:
    """Return the state of a task: the ledger's, where the worker's identity has one that says that it may hold access.

    Whoever stole the worker's token can publish that the task is over. A full ledger, or a worker's login that Vault
    refuses, keeps nobody from signing the end of a task that is published as held. Raises JitvaultError where the login
    fails and the task is published as over: nobody would vouch for it.
    """
    task = None
    try:
        task = wiring.worker.ledger.task(task_id) if wiring.has_worker else None
    except LedgerUnavailable:
        # Vault alone is left to go by
        pass
    except JitvaultError:
        if document["state"] in DONE:
            raise
    return task.state.value if task is not None and task.state in GRANTED | ENDING else str(document["state"])


def current(wiring: Wiring, task_id: str) -> Published:
    """The same, and no earlier than a grant that this process's own ledger knows of.

    A Vault that was restored tells of an earlier time, until the task is advanced.
    """
    document = published(wiring, task_id)
    if (document is None or document["state"] in BEFORE) and wiring.has_worker:
        task = wiring.worker.ledger.task(task_id)
        if task is not None and task.state in GRANTED | ENDING | DONE:
            from jitvault.lifecycle.advance import advance

            # Without a stream it is told as well, and taken away. What somebody else wrote keeps nobody from ending it.
            with suppress(AuditUntrusted, SecurityFinding):
                advance(wiring.worker, task_id)
    return _there(wiring, task_id)


@contextmanager
def allowed(what: str, who: str) -> Iterator[None]:
    """Say whose right it is where Vault does not let the caller do something: a path alone tells nobody."""
    try:
        yield
    except VaultRejected:
        raise
    except VaultRefused as error:
        raise VaultRefused(
            f"Vault does not let you {what} ({error})",
            hint=f"Only {who} can. `bao token lookup` shows who you are.",
        ) from None


@contextmanager
def signing(what: str, who: str) -> Iterator[None]:
    """The same where something would have been signed and written."""
    with allowed(f"{what}: nothing was written", who):
        yield


@dataclass(frozen=True, slots=True)
class Signed:
    """When the caller signed what they wait for, by Vault's clock: what was published before does not answer it.

    `at` is the time of the newest document, `submitted` that of the request itself. None: it does not matter.
    """

    at: datetime | None = None
    submitted: datetime | None = None

    def is_answered_by(self, document: Published) -> bool:
        """Whether that was published later; what is granted or over no request changes any more."""
        since = self.submitted if document["state"] == "refused" else self.at
        return since is None or document["state"] not in {"refused", *BEFORE} or document["published_at"] >= since


NEVER = Signed()


def written_at(wiring: Wiring, path: str) -> datetime | None:
    """When the caller wrote that document; None with the worker's identity, which looks at everything itself."""
    stored = None if wiring.has_worker else wiring.person.documents.read(path)
    return stored.written_at if stored is not None else None


def settle(
    wiring: Wiring, task_id: str, done: Callable[[Published], bool], wait: float, signed: Signed = NEVER
) -> Published:
    """Advance the task here, or wait until a worker has: then `done` holds of what is published after it was `signed`.

    Here nothing new is begun after `wait` seconds either. Raises WaitTimedOut, and whatever the worker could not do.
    """
    clock = wiring.clock
    deadline, pause_s = clock.monotonic() + wait, _FIRST_POLL_S
    if wiring.has_worker:
        from jitvault.lifecycle.advance import advance

        hint = wiring.person.entity if wiring.settings.person else None
        teller = wiring.teller
        try:
            advance(wiring.worker, task_id, hint=hint, deadline=deadline)
        finally:
            teller.tell_for(_TELL_S)
        return known(wiring, task_id)
    while True:
        document = published(wiring, task_id)
        if document is not None and signed.is_answered_by(document):
            if document["state"] == "refused":
                raise refused(document["error"])
            if done(document):
                return document
            check_not_final(document)
        if clock.monotonic() >= deadline:
            why = _held_up(document) or _over_quota(wiring)
            raise WaitTimedOut(f"task {task_id}: no worker has done this within {wait:g} s{why}")
        clock.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _POLL_S)


def check_not_final(document: Published) -> None:
    """Raise what kept a worker from granting the task when it looked last, unless that passes by itself."""
    why = document["error"]
    if document["state"] == State.APPROVED and why is not None and why["exit_code"] in _FINAL:
        raise refused(why)


def _held_up(document: Published | None) -> str:
    """What a worker met when it looked last, where it got no further."""
    why = document and document["error"]
    return f": {why['message']}" if why else ""


def _over_quota(wiring: Wiring) -> str:
    """That a worker has to look at much else of the caller's first, where it said so."""
    from jitvault.lifecycle.requests.quota import over_quota_of

    said = over_quota_of(wiring.person.documents, wiring.person.entity)
    return f": {said}" if said else ""


def with_ends_asked_for(wiring: Wiring, shown: Published) -> dict[str, Any]:
    """What is shown of a task, with `end_requested`: what people asked for and no worker has done yet.

    A command with the worker's identity has just done it.
    """
    from jitvault.lifecycle.requests.end_requests import ends_asked_for, names_in

    asked: list[dict[str, str]] = []
    waits = shown["state"] in BEFORE | GRANTED
    if waits and not wiring.has_worker and wiring.settings.person:
        content = shown["revision"]["content"] if "timeline" in shown else revision_of(shown).content
        # a ledger can be read by nobody in particular, and while Vault is away
        with suppress(JitvaultError):
            me = wiring.person
            asked = ends_asked_for(me.documents, shown["task_id"], own=me.entity, names=names_in(content))
    return {**shown, "end_requested": asked}


def revoke_without_ledger(wiring: Wiring, task_id: str, error: LedgerUnavailable) -> LedgerUnavailable:
    """End in Vault what can be ended although the ledger failed; gives the error that says so."""
    from jitvault.lifecycle.revocation.without_ledger import RevocationCount, revoke_without_ledger

    taken = RevocationCount()
    with suppress(JitvaultError):
        # where it cannot even be read, nobody knows what there is
        asked_by = wiring.person.entity if wiring.settings.person else None
        taken = revoke_without_ledger(replace(wiring.nameless_worker, asked_by=asked_by), task_id)
    if not taken.known:
        return error
    message = f"task {task_id}: {taken.ended} of {taken.known} credentials were ended in Vault, and nothing is proven"
    return LedgerUnavailable(f"{message}: {error}", hint=error.hint)


def ask(question: str, *, done: str) -> None:
    """Ask; a no, or nobody who says anything, raises UsageError with what was `done`."""
    # not typer.confirm: with err=True it still prints a space to stdout, where only the result belongs
    typer.echo(f"{question} [y/N]: ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        typer.echo(err=True)
    if answer.strip().lower() not in ("y", "yes"):
        raise UsageError(f"{done}: there was no yes", hint="Answer y; a script that decides says --yes.")


def check_findings(document: Published) -> None:
    """Raise SecurityFinding where something happened that must not: a success is not one then."""
    if document["findings"]:
        raise SecurityFinding(f"task {document['task_id']}: {document['findings'][0]}")


def inbox(wiring: Wiring, document: Published) -> Published | None:
    """The wrapping token in the caller's own inbox, if it lies there for this grant."""
    message = wiring.person.documents.get(inbox_path(wiring, document))
    return message if message and message["grant_id"] == document["grant_id"] else None


def inbox_path(wiring: Wiring, document: Published) -> str:
    return f"inbox/{wiring.person.entity}/{document['task_id']}"


def refused(error: Mapping[str, Any]) -> JitvaultError:
    """The worker's refusal, with the exit code that it would have had here."""
    code = int(error["exit_code"])
    kinds = {kind.exit_code: kind for kind in reversed(JitvaultError.__subclasses__())}
    return kinds.get(code, JitvaultError)(str(error["message"]), hint=str(error["hint"]))
