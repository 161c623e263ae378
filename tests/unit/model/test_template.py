from __future__ import annotations

import copy
import hashlib
import itertools
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rfc8785
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jitvault.errors import InvalidInput
from jitvault.model.template import AccessTemplate, load_templates, parse_template

SHIPPED = sorted((Path(__file__).parents[3] / "templates").glob("*.yaml"))

TEMPLATE: dict[str, Any] = {
    "apiVersion": "jitvault.dev/v1",
    "kind": "AccessTemplate",
    "metadata": {"name": "postgres-readonly", "description": "Read every table.", "owner": "data-owner"},
    "spec": {
        "engine": "database",
        "mount": "database",
        "path": "creds/{database}-{right}",
        "parameters": {"database": {"choices": ["app", "crm"]}, "right": {"choices": ["readonly"]}},
        "tier": "low",
        "data_domains": ["orders"],
        "ttl": "15m",
        "max_window": "1h",
        "wrap_ttl": "2m",
        "lease_budget": 5,
        "confirm": "target",
        "probe": "postgres",
    },
}


def changed(changes: dict[str, object]) -> bytes:
    """TEMPLATE as JSON with the fields of `spec` set, or removed for `...`."""
    document = copy.deepcopy(TEMPLATE)
    for name, value in changes.items():
        if value is ...:
            del document["spec"][name]
        else:
            document["spec"][name] = value
    return json.dumps(document).encode()


def connected(**changes: object) -> dict[str, object]:
    """The change of TEMPLATE that gives it a connection, with the fields set, or removed for `...`."""
    fields: dict[str, object] = {"host": "db.example.org", "port": 5432, "database": "{database}", "tls": "require"}
    return {"connection": {name: value for name, value in {**fields, **changes}.items() if value is not ...}}


def read(**changes: object) -> AccessTemplate:
    return parse_template(changed(changes), "t.yaml")


