"""Until when a token can live whose task ends, by what its renewals were answered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jitvault.formats.clocks import MAX_SKEW
from jitvault.ledger.model import GrantRow, OperationRow, OpState
from jitvault.lifecycle.record.renewals import expiry_at_end
from jitvault.model.kinds import OperationKind
from jitvault.model.states import Verdict

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
TOKEN, STEP, SETTLE = "hmac-token", timedelta(seconds=120), timedelta(seconds=30)
AHEAD = NOW + 5 * STEP
GRANT = GrantRow(
    grant_id="g-1",
    task_id="t-1",
    attempt=1,
    digest="sha256:" + "a" * 64,
    role="jitvault-15m",
    create_op="op-0",
    wrapped_accessor="accessor",
    accessor_hmac=TOKEN,
    token_lease=None,
    creation_path="auth/token/create/jitvault-15m",
    requested_ttl_s=900,
    ttl_s=900,
    step_s=120,
    wrap_ttl_s=120,
    issued_at=NOW,
    expires_at=AHEAD,
    rolling=True,
    renew_at=None,
    delivered=True,
    settled=False,
    verdict=Verdict.LIVE,
    dead_at=None,
    wrapping_hmac=None,
)


def renewal(after_s: float, state: OpState = OpState.SETTLED, **changes: Any) -> OperationRow:
    sent = NOW + timedelta(seconds=after_s)
    op = OperationRow(f"op-{after_s}", "t-1", OperationKind.RENEW_TOKEN, TOKEN, state, "ok", sent, sent)
    return replace(op, **changes)


def until(*renewals: OperationRow, grant: GrantRow = GRANT) -> datetime | None:
    return expiry_at_end(grant, renewals, SETTLE)


def test_a_token_lives_for_a_step_after_its_last_renewal_and_what_clocks_may_differ() -> None:
    slack = STEP + SETTLE + MAX_SKEW
    assert until() == NOW + slack
    # the newest answer counts, in whatever order they are
    assert until(renewal(60), renewal(120), renewal(30)) == NOW + timedelta(seconds=120) + slack


@pytest.mark.parametrize("state", [OpState.INTENDED, OpState.UNKNOWN])
def test_what_was_committed_ahead_stays_while_a_renewal_may_be_on_its_way(state: OpState) -> None:
    is_open = renewal(60, state, answered_at=None if state is OpState.INTENDED else NOW + timedelta(seconds=61))
    assert until(renewal(30), is_open) == AHEAD


def test_a_token_never_lives_for_longer_than_what_was_committed() -> None:
    assert until(renewal(590)) == AHEAD
    # a token that is not renewed by steps lives as long as Vault said
    assert until(grant=replace(GRANT, rolling=False)) == AHEAD
    assert until(grant=replace(GRANT, expires_at=None)) is None
