"""Sign a receipt with the one key that only the worker can use."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from jitvault.context import WorkerContext
from jitvault.documents.signed import RECEIPT_KEY, RECEIPT_TYPE, to_sign
from jitvault.ledger.model import TaskRecord
from jitvault.lifecycle.record.receipt import receipt_of
from jitvault.lifecycle.revocation.cascade import children_for_receipt
from jitvault.model.kinds import OperationKind
from jitvault.operations import announce


def signed_receipt(worker: WorkerContext, record: TaskRecord, sealed_at: datetime) -> dict[str, Any]:
    """Return the signed receipt of a task that is closed at `sealed_at`.

    What is signed is committed before, as the HMAC by which the audit line of the signature shows it. A line without
    such an intent is a thief's. After a crash another receipt is signed under another intent.
    """
    children = children_for_receipt(worker, record.task.task_id)
    told = msgspec.to_builtins(receipt_of(worker.installation, record, sealed_at, children=children))
    meant = worker.hasher.hash(to_sign(told, RECEIPT_TYPE))
    op = announce(worker, OperationKind.SIGN, meant, task_id=record.task.task_id)
    return worker.signer.sign(told, RECEIPT_TYPE, key=RECEIPT_KEY, op=op)
