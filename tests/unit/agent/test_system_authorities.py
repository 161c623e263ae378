"""Without a CA of its own a login trusts the system's, in the file that the agent's host has."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_credential import AT, DB, LOGIN, WEB, sourced

from jitvault.agent.credential import Credential, as_dsn, as_env
from jitvault.agent.system_authorities import with_authorities
from jitvault.agent.unwrap import read_all
from jitvault.model.connection import ConnectionFacts, CredentialUse, Tls
from jitvault.model.vault_access import Fetch


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only bundle of this host."""
    nothing = ssl.DefaultVerifyPaths(None, None, "", "", "", "")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    path = tmp_path / "bundle.pem"
    path.touch()
    return str(path)


def used(connection: ConnectionFacts | None) -> CredentialUse:
    return CredentialUse(template="pg-read", path="path", connection=connection)


def facts(tls: Tls) -> ConnectionFacts:
    return ConnectionFacts(host="db.example.org", port=5432, database="app", tls=tls)


@pytest.mark.parametrize(("tls", "is_named"), [("verify-full", True), ("verify-ca", True), ("require", False)])
def test_psql_is_given_the_systems_authorities(bundle: str, tls: Tls, is_named: bool) -> None:
    use = with_authorities(used(facts(tls)), ("/nowhere.pem", bundle))
    found = Credential(use, "lease", LOGIN, AT)
    assert sourced(as_env([found], {})).get("PGSSLROOTCERT") == (bundle if is_named else None)
    assert ("sslrootcert=" in as_dsn([found])) is is_named


def test_what_a_token_reads_names_them(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ssl.DefaultVerifyPaths(bundle, None, "", "", "", "")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: own)
    held: Any = SimpleNamespace(
        token=None, expires_at=AT, reads=[Fetch("pg-read", "path")], use_of=lambda _: used(facts("verify-full"))
    )
    vault: Any = SimpleNamespace(with_token=lambda _: SimpleNamespace(read=lambda _: {"data": LOGIN}))
    (found,) = read_all(vault, held)
    assert found.as_json()["connection"]["ca_file"] == bundle


def test_what_has_a_file_of_its_own_or_needs_none_is_as_it_was(bundle: str) -> None:
    for connection in (DB, WEB, facts("disable"), None):
        assert with_authorities(used(connection), (bundle,)) == used(connection)
    assert with_authorities(used(facts("verify-full")), ("/nowhere.pem",)) == used(facts("verify-full"))
