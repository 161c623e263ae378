"""What is a hazard at a PostgreSQL target, rule by rule: one thing is wrong, and only it is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jitvault.engines.postgresql.hazards import BOUNDS, CODE, findings, milliseconds
from jitvault.engines.postgresql.inspection import Facts, Leftover, Role, VaultConnection, connection_of, effective
from jitvault.errors import NotConfirmed

SAFE = {"search_path": "pg_catalog, pg_temp"}
VAULT = Role(
    "vault",
    groups=("pg_use_reserved_connections",),
    gives=("app",),
    settings={**SAFE, "lock_timeout": "1s", "statement_timeout": "10s"},
)
PROBE = Role("probe", groups=("pg_use_reserved_connections",), settings=SAFE)
HOLDER = Role("v-1", connection_limit=20, groups=("app",))
SOUND = Facts(
    version=18,
    vault=VAULT,
    probe=PROBE,
    holder=HOLDER,
    connection=VaultConnection("vault", "app", {}, 20),
    schemas=(),
    creators=(),
    owners=(),
    let_in=(),
    event_triggers=(),
    max_prepared_transactions=0,
    reserved_connections=10,
)


def vault(**settings: str) -> Role:
    return replace(VAULT, settings={**VAULT.settings, **settings})


def test_a_sound_target_has_nothing_to_tell() -> None:
    assert findings(SOUND) == ()


@pytest.mark.parametrize(
    ("change", "step", "about"),
    [
        ({"vault": vault(search_path='"$user", public')}, CODE, "search_path of vault"),
        ({"vault": vault(search_path="pg_catalog, public, pg_temp")}, CODE, "search_path of vault"),
        ({"vault": vault(search_path="pg_temp, pg_catalog")}, CODE, "search_path of vault"),
        ({"probe": replace(PROBE, settings={})}, CODE, "search_path of probe"),
        ({"schemas": [("public", "public"), ("public", "app")]}, CODE, "CREATE in public"),
        ({"creators": ["app"]}, CODE, "CREATE in the database"),
        ({"owners": ["app"]}, CODE, "owner of the database"),
        ({"event_triggers": [("t", "app")]}, CODE, "event trigger t"),
        ({"version": 14}, BOUNDS, "version"),
        ({"vault": vault(lock_timeout="0")}, BOUNDS, "lock_timeout of vault"),
        ({"vault": vault(lock_timeout="6s")}, BOUNDS, "lock_timeout of vault"),
        ({"vault": vault(statement_timeout="1min")}, BOUNDS, "statement_timeout of vault"),
        ({"vault": None}, BOUNDS, "Vault's login"),
        ({"connection": replace(SOUND.connection, max_open=0)}, BOUNDS, "Vault's connections"),
        ({"connection": replace(SOUND.connection, max_open=4)}, BOUNDS, "Vault's connections"),
        ({"holder": replace(HOLDER, connection_limit=-1)}, BOUNDS, "CONNECTION LIMIT"),
        ({"holder": replace(HOLDER, becomes=("app",))}, BOUNDS, "SET ROLE"),
        ({"holder": replace(HOLDER, attributes=("CREATEROLE",))}, BOUNDS, "rights of the login"),
        ({"holder": replace(HOLDER, superuser=True)}, BOUNDS, "rights of the login"),
        ({"holder": replace(HOLDER, groups=("app", "pg_signal_backend"))}, BOUNDS, "rights of the login"),
        ({"holder": replace(HOLDER, gives=("app",))}, BOUNDS, "ADMIN"),
        ({"makers": ["public"]}, BOUNDS, "large objects"),
        ({"givers": ["app"]}, BOUNDS, "rights to pass on"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_lets_a_login_escape_is_certain(change: dict[str, Any], step: str, about: str) -> None:
    (found,) = findings(replace(SOUND, **change))
    assert (found.step, found.about, found.certain) == (step, about, True)
    assert found.seen and found.mend


@pytest.mark.parametrize(
    ("change", "about"),
    [
        ({"vault": replace(VAULT, superuser=True)}, "rights of Vault's login"),
        ({"let_in": [("postgres", "public")]}, "other databases"),
        ({"max_prepared_transactions": 10}, "prepared transactions"),
        ({"reserved_connections": 0}, "reserved connections"),
        ({"lockers": ["public", "app"]}, "advisory locks"),
        ({"makers": ["app"], "leftover": Leftover(ready=True)}, "large objects"),
        ({"leftover": Leftover(ready=True, count=6, some=(1, 2, 3, 4, 5))}, "large objects that are left"),
        ({"authentication_timeout": "1min"}, "authentication_timeout"),
        ({"ahead_s": 31}, "clock"),
        ({"ahead_s": -31}, "clock"),
        ({"connection": replace(SOUND.connection, closes="x")}, "Vault's open connections"),
        ({"probe": replace(PROBE, groups=())}, "reserved connections"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_may_be_meant_is_a_warning(change: dict[str, Any], about: str) -> None:
    (found,) = findings(replace(SOUND, **change))
    assert (found.about, found.certain) == (about, False)


@pytest.mark.parametrize(
    ("details", "closes"),
    [
        ({}, False),
        ({"max_connection_lifetime": "0s", "max_idle_connections": 20}, False),
        ({"max_connection_lifetime": "5m"}, True),
        ({"max_connection_lifetime": "10s"}, True),
        ({"max_idle_connections": -1}, True),
    ],
    ids=str,
)
def test_whether_vault_keeps_its_connections_open_is_read(details: dict[str, Any], closes: bool) -> None:
    named = {"connection_url": "postgresql://v@db/app", **details}
    assert bool(connection_of({"connection_details": named}).closes) is closes


def test_a_version_that_cannot_do_it_is_not_asked_for_it() -> None:
    """Before 16 nothing forbids SET ROLE, and no connection is reserved for a group."""
    old = replace(SOUND, version=15, reserved_connections=0, holder=replace(HOLDER, becomes=("app",)))
    assert findings(replace(old, probe=replace(PROBE, groups=()))) == ()


def test_what_everybody_may_is_told_of_everybody() -> None:
    (found,) = findings(replace(SOUND, schemas=[("public", "app"), ("public", "public")]))
    assert "PUBLIC may CREATE" in found.seen and "FROM PUBLIC" in found.mend
    (found,) = findings(replace(SOUND, schemas=[("public", "app"), ("public", "v-1")]))
    assert found.seen.startswith("app may CREATE")


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("1s", 1000),
        ("500ms", 500),
        ("250", 250),
        ("'2 s'", 2000),
        ("1min", 60_000),
        ("0", 0),
        ("", 0),
        ("soon", 0),
        ("-1", -1),
    ],
)
def test_a_duration_is_read_as_the_server_reads_it(value: str, ms: float) -> None:
    assert milliseconds(value) == ms


@pytest.mark.parametrize(
    ("url", "user", "database"),
    [
        ("postgresql://{{username}}:{{password}}@db.example.org:5432/app?sslmode=verify-full", "given", "app"),
        ("postgres://other:x@db/a%20b", "given", "a b"),
        ("host=db dbname=app user={{username}} password={{password}}", "given", "app"),
    ],
)
def test_who_vault_logs_in_as_and_where(url: str, user: str, database: str) -> None:
    found = connection_of(
        {"connection_details": {"connection_url": url, "username": "given", "max_open_connections": 7}}
    )
    assert (found.username, found.database, found.max_open) == (user, database, 7)


def test_a_login_in_the_url_alone_is_that_one() -> None:
    assert connection_of({"connection_details": {"connection_url": "postgres://other:x@db/app"}}).username == "other"


@pytest.mark.parametrize("details", [{}, {"username": "v"}, {"connection_url": "postgresql://{{username}}@db/app"}])
def test_a_connection_that_says_too_little_is_no_pass(details: dict[str, Any]) -> None:
    with pytest.raises(NotConfirmed):
        connection_of({"connection_details": details})


@pytest.mark.parametrize(
    "parameters",
    [
        {"search_path": "public"},
        {"Search_Path": "public"},
        {"options": "-c search_path=public"},
        {"options": "-csearch_path=public"},
        {"options": "--search-path=public"},
        {"options": "-c lock_timeout=1s -c search_path=public"},
    ],
    ids=str,
)
def test_what_a_connection_sets_itself_beats_what_is_set_for_its_role(parameters: dict[str, str]) -> None:
    rows = [("search_path=weak",), ("search_path=pg_catalog, pg_temp",)]
    assert effective(rows, {})["search_path"] == "pg_catalog, pg_temp"
    assert effective(rows, parameters)["search_path"] == "public"
