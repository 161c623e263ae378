"""Credentials as shell variables and as URLs: whatever a value holds, it stays a value."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.agent.credential import Credential, as_dsn, as_env, names
from jitvault.model.connection import ConnectionFacts, CredentialUse

AT = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
DB = ConnectionFacts(host="db.example.org", port=5432, database="app", tls="verify-full", ca_file="/etc/ca.pem")
WEB = ConnectionFacts(host="billing.example.org", port=8443, tls="verify-full")
LOGIN = {"username": "v-1", "password": "p w"}
SHELLS = [shell for shell in ("sh", "bash") if shutil.which(shell)]


def credential(
    template: str = "pg-read", connection: ConnectionFacts | None = DB, fields: dict[str, Any] = LOGIN, **choices: str
) -> Credential:
    use = CredentialUse(template=template, path=f"path/{template}", choices=choices, connection=connection)
    return Credential(use, "lease", fields, AT)


def sourced(text: str, shell: str = "sh") -> dict[str, str]:
    """What a shell that read `text` has in its environment; it may print nothing and make no file."""
    script = 'eval "$TEXT"; unset TEXT; exec env -0'
    environment = {"PATH": os.environ["PATH"], "TEXT": text}
    done = subprocess.run([shell, "-c", script], env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    pairs = (each.split("=", 1) for each in done.stdout.decode("utf-8", "surrogateescape").split("\0") if each)
    return {name: value for name, value in pairs if name not in ("PATH", "PWD", "SHLVL", "_", "OLDPWD")}


def test_the_only_login_has_the_variables_of_postgresqls_own_programs() -> None:
    assert sourced(as_env([credential()], {"JITVAULT_TASK_ID": "t"})) == {
        "JITVAULT_TASK_ID": "t",
        "PGHOST": "db.example.org",
        "PGPORT": "5432",
        "PGDATABASE": "app",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/etc/ca.pem",
        "PGUSER": "v-1",
        "PGPASSWORD": "p w",
        "DATABASE_URL": "postgresql://v-1:p%20w@db.example.org:5432/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
    }


def test_of_several_each_name_says_which() -> None:
    certificate = credential("pki-web", WEB, {"private_key": "k", "ca_chain": ["a", "b"], "expiration": 7})
    found = sourced(as_env([credential(database="app"), credential(database="crm"), certificate], {}))
    assert {name: found[name] for name in found if not name.startswith("PG_READ_")} == {
        "PKI_WEB_HOST": "billing.example.org",
        "PKI_WEB_PORT": "8443",
        "PKI_WEB_TLS": "verify-full",
        "PKI_WEB_PRIVATE_KEY": "k",
        "PKI_WEB_CA_CHAIN": "a\nb",
        "PKI_WEB_EXPIRATION": "7",
    }
    assert {"PG_READ_APP_PGUSER", "PG_READ_CRM_PGUSER", "PG_READ_CRM_DATABASE_URL"} <= found.keys()
    alone = sourced(as_env([credential(), certificate], {}))
    assert {"PGUSER", "PKI_WEB_HOST"} <= alone.keys()


def test_without_a_connection_the_names_are_the_templates() -> None:
    assert sourced(as_env([credential("3-pg", None)], {})) == {"_3_PG_USERNAME": "v-1", "_3_PG_PASSWORD": "p w"}


def test_no_two_names_are_alike() -> None:
    uses = [credential(database=name).use for name in ("a.b", "a-b", "a_b")]
    assert names(uses) == ["pg-read-a-b", "pg-read-a-b-2", "pg-read-a-b-3"]


HOSTILE = (
    *(
        "'; touch MADE; '",
        "$(touch MADE)",
        "`touch MADE`",
        '"; touch MADE; "',
        "\ntouch MADE\n",
        "a\\",
        "'",
        "\\'",
        "!!",
    ),
    *("&& touch MADE", "| touch MADE", "\n#", "${PATH}", "~", "*", "-n", "\t", "\r", "\x1b[31m", "é\U0001f600"),
)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_no_shell_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    one = credential(fields={"username": value, "password": value, f"x{value}": value})
    other = credential("pki-web", None, {"certificate": [value, value]})
    found = sourced(as_env([one, other], {"JITVAULT_TASK_ID": value}), shell)
    assert found["PGUSER"] == found["PGPASSWORD"] == found["JITVAULT_TASK_ID"] == value
    assert found["PKI_WEB_CERTIFICATE"] == f"{value}\n{value}"
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_every_value_comes_back_from_the_shell(value: str) -> None:
    found = sourced(as_env([credential(fields={"username": value, "password": value})], {}))
    assert found["PGPASSWORD"] == value and "\n" not in found["DATABASE_URL"]


def test_urls_are_one_line_each_and_say_which_where_there_are_several() -> None:
    hostile = credential(fields={"username": "u\n", "password": "p@/?#'\""})
    assert as_dsn([hostile]).startswith("postgresql://u%0A:p%40%2F%3F%23%27%22@db.example.org:5432/app?")
    first, second = as_dsn([credential(database="app"), credential(database="crm")]).splitlines()
    assert first.split()[0] == "pg-read-app" and second.split()[1].startswith("postgresql://")
