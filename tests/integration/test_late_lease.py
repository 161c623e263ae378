"""A lease that shows up after everything was over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rig import Rig

pytestmark = pytest.mark.usefixtures("hurried")


def test_a_sweep_ends_what_appears_after_the_seal(rig: Rig, spec: Callable[..., Path]) -> None:
    """No worker looks at a task by itself that is sealed: reading the line tells it, and the next sweep ends it."""
    file = spec()
    lease_id = rig.active(file).lease_id
    rig("operator", "complete", file.stem)
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"
    line = rig.line_of(lease_id)
    with rig.world.audit_file.open("a") as audit:
        audit.write(line.replace(lease_id, lease_id + "x"))
    rig("operator", "audit", "status")
    assert rig.findings(file.stem) == ["lease_after_seal"]
    swept = rig("operator", "sweep", "--fix", code=None).json
    assert swept["advanced"] == {file.stem: "sealed"}
    (late,) = [lease for lease in rig.record(file.stem).leases if lease.lease_id == lease_id + "x"]
    assert late.verdict != "live"


def test_a_lease_that_appears_after_the_seal_is_a_finding_and_is_ended(rig: Rig, spec: Callable[..., Path]) -> None:
    """It cannot come from Vault while the settle window is right, so the line is copied from an earlier read."""
    file = spec()
    lease_id = rig.active(file).lease_id
    rig("operator", "complete", file.stem)
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"

    line = rig.line_of(lease_id)
    with rig.world.audit_file.open("a") as audit:
        audit.write(line.replace(lease_id, lease_id + "x"))

    found = rig("operator", "status", file.stem, code=12)
    assert found.json["state"] == "sealed"
    assert "settle window" in found.error["message"]
    # the read began before the end, so that it came late is no tripwire
    assert rig.findings(file.stem) == ["lease_after_seal"]
    late = next(lease for lease in found.json["leases"] if lease["lease_id"] == lease_id + "x")
    assert late["verdict"] != "live"
