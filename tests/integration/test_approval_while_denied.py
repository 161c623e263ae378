"""While policy denies a task nobody approves it: an approval counts for all groups of its signer, or is not given."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from commands import Quick, without_limits
from rig import Rig

from jitvault.documents import paths
from jitvault.documents.signed import payload_of

Spec = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("lab")


@pytest.fixture
def closed(rig: Rig, tmp_path: Path) -> dict[str, str]:
    """Policies that deny everything for a while, as a change window or an open finding does."""
    policies = without_limits(tmp_path / "closed")
    (policies / "closed.cedar").write_text('@id("closed") forbid (principal, action == Action::"grant", resource);')
    return {"JITVAULT_POLICIES": str(policies)}


def test_while_policy_denies_an_approval_is_refused_and_afterwards_it_counts_for_every_group(
    rig: Rig, spec: Spec, closed: dict[str, str]
) -> None:
    file = spec(criticality="high")
    rig("operator", "submit", file, code=3, extra=closed)
    person = Quick(rig.cli.variables, rig.cli.home)
    # approver-2 is in both groups that high risk needs
    for who in ("approver-1", "approver-2"):
        refused = person(who, "approve", file.stem, "--yes", "--json", code=3, worker=False, extra=closed).error
        assert "whoever approves it: forbidden by closed" in refused["message"]
        assert "nothing was signed" in refused["message"] and f"jitvault grant {file.stem}" in refused["hint"]
        path = f"jitvault/data/decisions/{rig.entity(who)}/{file.stem}"
        assert rig.admin.read(path) is None
    # the reason is gone: who approves now approves for all of their groups
    assert rig("operator", "grant", file.stem, code=4).json["state"] == "pending_approval"
    rig("approver-2", "approve", file.stem, "--yes")
    signed = payload_of(rig.document(f"decisions/{rig.entity('approver-2')}/{file.stem}"))
    assert signed["groups"] == ["jitvault-approvers", "jitvault-security"]
    assert rig("approver-1", "approve", file.stem, "--yes").json["missing"] == []
    assert rig("operator", "grant", file.stem).json["state"] == "issued"
    rig("operator", "complete", file.stem)


def test_what_was_approved_before_policy_denied_it_counts_in_full_afterwards(
    rig: Rig, spec: Spec, closed: dict[str, str]
) -> None:
    file = spec(criticality="high")
    rig("operator", "submit", file)
    for who in ("approver-1", "approver-2"):
        rig(who, "approve", file.stem, "--yes")
    rig("operator", "grant", file.stem, code=3, extra=closed)
    assert rig("operator", "grant", file.stem).json["state"] == "issued"
    rig("operator", "complete", file.stem)


def test_a_denial_counts_for_every_group_of_its_author_whatever_policy_needs_then(
    rig: Rig, spec: Spec, closed: dict[str, str], tmp_path: Path
) -> None:
    """Policy denies, so it names no group; it later needs one that is not the usual one."""
    file = spec(criticality="high")
    rig("operator", "submit", file, code=3, extra=closed)
    told = rig("approver-2", "deny", file.stem, "--yes", "--reason", "not today", extra=closed)
    assert "whoever approves it" in told.stderr
    signed = payload_of(rig.document(f"decisions/{rig.entity('approver-2')}/{file.stem}"))
    assert signed["groups"] == ["jitvault-approvers", "jitvault-security"]
    security = without_limits(tmp_path / "security")
    (security / "grant.cedar").write_text(
        '@id("ask") permit (principal, action == Action::"submit", resource);\n'
        '@id("security") @approvals("1") @approver_group("jitvault-security") '
        'permit (principal, action in [Action::"grant", Action::"renew"], resource);\n'
    )
    refused = rig("operator", "grant", file.stem, code=3, extra={"JITVAULT_POLICIES": str(security)})
    assert 'approver-2 denied it: "not today"' in refused.error["message"]


def test_a_denied_request_is_granted_neither_after_its_time_nor_by_lapsing(
    rig: Rig, spec: Spec, closed: dict[str, str]
) -> None:
    by_policy, by_person = spec(), spec(criticality="medium")
    rig("operator", "submit", by_policy, code=3, extra=closed)
    rig("operator", "submit", by_person)
    rig("approver-1", "deny", by_person.stem, "--yes", "--reason", "not today")
    with mock.patch.object(paths, "REQUEST_LIFE", timedelta(0)):
        refused = rig("operator", "grant", by_policy.stem, code=9)
        assert refused.error["message"] == f"task {by_policy.stem} is lapsed"
        rig("operator", "grant", by_person.stem, code=3)
    assert "not today" in rig("operator", "submit", by_person, code=3).error["message"]
