"""What a program gets of a task's credentials, and what it never gets."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.pq import Conninfo

from jitvault.agent.credential import Credential
from jitvault.agent.execution.mapping import Wanted, check_uses, filled, parse, without_our_own
from jitvault.errors import InvalidInput
from jitvault.model.connection import ConnectionFacts, CredentialUse

ENDS = datetime(2030, 1, 1, tzinfo=UTC)
FACTS = ConnectionFacts(host="db.example.org", port=5432, database="app", tls="verify-full")


def credential(template: str = "pg", *, facts: ConnectionFacts | None = FACTS, **fields: Any) -> Credential:
    use = CredentialUse(template=template, path=f"database/creds/{template}", connection=facts)
    return Credential(use, "lease", fields or {"username": "v-1", "password": "w:o\\rd"}, ENDS)


def test_fields_and_where_they_are_used_become_variables_and_files() -> None:
    wanted = parse(["LOGIN=pg.username", "HOST=pg.host"], ["WORD=pg.password"], "", [])
    got = filled(wanted, [credential()])
    assert (got.variables, got.files) == ({"LOGIN": "v-1", "HOST": "db.example.org"}, {"WORD": b"w:o\\rd"})


def test_the_preset_is_what_postgresqls_own_programs_read() -> None:
    got = filled(parse([], [], "", ["postgres"]), [credential(), credential("pki", facts=None, certificate="PEM")])
    assert got.variables["PGHOST"] == "db.example.org" and got.variables["PGSSLMODE"] == "verify-full"
    assert got.variables["DATABASE_URL"].startswith("postgresql://v-1:w%3Ao%5Crd@db.example.org:5432/app")
    # as libpq reads the file
    assert got.files == {"PGPASSFILE": b"*:*:*:*:w\\:o\\\\rd\n"}
    assert "PGPASSWORD" not in got.variables


def test_what_the_shell_has_of_another_login_is_not_what_libpq_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    services = tmp_path / "services"
    services.write_text("[another]\nhost=another\nport=1\nuser=another\ndbname=another\npassword=another\n")
    # each that libpq knows
    read = [option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar]
    shell = {**dict.fromkeys(read, "another"), "PGSERVICE": "another", "PGSERVICEFILE": str(services)}
    got = filled(parse([], [], "", ["postgres"]), [credential()])
    program = {**got.inherits(shell), **got.variables, "PGPASSFILE": "written"}
    for name in shell:
        monkeypatch.delenv(name, raising=False)
    for name, value in program.items():
        monkeypatch.setenv(name, value)
    taken = {option.keyword.decode(): option.val for option in Conninfo.get_defaults()}
    where = {"host": b"db.example.org", "hostaddr": None, "port": b"5432", "dbname": b"app"}
    login = {"user": b"v-1", "password": None, "passfile": b"written", "service": None}
    assert taken.items() >= {**where, **login, "sslmode": b"verify-full"}.items()
    # what is no part of the login is the user's own choice
    kept = {option for option, value in taken.items() if value == b"another"}
    assert {"application_name", "options", "connect_timeout", "sslcert"} <= kept
    assert filled(parse([], [], "", []), [credential()]).inherits(shell) == shell


def test_an_env_file_names_credentials_and_keeps_its_other_lines() -> None:
    text = "# a comment\n\nexport LEVEL='debug'\nWORD=jit://pg/password\n"
    got = filled(parse([], [], text, []), [credential()])
    assert got.variables == {"LEVEL": "debug", "WORD": "w:o\\rd"}


@pytest.mark.parametrize(
    ("variables", "files", "env_file", "presets"),
    [
        (["LOGIN"], [], "", []),
        (["LOGIN=pg"], [], "", []),
        (["1LOGIN=pg.username"], [], "", []),
        (["VAULT_TOKEN=pg.password"], [], "", []),
        ([], [], "JITVAULT_WORKER_TOKEN=x", []),
        ([], [], "SPIFFE_ENDPOINT_SOCKET=x", []),
        (["A=pg.username", "A=pg.password"], [], "", []),
        (["A=pg.username"], ["A=pg.password"], "", []),
        ([], [], "WORD=jit://pg", []),
        ([], [], "no assignment", []),
        ([], [], "", ["mysql"]),
    ],
)
def test_what_cannot_be_meant_is_refused(
    variables: list[str], files: list[str], env_file: str, presets: list[str]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(variables, files, env_file, presets)
    assert "Nothing was started" in refused.value.hint


@pytest.mark.parametrize(
    ("variable", "said"),
    [("A=pgg.username", "did you mean pg"), ("A=pg.pasword", "did you mean password"), ("A=pg.nul", "NUL")],
)
def test_what_the_task_does_not_have_is_named(variable: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        filled(parse([variable], [], "", []), [credential(username="v", password="p", nul="a\0b")])


@pytest.mark.parametrize("credentials", [[], [credential("pki", facts=None, x="y")], [credential(), credential("pg2")]])
def test_the_preset_needs_one_login(credentials: list[Credential]) -> None:
    with pytest.raises(InvalidInput, match="--preset postgres: the task has"):
        filled(parse([], [], "", ["postgres"]), credentials)


@pytest.mark.parametrize(
    "uses", [[], [credential("pki", facts=None, x="y").use], [credential().use, credential("pg2").use]]
)
def test_a_preset_that_no_credential_can_fill_is_refused_before_there_is_one(uses: list[CredentialUse]) -> None:
    with pytest.raises(InvalidInput, match="--preset postgres: the task has"):
        check_uses(parse([], [], "", ["postgres"]), uses)
    check_uses(parse([], [], "", ["postgres"]), [credential().use, credential("pki", facts=None, x="y").use])


names = st.from_regex(r"[A-Z][A-Z_]{0,10}", fullmatch=True)
own = st.sampled_from(["VAULT_", "BAO_", "JITVAULT_"])


@given(st.dictionaries(names, st.text(max_size=5)), own, names, st.booleans())
def test_nothing_by_which_a_program_could_act_as_the_agent_is_passed_on(
    others: dict[str, str], prefix: str, rest: str, pristine: bool
) -> None:
    before = {**others, prefix + rest: "x", "SPIFFE_ENDPOINT_SOCKET": "x", "PATH": "/bin"}
    after = without_our_own(before, pristine=pristine)
    assert after["PATH"] == "/bin" and after.items() <= before.items()
    assert not [name for name in after if name.startswith(("VAULT_", "BAO_", "JITVAULT_", "SPIFFE_ENDPOINT"))]
    if not pristine:
        kept = {n for n in others if not n.startswith(("VAULT_", "BAO_", "JITVAULT_"))}
        assert kept <= after.keys()


def test_a_program_that_gets_all_there_is_has_each_field_under_a_name_of_its_own() -> None:
    key = credential("pki-web", facts=None, private_key="PEM", serial_number="1:2")
    got = filled(Wanted(has_all=True), [credential(), key, credential("vault", facts=None, word="w")])
    assert got.variables["PGHOST"] == "db.example.org" and "PGPASSFILE" in got.files
    assert got.variables["PKI_WEB_PRIVATE_KEY"] == "PEM" and got.variables["PKI_WEB_SERIAL_NUMBER"] == "1:2"
    # never a variable that could log in
    assert got.variables["TASK_VAULT_WORD"] == "w" and "VAULT_WORD" not in got.variables
    two = filled(Wanted(has_all=True), [credential("one"), credential("two")])
    assert two.files == {} and {"ONE_URL", "TWO_PASSWORD"} <= two.variables.keys()
