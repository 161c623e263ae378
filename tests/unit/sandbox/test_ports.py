"""A server with one port for its clients and its cluster does not start."""

from __future__ import annotations

import pytest

from jitvault.errors import VaultUnavailable
from jitvault.sandbox.processes import free_port


def test_a_port_is_none_of_those_that_were_chosen_before() -> None:
    chosen = free_port()
    assert chosen not in {free_port(chosen) for _ in range(50)}
    with pytest.raises(VaultUnavailable, match="none of 100 ports"):
        free_port(*range(20_000, 32_000))
