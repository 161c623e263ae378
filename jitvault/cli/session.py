"""Open a command's session, read what workers published, and wait for what a worker does.

A command signs, and a worker acts: the result of a command is what a worker publishes in Vault.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

import typer

from jitvault.cli import published as fallback
from jitvault.cli.closing import on_exit
from jitvault.cli.folding import for_terminal
from jitvault.cli.quiet import waits
from jitvault.cli.refused import only
from jitvault.cli.views.output import warn
from jitvault.cli.waiting import Wait
from jitvault.documents.illegible import illegible
from jitvault.documents.paths import published_path
from jitvault.documents.published_task import (
    IllegibleDocument,
    PublishedDocument,
    PublishedRefusal,
    PublishedTask,
    read_published,
)
from jitvault.errors import (
    Denied,
    InvalidInput,
    JitvaultError,
    LedgerUnavailable,
    NoWorkerActed,
    SecurityFinding,
    UsageError,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
    WorkerRefused,
    error_of,
)
from jitvault.formats.clocks import TOLERANCE
from jitvault.formats.time_window import format_duration
from jitvault.ledger.ownership import knows_nothing
from jitvault.lifecycle.record.missing_tasks import is_own, lost, missing_tasks
from jitvault.lifecycle.requests.quota import over_quota_notice
from jitvault.login import exposed_secrets
from jitvault.model.event_bodies import StatedError
from jitvault.model.finding import describe_finding
from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, EndReason, State
from jitvault.provision.names import KV_MOUNT
from jitvault.settings import Settings, load, misspelt
from jitvault.vault.client import Vault
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

# denied (a freeze), invalid (a template lost its check), a security finding: waiting does not help, a person has to act
_FINAL = frozenset({Denied.exit_code, InvalidInput.exit_code, SecurityFinding.exit_code})
# a worker answers within a second or two
_LONG_S = 5.0
_SIGNED = {"extend": "more time", "end": "its end", "decision": "your decision", "withdraw": "your withdrawal"}
BEFORE = BEFORE_GRANT
GRANTED = LIVE_STATES
DONE = frozenset({State.CONFIRMED, State.SEALED, State.UNVERIFIED})
ENDING = frozenset({State.ENDING})


def open_session() -> Wiring:
    """Return the adapters of this command; they are closed when it exits.

    Raises UsageError.
    """
    wiring = Wiring(load())
    for name, meant in misspelt(os.environ).items():
        warn(f"warning: {name} is no setting of jitvault; did you mean {meant}?")
    _warn_of_exposed_secrets(wiring.settings)
    on_exit.callback(wiring.close)
    return wiring


def _warn_of_exposed_secrets(settings: Settings) -> None:
    """Warn of a secret id's file that others on this host may read."""
    for variable, path, mode in exposed_secrets(settings):
        warn(f"warning: {variable}: {path} has mode {mode:04o} and should have 0600: whoever reads it has this login")


def administrator(wiring: Wiring, command: str) -> Vault:
    """Return a client with the administrator's token.

    Raises UsageError where none is set.
    """
    token = wiring.settings.admin
    if token is None:
        raise UsageError(
            f"{command} needs an administrator's token in JITVAULT_ADMIN_TOKEN or VAULT_TOKEN",
            hint="Set one of them. In a sandbox `source DIR/admin.env` does.",
        )
    return wiring.vault(token)


def ledger_to_read(wiring: Wiring) -> Ledger:
    """Return the ledger for a command that shows what it knows.

    Says on stderr where Vault could not be asked whose ledger it is. Raises LedgerUnavailable.
    """
    ledger = wiring.ledger
    if wiring.unverified:
        place = wiring.ledger_place
        warn(f"Not checked whether the ledger at {place} is this Vault's: {wiring.unverified}")
    return ledger


def check_knows_tasks(wiring: Wiring, ledger: Ledger) -> None:
    """Raise LedgerUnavailable for an empty ledger where Vault has tasks.

    A command calls this before it shows that there is nothing.
    """
    if wiring.unverified or ledger.has_tasks():
        return
    with suppress(VaultRefused, VaultUnavailable, UsageError):
        known_in_vault = next(missing_tasks(wiring.documents, ledger, ledger.installation()), None)
        if known_in_vault is not None:
            raise knows_nothing(wiring.ledger_place, known_in_vault.task_id)


def published(wiring: Wiring, task_id: str) -> PublishedDocument | None:
    """Return what a worker last published of the task, with Vault's time.

    None for a task that no worker has admitted, and for one that was sealed so long ago that it
    was removed from Vault.
    """
    stored = wiring.documents.read(published_path(task_id))
    return read_published(task_id, stored.document, stored.written_at) if stored is not None else None


def known(wiring: Wiring, task_id: str) -> PublishedTask:
    """Return what a worker last published of a task that has to exist.

    Raises NotFound, and SecurityFinding for a document that no worker wrote.
    """
    document = _existing(wiring, task_id)
    if isinstance(document, IllegibleDocument):
        raise illegible(task_id, document.place)
    return document


