"""Carry out a command, directly or by waiting for a worker.

A command that has the worker's identity does the work itself. Either way the result is what the worker publishes in
Vault, so both ways show the same output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import typer

from jitvault.cli import published as fallback
from jitvault.cli.closing import on_exit
from jitvault.cli.folding import for_terminal
from jitvault.cli.refused import only
from jitvault.cli.views.output import warn
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
    AuditUntrusted,
    Denied,
    InvalidInput,
    JitvaultError,
    LedgerUnavailable,
    SecurityFinding,
    UsageError,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
    WaitTimedOut,
    WorkerRefused,
    error_of,
)
from jitvault.formats.time_window import format_duration
from jitvault.ledger.ownership import knows_nothing
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.record.missing_tasks import missing_tasks
from jitvault.lifecycle.requests.quota import over_quota_notice
from jitvault.login import exposed_secrets
from jitvault.model.event_bodies import StatedError
from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, EndReason, State
from jitvault.provision.names import KV_MOUNT
from jitvault.recovery.lost_task import advance_or_end_lost
from jitvault.settings import Settings, load, misspelt
from jitvault.vault.client import Vault
from jitvault.wiring import Wiring

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

_FIRST_POLL_S = 0.02
_POLL_S = 0.2
# denied (a freeze), invalid (a template lost its check), a security finding: waiting does not help, a person has to act
_FINAL = frozenset({Denied.exit_code, InvalidInput.exit_code, SecurityFinding.exit_code})
_NOTIFY_S = 1.0
# a worker answers within a second or two
_LONG_S = 5.0
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
    if settings.agent_secret_id_file is None and settings.worker_secret_id_file is None:
        return

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


def open_to_ask() -> Wiring:
    """Return the adapters of a command that signs for access.

    The command signs a request, or an approval.

    With the worker's identity the command carries it out itself, so its ledger is checked before anything is signed: a
    signed request would be carried out later by a worker. Raises UsageError, LedgerUnavailable.
    """
    wiring = open_session()
    if wiring.has_worker:
        wiring.check_owner()
    return wiring


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


def state_here(wiring: Wiring, task_id: str, document: PublishedTask | IllegibleDocument) -> str:
    """Return the state of a task, by the ledger or as published.

    It is the ledger's where that says that the task may hold access, else the published one. The ledger is asked only
    with the worker's identity. It comes first because a thief of the worker's token can publish that the task is over.
    A full ledger, or a worker login that Vault refuses, does not keep a caller from signing the end of a task that is
    published as held. Raises JitvaultError where the login fails and the task is published as over: nothing would
    confirm it.
    """
    task = None
    try:
        task = wiring.worker.ledger.task(task_id) if wiring.has_worker else None
    except LedgerUnavailable:
        # only the published state is left
        pass
    except JitvaultError:
        if document.state in DONE:
            raise
    return task.state if task is not None and task.state in GRANTED | ENDING else document.state


def current(wiring: Wiring, task_id: str) -> PublishedTask | IllegibleDocument:
    """Return what is published of a task, brought up to date.

    It is brought up to date with this process's own ledger. A restored Vault has documents of an earlier time: where
    the ledger knows of a grant that they do not show, the task is advanced first. Raises NotFound.
    """
    document = published(wiring, task_id)
    if (document is None or document.state in BEFORE) and wiring.has_worker:
        task = wiring.worker.ledger.task(task_id)
        if task is not None and task.state in GRANTED | ENDING | DONE:
            # Without an audit stream the task is published and revoked as well. A foreign document prevents no end.
            with suppress(AuditUntrusted, SecurityFinding):
                advance(wiring.worker, task_id)
    return _existing(wiring, task_id)


@contextmanager
def allowed(what: str, who: str) -> Iterator[None]:
    """Name who has the right where Vault refuses the caller.

    The path in Vault's answer does not explain it; the hint names the groups as well. `what` completes "Vault does not
    let you …", `who` completes "Only … can". Raises VaultRefused.
    """
    try:
        yield
    except (VaultRejected, WorkerRefused):
        raise
    except VaultRefused as error:
        raise VaultRefused(
            f"Vault does not let you {what} ({error})",
            hint=only(who, error),
        ) from None


@contextmanager
def signing(what: str, who: str, *, writes: str) -> Iterator[None]:
    """Do as `allowed` does, for an act that signs and writes a document.

    The message says that nothing was written. `writes` is the document's path, with any entity as its author: the hint
    names the groups that may write there, since more groups may sign, or read what is looked at before.
    """
    with allowed(f"{what}: nothing was written", who):
        try:
            yield
        except (VaultRejected, WorkerRefused):
            raise
        except VaultRefused as error:
            raise VaultRefused(str(error), method="put", path=f"{KV_MOUNT}/data/{writes}") from None


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

    The time is by Vault's clock. None with the worker's identity, since such a command does the work itself and need
    not wait.
    """
    stored = None if wiring.has_worker else wiring.person.documents.read(path)
    return stored.written_at if stored is not None else None


def settle(
    wiring: Wiring,
    task_id: str,
    done: Callable[[PublishedTask], bool],
    wait: float,
    signed: Signed = NEVER,
    tell: Callable[[str], None] = lambda _: None,
) -> PublishedTask:
    """Advance the task, or wait for a worker, and return what is published.

    `tell` is called with a sentence where no worker answers for long.

    A worker has done it when `done` holds for a document that was published after the request was `signed`. With the
    worker's identity nothing new is begun after `wait` seconds either. Raises WaitTimedOut after `wait` seconds, and
    whatever error kept the worker from doing it.
    """
    clock = wiring.clock
    deadline = clock.monotonic() + wait
    told_at = clock.monotonic() + _LONG_S
    pause_s = _FIRST_POLL_S
    if wiring.has_worker:
        hint = wiring.person.entity if wiring.person_token else None
        notifier = wiring.teller
        try:
            advance_or_end_lost(wiring.worker, task_id, hint=hint, deadline=deadline)
        finally:
            notifier.tell_for(_NOTIFY_S)
        return known(wiring, task_id)
    while True:
        document = published(wiring, task_id)
        if document is not None and signed.is_answered_by(document):
            if isinstance(document, PublishedRefusal):
                raise refused(document.error)
            if isinstance(document, PublishedTask):
                if done(document):
                    return document
                check_not_final(document)
        if clock.monotonic() >= deadline:
            why = _held_up(document) or _over_quota(wiring)
            raise WaitTimedOut(f"task {task_id}: no worker has done this within {wait:g} s{why}")
        if told_at <= clock.monotonic() < deadline - _LONG_S:
            told_at = deadline
            left = format_duration(timedelta(seconds=round(deadline - clock.monotonic())))
            tell(
                f"No worker has answered about task {task_id} yet{_held_up(document)}. This command waits {left} more."
            )
        clock.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _POLL_S)


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
