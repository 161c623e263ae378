"""Every error that jitvault raises on purpose.

Each class has an exit code of its own and a hint: what the reader does next. Adapters translate
foreign exceptions into these at their edge; the CLI has one boundary that prints them. Nothing here
ever carries a secret: no token, no password, no response body.

    JitvaultError                1   a bug, or something nobody foresaw
    ├── UsageError               2   the command line or the environment is incomplete
    ├── Denied                   3   policy or an approver said no
    ├── ApprovalMissing          4   somebody has to approve first
    ├── VaultUnavailable         5   Vault is unreachable, sealed, or answers garbage
    │   ├── VaultBusy            5   Vault takes no more requests for the moment (429)
    │   ├── VaultNotServing      5   nothing was done: no connection, sealed, or no node is active
    │   ├── TargetUnavailable    5   Vault answers, and could not reach a target or do there what it was asked
    │   └── OutcomeUnknown       5   an act was sent and its answer was lost: it may have been done
    ├── NotConfirmed             6   revoked, but not proven
    │   └── StillTaken           6   the target itself says that it takes the credential
    ├── AuditUntrusted           7   the audit stream cannot be trusted, or cannot be read
    │   ├── AuditLagging         7   lines arrive, but they are behind
    │   └── AuditMissing         7   the file is not there
    ├── InvalidInput             8   a spec, a template or a policy is wrong
    ├── WrongState               9   not found, or not possible in this state
    │   ├── NotFound             9
    │   └── Overtaken            9   what was decided on has changed before it was done
    ├── VaultRefused            10   Vault refused this token
    │   └── VaultRejected       10   Vault refused this request (400): it has a reason to show
    ├── LedgerUnavailable       11   the ledger is unavailable, of another version, or full
    │   ├── LedgerAway          11   its server does not answer
    │   ├── OlderRules          11   a newer version worked on it, and this one may not write any more
    │   └── LedgerFull          11   nothing can be written to it; what is there may be readable
    ├── SecurityFinding         12   something happened that must not happen
    │   ├── Unreadable          12   what the ledger has of a task is nothing that jitvault wrote
    │   └── Frozen              12   nothing is granted until somebody has looked into it
    └── WaitTimedOut            13   nobody did the work in time
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class JitvaultError(Exception):
    """The root. `str()` says what happened and to which task; `hint` says what to do next."""

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "This is a bug in jitvault. Run the command again with --debug and report it."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint


class UsageError(JitvaultError):
    exit_code = 2
    default_hint = "See --help."


class Denied(JitvaultError):
    exit_code = 3
    default_hint = (
        "`jitvault policy explain SPEC` says what it takes. Run `jitvault grant TASK` again when that is so, or change "
        "the spec and submit it with --revise."
    )


class ApprovalMissing(JitvaultError):
    exit_code = 4
    default_hint = "Ask an approver to run `jitvault approve TASK`, then run `jitvault grant TASK` again."


class VaultUnavailable(JitvaultError):
    exit_code = 5
    default_hint = "Nothing is lost: run the same command again when Vault answers (`bao status`)."


class VaultBusy(VaultUnavailable):
    default_hint = "A rate limit of Vault's was reached. Nothing is lost: run the same command again in a moment."


class VaultNotServing(VaultUnavailable):
    """Not sent, or refused before anything was done."""


class TargetUnavailable(VaultUnavailable):
    """Vault could not do at a target what was asked of it there, and nothing else is wrong."""

    default_hint = "Run the same command again when the target answers. Until then access lasts for its TTL alone."


class OutcomeUnknown(VaultUnavailable):
    default_hint = "The act may have been done. Run the same command again: it looks up what happened."


class NotConfirmed(JitvaultError):
    exit_code = 6
    default_hint = "Run `jitvault status TASK` for the check that failed; the same command tries again."


class StillAccepted(NotConfirmed):
    """The target itself says that it takes the credential. Every other NotConfirmed says that nothing is known."""


class AuditUntrusted(JitvaultError):
    exit_code = 7
    default_hint = "Check that JITVAULT_AUDIT_FILE is the file that this Vault's audit device writes."


class AuditLagging(AuditUntrusted):
    default_hint = "Run the same command again in a moment, or look at what brings the lines here."


class AuditMissing(AuditUntrusted):
    """There is no file, and the one that was read is not found under another name either."""


class InvalidInput(JitvaultError):
    exit_code = 8
    default_hint = "Correct the file and run the command again. Nothing was written."


class WrongState(JitvaultError):
    exit_code = 9
    default_hint = "Run `jitvault status TASK` to see where the task is."


class NotFound(WrongState):
    default_hint = "Run `jitvault list` to see the tasks there are."


class DecisionStale(WrongState):
    """Nothing was done: somebody else was first. It is decided anew."""

    default_hint = "Others were granted at the same moment. Run the same command again."


class VaultRefused(JitvaultError):
    exit_code = 10
    default_hint = "Check which identity this token has (`bao token lookup`) and whether it expired."


class VaultRejected(VaultRefused):
    """Vault understood the request and said no (HTTP 400 or 404)."""

    def __init__(self, message: str, *, status: int, reasons: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reasons = reasons


class LedgerUnavailable(JitvaultError):
    exit_code = 11
    default_hint = "Check JITVAULT_LEDGER, the file's permissions and the free space on its disk."


class LedgerUnreachable(LedgerUnavailable):
    """Nobody can say what is in it; who has Vault alone does without."""


class OlderRules(LedgerUnavailable):
    """Nothing was written: what this version judges and seals is not what the newer ones do."""

    default_hint = (
        "Install here what the other workers run. How to go back to an older version: docs/operations/ledger.md, "
        '"Upgrading".'
    )


class LedgerFull(LedgerUnavailable):
    default_hint = "Free space on its disk, then run the command again."


class SecurityFinding(JitvaultError):
    exit_code = 12
    default_hint = "Treat this as an incident: `jitvault status TASK` shows the finding and its evidence."


class Unreadable(SecurityFinding):
    """What the ledger has of a task is nothing that jitvault ever wrote."""

    default_hint = "It was edited: `jitvault ledger check` says whether others were as well."


class Frozen(SecurityFinding):
    default_hint = (
        "Treat the worker's identity as stolen, and look at `jitvault audit status`. An unwrap from an address that "
        "agents share with the worker is theirs: name it in JITVAULT_SHARED_HOSTS. A ledger that was restored knows "
        "nothing of what was done since: `jitvault ledger recover`. Then: `jitvault unfreeze`."
    )


class WaitTimedOut(JitvaultError):
    exit_code = 13
    default_hint = "The request is written. Is a worker running? Wait longer with --wait, or ask again later."


def error_like(error: JitvaultError, message: str, *, hint: str) -> JitvaultError:
    """An error with the exit code of `error` and another message."""
    kind = VaultRefused if isinstance(error, VaultRejected) else type(error)
    return kind(message, hint=hint)


CORRUPT_RECORD_ERRORS = (Unreadable, InvalidInput, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What comes of a row or a document that somebody edited: it need not even be JSON."""


@contextmanager
def readable(task_id: str) -> Iterator[None]:
    """Raise Unreadable, without anything of what was found, where the ledger's record of a task cannot be read."""
    try:
        yield
    except Unreadable:
        raise
    except CORRUPT_RECORD_ERRORS as error:
        said = f"the ledger's record of task {task_id} cannot be read ({type(error).__name__})"
        raise Unreadable(said) from None
