"""The look-ups of a credential by what Vault answered: the domain looks for their lines in the stream."""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.ports.ledger import OperationRow


def gone_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """The ids of look-ups of `subject` that Vault answered with "there is no such thing"."""
    return _lookups(operations, subject, "gone")


def live_lookups(operations: Sequence[OperationRow], subject: str) -> frozenset[str]:
    """The ids of look-ups of `subject` that found it alive."""
    return _lookups(operations, subject, "live")


def _lookups(operations: Sequence[OperationRow], subject: str, answer: str) -> frozenset[str]:
    kinds = ("lookup_token", "lookup_lease")
    return frozenset(
        op.op_id for op in operations if op.kind in kinds and op.subject == subject and op.answer == answer
    )
