from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from jitvault.errors import CorruptRecord, InvalidInput
from jitvault.formats.canonical_json import canonical_bytes, sha256_hex
from jitvault.model.revision import Resolved, Revision, build
from jitvault.model.revision_content import Link, Party
from jitvault.model.revision_text import describe, difference
from jitvault.model.spec import parse_spec
from jitvault.model.template import parse_template
from jitvault.model.vault_access import Fetch, access_policy

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)

SPEC: dict[str, Any] = {
    "apiVersion": "jitvault.dev/v1",
    "kind": "Task",
    "metadata": {"id": "t-1", "labels": {"team": "data"}},
    "spec": {
        "agent": "research-agent",
        "owner": "data-owner",
        "intent": "Count the orders of last week.",
        "criticality": "medium",
        "tools": ["psql", "pandas"],
        "access": [{"template": "pg-read", "with": {"database": "app"}, "reason": "orders are there"}],
        "window": {"for": "15m"},
        "network": "office",
        "deliver": "agent",
    },
}
TEMPLATE: dict[str, Any] = {
    "apiVersion": "jitvault.dev/v1",
    "kind": "AccessTemplate",
    "metadata": {"name": "pg-read", "description": "Read every table.", "owner": "data-owner"},
    "spec": {
        "engine": "database",
        "mount": "database",
        "path": "creds/{database}-ro",
        "parameters": {"database": {"choices": ["app", "crm"]}},
        "tier": "low",
        "data_domains": ["orders"],
        "ttl": "10m",
        "max_window": "1h",
        "wrap_ttl": "2m",
        "lease_budget": 5,
        "confirm": "target",
        "probe": "postgres",
    },
}
ENGINE = {"role": {"db_name": "app", "revocation_statements": ["DROP ROLE"]}}


def set_in(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """`document` with the value at the dotted path set, or removed for `...`."""
    changed = copy.deepcopy(document)
    part: Any = changed
    *way, last = path.split(".")
    for key in way:
        part = part[int(key)] if key.isdigit() else part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return changed


def resolved(template: dict[str, Any] = TEMPLATE, engine: dict[str, Any] = ENGINE, database: str = "app") -> Resolved:
    parsed = parse_template(json.dumps(template).encode())
    path = parsed.resolve({"database": database})
    return Resolved(parsed, {"database": database}, path, access_policy(path), engine)


def revision(spec: dict[str, Any] = SPEC, **changes: Any) -> Revision:
    arguments: dict[str, Any] = {
        "installation": "i-1",
        "number": 1,
        "spec": parse_spec(json.dumps(spec).encode()),
        "requester": Party("e-req", "olga"),
        "agent": Party("e-agent", "research-agent"),
        "owner": Party("e-owner", "data-owner"),
        "access": [resolved()],
        "cidrs": ["10.0.0.0/8"],
    }
    return build(**arguments | changes)


def replaced(found: Revision, **changes: Any) -> Revision:
    """The revision with other fields in its content."""
    return Revision.of(canonical_bytes(msgspec.to_builtins(structs.replace(found.content, **changes))))


def turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: turned(item) for key, item in reversed(value.items())}
    return [turned(item) for item in value] if isinstance(value, list) else value


def test_the_digest_is_over_the_bytes() -> None:
    found = revision()
    assert found.digest == "sha256:" + sha256_hex(found.body)
    assert found.body == canonical_bytes(msgspec.to_builtins(found.content))
    assert Revision.of(found.body) == found


def test_the_same_request_has_the_same_digest_however_it_is_written() -> None:
    same = revision()
    assert revision().digest == same.digest
    assert revision(turned(SPEC)).digest == same.digest
    assert revision(access=[resolved(turned(TEMPLATE), turned(ENGINE))]).digest == same.digest
    assert revision(set_in(SPEC, "spec.window.for", "900s")).digest == same.digest
    assert revision(set_in(SPEC, "spec.tools", ["pandas", "psql"])).digest == same.digest
    two = ["192.168.0.0/16", "10.0.0.0/8"]
    assert revision(cidrs=two).digest == revision(cidrs=two[::-1]).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"installation": "i-2"},
        {"number": 2},
        {"requester": Party("e-req-2", "olga")},
        {"requester": Party("e-req", "otto")},
        {"agent": Party("e-agent-2", "research-agent")},
        {"owner": Party("e-owner-2", "data-owner")},
        {"cidrs": ["10.0.0.0/9"]},
        {"cidrs": []},
        {"access": [resolved(database="crm")]},
        {"access": [resolved(), resolved(database="crm")]},
        {"access": [resolved(engine={"role": {"db_name": "app", "revocation_statements": ["SELECT 1"]}})]},
        {"access": [resolved(engine={**ENGINE, "more": True})]},
    ],
    ids=str,
)
def test_every_other_input_gives_another_digest(changes: dict[str, Any]) -> None:
    assert revision(**changes).digest != revision().digest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.id", "t-2"),
        ("metadata.labels", {"team": "ops"}),
        ("spec.agent", "other-agent"),
        ("spec.owner", "other-owner"),
        ("spec.intent", "Count the orders of last month."),
        ("spec.criticality", "high"),
        ("spec.tools", ["psql"]),
        ("spec.access.0.with", {"database": "crm"}),
        ("spec.access.0.reason", "another reason"),
        ("spec.window", {"for": "14m59s"}),
        ("spec.window", {"until": "2030-01-31T09:15:00Z"}),
        ("spec.window.not_before", "2030-01-31T09:00:00Z"),
        ("spec.network", "home"),
        ("spec.network", ...),
        ("spec.deliver", "requester"),
    ],
)
def test_every_field_of_the_spec_changes_the_digest(path: str, value: object) -> None:
    assert revision(set_in(SPEC, path, value)).digest != revision().digest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.description", "Read every table, slowly."),
        ("metadata.owner", "other-owner"),
        ("spec.path", "creds/{database}-rw"),
        ("spec.mount", "database2"),
        ("spec.parameters.database.choices", ["app", "crm", "erp"]),
        ("spec.tier", "high"),
        ("spec.data_domains", []),
        ("spec.ttl", "11m"),
        ("spec.max_window", "2h"),
        ("spec.wrap_ttl", "1m"),
        ("spec.lease_budget", 6),
        ("spec.probe", "postgres-2"),
    ],
)
def test_every_field_of_a_template_changes_the_digest(path: str, value: object) -> None:
    assert revision(access=[resolved(set_in(TEMPLATE, path, value))]).digest != revision().digest