def refusal(**changes: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(**changes)
    return str(caught.value)


def test_a_template_reads() -> None:
    template = read()
    assert template.name == "postgres-readonly"
    assert template.spec.ttl == timedelta(minutes=15)
    assert template.canonical() == TEMPLATE
    assert template.digest() == hashlib.sha256(rfc8785.dumps(TEMPLATE)).hexdigest()


def test_how_long_others_go_on_accepting_is_bounded_and_part_of_the_digest() -> None:
    assert read(accepted_after_end="5m").spec.accepted_after_end == timedelta(minutes=5)
    assert read(accepted_after_end="5m").digest() != read(accepted_after_end="6m").digest() != read().digest()
    for value in ("9s", "8h1s"):
        assert f"expected 10s to 8h, got {value}" in refusal(accepted_after_end=value)


def test_where_it_connects_is_part_of_the_digest_and_absent_where_it_is_not_said() -> None:
    assert "connection" not in read().canonical()["spec"]
    assert read(**connected()).digest() != read(**connected(port=5433)).digest() != read().digest()
    filled = read(**connected(host="{database}-db.example.org")).spec.fill_connection({"database": "crm"})
    assert msgspec.to_builtins(filled) == {
        "host": "crm-db.example.org",
        "port": 5432,
        "database": "crm",
        "tls": "require",
    }


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_templates_read(path: Path) -> None:
    template = parse_template(path.read_bytes(), path.name)
    assert template.name == path.stem
    assert (template.spec.confirm, template.spec.probe) == ("target", path.stem.partition("-")[0])
    assert parse_template(rfc8785.dumps(template.canonical())) == template


@pytest.mark.parametrize("kind", ["readonly", "readwrite"])
def test_a_database_template_names_a_role_and_sends_nothing(kind: str) -> None:
    template = next(parse_template(path.read_bytes()) for path in SHIPPED if path.stem == f"postgres-{kind}")
    assert template.resolve({"database": "app"}) == f"database/creds/app-{kind}"
    assert template.spec.fill_data({"database": "app"}) == {}


def test_the_certificates_template_sends_what_the_task_chose() -> None:
    template = next(parse_template(path.read_bytes()) for path in SHIPPED if path.stem == "pki-service")
    assert template.resolve({"service": "orders"}) == "pki/issue/service"
    sent = template.spec.fill_data({"service": "orders"})
    assert sent == {"common_name": "orders.svc.internal", "ttl": "15m"}


def test_shipped_templates_have_their_tiers() -> None:
    templates = load_templates({path.name: path.read_bytes() for path in SHIPPED})
    assert {name: template.spec.tier for name, template in templates.items()} == {
        "pki-service": "medium",
        "postgres-readonly": "low",
        "postgres-readwrite": "medium",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mount": "sys"}, "spec.mount: expected the mount of a secrets engine"),
        ({"mount": "auth/token"}, "spec.mount: expected"),
        ({"mount": "identity"}, "spec.mount: expected"),
        ({"mount": "cubbyhole"}, "spec.mount: expected"),
        ({"mount": "jitvault"}, "spec.mount: expected"),
        ({"mount": "jitvault/tasks"}, "spec.mount: expected"),
        ({"mount": "jitvault-inbox"}, "spec.mount: expected"),
        ({"mount": "/database"}, "spec.mount: expected"),
        ({"mount": "database/"}, "spec.mount: expected"),
        ({"mount": "a//b"}, "spec.mount: expected"),
        ({"mount": "a/../sys"}, "spec.mount: expected"),
        ({"mount": "data*"}, "spec.mount: expected"),
        ({"mount": "+"}, "spec.mount: expected"),
        ({"mount": "Sys"}, "spec.mount: expected"),
        ({"mount": "a" * 129}, "spec.mount: expected"),
        ({"mount": "{database}"}, "spec.mount: expected"),
        ({"mount": "a/acme/database"}, "spec: expected a mount without a part that is called acme"),
        ({"mount": "a/cert"}, "spec: expected a mount without a part that is called cert"),
        ({"mount": "ocsp/a"}, "spec: expected a mount without a part that is called ocsp"),
        ({"mount": "a/unified-ocsp"}, "spec: expected a mount without a part that is called unified-ocsp"),
        ({"mount": "issuer"}, "spec: expected a mount without a part that is called issuer"),
        ({"path": "sys/{database}-{right}"}, "spec.path: expected"),
        ({"path": "auth/{database}-{right}"}, "spec.path: expected"),
        ({"path": "/creds/{database}-{right}"}, "spec.path: expected"),
        ({"path": "creds/{database}-{right}/"}, "spec.path: expected"),
        ({"path": "creds//{database}-{right}"}, "spec.path: expected"),
        ({"path": "creds/../{database}-{right}"}, "spec.path: expected"),
        ({"path": "creds/{database}-{right}*"}, "spec.path: expected"),
        ({"path": "creds/+/{database}-{right}"}, "spec.path: expected"),
        ({"path": "creds/{database}-{right}-{"}, "spec.path: expected"),
        ({"path": "creds/{{database}}-{right}"}, "spec.path: expected"),
        ({"path": "creds/{}-{database}-{right}"}, "spec.path: expected"),
        ({"path": "creds/{database}-{right}?x=1"}, "spec.path: expected"),
        ({"path": ""}, "spec.path: expected"),
        ({"path": "creds/{database}-{right}-{other}"}, "spec: expected a parameter for each placeholder"),
        ({"path": "creds/{database}"}, "spec: expected each parameter in the path; right is not used"),
        (
            {"parameters": ...},
            "expected a parameter for each placeholder of the path; database, right has none",
        ),
        ({"parameters": {"A": {"choices": ["x"]}}}, "expected a parameter's name"),
        (
            {"parameters": {"database": {"choices": []}}},
            "spec.parameters.database.choices: expected 1 or more entries",
        ),
        ({"parameters": {"database": {"choices": ["a", "a"]}}}, "found 'a' twice"),
        (
            {"parameters": {"database": {"choices": ["a/b"]}}},
            "spec.parameters.database.choices[0]: expected 1 to 128",
        ),
        (
            {"parameters": {"database": {"choices": [1]}}},
            "spec.parameters.database.choices[0]: expected text",
        ),
        (
            {"parameters": {"database": {"values": []}}},
            "database.values: unknown field; expected one of choices",
        ),
        (
            {"parameters": {"database": {"choices": [f"c{n}" for n in range(257)]}}},
            "expected 256 or fewer entries",
        ),
        (
            {
                "parameters": {
                    "database": {"choices": [f"c{n}" for n in range(129)]},
                    "right": {"choices": ["a", "b"]},
                }
            },
            "spec: expected at most 256 combinations of choices, got 258",
        ),
        (
            {
                "path": "creds/{database}.{right}",
                "parameters": {"database": {"choices": ["a."]}, "right": {"choices": ["b"]}},
            },
            "spec: expected no `..` and no path of Vault's own; some choices give 'creds/a..b'",
        ),
        (
            {
                "path": "{database}/{right}",
                "parameters": {"database": {"choices": ["sys"]}, "right": {"choices": ["b"]}},
            },
            "some choices give 'sys/b'",
        ),
        ({"tier": "none"}, "spec.tier: expected 'low'"),
        ({"wrap_ttl": "4s"}, "spec.wrap_ttl: expected 5s to 10m, got 4s"),
        ({"wrap_ttl": "601s", "ttl": "1h"}, "spec.wrap_ttl: expected 5s to 10m, got 10m1s"),
        ({"wrap_ttl": "10s", "ttl": "14s"}, "spec: expected ttl of at least wrap_ttl + 5s, got 14s"),
        ({"ttl": "2h"}, "spec: expected max_window of at least ttl, got 1h"),
        ({"max_window": "28801s"}, "spec: expected max_window of at most 8h"),
        ({"ttl": 900}, "spec.ttl: expected a duration"),
        ({"lease_budget": 0}, "spec.lease_budget: expected 1 or more, got 0"),
        ({"lease_budget": 1001}, "spec.lease_budget: expected 1000 or less, got 1001"),
        ({"lease_budget": True}, "spec.lease_budget: expected a whole number, got true"),
        ({"lease_budget": "5"}, "spec.lease_budget: expected a whole number, got '5'"),
        ({"lease_budget": 5.0}, "spec.lease_budget: expected a whole number, got 5.0"),
        ({"confirm": "hope"}, "spec.confirm: expected 'audit' or 'target'"),
        ({"confirm": "audit"}, "expected confirm_why, because confirm is audit: say why the target is not asked"),
        ({"confirm": "audit", "confirm_why": ""}, "spec.confirm_why: expected 1 to 200 characters"),
        ({"confirm": "audit", "confirm_why": "x" * 201}, "spec.confirm_why: expected 1 to 200 characters"),
        ({"confirm": "audit", "confirm_why": "one\ntwo"}, "expected one paragraph that a reader sees as it is"),
        ({"confirm_why": "Because."}, "expected no confirm_why, because confirm is target"),
        ({"verifiers": ["a:443"]}, "expected no verifiers: a check shows them certificates (engine pki,"),
        ({"engine": "pki", "verifiers": ["a"]}, "spec.verifiers[0]: expected a TLS server as host:port"),
        ({"engine": "pki", "verifiers": ["a:0"]}, "spec.verifiers[0]: expected a TLS server as host:port"),
        ({"engine": "pki", "verifiers": ["a:65536"]}, "spec.verifiers[0]: expected a TLS server as host:port"),
        ({"engine": "pki", "verifiers": ["https://a:443"]}, "spec.verifiers[0]: expected a TLS server as host:port"),
        ({"engine": "pki", "verifiers": ["a:443", "a:443"]}, "spec.verifiers: expected each entry once"),
        ({"probe": ...}, "spec: expected a probe, because confirm is target"),
        (connected(host=...), "spec.connection.host: a value is required"),
        (connected(port=...), "spec.connection.port: a value is required"),
        (connected(tls=...), "spec.connection.tls: a value is required"),
        (connected(port=0), "spec.connection.port: expected 1 or more, got 0"),
        (connected(port=65536), "spec.connection.port: expected 65535 or less, got 65536"),
        (connected(port="5432"), "spec.connection.port: expected a whole number, got '5432'"),
        (connected(tls="prefer"), "spec.connection.tls: expected 'disable', 'require', 'verify-ca' or 'verify-full'"),
        (connected(host="db\nPGHOST=evil"), "spec.connection.host: expected a host by its name or its address"),
        (connected(host="db$(id)"), "spec.connection.host: expected a host by its name or its address"),
        (connected(host="db,db-2"), "spec.connection.host: expected a host by its name or its address"),
        (connected(host="-db"), "spec: expected another connection; some choices give one whose connection.host '-db'"),
        (connected(host="db:5432"), "some choices give one whose connection.host 'db:5432' is neither a name nor an"),
        (connected(host="x" * 254), "spec.connection.host: expected a host by its name or its address"),
        (connected(database="a b"), "spec.connection.database: expected the name of a database"),
        (connected(database="a'b"), "spec.connection.database: expected the name of a database"),
        (connected(database="x" * 64), "some choices give one whose connection.database"),
        (connected(database=...), "spec: expected connection.database: credentials of engine database are logins"),
        ({"engine": "pki", **connected()}, "spec: expected no connection.database: credentials of engine pki are no"),
        (connected(ca_file="ca.pem"), "spec.connection.ca_file: expected the absolute path of a file"),
        (connected(ca_file="/etc/a b"), "spec.connection.ca_file: expected the absolute path of a file"),
        (connected(ca_file="/ca.pem", tls="require"), "expected no ca_file, because tls require checks no certificate"),
        (connected(database="{base}"), "expected a parameter for each placeholder of the connection; base has none"),
        (connected(user="x"), "spec.connection.user: unknown field"),
        ({"data_domains": ["a", "a"]}, "spec.data_domains: expected each entry once"),
        ({"confirm_reason": "x"}, "spec.confirm_reason: unknown field"),
    ],
)
def test_refusals_name_the_field_and_what_was_expected(changes: dict[str, object], expected: str) -> None:
    message = refusal(**changes)
    assert message.startswith("t.yaml:1: ")
    assert expected in message


