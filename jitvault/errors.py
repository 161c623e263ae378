"""Errors that jitvault raises on purpose.

Each direct subclass of JitvaultError has an exit code of its own, which its subclasses share, and every error has a
hint: what the reader does next. Adapters translate foreign exceptions into these errors at their edge, and the CLI
prints them in one place. No error carries a secret: no token, no password, no response body.

    JitvaultError                1   a bug, or a case that was not foreseen
    ├── UsageError               2   the command line or the environment is incomplete
    ├── Denied                   3   policy or an approver said no
    ├── ApprovalMissing          4   an approver has to approve first
    ├── VaultUnavailable         5   Vault is unreachable, sealed, or answers with garbage
    │   ├── VaultBusy            5   Vault takes no more requests for the moment (429)
    │   ├── VaultNotServing      5   nothing was done: no connection, sealed, or no node is active
    │   ├── TargetUnavailable    5   Vault answers, but could not reach a target or do there what it was asked
    │   └── OutcomeUnknown       5   a request was sent and its answer was lost: it may have been carried out
    ├── NotConfirmed             6   revoked, but the revocation is not confirmed
    │   ├── StillAccepted        6   the target itself says that it accepts the credential
    │   └── ProbeUnusable        6   the probe cannot ask its target before somebody corrects it
    ├── AuditUntrusted           7   the audit stream cannot be trusted, or cannot be read
    │   ├── AuditLagging         7   lines arrive, but late
    │   └── AuditMissing         7   the audit file does not exist
    ├── InvalidInput             8   a spec, a template or a policy is wrong
    ├── WrongState               9   not found, or not possible in this state
    │   ├── NotFound             9
    │   ├── TaskEnded            9   the task that a Python program used is over
    │   └── DecisionStale        9   what was decided on changed before it was done
    ├── VaultRefused            10   Vault refused this token
    │   ├── WorkerRefused       10   Vault refused the worker's token, not the caller's
    │   └── VaultRejected       10   Vault refused this request (400) and gives a reason
    ├── LedgerUnavailable       11   the ledger is unavailable, of another version, or full
    │   ├── LedgerUnreachable   11   the ledger's database server does not answer
    │   ├── MissingLedger       11   there is no ledger at the place that the settings name
    │   ├── UnusedLedger        11   the ledger is new, and belongs to no installation yet
    │   ├── ForeignLedger       11   the ledger belongs to another installation than this Vault's
    │   ├── OlderRules          11   a newer version worked on the ledger, so this one may not write to it
    │   └── LedgerFull          11   nothing can be written to the ledger; its rows may be readable
    ├── SecurityFinding         12   something happened that must not happen
    │   ├── CorruptRecord       12   a stored row or document is not one that jitvault wrote
    │   ├── LostTask            12   Vault knows of a task, and the ledger does not
    │   └── Frozen              12   nothing is granted until an operator has investigated
    └── WaitTimedOut            13   no worker did the work in time
        └── NoWorkerActed       13   what a command signed is stored, and no worker has done anything about it yet
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar


class JitvaultError(Exception):
    """Base of all errors of jitvault.

    `str()` says what happened and to which task; `hint` says what to do next. Both are for people, and nothing decides
    by them: what is decided by has a field or a class of its own.
    """

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "This is a bug in jitvault. Run the command again with --debug and report it."
    data: Mapping[str, object] = {}
    """What a program reads of this error besides its code."""
    leads_on: bool = False
    """Whether the hint says how the task of this command goes on, or that its request is settled."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self._own_hint = hint

    @property
    def hint(self) -> str:
        return self._own_hint or self.default_hint

    @hint.setter
    def hint(self, text: str) -> None:
        self._own_hint = text

    @property
    def has_own_hint(self) -> bool:
        """Whether somebody gave this error a hint, in place of the one that all of its kind have."""
        return bool(self._own_hint)


class UsageError(JitvaultError):
    exit_code = 2
    default_hint = "See --help."