def _existing(wiring: Wiring, task_id: str) -> PublishedTask | IllegibleDocument:
    document = published(wiring, task_id)
    if document is None or isinstance(document, PublishedRefusal):
        raise fallback.unknown_task(wiring, task_id, document)
    return document


def current(wiring: Wiring, task_id: str) -> tuple[PublishedTask | IllegibleDocument, str]:
    """Return what is published of a task that has to exist, legible or not, and its state.

    The state is the ledger's where one can be read here that says that the task may hold access, else the published
    one: a thief of the worker's token can publish that the task is over, and a restored Vault may have lost what was
    published. A ledger that cannot be read keeps nobody from signing the end of a task that is published as held.

    Raises NotFound, and JitvaultError where a task is published as over and its ledger does not confirm that.
    """
    held = ""
    unread: JitvaultError | None = None
    try:
        row = wiring.ledger.task(task_id) if wiring.has_ledger else None
        held = row.state.value if row is not None and row.state in GRANTED | ENDING else ""
    except LedgerUnavailable:
        # only the published state is left
        pass
    except JitvaultError as error:
        unread = error
    if held and published(wiring, task_id) is None:
        return IllegibleDocument(task_id=task_id, installation="", written_at=wiring.clock.agreed() - TOLERANCE), held
    document = _existing(wiring, task_id)
    if unread is not None and document.state in DONE:
        raise unread
    return document, held or document.state


@contextmanager
def allowed(what: str, who: str, *, writes: str = "") -> Iterator[None]:
    """Name who has the right where Vault refuses the caller.

    The path in Vault's answer does not explain it; the hint names the groups as well, those that may write the document
    at `writes` if it is given. `what` completes "Vault does not let you …", `who` completes "Only … can". Raises
    VaultRefused.
    """
    try:
        yield
    except (VaultRejected, WorkerRefused):
        raise
    except VaultRefused as error:
        needed = VaultRefused("", method="put", path=f"{KV_MOUNT}/data/{writes}") if writes else error
        raise VaultRefused(f"Vault does not let you {what} ({error})", hint=only(who, needed)) from None


def signing(what: str, who: str, *, writes: str) -> AbstractContextManager[None]:
    """Do as `allowed` does, for an act that signs and writes a document.

    The message says that nothing was written. `writes` is the document's path, with any entity as its author: the hint
    names the groups that may write there, since more groups may sign, or read what is looked at before.
    """
    return allowed(f"{what}: nothing was written", who, writes=writes)


@dataclass(frozen=True, slots=True)
class Signed:
    """Hold when the caller signed what they wait for, by Vault's clock.

    What was published before then does not answer it. `at` is the time of the newest document, `submitted` that of the
    request itself. None means that the time does not matter.
    """

    at: datetime | None = None
    submitted: datetime | None = None

    def is_answered_by(self, document: PublishedDocument) -> bool:
        """Return whether the document was published later.

        No request changes a task that is granted or over.
        """
        if isinstance(document, PublishedRefusal):
            return self.submitted is None or document.written_at >= self.submitted
        return self.at is None or document.state not in BEFORE or document.written_at >= self.at


NEVER = Signed()


def written_at(wiring: Wiring, path: str) -> datetime | None:
    """Return when the caller's document at `path` was written.

    The time is by Vault's clock.
    """
    stored = wiring.person.documents.read(path)
    return stored.written_at if stored is not None else None


def wait_for_worker(
    wiring: Wiring,
    task_id: str,
    done: Callable[[PublishedTask], bool],
    wait: float,
    signed: Signed = NEVER,
    *,
    begun: bool = False,
) -> PublishedTask:
    """Wait for a worker to have done something for the task, and return what is published.

    A worker has done it when `done` holds for a document that was published after the request was `signed`. After
    `wait` seconds it raises what kept a worker from doing it, as far as that is known here, else NoWorkerActed. `begun`
    says that a worker has done a part of it.
    """
    since = wiring.clock.agreed() - TOLERANCE
    waiting = Wait(wiring, wait)
    notes_at_s = wait - _LONG_S
    document = before = published(wiring, task_id)
    while True:
        if document is not None and signed.is_answered_by(document):
            if isinstance(document, PublishedRefusal):
                raise refused(document.error)
            if isinstance(document, PublishedTask) and done(document):
                return document
        begun = begun or (document is not None and (before is None or document.written_at > before.written_at))
        if waiting.is_over:
            late = f"no worker has done this within {round(wait, 1):g} s"
            _raise_not_done(wiring, task_id, document, since, late, begun=begun)
        if not begun and _LONG_S < waiting.left_s <= notes_at_s:
            notes_at_s = 0.0
            left = format_duration(timedelta(seconds=round(waiting.left_s)))
            start = how_to_start(wiring)
            waits(f"No worker has answered yet{_held_up(document)}. {start} This command waits {left} more.")
        waiting.rest()
        document = published(wiring, task_id)