@pytest.mark.parametrize(
    "changes",
    [
        {"wrap_ttl": "5s", "ttl": "10s"},
        {"wrap_ttl": "10m", "ttl": "605s"},
        {"ttl": "8h", "max_window": "8h"},
        {"confirm": "audit", "confirm_why": "Nobody can ask the target.", "probe": ...},
        {"confirm": "audit", "confirm_why": "x" * 200},
        {"engine": "pki", "verifiers": ["a.example.org:443", "127.0.0.1:65535"]},
        connected(),
        connected(host="::1", port=1, tls="disable"),
        connected(host="{database}.db.example.org", port=65535, tls="verify-full", ca_file="/etc/ssl/db+1@x.pem"),
        connected(database="My_db.1$x-2"),
        {"engine": "pki", **connected(database=...)},
        {"mount": "teams/data-1/pg_2"},
        {"mount": "system"},
        {"path": "creds/static", "parameters": ...},
        {"path": "creds/{database}/{right}/{database}"},
        {"data_domains": ...},
        {"parameters": {"database": {"choices": [f"c{n}" for n in range(256)]}, "right": {"choices": ["x"]}}},
    ],
)
def test_accepted_at_the_bounds(changes: dict[str, object]) -> None:
    template = read(**changes)
    assert parse_template(rfc8785.dumps(template.canonical())) == template