class Denied(JitvaultError):
    exit_code = 3
    leads_on = True
    default_hint = (
        "`jitvault policy explain SPEC` shows what the policies require. Run `jitvault grant TASK` again when that is "
        "the case, or change the spec and run `jitvault submit SPEC --revise`."
    )


class ApprovalMissing(JitvaultError):
    exit_code = 4
    leads_on = True
    default_hint = "Ask an approver to run `jitvault approve TASK`, then run `jitvault grant TASK` again."


class VaultUnavailable(JitvaultError):
    exit_code = 5
    default_hint = "Nothing is lost: run the same command again when Vault answers (`bao status`)."


class VaultBusy(VaultUnavailable):
    default_hint = "Vault's rate limit was reached. Nothing is lost: run the same command again in a moment."


class VaultNotServing(VaultUnavailable):
    """Raised for a request that Vault did nothing about.

    The request was not sent, or Vault refused it before doing anything. `answers` is true where the server is there,
    and is sealed or not active.
    """

    def __init__(self, message: str, *, hint: str | None = None, answers: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.answers = answers


class TargetUnavailable(VaultUnavailable):
    """Raised where Vault could not do at a target what it was asked to do.

    Vault itself works.
    """

    default_hint = "Run the same command again when the target answers. Until then access ends only with its TTL."


class OutcomeUnknown(VaultUnavailable):
    default_hint = "The request may have been carried out. Run the same command again: it looks up what happened."


class NotConfirmed(JitvaultError):
    exit_code = 6
    leads_on = True
    default_hint = "`jitvault status TASK` shows the check that failed. Run the same command to try again."


class StillAccepted(NotConfirmed):
    """Raised where the target itself says that it accepts the credential.

    Every other NotConfirmed means that nothing is known about it.
    """


class ProbeUnusable(NotConfirmed):
    """Raised where a probe cannot ask its target before somebody corrects it.

    The target refuses its login, or its document is not valid. A target that is down, or whose connections are all
    taken, says nothing about the probe.
    """

    default_hint = "Correct the probe's login at the target, or its document in jitvault/probes/."


class AuditUntrusted(JitvaultError):
    exit_code = 7
    default_hint = "Check that JITVAULT_AUDIT_FILE is the file that this Vault's audit device writes."


class AuditLagging(AuditUntrusted):
    default_hint = "Run the same command again in a moment, or check what transports the audit lines to this machine."


class AuditMissing(AuditUntrusted):
    """Raised where the audit file does not exist.

    It was not found under another name either.
    """


class InvalidInput(JitvaultError):
    exit_code = 8
    default_hint = "Correct the file and run the command again. Nothing was written."


class WrongState(JitvaultError):
    exit_code = 9
    leads_on = True
    default_hint = "Run `jitvault status TASK` to see the task's state."


class NotFound(WrongState):
    default_hint = "Operators, approvers and auditors see all tasks with `jitvault list`."


class TaskEnded(WrongState):
    """Raised where a Python program uses the access of a task that is over."""

    default_hint = (
        "Enter another `with task(…)`: with `generateName` in place of an id in the spec each one is a task of its own."
    )


class DecisionStale(WrongState):
    """Raised where another process acted first.

    Nothing was done, and the decision has to be made again.
    """

    leads_on = False
    default_hint = "Other tasks were granted at the same moment. Run the same command again."


class VaultRefused(JitvaultError):
    """Raised where Vault refused this token.

    `method` and `path` are those of the request; they are empty where no single path was refused.
    """

    exit_code = 10
    default_hint = "Check which identity this token has (`bao token lookup`) and whether it expired."

    def __init__(self, message: str, *, hint: str | None = None, method: str = "", path: str = "") -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.path = path


class WorkerRefused(VaultRefused):
    """Raised where Vault refused the worker's token.

    Who reads that may be somebody else, whose own identity is not to blame.
    """

    default_hint = (
        "It is the worker's identity that Vault refuses, not yours. `jitvault doctor`, where the worker runs, says "
        "what its token lacks; an administrator runs `jitvault init`, or corrects the worker's login."
    )


class VaultRejected(VaultRefused):
    """Raised where Vault understood the request and said no (HTTP 400 or 404)."""

    def __init__(self, message: str, *, status: int, reasons: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reasons = reasons


class LedgerUnavailable(JitvaultError):
    exit_code = 11
    default_hint = "Check JITVAULT_LEDGER, the file's permissions and the free space on its disk."


class LedgerUnreachable(LedgerUnavailable):
    """Raised where the content of the ledger cannot be read.

    A command that needs only Vault goes on without the ledger.
    """


class MissingLedger(LedgerUnavailable):
    """Raised where no ledger is at the place that the settings name."""


class UnusedLedger(LedgerUnavailable):
    """Raised by a reader for a ledger that no worker has used.

    A worker is any process with the worker's identity.
    """


class ForeignLedger(LedgerUnavailable):
    """Raised for a ledger of another installation than this Vault's."""


class OlderRules(LedgerUnavailable):
    """Raised where a newer version of jitvault worked on the ledger.

    Nothing was written: newer versions judge and seal by other rules.
    """

    default_hint = (
        "Install the version that the other workers run. How to go back to an older version is described in "
        'docs/operations/ledger.md, "Upgrading".'
    )


class LedgerFull(LedgerUnavailable):
    default_hint = "Free space on the ledger's disk, then run the command again."


class SecurityFinding(JitvaultError):
    exit_code = 12
    leads_on = True
    default_hint = "Treat this as an incident: `jitvault status TASK` shows the finding and its evidence."


class CorruptRecord(SecurityFinding):
    """Raised for a stored row or document that jitvault did not write.

    It is raised where the row or document is decoded. `task_id` is the task whose record it is, where that is known.
    """

    default_hint = "The record was edited. `jitvault ledger check` shows whether other records were edited as well."

    def __init__(self, message: str, *, hint: str | None = None, task_id: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.task_id = task_id


class LostTask(SecurityFinding):
    """Raised for a task that Vault knows of and the ledger lacks.

    It was deleted from the ledger, or the ledger was lost or restored.
    """

    default_hint = (
        "First make sure that JITVAULT_LEDGER names the worker's ledger here. If it does, the ledger was lost, "
        "restored or edited: `jitvault ledger recover` imports again what it lacks."
    )


class Frozen(SecurityFinding):
    leads_on = False
    default_hint = (
        "Treat the worker's identity as stolen, and look at `jitvault audit status`. If agents share an address with "
        "the worker and unwrapped from there, name it in JITVAULT_SHARED_HOSTS. If the ledger was restored from a "
        "backup, run `jitvault ledger recover`. Then run `jitvault unfreeze --reason WHY`."
    )


class WaitTimedOut(JitvaultError):
    exit_code = 13
    default_hint = (
        "The request is stored. Check that a worker is running, and wait longer with --wait or ask again later."
    )


class NoWorkerActed(WaitTimedOut):
    """Raised where a command's wait for a worker is over.

    `data` says what the command signed, whether a worker has begun, and what starts one.
    """


def error_like(error: JitvaultError, message: str, *, hint: str) -> JitvaultError:
    """Return an error like `error` with another message and hint.

    Its exit code is that of `error`.
    """
    kind = VaultRefused if isinstance(error, VaultRejected) else type(error)
    like = kind(message, hint=hint)
    like.data = error.data
    return like


@contextmanager
def readable(task_id: str) -> Iterator[None]:
    """Say which task's record in the ledger is corrupt, where one is."""
    try:
        yield
    except CorruptRecord as error:
        if error.task_id is not None:
            raise
        message = f"the ledger's record of task {task_id} cannot be read: {error}"
        raise CorruptRecord(message, task_id=task_id) from None


def error_of(exit_code: int, message: str, hint: str | None) -> JitvaultError:
    """Return the error that another process met, by its exit code."""
    kinds = {kind.exit_code: kind for kind in reversed(JitvaultError.__subclasses__())}
    return kinds.get(exit_code, JitvaultError)(message, hint=hint)