def by_audit(why: str) -> Revision:
    template = set_in(set_in(TEMPLATE, "spec.confirm", "audit"), "spec.confirm_why", why)
    return revision(access=[resolved(template)])


def test_approvers_read_and_sign_why_the_target_is_not_asked() -> None:
    first, second = by_audit("It has no door."), by_audit("It is away.")
    assert len({revision().digest, first.digest, second.digest}) == 3
    assert "Its end is revoked at Vault; the target is not asked about pg-read: It has no door." in describe(first)
    assert "Its end is proven by the target." not in describe(first)
    assert "Its end is proven by the target." in describe(revision())


def test_approvers_read_and_sign_which_servers_of_a_certificate_were_asked() -> None:
    certificate = set_in(TEMPLATE, "spec.engine", "pki")
    asked = set_in(certificate, "spec.verifiers", ["a.example.org:443"])
    none, one = revision(access=[resolved(certificate)]), revision(access=[resolved(asked)])
    assert one.digest != none.digest
    assert one.access[0].verifiers == ["a.example.org:443"]
    over = "that TLS sessions opened with its certificate are over"
    assert f"Not proven for pg-read: {over}; no server that takes it was ever asked." in describe(none)
    asked_one = "a.example.org:443 was shown another certificate, by the template's check"
    assert f"Not proven for pg-read: {over}; {asked_one}." in describe(one)
    # of what names none the digest is what it was before there were verifiers
    assert b"verifiers" not in none.body + revision().body
    assert not [line for line in describe(revision()) if "TLS" in line]


CONNECTION = {"host": "{database}-db.example.org", "port": 5432, "database": "{database}", "tls": "verify-full"}


def test_approvers_read_and_sign_where_the_agent_connects() -> None:
    connected = set_in(TEMPLATE, "spec.connection", CONNECTION)
    plain = set_in(connected, "spec.connection.tls", "disable")
    signed, other = revision(access=[resolved(connected)]), revision(access=[resolved(plain)])
    assert len({revision().digest, signed.digest, other.digest}) == 3
    assert "  used at app-db.example.org:5432, database app, TLS verify-full" in describe(signed)
    assert "  used at app-db.example.org:5432, database app, without TLS" in describe(other)
    assert difference(signed, other)[:1] == ["access[0].connection.tls: 'verify-full' → 'disable'"]
    (use,) = signed.uses
    assert (use.template, use.path, use.choices) == ("pg-read", "database/creds/app-ro", {"database": "app"})
    assert use.connection is not None and use.connection.database == "app"


def test_a_stored_revision_without_a_connection_stays_valid_and_keeps_its_digest() -> None:
    stored = revision()
    # computed before templates had a connection
    assert stored.digest == "sha256:0e0694e1f9c3980e2786a5569d2f812fea84345e704dcbd8132edc1c0a85fe16"
    assert resolved().template.digest() == "008c8b70205b86c9b2893ba014f2147fe925beaf068b7dbe853ae413be277381"
    assert b"connection" not in stored.body
    assert [use.connection for use in stored.uses] == [None]
    assert not [line for line in describe(stored) if "used at" in line]


def test_a_connection_that_no_template_can_have_is_no_revision() -> None:
    content = json.loads(revision(access=[resolved(set_in(TEMPLATE, "spec.connection", CONNECTION))]).body)
    content["access"][0]["connection"]["port"] = "5432"
    with pytest.raises(CorruptRecord):
        _ = Revision.of(canonical_bytes(content)).content


