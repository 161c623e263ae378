"""A receipt that is published with a task: whether Vault's own key signed it, for that task and that end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitvault.documents.dsse import RECEIPT_KEY, RECEIPT_TYPE, opened
from jitvault.errors import SecurityFinding
from jitvault.model.states import State

CLOSED = frozenset({State.SEALED, State.UNVERIFIED})
"""The states that have a receipt."""


def verified(
    signed: Mapping[str, Any] | None,
    public_keys: Mapping[int, str],
    *,
    task_id: str,
    digest: object,
    installation: str,
    state: object,
) -> dict[str, Any] | None:
    """What a receipt says, where the key of receipts signed it about this task, in this state; None for any other.

    Whoever has a worker's token can sign as well: that leaves a line which freezes everything.
    """
    if signed is None or state not in CLOSED:
        return None
    try:
        told = opened(signed, key=RECEIPT_KEY, public_keys=public_keys, payload_type=RECEIPT_TYPE)
    except SecurityFinding:
        return None
    proof = told.get("proof")
    said = proof.get("state") if isinstance(proof, dict) else None
    # the receipt of a seal is signed a moment before: its proof says confirmed
    expected = State.CONFIRMED if state == State.SEALED else state
    same = (told.get("task"), told.get("digest"), told.get("installation"), said)
    return told if same == (task_id, digest, installation, expected) else None
