"""More time for a task that holds access: decided anew, by the same token or by the next one, and never by two."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rig import Rig

from jitvault.domain.extension import extended
from jitvault.errors import VaultRefused

Spec = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("lab")


def extend(rig: Rig, task: str, how_long: str = "5m", who: str = "operator", **how: Any) -> Any:
    return rig(who, "extend", task, "--for", how_long, "--reason", "the import is slow", **how)


def ends_at(rig: Rig, task: str) -> datetime:
    found = rig.file(task).task.ends_at
    assert found is not None
    return found


def test_within_the_roles_cap_the_same_token_lives_on(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    held = rig.active(file)
    before = ends_at(rig, file.stem)
    told = extend(rig, file.stem, "7m").json
    assert (told["replaces"], told["wrapping"], told["extension"]["state"]) == (False, [], "extended")
    assert ends_at(rig, file.stem) == before + timedelta(minutes=7) == datetime.fromisoformat(told["ends_at"])
    assert told["extension"]["window_s"] == 12 * 60
    assert rig.is_live(held.token) and rig.lease_is_live(held.lease_id)
    (grant,) = rig.file(file.stem).grants
    assert grant.renew_at is not None
    shown = rig("operator", "status", file.stem).json
    assert [(e["seconds"], e["by"]["name"], e["reason"]) for e in shown["extensions"]] == [
        (420, "operator", "the import is slow")
    ]
    rig("operator", "complete", file.stem)
    (row,) = rig("auditor", "report", file.stem).json["leases"]
    assert (row["extended_s"], row["ends_at"]) == (420, told["ends_at"])


def test_past_the_roles_cap_the_next_token_comes_after_the_old_one_is_proven_dead(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    told = extend(rig, file.stem, "10m").json
    assert told["replaces"] and len(told["wrapping"]) == 1
    old, new = rig.file(file.stem).grants
    (lease,) = rig.file(file.stem).leases
    assert (old.verdict, old.settled, lease.verdict) == ("audit_confirmed", True, "target_confirmed")
    assert (new.role, new.settled, rig.file(file.stem).task.state) == ("jitvault-1h", False, "issued")
    assert not rig.is_live(held.token) and not rig.lease_is_live(held.lease_id)
    # nobody told the agent: what it does with the old one is no finding
    with pytest.raises(VaultRefused):
        rig.vault(held.token).read("database/creds/app-readonly")
    again = rig.use(told)
    assert rig.is_live(again.token) and rig.lease_is_live(again.lease_id)
    rig("operator", "status", file.stem)
    assert rig.file(file.stem).task.state == "active"
    proof = rig("operator", "complete", file.stem).json
    assert proof["confirmed"] and [x["verdict"] for x in proof["leases"]] == ["target_confirmed"] * 2
    assert rig.findings(file.stem) == []
    assert len(extended(rig.file(file.stem).events)) == 1
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"