def test_resolve() -> None:
    template = read()
    assert template.resolve({"right": "readonly", "database": "crm"}) == "database/creds/crm-readonly"
    for with_, expected in [
        (
            {"database": "app"},
            "template postgres-readonly: parameter right is missing; expected database, right",
        ),
        (
            {"database": "app", "right": "readonly", "x": "y"},
            "unknown parameter 'x'; expected database, right",
        ),
        ({"database": "ap", "right": "readonly"}, "parameter database: expected one of app, crm, got 'ap'"),
        ({"database": "../../sys", "right": "readonly"}, "expected one of app, crm, got '../../sys'"),
        ({}, "parameter database is missing"),
    ]:
        with pytest.raises(InvalidInput) as caught:
            template.resolve(with_)
        assert expected in str(caught.value)
    with pytest.raises(InvalidInput, match="unknown parameter 'x'; expected no parameter"):
        read(path="creds/static", parameters=...).resolve({"x": "y"})


def test_a_long_list_of_choices_is_told_in_part() -> None:
    many = {"database": {"choices": [f"c{n:03}" for n in range(20)]}, "right": {"choices": ["x"]}}
    with pytest.raises(InvalidInput, match="c007 or 12 others, got 'no'"):
        read(parameters=many).resolve({"database": "no", "right": "x"})


