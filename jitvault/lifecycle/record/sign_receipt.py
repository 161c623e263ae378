"""Sign a receipt with the one key that only the worker can use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jitvault.context import WorkerContext
from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, to_sign
from jitvault.ledger.model import OpState
from jitvault.model.kinds import OperationKind
from jitvault.operations import new_operation


def sign_receipt(worker: WorkerContext, task_id: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the signed receipt.

    What is signed is committed before, as the HMAC by which the audit line of the signature shows it. A line without
    such an intent is a thief's. Nothing depends on the answer, so the operation is settled from the start; after a
    crash another receipt is signed under another intent.
    """
    meant = worker.hasher.hash(to_sign(told, RECEIPT_TYPE))
    op = new_operation(worker, OperationKind.SIGN, meant, task_id=task_id)
    worker.ledger.keep(operations=[replace(op, state=OpState.SETTLED)], at=worker.now())
    return worker.signer.sign(told, RECEIPT_TYPE, key=RECEIPT_KEY, op=op.op_id)
