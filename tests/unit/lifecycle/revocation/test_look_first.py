"""Whether credentials are looked up before they are revoked: asking must never keep them from being revoked."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jitvault.audit.files.configured import ConfiguredSources
from jitvault.errors import AuditUntrusted
from jitvault.lifecycle.revocation.revoke import _may_have_moved


@contextmanager
def nothing_can_be_opened() -> Iterator[None]:
    """Root reads every directory, so permissions alone would not do."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_receivers_directory_that_cannot_be_read_counts_as_a_stream_that_may_have_moved(tmp_path: Path) -> None:
    sources = ConfiguredSources([tmp_path])
    worker: Any = SimpleNamespace(sources=sources, ledger=SimpleNamespace(readings=dict))
    with nothing_can_be_opened():
        with pytest.raises(AuditUntrusted):
            sources.present()
        assert _may_have_moved(worker)