def test_all_choices() -> None:
    parameters = {"right": {"choices": ["w", "r"]}, "database": {"choices": ["b", "a"]}}
    assert list(read(parameters=parameters).all_choices()) == [
        {"database": database, "right": right} for database, right in itertools.product("ab", "rw")
    ]
    assert list(read(path="creds/static", parameters=...).all_choices()) == [{}]


@given(
    choices=st.lists(st.text("ab.-_:@/*+ {}", min_size=1, max_size=6), min_size=1, max_size=4, unique=True),
    path=st.lists(st.sampled_from(["creds", "/", "{database}", "{right}", ".", "-", "sys", "*", "+", "{"]), max_size=8),
    mount=st.sampled_from(["database", "a/b", "sys", "a/..", "*"]),
)
def test_a_resolved_path_never_leaves_the_mount(choices: list[str], path: list[str], mount: str) -> None:
    parameters = {"database": {"choices": choices}, "right": {"choices": ["a", ".b", "c."]}}
    used = {name: value for name, value in parameters.items() if f"{{{name}}}" in path}
    try:
        template = read(mount=mount, path="".join(path), parameters=used)
    except InvalidInput:
        return
    for with_ in template.all_choices():
        found = template.resolve(with_)
        assert found.startswith(f"{mount}/")
        assert not any(part in found for part in ("..", "*", "+", "{", "}", "//", " "))
        assert not found.endswith("/")
        assert mount in ("database", "a/b")


SAFE = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._@:-]{0,10}", fullmatch=True)


@given(
    st.lists(SAFE, min_size=1, max_size=6, unique=True),
    st.lists(st.sampled_from([".x", "-x", "", "/y"]), min_size=1, max_size=2),
)
def test_resolve_gives_only_what_a_choice_makes(choices: list[str], tail: list[str]) -> None:
    try:
        template = read(path="creds/{database}" + "".join(tail), parameters={"database": {"choices": choices}})
    except InvalidInput as error:
        assert any(".." in choice + "".join(tail) for choice in choices), error
        return
    paths = [template.resolve(with_) for with_ in template.all_choices()]
    assert len(set(paths)) == len(choices)
    assert all(path.startswith("database/creds/") and ".." not in path for path in paths)


@given(st.data())
def test_the_digest_ignores_order_format_and_spelling(data: st.DataObject) -> None:
    document = copy.deepcopy(TEMPLATE)
    spec = {name: document["spec"][name] for name in data.draw(st.permutations(list(document["spec"])))}
    spec["parameters"]["database"]["choices"] = data.draw(st.permutations(["app", "crm"]))
    spec["ttl"] = data.draw(st.sampled_from(["15m", "900s", "14m60s", "0h15m"]))
    document["spec"] = spec
    text = data.draw(st.sampled_from([json.dumps, yaml.safe_dump]))(document)
    assert parse_template(text.encode()).digest() == read().digest()


@pytest.mark.parametrize("name", [name for name in TEMPLATE["spec"] if name not in ("path", "parameters", "confirm")])
def test_the_digest_tells_every_field(name: str) -> None:
    other = {
        "engine": "ssh",
        "mount": "other",
        "tier": "high",
        "data_domains": [],
        "ttl": "16m",
        "max_window": "2h",
        "wrap_ttl": "3m",
        "lease_budget": 6,
        "probe": "other",
    }
    assert read(**{name: other[name]}).digest() != read().digest()


