"""Whether Vault's own key signed a receipt for its task and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, opened
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
    """Return a receipt's content if it is signed for this task and state.

    None means that Vault's key of receipts did not sign it about this task, in this state. A thief of the worker's
    token can sign as well, but that leaves an audit line which freezes everything.
    """
    if signed is None or state not in CLOSED:
        return None
    try:
        content = opened(signed, key=RECEIPT_KEY, public_keys=public_keys, payload_type=RECEIPT_TYPE)
    except SecurityFinding:
        return None
    proof = content.get("proof")
    proven_state = proof.get("state") if isinstance(proof, dict) else None
    # the receipt of a seal is signed a moment before the state changes: its proof says confirmed
    expected = State.CONFIRMED if state == State.SEALED else state
    found = (content.get("task"), content.get("digest"), content.get("installation"), proven_state)
    return content if found == (task_id, digest, installation, expected) else None
