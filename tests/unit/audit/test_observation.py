"""What audit lines mean. The shapes are those of lines that OpenBao 2.7.2 wrote, and of Vault's, which adds keys."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.decoding.decoder import decode, decode_skimmed
from jitvault.audit.decoding.oversized import skim
from jitvault.audit.observation import Kind, Observation, Place
from jitvault.documents.paths import vault_path

PLACE = Place("audit", 3, 4096)
WORKER, AGENT, THIRD, WRAPPING = (f"hmac-sha256:{name:0<64}" for name in ("aa", "bb", "cc", "dd"))
LEASE = "database/creds/app-ro/afiJklUfE3Mdm2cqvTtmwdss"
LEASE_HMAC = f"hmac-sha256:{'1e':0<64}"
POLICY = "jitvault-access-0123456789abcdef"
DENIED = "1 error occurred:\n\t* permission denied\n\n"
OP = "0123456789abcdef" * 2
# keys that Vault 1.18 writes and OpenBao does not
VAULTS = {
    "auth": {"policy_results": {"allowed": True, "granting_policies": [{"type": ""}]}, "token_issue_time": "x"},
    "request": {
        "request_uri": "/v1/x",
        "mount_is_external_plugin": True,
        "mount_running_sha256": "x",
        "remote_port": 1,
    },
    "response": {"mount_is_external_plugin": True, "mount_running_sha256": "x", "supplemental_audit_data": {"a": 1}},
}


def auth(accessor: str, *policies: str, **more: Any) -> dict[str, Any]:
    found = {
        "client_token": "hmac-sha256:" + "0" * 64,
        "accessor": accessor,
        "display_name": "token",
        "policies": list(policies),
        "token_policies": list(policies),
        "token_type": "service",
    }
    return {**found, **more}


def entry(
    path: str,
    *,
    kind: str = "response",
    by: dict[str, Any] | None = None,
    operation: str = "update",
    data: dict[str, Any] | None = None,
    response: dict[str, Any] | None = None,
    error: str = "",
    op: str = "",
    **request: Any,
) -> dict[str, Any]:
    """One entry as OpenBao writes it."""
    found: dict[str, Any] = {
        "time": "2026-11-24T15:43:07.034043907Z",
        "type": kind,
        "auth": auth(WORKER, "jitvault-worker") if by is None else by,
        "request": {
            "id": "ffc864a4-63d9-0c9b-3655-576599d619a0",
            "operation": operation,
            "mount_type": "system",
            "client_token": "hmac-sha256:" + "9" * 64,
            "client_token_accessor": WORKER,
            "namespace": {"id": "root"},
            "path": path,
            "remote_address": "127.0.0.1",
            "remote_port": 46324,
            **request,
        },
    }
    if data is not None:
        found["request"]["data"] = data
    if op:
        found["request"]["headers"] = {"x-jitvault-op": [op]}
    if kind == "response":
        found["response"] = {"mount_type": "system", "mount_running_plugin_version": "v2.7.2+builtin.bao"}
        found["response"] |= response or {}
    if error:
        found["error"] = error
    return found


def as_vault(found: dict[str, Any]) -> dict[str, Any]:
    """The same entry with the keys that HashiCorp Vault adds."""
    changed = copy.deepcopy(found)
    for part, more in VAULTS.items():
        if changed.get(part):
            changed[part] = {**more, **changed[part]}
    return {**changed, "forwarded_from": "node-2:8201"}


def seen(found: dict[str, Any]) -> Observation | None:
    """What the entry gives: the same from OpenBao and from Vault."""
    ours, vaults = (decode(json.dumps(e).encode(), PLACE) for e in (found, as_vault(found)))
    if ours is None or vaults is None:
        assert ours is vaults is None
        return None
    names = ("kind", "subject", "actor", "op", "failed", "error", "closing", "at", "token", "alias", "detail")
    for name in names:
        assert getattr(ours, name) == getattr(vaults, name)
    return ours


def kind_of(found: dict[str, Any]) -> tuple[Kind | None, str]:
    o = seen(found)
    return (o.kind, o.subject) if o else (None, "")


TASK_TOKEN = auth(AGENT, POLICY, metadata={"task": "t-1"}, entity_id="e-agent")
ISSUED = entry(
    "database/creds/app-ro",
    by=TASK_TOKEN,
    operation="read",
    response={"secret": {"lease_id": LEASE}, "data": {"password": "hmac-sha256:77", "username": "v-token-ro-1"}},
)


def test_an_observation_keeps_where_when_who_and_what() -> None:
    o = seen(entry("sys/leases/revoke/" + LEASE, data={"sync": True}, op=OP))
    assert o is not None
    assert o.place == PLACE
    assert o.at == datetime(2026, 11, 24, 15, 43, 7, 34044, tzinfo=UTC)
    assert o.at.tzinfo is UTC
    assert (o.closing, o.request_id, o.path) == (
        True,
        "ffc864a4-63d9-0c9b-3655-576599d619a0",
        "sys/leases/revoke/" + LEASE,
    )
    assert (o.actor, o.op, o.remote, o.failed, o.error) == (WORKER, OP, "127.0.0.1", False, "")


def test_the_line_is_known_by_the_hash_of_its_bytes() -> None:
    raw = json.dumps(ISSUED).encode()
    one, other = decode(raw, PLACE), decode(raw + b" ", PLACE)
    assert one is not None
    assert other is not None
    assert one.line != other.line
    assert len(one.line) == 64


def test_a_canary_is_named_by_the_hmac_of_its_nonce() -> None:
    nonce = "hmac-sha256:" + "5" * 64
    line = entry("sys/audit-hash/jitvault", data={"input": nonce}, response={"data": {"hash": "hmac-sha256:x"}})
    assert kind_of(line) == (Kind.CANARY, nonce)
    # where accessors stand in plain no line can be told to be ours, and a canary is none
    plain = auth("accessor-in-plain", "jitvault-worker")
    line = entry(
        "sys/audit-hash/jitvault", by=plain, data={"input": nonce}, response={"data": {"hash": "hmac-sha256:x"}}
    )
    assert kind_of(line) == (Kind.CANARY, "")


def test_a_wrapped_token_is_known_by_its_wrapped_accessor() -> None:
    wrap = {"ttl": 60, "token": "hmac-sha256:f9", "accessor": WRAPPING, "wrapped_accessor": AGENT}
    line = entry("auth/token/create/jitvault-15m", op=OP, response={"wrap_info": wrap})
    o = seen(line)
    assert o is not None
    assert (o.kind, o.subject, o.actor, o.op) == (Kind.TOKEN_CREATED, AGENT, WORKER, OP)
    # who unwraps is known by the wrapping token
    assert (o.alias, o.stands_for) == ("hmac-sha256:f9", AGENT)
    assert kind_of(entry("auth/token/create/jitvault-15m", kind="request")) == (Kind.TOKEN_CREATED, "")
    # other people's roles are not ours
    assert kind_of(entry("auth/token/create/ci", response={"wrap_info": wrap})) == (None, "")


def test_unwrapping_is_known_by_the_inner_tokens_accessor() -> None:
    inner = {"auth": auth(AGENT, POLICY, metadata={"task": "t-1"})}
    own = entry("sys/wrapping/unwrap", by=auth(WRAPPING, "response-wrapping"), response=inner)
    assert kind_of(own) == (Kind.UNWRAPPED, AGENT)
    theirs = entry("sys/wrapping/unwrap", by=auth(THIRD, "root"), data={"token": "hmac-sha256:f9"}, response=inner)
    o = seen(theirs)
    assert o is not None
    assert (o.kind, o.subject, o.actor) == (Kind.UNWRAPPED, AGENT, THIRD)


def test_unwrapping_something_that_is_not_ours_is_nothing() -> None:
    other = {"auth": auth(THIRD, "app-policy")}
    assert kind_of(entry("sys/wrapping/unwrap", response=other)) == (None, "")
    assert kind_of(entry("sys/wrapping/unwrap", response={"data": {"a": "hmac-sha256:1"}})) == (None, "")


def test_a_refused_unwrap_names_the_wrapping_token() -> None:
    words = "wrapping token is not valid or does not exist"
    # a lone request entry without an accessor: the wrapping token is the client token
    own = entry("sys/wrapping/unwrap", kind="request", by={}, error=words, client_token="hmac-sha256:f9")
    o = seen(own)
    assert o is not None
    assert (o.kind, o.subject, o.actor, o.closing) == (Kind.UNWRAP_REFUSED, "", "", False)
    assert o.token == "hmac-sha256:f9"
    # or, when somebody unwraps with a token of their own, it is in the body
    theirs = entry("sys/wrapping/unwrap", kind="request", by=auth(THIRD), error=words, data={"token": "hmac-sha256:f9"})
    o = seen(theirs)
    assert o is not None
    assert (o.kind, o.token, o.actor) == (Kind.UNWRAP_REFUSED, "hmac-sha256:f9", THIRD)


def test_the_old_way_of_unwrapping_is_seen() -> None:
    by = auth(WRAPPING, "response-wrapping", client_token="hmac-sha256:f9")
    line = entry(
        "cubbyhole/response",
        by=by,
        operation="read",
        response={"data": {"response": "hmac-sha256:a0"}},
    )
    o = seen(line)
    assert o is not None
    # the line shows no lease and no token but the wrapping one
    assert (o.kind, o.subject, o.token, o.alias) == (Kind.CUBBYHOLE_READ, "", "hmac-sha256:f9", "")
    assert kind_of({**line, "type": "request", "response": None}) == (None, "")
    refused = seen({**line, "error": DENIED, "response": None})
    assert refused is not None
    assert (refused.kind, refused.token) == (Kind.UNWRAP_REFUSED, "hmac-sha256:f9")


def test_what_was_unwrapped_says_which_token_is_whose() -> None:
    inner = {"auth": auth(AGENT, POLICY, client_token="hmac-sha256:7a")}
    by = auth(WRAPPING, "response-wrapping", client_token="hmac-sha256:f9")
    line = entry("sys/wrapping/unwrap", by=by, response=inner)
    o = seen(line)
    assert o is not None
    # a token that is dead is later known by its own HMAC alone
    assert (o.kind, o.token, o.alias, o.stands_for) == (Kind.UNWRAPPED, "hmac-sha256:f9", "hmac-sha256:7a", AGENT)


def test_a_wrapped_lease_shows_when_it_is_unwrapped() -> None:
    by = auth(WRAPPING, "response-wrapping", client_token="hmac-sha256:f9")
    line = entry("sys/wrapping/unwrap", by=by, response={"secret": {"lease_id": LEASE}})
    o = seen(line)
    assert o is not None
    assert (o.kind, o.subject, o.token, o.alias) == (Kind.LEASE_ISSUED, LEASE, "hmac-sha256:f9", "")
    # whatever stands in the header: the body goes before it
    other = seen({**line, "request": {**line["request"], "data": {"token": "hmac-sha256:f8"}}})
    assert other is not None and other.token == "hmac-sha256:f8"


@pytest.mark.parametrize("kind", ["request", "response"])
def test_a_read_in_a_wrapping_is_told_by_its_request_and_by_its_answer(kind: str) -> None:
    path, wrap = "database/creds/app-ro", {"wrap_info": {"token": "hmac-sha256:f8", "accessor": WRAPPING}}
    asked = seen(entry(path, kind=kind, by=TASK_TOKEN, operation="read", response=wrap, wrap_ttl=60))
    assert asked is not None and asked.detail["wrapped"]
    # a TTL of less than a second shows in the answer alone
    brief = seen(entry(path, kind=kind, by=TASK_TOKEN, operation="read", response=wrap))
    assert brief is not None and ("wrapped" in brief.detail) is (kind == "response")
    plain = seen(entry(path, kind=kind, by=TASK_TOKEN, operation="read"))
    assert plain is not None and "wrapped" not in plain.detail


@pytest.mark.parametrize(
    ("said", "is_open"),
    [
        ({"allowed": True}, True),
        ({"allowed": True, "granting_policies": []}, True),
        ({"allowed": True, "granting_policies": [{"name": POLICY, "namespace_id": "root", "type": "acl"}]}, False),
        ({"allowed": True, "granting_policies": [{}]}, False),
        ({"allowed": False}, False),
        ({}, False),
        (None, False),
    ],
)
@pytest.mark.parametrize("kind", ["request", "response"])
def test_a_path_is_open_to_all_where_vault_allowed_it_by_no_policy(
    kind: str, said: dict[str, Any] | None, is_open: bool
) -> None:
    by = {**TASK_TOKEN, "policy_results": said}
    found = entry("identity/oidc/.well-known/keys", kind=kind, by=by, operation="read", wrap_ttl=1)
    o, skimmed = seen(found), decode_skimmed(skim(iter([json.dumps(found).encode()])), PLACE).observation
    assert o is not None and skimmed is not None
    assert ("open_to_all" in o.detail, "open_to_all" in skimmed.detail) == (is_open, is_open)


def test_what_a_task_token_read_in_a_wrapping_stands_for_it() -> None:
    wrap = {"token": "hmac-sha256:f8", "accessor": WRAPPING, "ttl": 60}
    o = seen(entry("database/creds/app-ro", by=TASK_TOKEN, operation="read", response={"wrap_info": wrap}))
    assert o is not None
    assert (o.kind, o.alias, o.stands_for) == (Kind.USED, "hmac-sha256:f8", AGENT)
    failed = seen(entry("x", by=TASK_TOKEN, response={"wrap_info": wrap, "data": {"error": "hmac-sha256:1"}}))
    assert failed is not None
    assert failed.alias == ""


def test_a_rewrap_says_which_token_is_wrapped_anew() -> None:
    wrap = {"token": "hmac-sha256:f8", "accessor": WRAPPING, "wrapped_accessor": AGENT}
    line = entry(
        "sys/wrapping/rewrap", by=auth(THIRD, "root"), data={"token": "hmac-sha256:f9"}, response={"wrap_info": wrap}
    )
    o = seen(line)
    assert o is not None
    assert (o.kind, o.subject, o.token, o.alias) == (Kind.REWRAPPED, AGENT, "hmac-sha256:f9", "hmac-sha256:f8")
    assert o.stands_for == AGENT
    assert kind_of({**line, "type": "request", "response": None}) == (None, "")


def test_a_token_that_vault_does_not_know_is_named_by_itself() -> None:
    line = entry("kv/data/app", kind="request", by={}, error=DENIED, client_token="hmac-sha256:7a")
    o = seen(line)
    assert o is not None
    assert (o.kind, o.subject, o.actor, o.token) == (Kind.REFUSED, "", "", "hmac-sha256:7a")
    assert seen({**line, "error": ""}) is None
    assert seen({**line, "auth": auth(THIRD, "app")}) is None
    # no token at all was shown
    assert seen(entry("kv/data/app", kind="request", by={}, error=DENIED, client_token="")) is None


@pytest.mark.parametrize("path", ["sys/leases/renew/" + LEASE, "sys/renew/" + LEASE])
def test_a_renewal_names_the_lease(path: str) -> None:
    assert kind_of(entry(path, by=TASK_TOKEN)) == (Kind.RENEWED, LEASE)
    assert kind_of(entry(path, by=TASK_TOKEN, data={"lease_id": LEASE_HMAC})) == (Kind.RENEWED, LEASE_HMAC)


@pytest.mark.parametrize("path", ["sys/leases/renew", "sys/renew", "sys/leases/renew/x"])
def test_the_answer_to_a_renewal_shows_the_lease_however_it_was_named(path: str) -> None:
    named, answer = {"lease_id": LEASE_HMAC}, {"secret": {"lease_id": LEASE}}
    assert kind_of(entry(path, by=auth(THIRD, "default"), data=named, response=answer)) == (Kind.RENEWED, LEASE)
    assert kind_of(entry(path, by=auth(THIRD, "default"), data=named, kind="request")) == (Kind.RENEWED, LEASE_HMAC)


def test_a_renewal_of_a_token_names_its_accessor() -> None:
    for path in ("auth/token/renew-self", "auth/token/renew"):
        assert kind_of(entry(path, by=TASK_TOKEN)) == (Kind.RENEWED, AGENT)
        assert kind_of(entry(path, by=auth(THIRD, "app"))) == (None, "")
    assert kind_of(entry("auth/token/renew-accessor", data={"accessor": AGENT})) == (Kind.RENEWED, AGENT)


def test_a_renewal_that_names_its_token_is_about_whose_token_it_is() -> None:
    named = {"token": "hmac-sha256:f9", "increment": 3600}
    by, inside = auth(THIRD, "root"), auth(AGENT, "jitvault-access-0123456789abcdef")
    answer = seen(entry("auth/token/renew", by=by, data=named, response={"auth": inside}))
    assert answer is not None
    assert (answer.kind, answer.subject, answer.actor, answer.token) == (Kind.RENEWED, AGENT, THIRD, "hmac-sha256:f9")
    assert answer.detail["increment_s"] == 3600
    # the request and a failure show the token alone; whose it is, the lines say that it stands for
    for line in (
        entry("auth/token/renew", by=by, data=named, kind="request"),
        entry("auth/token/renew", by=by, data=named, error="1 error occurred: other"),
        entry("auth/token/renew", by=by, data=named, response={"auth": auth(AGENT, "app")}),
    ):
        o = seen(line)
        assert o is not None and (o.kind, o.subject, o.token) == (Kind.RENEWED, "", "hmac-sha256:f9")
    # a task's token that tries it is denied, and one that Vault does not know is refused
    assert kind_of(entry("auth/token/renew", by=TASK_TOKEN, data=named, error=DENIED)) == (Kind.DENIED, AGENT)
    unknown = entry("auth/token/renew", by={}, data=named, error=DENIED, client_token="hmac-sha256:7a")
    assert kind_of(unknown) == (Kind.REFUSED, "")


OWN = "hmac-sha256:" + "9" * 64
"""The token that sends the request, by its HMAC as `entry` writes it."""


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("auth/token/renew-self", None),
        ("auth/token/renew-self", {"increment": 3600}),
        ("auth/token/lookup-self", None),
        ("auth/token/renew", {"token": OWN}),
        ("auth/token/lookup", {"token": OWN}),
        ("auth/token/renew-accessor", {"accessor": AGENT}),
        ("auth/token/lookup-accessor", {"accessor": AGENT}),
    ],
)
@pytest.mark.parametrize("kind", ["request", "response"])
def test_a_task_token_that_is_denied_a_look_at_itself_is_known_by_its_line(
    path: str, data: dict[str, Any] | None, kind: str
) -> None:
    o = seen(entry(path, by=TASK_TOKEN, data=data, error=DENIED, kind=kind))
    assert o is not None and o.detail["denied"] is o.detail["itself"] is True
    assert o.actor == AGENT
    # of somebody else's token, and where nothing was denied, there is nothing to say
    for other in (
        entry(path, by=auth(THIRD, "app"), data=data, error=DENIED, kind=kind),
        entry(path, by=TASK_TOKEN, data=data, error="1 error occurred:\n\t* internal error\n\n", kind=kind),
    ):
        o = seen(other)
        assert o is None or "itself" not in o.detail


@pytest.mark.parametrize(
    ("path", "data", "sent"),
    [
        ("auth/token/renew", {"token": "hmac-sha256:" + "8" * 64}, OWN),
        ("auth/token/lookup", {"token": "hmac-sha256:" + "8" * 64}, OWN),
        ("auth/token/renew", {}, OWN),
        ("auth/token/renew", {"token": ""}, ""),
        ("auth/token/renew", {"token": "s.plain"}, "s.plain"),
        ("auth/token/renew-accessor", {"accessor": WORKER}, OWN),
        ("auth/token/lookup-accessor", {}, OWN),
        ("auth/token/revoke", {"token": OWN}, OWN),
        ("auth/token/create", None, OWN),
        ("auth/token/renew-self/x", None, OWN),
        ("sys/leases/renew", {"lease_id": LEASE_HMAC}, OWN),
    ],
)
def test_what_is_about_another_token_is_not_about_itself(path: str, data: dict[str, Any] | None, sent: str) -> None:
    o = seen(entry(path, by=TASK_TOKEN, data=data, error=DENIED, client_token=sent))
    assert o is not None and "denied" in o.detail and "itself" not in o.detail


def test_the_answer_of_a_renewal_says_how_long_it_gave_and_its_request_does_not_on_vault() -> None:
    data, given = {"accessor": AGENT, "increment": "hmac-sha256:f1"}, {**auth(AGENT, "default"), "token_ttl": 240}
    answer = seen(entry("auth/token/renew-accessor", data=data, response={"auth": given}))
    request = seen(entry("auth/token/renew-accessor", data=data, kind="request"))
    assert answer is not None and answer.detail == {"ttl_s": 240, "worker": True}
    assert request is not None and request.detail == {"worker": True}


@pytest.mark.parametrize(
    ("increment", "detail"),
    [(120, {"increment_s": 120}), (0, {"increment_s": 0}), ("hmac-sha256:f1", {}), (True, {}), (1.5, {}), (None, {})],
)
def test_a_renewal_shows_its_increment_where_that_is_a_number(increment: object, detail: dict[str, int]) -> None:
    o = seen(entry("auth/token/renew-accessor", data={"accessor": AGENT, "increment": increment}))
    assert o is not None and o.detail == {**detail, "worker": True}


@pytest.mark.parametrize("path", ["jitvault/data/requests/1", "jitvault/data/decisions/1"])
def test_papers_are_seen_when_they_are_written(path: str) -> None:
    assert kind_of(entry(path, operation="create")) == (Kind.WRITTEN, path.partition("/data/")[2])
    assert kind_of(entry(path, operation="update")) == (Kind.WRITTEN, path.partition("/data/")[2])
    for no in (
        entry(path, operation="create", kind="request"),
        entry(path, operation="read"),
        entry(path, operation="create", error=DENIED),
    ):
        assert kind_of(no) == (None, "")


@pytest.mark.parametrize(
    ("here", "there", "path", "kind"),
    [
        ("", "", "sys/leases/revoke/x", Kind.LEASE_REVOKED),
        ("", "team/", "sys/leases/revoke/x", None),
        ("", "team/", "sys/mounts/database", None),
        ("team", "", "sys/leases/revoke/x", None),
        ("team", "team/", "sys/leases/revoke/x", Kind.LEASE_REVOKED),
        ("team/a", "team/", "sys/leases/revoke/x", None),
        # what happens above can concern what is below
        ("team", "", "sys/mounts/database", Kind.HAZARD),
        ("team/a", "team/", "sys/mounts/database", Kind.HAZARD),
        ("team/a", "team/ab/", "sys/mounts/database", None),
        ("team/a", "tea/", "sys/mounts/database", None),
    ],
)
def test_a_line_counts_in_its_namespace(here: str, there: str, path: str, kind: Kind | None) -> None:
    line = entry(path, by=auth(THIRD, "root"), namespace={"id": "x", "path": there})
    found = decode(json.dumps(line).encode(), PLACE, namespace=here)
    assert (found.kind if found else None) is kind


def test_a_lease_is_linked_to_the_token_that_read_it() -> None:
    o = seen(ISSUED)
    assert o is not None
    assert (o.kind, o.subject, o.actor, o.failed) == (Kind.LEASE_ISSUED, LEASE, AGENT, False)
    assert o.detail == {"target_name": "v-token-ro-1", "entity": "e-agent"}


def test_a_lease_of_anybody_else_is_not_ours() -> None:
    assert kind_of({**ISSUED, "auth": auth(THIRD, "app-policy")}) == (None, "")


def test_other_acts_of_a_task_token() -> None:
    read = entry("kv/data/app", by=TASK_TOKEN, operation="read", response={"data": {"x": "hmac-sha256:1"}})
    assert kind_of(read) == (Kind.USED, AGENT)
    assert kind_of(entry("database/creds/app-ro", kind="request", by=TASK_TOKEN, operation="read")) == (
        Kind.USED,
        AGENT,
    )
    assert kind_of(entry("auth/token/revoke-self", by=TASK_TOKEN)) == (Kind.TOKEN_REVOKED, AGENT)
    refused = {"data": {"error": "hmac-sha256:85"}}
    for kind in ("request", "response"):
        line = entry("database/creds/other", kind=kind, by=TASK_TOKEN, error=DENIED, response=refused)
        o = seen(line)
        assert o is not None
        assert (o.kind, o.subject, o.failed) == (Kind.DENIED, AGENT, True)


def test_a_failure_of_an_engine_that_speaks_of_permissions_is_no_denial() -> None:
    words = "1 error occurred:\n\t* ERROR: permission denied for schema app (SQLSTATE 42501)\n\n"
    o = seen(entry("database/creds/app-ro", by=TASK_TOKEN, operation="read", error=words))
    assert o is not None
    assert (o.kind, o.failed, "denied" in o.detail) == (Kind.USED, True, False)


@pytest.mark.parametrize(
    "error",
    ["permission denied", DENIED, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"],
)
def test_the_ways_in_which_vault_refuses(error: str) -> None:
    o = seen(entry("kv/data/app", by=TASK_TOKEN, error=error))
    assert o is not None
    assert o.kind is Kind.DENIED
    assert o.detail["denied"] is True


# -- the end of a lease and of a token --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["sys/leases/revoke/" + LEASE, "sys/revoke/" + LEASE])
def test_a_revocation_by_path_names_the_lease(path: str) -> None:
    assert kind_of(entry(path, data={"sync": True})) == (Kind.LEASE_REVOKED, LEASE)


@pytest.mark.parametrize(
    "path",
    ["sys/leases/revoke", "sys/revoke", "sys/leases/revoke/database/creds/app-ro/another", "sys/leases/revoke/"],
)
@pytest.mark.parametrize(("said", "named"), [(LEASE_HMAC, LEASE_HMAC), (5, "")])
def test_a_lease_id_in_the_body_overrides_the_path(path: str, said: object, named: str) -> None:
    """So does what is no text, and names nobody."""
    line = entry(path, data={"lease_id": said, "sync": True})
    assert kind_of(line) == (Kind.LEASE_REVOKED, named)


def test_a_lookup_names_the_lease_by_its_hmac() -> None:
    gone = entry(
        "sys/leases/lookup",
        data={"lease_id": LEASE_HMAC},
        op=OP,
        error="1 error occurred:\n\t* invalid request\n\n",
        response={"data": {"error": "hmac-sha256:9c"}},
    )
    o = seen(gone)
    assert o is not None
    # OpenBao shows the reason only as an HMAC
    assert (o.kind, o.subject, o.failed, o.error) == (Kind.LEASE_LOOKUP, LEASE_HMAC, True, "hmac-sha256:9c")
    plain = seen(entry("sys/leases/lookup", data={"lease_id": LEASE_HMAC}, error="invalid lease"))
    assert plain is not None
    assert (plain.failed, plain.error) == (True, "invalid lease")
    live = seen(entry("sys/leases/lookup", data={"lease_id": LEASE_HMAC}, response={"data": {"ttl": 0}}))
    assert live is not None
    assert (live.failed, live.error) == (False, "")


def test_a_token_is_revoked_and_looked_up_by_the_hmac_of_its_accessor() -> None:
    for path, kind in [
        ("auth/token/revoke-accessor", Kind.TOKEN_REVOKED),
        ("auth/token/lookup-accessor", Kind.TOKEN_LOOKUP),
    ]:
        assert kind_of(entry(path, data={"accessor": AGENT}, op=OP)) == (kind, AGENT)


@pytest.mark.parametrize(("uses", "begun"), [(-1, True), (0, False), (3, False), ("-1", False), (None, False)])
def test_a_look_up_shows_that_a_tokens_revocation_has_begun(uses: Any, begun: bool) -> None:
    found = seen(entry("auth/token/lookup-accessor", data={"accessor": AGENT}, response={"data": {"num_uses": uses}}))
    assert found is not None and found.detail.get("revocation_begun", False) is begun


def test_the_warning_that_there_was_no_token_is_kept() -> None:
    warned = {"warnings": ["No token found with this accessor"]}
    o = seen(entry("auth/token/revoke-accessor", data={"accessor": AGENT}, response=warned))
    assert o is not None
    assert (o.failed, o.detail["warnings"]) == (False, ["No token found with this accessor"])


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ({}, "1 error occurred:\n\t* invalid request\n\n"),
        ({"data": {"error": "hmac-sha256:7e"}}, "1 error occurred:\n\t* invalid request\n\n"),
        # some failures show only here, and some say nothing but that it was accepted
        ({"data": {"error": "hmac-sha256:7e"}}, ""),
        ({"data": {"error": ""}}, ""),
        ({"data": {"error": None}}, ""),
        ({"data": {"http_content_type": "hmac-sha256:db", "http_status_code": 202}}, ""),
    ],
)
def test_a_line_that_shows_an_error_or_a_mere_acceptance_failed(response: dict[str, Any], error: str) -> None:
    o = seen(entry("sys/leases/revoke/" + LEASE, response=response, error=error))
    assert o is not None
    assert o.failed


@pytest.mark.parametrize("data", [{}, {"http_status_code": 204}, {"http_status_code": 200}, {"errors": 0}])
def test_a_line_without_either_did_not_fail(data: dict[str, Any]) -> None:
    o = seen(entry("sys/leases/revoke/" + LEASE, response={"data": data}))
    assert o is not None
    assert not o.failed


# -- hazards ----------------------------------------------------------------------------------------------

HAZARDS = [
    "sys/leases/tidy",
    "sys/leases/revoke-force/database/creds/app-ro",
    "sys/revoke-force/database",
    "sys/leases/revoke-prefix/database/creds/app-ro",
    "sys/revoke-prefix/database",
    "sys/mounts/database",
    "sys/mounts/database/tune",
    "sys/remount",
    "sys/audit/jitvault",
    "sys/audit/test",
    "auth/token/tidy",
    "database/config/app",
    "database/roles/app-ro",
    "database/reset/app",
    "database/rotate-root/app",
    "database/rotate-role/app",
    "team/a/database/config/app",
    "aws/config/root",
    "pki/root",
    "pki/root/replace",
    "pki/root/rotate/internal",
    "pki/root/generate/internal",
    "pki/issuer/default",
    "pki/issuers/import/bundle",
    "pki/issuers/generate/root/internal",
    "pki/intermediate/set-signed",
    "pki/config/crl",
    "team/pki/issuer/default",
    # an issuer's name hides nothing, nor does what stands after a change
    "pki/issuer/cert/",
    "pki/issuer/ocsp",
    "pki/roles/cert/x",
    "database/config/ocsp/x",
    "pki/root/rotate/cert/x",
    "pki//cert/config",
    "cert/config/app",
]

# what docs/vault-facts.md, "Certificates", measured to leave a revocation as it was; a role may have any name
HARMLESS = [
    "pki/tidy",
    "pki/revoke",
    "pki/crl/rotate",
    "pki/issuer/default/revoke",
    "pki/issuer/default/issue/root",
    "pki/root/sign-intermediate",
    "pki/issue/config",
    "pki/issue/root",
    "pki/issue/reset",
    "pki/sign/web",
]


# what PKI answers to any token, measured in docs/vault-facts.md, "Audit entries"
ANSWERED_TO_ANYBODY = [
    "pki/ocsp/roles/x",
    "pki/unified-ocsp/config/x",
    "pki/cert/config",
    "pki/cert/config/x",
    "team/pki/cert/roles/raw",
    f"pki/cert/{'a' * 5000}",
    "pki/issuer/config/json",
    "pki/issuer/roles/der",
    "pki/issuer/reset/pem",
    "pki/issuer/config/crl",
    "pki/issuer/config/crl/delta/der",
    "pki/issuer/config/unified-crl/delta/pem",
    f"pki/issuer/{'a' * 5000}/json",
]


@pytest.mark.parametrize("path", ANSWERED_TO_ANYBODY)
def test_what_any_token_may_ask_is_no_hazard(path: str) -> None:
    assert kind_of(entry(path, by=auth(THIRD, "default"), operation="update")) == (None, "")


@pytest.mark.parametrize("path", HAZARDS)
def test_a_write_that_can_falsify_a_revocation_is_a_hazard_and_a_read_is_none(path: str) -> None:
    root = auth(THIRD, "root")
    for operation in ("create", "update", "delete", "patch", ""):
        for kind in ("request", "response"):
            found = kind_of(entry(path, by=root, operation=operation, kind=kind))
            assert found == (Kind.HAZARD, ""), (operation, kind)
    for operation in ("read", "list", "help"):
        assert kind_of(entry(path, by=root, operation=operation)) == (None, ""), operation


@pytest.mark.parametrize("path", HARMLESS)
def test_what_leaves_a_revocation_as_it_was_is_no_hazard(path: str) -> None:
    assert kind_of(entry(path, by=auth(THIRD, "root"), operation="update")) == (None, "")
    issued = entry(path, by=TASK_TOKEN, operation="update", response={"secret": {"lease_id": LEASE}})
    assert kind_of(issued) == (Kind.LEASE_ISSUED, LEASE)


def test_the_line_of_a_new_audit_device_is_a_hazard() -> None:
    # all that a device writes when it is made: no accessor, no response
    line = entry("sys/audit/test", kind="request", by={"token_type": "default"})
    assert kind_of(line) == (Kind.HAZARD, "")


@pytest.mark.parametrize("error", ["", "1 error occurred:\n\t* internal error\n\n"])
def test_a_hazard_counts_even_if_it_failed_half_way(error: str) -> None:
    assert kind_of(entry("database/config/app", by=auth(THIRD, "root"), error=error)) == (Kind.HAZARD, "")
    half = "1 error occurred:\n\t* ERROR: permission denied to alter role (SQLSTATE 42501)\n\n"
    assert kind_of(entry("database/rotate-root/app", by=auth(THIRD, "root"), error=half)) == (Kind.HAZARD, "")


def test_a_hazard_that_was_refused_did_nothing() -> None:
    # else whoever has a token at all could keep every task from being confirmed
    assert kind_of(entry("sys/leases/tidy", by=auth(THIRD, "app"), error=DENIED)) == (None, "")
    assert kind_of(entry("sys/leases/tidy", by=TASK_TOKEN, error=DENIED)) == (Kind.DENIED, AGENT)


def test_a_task_policy_beside_another_hides_no_hazard() -> None:
    both = auth(THIRD, POLICY, "admin")
    assert kind_of(entry("sys/leases/tidy", by=both)) == (Kind.HAZARD, "")


@pytest.mark.parametrize(
    "path",
    [
        "database/creds/app-ro",
        "database/configuration/x",
        "sys/policies/acl/config",
        "sys/config/auditing/request-headers/X-Jitvault-Op",
        "auth/jwt/config",
        "identity/entity/roles/x",
        "jitvault/data/config/x",
        "jitvault-inbox/data/e/config",
        "jitvault-transit/config/keys",
        "sys/mount",
    ],
)
def test_what_is_no_hazard(path: str) -> None:
    assert kind_of(entry(path, by=auth(THIRD, "root"))) == (None, "")


# -- forgeries --------------------------------------------------------------------------------------------


def test_neither_metadata_nor_a_name_nor_a_header_identifies_anybody() -> None:
    forged = auth(
        THIRD,
        "app-policy",
        metadata={"task": "t-1", "grant": "g-1", "installation": "i-1"},
        display_name="jitvault-worker",
        entity_id="e-agent",
    )
    line = entry(
        "database/creds/app-ro",
        by=forged,
        operation="read",
        response={"secret": {"lease_id": LEASE}, "auth": auth(AGENT, POLICY)},
        op=OP,
    )
    o = seen(line)
    assert o is not None
    # the header is kept to be shown; whose it is says the accessor alone
    assert (o.kind, o.subject, o.actor, o.op) == (Kind.OWN, "", THIRD, OP)


@pytest.mark.parametrize("part", ["data", "metadata", "delete", "undelete", "destroy"])
@pytest.mark.parametrize("document", ["tasks/t-1", "inbox/e/t-1", "templates"])
def test_whatever_the_worker_writes_or_takes_away_of_its_own_documents_is_seen(part: str, document: str) -> None:
    path, worker = vault_path(part, document), auth(THIRD, "jitvault-worker")
    for operation in ("create", "update", "patch", "delete"):
        assert kind_of(entry(path, by=worker, operation=operation)) == (Kind.OWN, document)
        # an agent empties its inbox
        assert kind_of(entry(path, by=auth(AGENT, "jitvault-agent"), operation=operation)) == (None, "")
    assert kind_of(entry(path, by=worker, operation="read")) == (None, "")


def test_the_clients_word_for_its_accessor_is_not_taken() -> None:
    line = entry("kv/data/app", by=auth(THIRD, "app-policy"), client_token_accessor=AGENT, op=OP)
    o = seen(line)
    assert o is not None
    assert (o.actor, o.subject) == (THIRD, "")


@pytest.mark.parametrize(
    "policy", ["xjitvault-access-0", "jitvault-acces", "Jitvault-access-0", "", " jitvault-access-0"]
)
def test_a_policy_that_only_looks_like_ours_makes_no_task_token(policy: str) -> None:
    assert kind_of({**ISSUED, "auth": auth(THIRD, policy)}) == (None, "")


def test_a_line_without_a_header_of_ours_is_nothing() -> None:
    assert kind_of(entry("kv/data/app", by=auth(THIRD, "app-policy"))) == (None, "")
    line = entry("kv/data/app", by=auth(THIRD, "app-policy"), headers={"x-jitvault-op": []})
    assert kind_of(line) == (None, "")
    other = entry("kv/data/app", by=auth(THIRD, "app-policy"), headers={"user-agent": [OP]})
    assert kind_of(other) == (None, "")


@given(st.text(min_size=65, max_size=300))
def test_a_header_is_cut_to_what_an_operation_id_can_be(header: str) -> None:
    o = seen(entry("kv/data/app", by=auth(THIRD, "app-policy"), op=header))
    assert o is not None
    assert o.op == header[:64]


@pytest.mark.parametrize("wrong", [None, 5, ["x"], {"lease_id": "x"}])
@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("sys/leases/lookup", "lease_id"),
        ("auth/token/revoke-accessor", "accessor"),
        ("sys/audit-hash/jitvault", "input"),
        ("sys/leases/revoke", "lease_id"),
    ],
)
def test_a_subject_that_is_no_text_names_nobody(path: str, key: str, wrong: object) -> None:
    assert kind_of(entry(path, data={key: wrong}))[1] == ""


def test_an_entry_without_request_or_auth_is_nothing() -> None:
    assert kind_of({"time": "2026-11-24T15:43:07Z", "type": "request"}) == (None, "")
    found = {"time": "2026-11-24T15:43:07Z", "type": "response", "auth": None, "request": {"path": "x"}}
    assert kind_of(found) == (None, "")


def test_an_offset_of_the_time_is_understood() -> None:
    o = seen({**ISSUED, "time": "2026-11-24T17:43:07+02:00"})
    assert o is not None
    assert o.at == datetime(2026, 11, 24, 15, 43, 7, tzinfo=UTC)
    assert o.at.tzinfo is UTC


def test_no_secret_of_a_line_is_kept() -> None:
    o = seen(ISSUED)
    assert "hmac-sha256:77" not in repr(o)


def test_long_warnings_are_cut() -> None:
    o = seen(entry("auth/token/revoke-accessor", data={"accessor": AGENT}, response={"warnings": ["w" * 999] * 9}))
    assert o is not None
    assert o.detail["warnings"] == ["w" * 199 + "…"] * 3


def test_long_texts_of_an_audit_line_are_cut_with_a_mark_that_tells_them_apart() -> None:
    long = dict.fromkeys(("id", "client_token", "remote_address"), "a" * 100_000)
    found = entry("a/" * 50_000, by=auth("b" * 99, POLICY), operation="read", error="x" * 100_000, **long)
    o = seen(found)
    assert o is not None
    lengths = {name: len(getattr(o, name)) for name in ("request_id", "path", "actor", "remote", "error", "subject")}
    assert lengths == {"request_id": 64, "path": 1024, "actor": 80, "remote": 64, "error": 255, "subject": 99}
    assert [f"(cut: {n}, " in text for n, text in ((100_000, o.path), (100_000, o.error), (99, o.actor))] == [True] * 3
    # what differs beyond the cut is another text all the same
    other = seen({**found, "error": "x" * 100_000 + "y"})
    assert other is not None
    assert other.error != o.error


@pytest.mark.parametrize(("path", "kind"), [("pki/" + "a" * 5000, Kind.HAZARD), ("cubbyhole/" + "a" * 5000, None)])
def test_a_write_to_a_path_that_is_too_long_to_be_looked_at_is_a_hazard_where_it_could_be_one(
    path: str, kind: Kind | None
) -> None:
    assert kind_of(entry(path, operation="update"))[0] is kind
    assert kind_of(entry(path, operation="read"))[0] is None


@pytest.mark.parametrize(
    "path",
    [
        "auth/token/create/jitvault-15m",
        "auth/token/revoke-self",
        "auth/token/revoke-accessor",
        "sys/leases/revoke/database/creds/app/x",
        "sys/leases/renew/database/creds/app/x",
        "sys/wrapping/unwrap",
        "cubbyhole/response",
        "sys/audit-hash/jitvault",
        "sys/leases/tidy",
        "database/config/app",
    ],
)
@pytest.mark.parametrize("by", [auth(THIRD, "default"), TASK_TOKEN], ids=["anybody", "a task token"])
def test_whoever_asks_what_a_path_is_for_has_done_nothing(path: str, by: dict[str, Any]) -> None:
    """Vault answers `?help=1` for most paths whoever asks: nobody may freeze everything or end a task by it."""
    said = {"data": {"help": "hmac-sha256:cc"}}
    assert kind_of(entry(path, by=by, operation="help", response=said)) == (None, "")
    assert kind_of(entry(path, by=by, operation="help", kind="request")) == (None, "")


def test_a_task_token_that_may_not_even_ask_is_denied() -> None:
    assert kind_of(entry("sys/leases/tidy", by=TASK_TOKEN, operation="help", error=DENIED)) == (Kind.DENIED, AGENT)


def test_what_the_worker_did_is_known_by_its_policy_and_its_tokens_by_the_ids_in_their_metadata() -> None:
    """A client chooses metadata and headers; its policies Vault knows."""
    meta = {"jitvault_task": "hmac-sha256:t", "jitvault_grant": "hmac-sha256:g", "jitvault_agent": "hmac-sha256:a"}
    create = "auth/token/create/jitvault-15m"
    own = seen(entry(create, by=auth(WORKER, "jitvault-worker"), data={"meta": meta}))
    named = {"worker": True, "task": "hmac-sha256:t", "grant": "hmac-sha256:g"}
    assert own is not None and own.detail.items() >= named.items()
    other = seen(entry(create, by=auth(AGENT, "root"), data={"meta": meta}))
    assert other is not None and not named.keys() & other.detail.keys()
    bare = seen(entry(create, by=auth(WORKER, "jitvault-worker"), data={"meta": "no map"}))
    assert bare is not None and not bare.detail.keys() & {"task", "grant"}
    sent = seen(entry("sys/audit-hash/jitvault", by=auth(WORKER, "jitvault-worker"), data={"input": "hmac-sha256:n"}))
    assert sent is not None and sent.detail == {"worker": True}
    revoked = seen(entry("sys/leases/revoke/" + LEASE, by=auth(WORKER, "jitvault-worker")))
    assert revoked is not None and revoked.detail == {}


def test_what_a_create_asked_for_stands_in_its_observation_and_is_bounded() -> None:
    create = "auth/token/create/jitvault-15m"
    data = {"policies": ["hmac-sha256:p"] * 65, "ttl": "hmac-sha256:t", "meta": {}, "period": 60, "x" * 500: 1}
    line = entry(create, data=data)
    line["request"]["wrap_ttl"] = 60
    o = seen(line)
    assert o is not None
    asked = o.detail["asked"]
    assert (asked["policies"], asked["ttl"], asked["wrap_ttl_s"]) == (["65 of them"], "hmac-sha256:t", 60)
    assert [name[:6] for name in asked["also"]] == ["period", "xxxxxx"]
    assert len(asked["also"][1]) < 100