def test_the_digest_tells_why_the_target_is_not_asked() -> None:
    digests = {read(confirm="audit", confirm_why=why).digest() for why in ("It has no door.", "It is away.")}
    assert len(digests) == 2


def test_load_templates() -> None:
    files = {path.name: path.read_bytes() for path in SHIPPED}
    assert list(load_templates(files)) == ["pki-service", "postgres-readonly", "postgres-readwrite"]
    assert load_templates({}) == {}
    with pytest.raises(InvalidInput, match=r"postgres-readonly is already in a\.yaml") as caught:
        load_templates({"b.yaml": files["postgres-readonly.yaml"], "a.yaml": files["postgres-readonly.yaml"]})
    assert str(caught.value).startswith("b.yaml: metadata.name: ")
    with pytest.raises(InvalidInput, match=r"^broken\.yaml:1:1: the document is empty"):
        load_templates({"broken.yaml": b""})


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_template(data)


# -- what is sent ---------------------------------------------------------------------------------------------


def sending(**data: object) -> dict[str, object]:
    return {"data": data, "path": "issue/web", "parameters": {"database": {"choices": ["app", "crm"]}}}


def test_what_is_sent_is_part_of_the_digest_and_read_back() -> None:
    template = read(**sending(ttl="5m", common_name="{database}.svc"))
    assert template.canonical()["spec"]["data"] == {"common_name": "{database}.svc", "ttl": "5m"}
    assert parse_template(rfc8785.dumps(template.canonical())) == template
    assert template.digest() != read(**sending(ttl="6m", common_name="{database}.svc")).digest()
    assert "data" not in read().canonical()["spec"]


def test_a_parameter_may_be_used_in_the_data_alone() -> None:
    template = read(**sending(common_name="{database}.svc"))
    assert {template.resolve(with_) for with_ in template.all_choices()} == {"database/issue/web"}
    names = [template.spec.fill_data(with_)["common_name"] for with_ in template.all_choices()]
    assert names == ["app.svc", "crm.svc"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"common_name": "*.svc"}, "spec.data.common_name: expected 1 to 256 of"),
        ({"common_name": 'x"]'}, "spec.data.common_name: expected 1 to 256 of"),
        ({"common_name": "x y"}, "spec.data.common_name: expected 1 to 256 of"),
        ({"common_name": ""}, "spec.data.common_name: expected 1 to 256 of"),
        ({"common_name": "{{identity.entity.id}}"}, "spec.data.common_name: expected 1 to 256 of"),
        ({"common_name": "x" * 257}, "spec.data.common_name: expected 1 to 256 of"),
        ({"common_name": ["a"]}, "spec.data.common_name: expected text"),
        ({"ttl": 900}, "spec.data.ttl: expected text, got 900 (put text in quotes)"),
        ({"TTL": "5m"}, "spec.data.TTL: expected the name of a request's parameter"),
        ({"*": "x"}, "expected the name of a request's parameter"),
        ({f"k{n}": "x" for n in range(17)}, "spec.data: expected 16 or fewer entries"),
        ({"common_name": "{database}.{nobody}"}, "nobody has none"),
        ({"common_name": "x"}, "expected each parameter in the path"),
        ({"common_name": "{database}" + "x" * 245}, None),
        ({"common_name": "{database}" + "x" * 246, "ttl": "1m"}, None),
    ],
    ids=range(15),
)
def test_what_cannot_be_pinned_is_refused(data: dict[str, object], expected: str | None) -> None:
    if expected is None:
        assert read(**sending(**data))
    else:
        assert expected in refusal(**sending(**data))


def test_a_choice_that_makes_a_value_too_long_is_refused() -> None:
    how = sending(common_name="{database}" * 8)
    how["parameters"] = {"database": {"choices": ["x" * 64]}}
    assert "expected at most 256 characters in data.common_name" in refusal(**how)
