"""By which HMAC the lines of the worker's own look-ups name a lease."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import AuditTrail
from jitvault.ledger.model import OperationRow, OpState
from jitvault.lifecycle.record.lookups import shown_hmac

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
LEASE, HMAC = "creds/1", "hmac-sha256:1"
LOOKUP = OperationRow("op-1", "t-1", "lookup_lease", LEASE, OpState.SETTLED, "gone", NOW, NOW)
LINE = Observation(
    line="l-1",
    place=Place("file", 1, 1),
    at=NOW,
    closing=True,
    kind=Kind.LEASE_LOOKUP,
    request_id="r-1",
    path="sys/leases/lookup",
    subject=HMAC,
    actor="worker",
    op="op-1",
    remote="",
    failed=True,
    error="invalid lease",
    token="",
    alias="",
    detail={},
)


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ((LINE, replace(LINE, closing=False)), HMAC),
        ((), ""),
        # somebody else's, of another kind, or of another look-up
        ((replace(LINE, actor="thief"),), ""),
        ((replace(LINE, kind=Kind.LEASE_REVOKED),), ""),
        ((replace(LINE, op="op-2"),), ""),
        # a thief of the worker's token looked up something else under the same id
        ((LINE, replace(LINE, subject="hmac-sha256:2")), ""),
    ],
)
def test_only_the_workers_own_lookup_shows_it_and_nobody_may_use_its_id(
    lines: tuple[Observation, ...], shown: str
) -> None:
    record = cast(Any, SimpleNamespace(operations=(LOOKUP,)))
    lease = cast(Any, SimpleNamespace(lease_id=LEASE))
    assert shown_hmac(record, lease, AuditTrail(lines, (), frozenset({"worker"}))) == shown
