"""Whoever watches a task waits for the reason of its end, and names what Vault says only without one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count

import pytest

from jitvault.agent.execution import task_watch
from jitvault.agent.execution.task_watch import AccessEnd, Cause, TaskWatch
from jitvault.errors import VaultRefused


def refuse() -> None:
    raise VaultRefused("no")


REVOKED = AccessEnd(Cause.OVER, "revoked")


def watched(
    published: Callable[[], AccessEnd | None], monkeypatch: pytest.MonkeyPatch, *, patience_s: float
) -> AccessEnd | None:
    monkeypatch.setattr(task_watch, "POLL_S", 0.01)
    watch = TaskWatch(published_end=published, beat=refuse, heartbeat_s=0.03, ends_at=None, patience_s=patience_s)
    watch.start()
    os.read(watch.line, 1)
    return watch.end


def test_a_token_that_vault_refuses_is_waited_for_until_the_reason_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = count()
    assert watched(lambda: REVOKED if next(looks) > 10 else None, monkeypatch, patience_s=30) == REVOKED
    begun = time.monotonic()
    end = watched(lambda: None, monkeypatch, patience_s=0.2)
    assert end is not None and end.cause is Cause.REFUSED
    assert 0.2 <= time.monotonic() - begun < 5