def _raise_not_done(
    wiring: Wiring, task_id: str, document: PublishedDocument | None, since: datetime, late: str, *, begun: bool
) -> NoReturn:
    """Raise the error of a wait that is over: what a worker met meanwhile, else NoWorkerActed.

    What a worker published before `since` says nothing of this request, and is only named. A finding keeps a worker
    from publishing anything of a task, so where none has `begun` the ledger is looked at, if one can be read here.
    """
    kind = next(reversed(wiring.person.written.values()), "")
    if kind:
        late = f"{_SIGNED.get(kind, 'the request')} is signed, but {late}"
    if kind in ("end", "withdraw") and document is not None and document.state in GRANTED:
        late += ", and its access is still live"
    error = document.error if isinstance(document, PublishedTask | PublishedRefusal) else None
    if document is not None and error is not None and (begun or document.written_at >= since):
        raise error_of(error.exit_code, f"task {task_id}: {late}: {error.message}", error.hint)
    if not begun:
        _check_ledger(wiring, task_id, document)
    message = f"task {task_id}: {late}{_held_up(document) or _over_quota(wiring)}"
    raise nobody_acted(wiring, message, begun=begun)


def nobody_acted(wiring: Wiring, message: str, *, hint: str | None = None, begun: bool = False) -> NoWorkerActed:
    """Return the error of a command whose wait for a worker is over.

    `begun` says that a worker published something of the task meanwhile, so that one is running.
    """
    again = f"What you signed is stored and holds. {how_to_start(wiring)} Then run the same command again."
    error = NoWorkerActed(message, hint=hint or again)
    start = ["jitvault worker", "jitvault worker --once"]
    error.data = {"waiting": {"written": [*wiring.person.written], "begun": begun, "start": start}}
    return error


def how_to_start(wiring: Wiring) -> str:
    """Return how a worker is started, as a sentence."""
    where = "where the worker's identity is"
    if wiring.settings.sandbox_target is not None:
        where += " (in this sandbox `source DIR/worker.env`)"
    return f"If none is running, start one {where}: `jitvault worker`, or `jitvault worker --once` for what is due now."


def _check_ledger(wiring: Wiring, task_id: str, document: PublishedDocument | None) -> None:
    """Raise what the ledger says against a task that no worker goes on with, where one can be read here."""
    ledger = fallback.ledger_here(wiring)
    if ledger is None:
        return
    with suppress(LedgerUnavailable):
        file = ledger.record(task_id)
        if file is None and document is not None and is_own(document, ledger.installation()):
            raise lost(document)
        found = [finding for finding in (file.findings if file else ()) if finding["closed_at"] is None]
        if found:
            raise SecurityFinding(f"task {task_id}: {describe_finding(found[-1])}")


def check_not_final(document: PublishedTask) -> None:
    """Raise the error that last kept a worker from granting the task.

    An error that passes by itself is not raised.
    """
    error = document.error
    if document.state is State.APPROVED and error is not None and error.exit_code in _FINAL:
        # the request stands: it is granted when somebody has acted
        raise refused(error, is_settled=False)


def _held_up(document: PublishedDocument | None) -> str:
    """Return the error that a worker met when it last tried.

    It is the end of a sentence, and empty without an error.
    """
    if document is None or isinstance(document, IllegibleDocument) or document.error is None:
        return ""
    return f": {document.error.message}"


def _over_quota(wiring: Wiring) -> str:
    """Return a worker's notice that it has to process other documents first.

    It is the end of a sentence, and empty without a notice to the caller.
    """
    notice = over_quota_notice(wiring.person.documents, wiring.person.entity)
    return f": {notice}" if notice else ""


def ask(question: str, *, done: str) -> None:
    """Ask a yes-or-no question on the terminal.

    Raises UsageError, which says what was `done`, without a yes.
    """
    # not typer.confirm: with err=True it still prints a space to stdout, where only the result belongs
    typer.echo(for_terminal(f"{question} [y/N]:", sys.stderr, rest="  ") + " ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        typer.echo(err=True)
    if answer.strip().lower() not in ("y", "yes"):
        raise UsageError(f"{done}: the question was not answered with yes", hint="Answer y, or use --yes in a script.")


_INTERCEPTED = (
    "Somebody else may have opened the agent's wrapping, so the task was ended, and all that was read with its token "
    "is revoked. As the operator, find out who has the address in the message; then have whoever has the worker's "
    "identity run `jitvault findings close --agent NAME --reason WHY`, and submit a task with another id. As the "
    "agent, wait for that task: this one gives no more."
)


def check_findings(
    task_id: str, findings: Sequence[str], *, end_reason: str | None = None, hint: str | None = None
) -> None:
    """Raise SecurityFinding where the task has a finding.

    Then the command must not exit with 0. `end_reason` is why the task ended: an interception has a hint of its own.
    """
    if findings:
        intercepted = end_reason == EndReason.INTERCEPTED
        raise SecurityFinding(f"task {task_id}: {findings[0]}", hint=_INTERCEPTED if intercepted else hint)


def refused(error: StatedError, *, is_settled: bool = True) -> JitvaultError:
    """Return the worker's published error as an exception with its exit code.

    `is_settled` says that the request which it answers is over.
    """
    found = error_of(error.exit_code, error.message, error.hint)
    found.leads_on = is_settled
    return found
