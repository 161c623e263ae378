"""What runs beside an agent, and what an agent's own Python program uses.

    from jitvault.agent import task

    with task("read-orders.yaml") as t:
        engine = t.sqlalchemy_engine()

Importing this loads nothing but the standard library: no client of Vault, no database library, no command line.
"""

from jitvault.agent.sdk.credentials import FieldSecret, HeldCredential
from jitvault.agent.sdk.task import Task, task
from jitvault.errors import (
    ApprovalMissing,
    Denied,
    InvalidInput,
    JitvaultError,
    NotConfirmed,
    TaskEnded,
    UsageError,
    VaultUnavailable,
    WaitTimedOut,
    WrongState,
)

__all__ = [
    "ApprovalMissing",
    "Denied",
    "FieldSecret",
    "HeldCredential",
    "InvalidInput",
    "JitvaultError",
    "NotConfirmed",
    "Task",
    "TaskEnded",
    "UsageError",
    "VaultUnavailable",
    "WaitTimedOut",
    "WrongState",
    "task",
]
