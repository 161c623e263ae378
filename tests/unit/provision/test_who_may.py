"""Whoever is refused a path of jitvault's learns which group may, by the policies that `init` itself writes."""

from __future__ import annotations

import pytest

from jitvault import shipped_files as shipped
from jitvault.cli.refused import hint_for, only
from jitvault.errors import NotFound, VaultRefused, VaultRejected
from jitvault.provision.who_may import groups_that_may

POLICIES = shipped.vault_policies()
OPERATORS, AGENTS, APPROVERS = "jitvault-operators", "jitvault-agents", ["jitvault-approvers", "jitvault-security"]
AUDITORS = "jitvault-auditors"


@pytest.mark.parametrize(
    ("method", "path", "groups"),
    [
        ("post", "jitvault/data/requests/e-1/task/submit", [OPERATORS, AGENTS]),
        ("put", "jitvault/data/requests/e-1/task/extend", [OPERATORS, AGENTS]),
        ("post", "jitvault/data/requests/e-1/task/other", [OPERATORS]),
        ("post", "jitvault/data/requests/e-1/one/more/submit", [OPERATORS]),
        ("get", "jitvault/data/requests/e-1/task/other", [OPERATORS, AUDITORS]),
        ("post", "jitvault/data/decisions/e-1/task", APPROVERS),
        ("get", "jitvault/data/approvers/e-1", APPROVERS),
        ("post", "jitvault/data/freezes/e-1/all", [OPERATORS]),
        ("list", "jitvault/metadata/freezes/", [OPERATORS, *APPROVERS, AUDITORS]),
        ("list", "jitvault/metadata/tasks/", [OPERATORS, *APPROVERS, AUDITORS]),
        ("delete", "jitvault-inbox/metadata/e-1/task", [OPERATORS, AGENTS]),
        ("post", "jitvault-transit/sign/jitvault-signer-e-1", [OPERATORS, *APPROVERS, AGENTS]),
        ("get", "jitvault-transit/keys/jitvault-signer-e-1", [AUDITORS]),
        # what the worker or an administrator alone may
        ("post", "jitvault/data/tasks/task", []),
        ("post", "jitvault/data/checks/template", []),
        # not jitvault's: an expired token is refused its own look-up, and no group would help
        ("get", "auth/token/lookup-self", []),
        ("get", "identity/group/name/jitvault-operators", []),
        ("get", "jitvault-other/data/requests/e-1/task/submit", []),
    ],
)
def test_the_groups_are_those_whose_policy_allows_it(method: str, path: str, groups: list[str]) -> None:
    assert sorted(groups_that_may(method, path, POLICIES)) == sorted(groups)


def test_a_denial_in_a_policy_allows_nothing() -> None:
    text = 'path "jitvault/data/x" {\n  capabilities = ["deny"]\n}\n'
    assert groups_that_may("get", "jitvault/data/x", {"agent.hcl": text}) == []


def test_a_refused_path_has_the_groups_in_its_hint() -> None:
    refused = VaultRefused("no", method="post", path="jitvault/data/freezes/e-1/all")
    who = "`bao token lookup` shows who you are."
    member = "That takes a member of jitvault-operators: an administrator adds an entity to a group (docs/install.md)."
    assert hint_for(refused) == f"{member} {who}"
    assert only("operators", refused) == f"Only operators can. {member} {who}"
    listed = VaultRefused("no", method="list", path="jitvault/metadata/freezes/")
    assert "jitvault-operators, jitvault-approvers, jitvault-auditors or jitvault-security: " in hint_for(listed)


@pytest.mark.parametrize(
    "error",
    [
        VaultRefused("no"),
        VaultRefused("no", method="get", path="auth/token/lookup-self"),
        VaultRefused("no", method="get", path="jitvault/data/freezes/e-1/all", hint="Do this."),
        VaultRejected("no", status=404),
        NotFound("no"),
    ],
    ids=["no path", "own look-up", "own hint", "rejected", "another error"],
)
def test_every_other_error_keeps_its_hint(error: NotFound | VaultRefused) -> None:
    assert hint_for(error) == error.hint
    assert only("operators", VaultRefused("no")) == "Only operators can. `bao token lookup` shows who you are."