@pytest.mark.parametrize(
    ("criticality", "tiers", "risk"),
    [
        ("low", ["low"], "low"),
        ("high", ["low"], "high"),
        ("low", ["medium", "low"], "medium"),
        ("medium", ["low", "critical"], "critical"),
    ],
)
def test_the_risk_is_the_highest_of_criticality_and_tiers(criticality: str, tiers: list[str], risk: str) -> None:
    access = [resolved(set_in(TEMPLATE, "spec.tier", tier)) for tier in tiers]
    found = revision(set_in(SPEC, "spec.criticality", criticality), access=access)
    assert found.content.risk == risk


def test_what_is_read_back_is_what_was_put_in() -> None:
    found = revision()
    assert found.spec == parse_spec(json.dumps(SPEC).encode())
    assert found.window == found.spec.window
    assert found.involved() == {"e-req": "requester", "e-agent": "agent", "e-owner": "owner"}
    # whoever handed a task on has a part in it as well, and a part of one's own goes before that
    first, agent, owner = (Party(entity, entity) for entity in ("e-first", "e-agent", "e-owner"))
    link = Link(task="t-0", digest="sha256:0", requester=first, agent=agent, owner=owner)
    handed_on = replaced(found, delegation=[link])
    assert handed_on.involved() == {**found.involved(), "e-first": "requester of t-0"}
    # policy may let an owner approve, but not whoever asked for what is handed on
    assert replaced(found, owner=first, delegation=[link]).involved()["e-first"] == "requester of t-0"
    assert found.access_at("database/creds/app-ro") == found.access[0]
    assert found.template_at("database/creds/app-ro") == "pg-read"
    assert found.access_at("database/creds/crm-ro") is found.template_at("database/creds/crm-ro") is None


@given(st.data())
def test_a_revision_with_a_field_that_is_unknown_or_missing_is_none(data: st.DataObject) -> None:
    """What nobody reads, approvers would sign unseen."""
    content = json.loads(revision(access=[resolved(set_in(TEMPLATE, "spec.connection", CONNECTION))]).body)
    places = [content, content["agent"], content["access"][0], content["access"][0]["connection"]]
    place = data.draw(st.sampled_from(places))
    optional = {"connection", "database"}
    if missing := data.draw(st.sampled_from([None, *sorted({*place} - optional)])):
        del place[missing]
    else:
        place["more"] = 1
    with pytest.raises(CorruptRecord):
        _ = Revision.of(canonical_bytes(content)).content


def test_who_has_two_parts_is_involved_all_the_same() -> None:
    found = revision(owner=Party("e-req", "olga"))
    assert set(found.involved()) == {"e-req", "e-agent"}


def test_the_engines_configuration_is_in_it_only_as_a_digest() -> None:
    assert b"DROP ROLE" not in revision().body


def certified(**data: str) -> Resolved:
    """An access that sends `data` to one path."""
    document = {**TEMPLATE, "metadata": {**TEMPLATE["metadata"], "name": "pki-web"}}
    spec = {**TEMPLATE["spec"], "engine": "pki", "mount": "pki", "path": "issue/web", "parameters": {}, "data": data}
    parsed = parse_template(json.dumps({**document, "spec": spec}).encode())
    return Resolved(parsed, {}, "pki/issue/web", access_policy("pki/issue/web", "update", data), ENGINE, "update")


def test_what_is_sent_is_approved_with_the_rest() -> None:
    found = revision(access=[certified(common_name="a.svc", ttl="5m")])
    assert found.fetches == [Fetch("pki-web", "pki/issue/web", "update", {"common_name": "a.svc", "ttl": "5m"})]
    assert "  asked for with exactly common_name=a.svc, ttl=5m" in describe(found)
    assert found.digest != revision(access=[certified(common_name="a.svc", ttl="6m")]).digest
    assert "asked for" not in "".join(describe(revision()))
    assert revision().fetches == [Fetch("pg-read", "database/creds/app-ro")]


def test_how_long_others_may_go_on_accepting_it_is_approved_and_read() -> None:
    bounded = certified(ttl="5m")
    body = {**bounded.template.canonical()["spec"], "accepted_after_end": "5m"}
    template = parse_template(json.dumps({**bounded.template.canonical(), "spec": body}).encode())
    found = revision(access=[replace(bounded, template=template)])
    assert found.access[0].accepted_after_end_s == 300
    assert any("others may go on accepting it for 5m after its end" in line for line in describe(found))
    # of what has no such bound nothing is said, and its digest is what it was
    assert b"accepted_after_end_s" not in revision(access=[bounded]).body
    assert "go on accepting" not in "".join(describe(revision()))


def test_two_accesses_that_send_different_data_to_one_path_are_refused() -> None:
    """Vault adds policies up: the name of one with the life of the other would be allowed."""
    with pytest.raises(InvalidInput, match="two entries send different data to pki/issue/web"):
        revision(access=[certified(ttl="5m", cn="a"), certified(ttl="6m", cn="b")])
    assert revision(access=[certified(ttl="5m"), certified(ttl="5m"), resolved()])
