"""What an administrator does about a credential that Vault did not give, or could not revoke."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from jitvault.engines.database import DatabaseEngine
from jitvault.engines.pki.trial import PkiTrial
from jitvault.engines.postgresql.trial import PostgresqlTrial
from jitvault.errors import InvalidInput
from jitvault.model.template import TemplateBody


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [(["app-readonly"], True), (["*"], True), (["app-*"], True), (["other"], False), ([], False), (None, True)],
)
def test_a_connection_that_does_not_allow_a_role_is_the_reason(allowed: list[str] | None, is_allowed: bool) -> None:
    snapshot = {"role": {"db_name": "app"}, "connection": {"allowed_roles": allowed}}
    found = PostgresqlTrial().why_no_credential("creds/app-readonly", snapshot)
    assert (found is None) is is_allowed
    assert found is None or "add it to its allowed_roles" in found


def test_a_connection_that_cannot_be_read_is_no_reason() -> None:
    assert PostgresqlTrial().why_no_credential("creds/a", {"role": {"db_name": "app"}, "connection": None}) is None
    assert PkiTrial().why_no_credential("issue/service", {}) is None


def test_names_are_quoted_for_the_target() -> None:
    commands = PostgresqlTrial().clear_by_hand("database", "v-o'x\"y")
    assert commands[1].endswith("usename = 'v-o''x\"y';")
    assert commands[2] == 'DROP OWNED BY "v-o\'x""y"; DROP ROLE "v-o\'x""y";'
    assert PkiTrial().clear_by_hand("pki", "5b:77")[0] == "bao write pki/revoke serial_number=5b:77"


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        ({"plugin_name": "postgresql-database-plugin"}, None),
        ({"plugin_name": "mysql-database-plugin"}, "the plugin mysql-database-plugin, and jitvault has no engine"),
        ({"plugin_name": "redshift-database-plugin"}, "no engine for its database"),
        ({}, "Vault has no connection app"),
    ],
    ids=["postgresql", "mysql", "redshift", "none"],
)
@pytest.mark.parametrize("confirm", ["target", "audit"])
def test_a_connection_to_another_database_is_refused_whatever_the_template_says(
    connection: dict[str, str], says: str | None, confirm: str
) -> None:
    template = cast(TemplateBody, SimpleNamespace(confirm=confirm, accepted_after_end=None))
    snapshot = {"role": {"db_name": "app"}, "connection": connection}
    with nullcontext() if says is None else pytest.raises(InvalidInput, match=says):
        DatabaseEngine().check_template(template, snapshot)


def test_a_missing_role_names_where_statements_are_that_a_template_may_lack() -> None:
    with pytest.raises(InvalidInput, match="Vault has no role database/roles/own") as refused:
        DatabaseEngine().snapshot(lambda _: None, "database", "creds/own")
    named = refused.value.hint.split()[-1].rstrip(".")
    assert list((Path(__file__).parents[3] / named).glob("create-*.sql"))
