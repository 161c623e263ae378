"""A task's token that an administrator revoked, however the request named it: its end is proven by that line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hands import ask
from rig import Rig

Spec = Callable[..., Path]


@pytest.mark.parametrize("path", ["auth/token/revoke", "auth/token/revoke-orphan"])
def test_a_token_that_was_named_in_the_body_of_its_revocation_is_proven_dead(rig: Rig, spec: Spec, path: str) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    assert ask(rig, "PUT", path, rig.token_of("admin"), {"token": held.token})[0] == 204
    ended = rig("operator", "complete", file.stem).json
    assert (ended["confirmed"], ended["token"]["verdict"]) == (True, "audit_confirmed")


def test_what_somebody_may_not_revoke_is_not_taken_for_revoked(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    assert ask(rig, "PUT", "auth/token/revoke", rig.token_of("agent"), {"token": held.token})[0] == 403
    assert rig("operator", "status", file.stem).json["state"] == "active"
    assert rig.is_live(held.token)
    assert rig("operator", "complete", file.stem).json["confirmed"]
