"""The same paths in another namespace are somebody else's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from jitvault.audit.files.file_source import FileSource
from jitvault.audit.observation import Kind
from jitvault.audit.source import Position
from jitvault.formats.secret import Secret
from jitvault.sandbox.vault_server import VaultServer
from jitvault.vault.client import Connection, Vault
from jitvault.vault.tokens import Tokens
from jitvault.vault.transit import AuditHash
from jitvault.vault.wrapping import Wrapping

pytestmark = pytest.mark.needs("namespaces")

POLICY = 'path "auth/token/lookup-self" { capabilities = ["read"] }'


def kinds(path: Path, namespace: str) -> Counter[Kind]:
    source = FileSource(path, name="audit", namespace=namespace)
    found = list(source.read(Position("", 0, 1)))
    assert not any(batch.gaps for batch in found)
    return Counter(o.kind for batch in found for o in batch.observations if o.closing)


def a_token_lives_and_dies(bao: VaultServer, namespace: str | None) -> None:
    """A task token is made through a role of ours, unwrapped, looked up and revoked."""
    vault = Vault(Connection(bao.address, namespace), Secret(bao.root_token))
    vault.write("sys/policies/acl/jitvault-access-0", {"policy": POLICY})
    vault.write("auth/token/roles/jitvault-15m", {"allowed_policies_glob": "jitvault-access-*", "orphan": True})
    tokens = Tokens(vault)
    made = tokens.create_wrapped(
        "jitvault-15m", policies=["jitvault-access-0"], meta={}, ttl_s=60, wrap_ttl_s=30, op="0" * 32
    )
    held = Wrapping(vault).unwrap(made.wrapping_token)
    assert held is not None
    vault.with_token(held.token).read("auth/token/lookup-self")
    assert tokens.revoke_accessor(made.wrapped_accessor, op="1" * 32)
    assert tokens.lookup_accessor(made.wrapped_accessor, op="2" * 32) is None


def test_each_namespace_sees_its_own_tokens_alone_and_every_unwrap(tmp_path: Path) -> None:
    """A wrapping can be opened from any namespace, so no unwrap may be hidden by where it was made."""
    with VaultServer(tmp_path / "bao") as bao:
        root = Vault(Connection(bao.address), Secret(bao.root_token))
        for name in ("team", "other"):
            root.write(f"sys/namespaces/{name}")
        a_token_lives_and_dies(bao, "team")
        life = [Kind.TOKEN_CREATED, Kind.UNWRAPPED, Kind.USED, Kind.TOKEN_REVOKED, Kind.TOKEN_LOOKUP]
        seen = kinds(bao.audit_file, "team")
        assert [seen[kind] for kind in life] == [1, 1, 1, 1, 1]
        assert kinds(bao.audit_file, "team/") == seen
        for namespace in ("", "other", "tea", "team/below"):
            assert set(life) & kinds(bao.audit_file, namespace).keys() == {Kind.UNWRAPPED}
        a_token_lives_and_dies(bao, None)
        here, elsewhere = kinds(bao.audit_file, ""), kinds(bao.audit_file, "team")
        assert elsewhere - seen == Counter({Kind.UNWRAPPED: 1})
        assert [here[kind] for kind in life] == [1, 2, 1, 1, 1]


def test_a_hazard_above_counts_and_one_beside_does_not(tmp_path: Path) -> None:
    with VaultServer(tmp_path / "bao") as bao:
        root = Vault(Connection(bao.address), Secret(bao.root_token))
        for name in ("team", "other"):
            root.write(f"sys/namespaces/{name}")
        before = {name: kinds(bao.audit_file, name)[Kind.HAZARD] for name in ("team", "other", "")}
        Vault(Connection(bao.address, "other"), Secret(bao.root_token)).write("sys/leases/tidy")
        beside = {name: kinds(bao.audit_file, name)[Kind.HAZARD] for name in before}
        root.write("sys/leases/tidy")
        above = {name: kinds(bao.audit_file, name)[Kind.HAZARD] for name in before}
    assert (beside["team"], above["team"]) == (before["team"], before["team"] + 1)
    assert (beside["other"], above["other"]) == (before["other"] + 1, before["other"] + 2)
    assert (beside[""], above[""]) == (before[""], before[""] + 1)


def test_a_canary_of_the_root_namespace_counts_in_each(tmp_path: Path) -> None:
    with VaultServer(tmp_path / "bao") as bao:
        Vault(Connection(bao.address), Secret(bao.root_token)).write("sys/namespaces/team")
        team = Vault(Connection(bao.address, "team"), Secret(bao.root_token))
        expected = AuditHash(team, "jitvault").hash("a nonce")
        for namespace in ("team", ""):
            source = FileSource(bao.audit_file, name="audit", namespace=namespace)
            lines = [o for batch in source.read(Position("", 0, 1)) for o in batch.observations]
            assert [o.subject for o in lines if o.kind is Kind.CANARY and o.closing] == [expected]
