"""The sandbox goes by none of the settings that an operator's shell has for other servers."""

from __future__ import annotations

import os

import pytest

from jitvault import settings
from jitvault.cli.commands.sandbox.dev import _without_other_settings
from jitvault.errors import UsageError


def test_what_is_set_for_other_servers_is_away_meanwhile_and_back_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {
        "VAULT_SKIP_VERIFY": "true",
        "BAO_ADDR": "https://one",
        "VAULT_ADDR": "https://two",
        "PGSSLMODE": "disable",
    }
    others |= {"JITVAULT_WORKER_LOGIN": "approle", "JITVAULT_DENIED_LIMIT": "none"}
    for name, value in {**others, "JITVAULT_SANDBOX_SERVER": "/bin/vault"}.items():
        monkeypatch.setenv(name, value)
    with _without_other_settings():
        assert not others.keys() & os.environ.keys()
        assert os.environ["JITVAULT_SANDBOX_SERVER"] == "/bin/vault"
        settings.load()
    assert others.items() <= os.environ.items()
    with pytest.raises(UsageError):
        settings.load()
