"""Sign a receipt with the one key that only the worker can use."""

from __future__ import annotations

from typing import Any

import msgspec

from jitvault.context import WorkerContext
from jitvault.documents.receipt import Receipt
from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, to_sign
from jitvault.model.kinds import OperationKind
from jitvault.operations import announce


def sign_receipt(worker: WorkerContext, task_id: str, receipt: Receipt) -> dict[str, Any]:
    """Return the signed receipt.

    What is signed is committed before, as the HMAC by which the audit line of the signature shows it. A line without
    such an intent is a thief's. After a crash another receipt is signed under another intent.
    """
    told = msgspec.to_builtins(receipt)
    meant = worker.hasher.hash(to_sign(told, RECEIPT_TYPE))
    op = announce(worker, OperationKind.SIGN, meant, task_id=task_id)
    return worker.signer.sign(told, RECEIPT_TYPE, key=RECEIPT_KEY, op=op)
