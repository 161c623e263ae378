"""Lines of our own that never come: what is lost with a gap is over with it, what is filtered waits for a person."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hands import Mirror
from rig import Rig

pytestmark = pytest.mark.usefixtures("hurried", "mirrored")
Spec = Callable[..., Path]
_COUNTS_AS_MISSING_S = 1.1


def _lose(rig: Rig, mirror: Mirror, file: Path) -> None:
    """Let `complete` act while its lines are held back, and truncate the file as a copy-truncate does."""
    mirror.hold()
    assert rig("operator", "complete", file.stem, code=None).code == 7
    mirror.keep = lambda _line: False
    mirror.let_go()
    mirror.keep = lambda _line: True
    os.truncate(mirror.path, 0)
    time.sleep(_COUNTS_AS_MISSING_S)


def test_what_is_lost_with_a_known_gap_blocks_nothing_afterwards(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    _lose(rig, mirror, file)
    assert not rig.is_live(held.token)
    assert rig("auditor", "audit", "status").json["state"] == "trusted"
    # the revocation's own line is lost, so its proof is; what is granted now has its own
    assert '"confirmed": true' not in rig("operator", "complete", file.stem, code=6).stdout
    other = spec()
    rig.active(other)
    assert rig("operator", "complete", other.stem).json["confirmed"]


def test_what_is_filtered_without_a_gap_waits_for_a_person(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    mirror.keep = lambda line: b"sys/leases/revoke" not in line
    rig("operator", "complete", file.stem, code=None)
    time.sleep(_COUNTS_AS_MISSING_S)
    mirror.keep = lambda _line: True
    other = spec()
    for _ in range(2):
        refused = rig("operator", "grant", other, code=7).error
        assert "own acts" in refused["message"]
        assert "audit accept" in refused["hint"]
    assert rig.task_tokens(other.stem) == []
    for nothing in ("", "  "):
        rig("auditor", "audit", "accept", "--reason", nothing, code=8)
    accepted = rig("auditor", "audit", "accept", "--reason", "the filter of the shipper was removed").json
    assert accepted == {"sources": 1, "reason": "the filter of the shipper was removed"}
    found = rig("auditor", "audit", "status").json
    assert found["state"] == "trusted"
    assert "the filter of the shipper was removed" in found["sources"][0]["gaps"][0]["what"]
    rig.active(other)
    assert rig("operator", "complete", other.stem).json["confirmed"]


def test_while_vault_hashes_nothing_access_is_taken_away_all_the_same(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    without = {"JITVAULT_AUDIT_DEVICE": "no-such-device"}
    assert rig("operator", "grant", spec(), code=7, extra=without).error
    assert "no-such-device" in rig("operator", "complete", file.stem, code=7, extra=without).error["message"]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    assert rig("auditor", "audit", "status", code=7, extra=without).json["state"] == "untrusted"
    assert rig("operator", "complete", file.stem).json["confirmed"]
