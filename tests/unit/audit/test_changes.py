"""Which lines may change which facts: every write has the place of what can be read there."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from jitvault.audit.changes import EVERYTHING, Change, change_of, may_change, places_of
from jitvault.audit.decoding.decoder import scan
from jitvault.audit.entry import Entry
from jitvault.audit.observation import Place

WRITER = {"accessor": "hmac-sha256:a", "policies": ["default"], "entity_id": "e-9"}
ENTITY, POLICIES, ROLES, KEYS = "identity/", "sys/policies/", "auth/token/roles/", "jitvault-transit/"
TIME = "2030-01-31T09:00:00Z"


def line(path: str, operation: str = "update", kind: str = "response", **more: Any) -> dict[str, Any]:
    request = {"id": "r-1", "operation": operation, "path": path, **more.pop("request", {})}
    return {"time": TIME, "type": kind, "auth": WRITER, "request": request, **more}


def change(found: dict[str, Any], namespace: str = "") -> Change | None:
    """What a line may change, by the whole decoder: what that leaves out undecoded changes nothing."""
    raw = json.dumps(found).encode() + b"\n"
    scanned = scan(raw, Place("file", 1, 0), namespace=namespace)
    assert scanned.bad is None
    (by_itself,) = scanned.changes or (None,)
    assert by_itself == change_of(msgspec.json.decode(raw, type=Entry), namespace)
    return by_itself


def places(found: dict[str, Any], namespace: str = "") -> tuple[str, ...]:
    one = change(found, namespace)
    return one.places if one else ()


def test_a_change_says_which_request_it_is_of_and_whether_it_was_answered() -> None:
    assert change(line("identity/entity")) == Change((ENTITY,), "r-1", closing=True)
    assert change(line("identity/entity", kind="request")) == Change((ENTITY,), "r-1", closing=False)


@pytest.mark.parametrize("operation", ["create", "update", "patch", "delete", "recover"])
@pytest.mark.parametrize(
    ("path", "place"),
    [
        *((f"identity/{path}", ENTITY) for path in ("entity", "entity/id/e", "entity/name/n", "entity/merge")),
        *((f"identity/{path}", ENTITY) for path in ("entity/batch-delete", "entity-alias/id/a", "alias", "persona")),
        *((f"identity/{path}", ENTITY) for path in ("group", "group/id/g", "group/name/g", "group-alias/id/a")),
        ("sys/policies/acl/p", POLICIES),
        ("sys/policy/p", POLICIES),
        ("auth/token/roles/jitvault-15m", ROLES),
        *((f"jitvault-transit/{path}", KEYS) for path in ("keys/k", "keys/k/rotate", "keys/k/config", "restore/k")),
        ("database/config/app", "database/"),
        ("database/roles/r", "database/"),
        ("database/reset/app", "database/"),
        ("database/rotate-root/app", "database/"),
        ("team/pki/roles/r", "team/"),
        ("pki/config/issuers", "pki/"),
        ("jitvault/config", EVERYTHING),
        *((f"sys/{path}", EVERYTHING) for path in ("mounts/x", "mounts/x/tune", "remount", "auth/x", "auth/x/tune")),
        *((f"sys/{path}", EVERYTHING) for path in ("audit/file", "namespaces/n", "seal", "step-down", "raw/x")),
        *((f"sys/{path}", EVERYTHING) for path in ("storage/raft/snapshot-force", "plugins/reload/backend", "new")),
    ],
)
def test_a_write_changes_what_is_read_at_its_place(path: str, place: str, operation: str) -> None:
    assert places(line(path, operation)) == (place,)
    assert places(line(path, operation, kind="request")) == (place,)
    assert may_change(path, operation)


@pytest.mark.parametrize("path", ["freezes/e/all", "checks/t", "requests/e/t-1/end", "config"])
@pytest.mark.parametrize("part", ["data", "metadata", "delete", "undelete", "destroy", "subkeys", "new"])
def test_a_write_changes_a_document_and_each_list_above_it(path: str, part: str) -> None:
    above = ["/".join(path.split("/")[:n]) + "/" for n in range(path.count("/") + 1)]
    expected = {f"jitvault/{path}", *(f"jitvault/{folder.lstrip('/')}" for folder in above)}
    for written in (path, f"{path}/"):
        assert set(places(line(f"jitvault/{part}/{written}", "update"))) == expected
        assert may_change(f"jitvault/{part}/{written}", "delete")


@pytest.mark.parametrize(
    "path",
    [
        *("sys/audit-hash/file", "sys/wrapping/unwrap", "sys/leases/revoke", "sys/capabilities-self", "sys/tools/hash"),
        *("identity/lookup/entity", "identity/oidc/introspect", "auth/token/create/jitvault-15m", "auth/token/lookup"),
        *("auth/userpass/users/u", "auth/token/revoke-accessor", "cubbyhole/x", "database/creds/r", "pki/issue/r"),
        *("jitvault-transit/sign/k", "jitvault-transit/verify/k", "jitvault-inbox/data/e/t"),
    ],
)
def test_what_is_no_fact_changes_nothing(path: str) -> None:
    assert places(line(path)) == places(line(path, kind="request")) == ()


@pytest.mark.parametrize("operation", ["read", "list", "help"])
@pytest.mark.parametrize(
    "path", ["identity/entity/id/e", "sys/mounts", "database/config/app", "jitvault/data/checks/t"]
)
def test_a_read_changes_nothing(path: str, operation: str) -> None:
    assert places(line(path, operation)) == ()


def test_what_vault_refused_changes_nothing_and_what_failed_may_have() -> None:
    denied = "1 error occurred:\n\t* permission denied\n\n"
    for kind in ("request", "response"):
        assert places(line("sys/mounts/x", kind=kind, error=denied)) == ()
        assert places(line("sys/mounts/x", kind=kind, error="bad")) == (EVERYTHING,)


def test_nobody_changes_anything_without_a_token_but_the_server_itself() -> None:
    for who in (None, {}):
        assert places(line("sys/mounts/x", auth=who)) == places(line("identity/entity", auth=who)) == ()
        assert places(line("sys/audit/file", auth=who)) == (EVERYTHING,)
    assert places(line("sys/mounts/x", auth={"policies": ["batch"]})) == (EVERYTHING,)


def test_writes_elsewhere_are_of_another_tenant_and_those_above_are_not() -> None:
    def there(path: str) -> dict[str, Any]:
        return line("identity/entity", request={"namespace": {"id": "n", "path": path}})

    for path, counts in (("", True), ("a/", True), ("a/b/", True), ("a/b/c/", False), ("ab/", False), ("z/", False)):
        assert bool(places(there(path), "a/b")) == counts
    assert not places(there("a/"), "")


# -- logins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        *(("auth/jwt/login", "update"), ("auth/oidc/oidc/callback", "read"), ("auth/x/login/me", "create")),
        *(("sys/mfa/validate", "update"), ("auth/token/renew-self", "update"), ("auth/token/renew", "update")),
    ],
)
def test_a_login_changes_the_external_groups_of_its_own_entity(path: str, operation: str) -> None:
    who = {"accessor": "hmac-sha256:b", "entity_id": "e-1"}
    expected = ("identity/ of external groups", "identity/entity/id/e-1")
    assert places(line(path, operation, auth=None, response={"auth": who})) == expected
    assert places(line(path, operation, auth=None, response={"auth": {"entity_id": "e-1"}})) == expected
    assert places(line(path, operation, auth=None, response={})) == ()
    assert places(line(path, operation, auth=None, kind="request")) == ()


def test_a_wrapped_login_may_be_anyones_and_a_tasks_renewal_is_no_login() -> None:
    wrapped = {"wrap_info": {"token": "hmac-sha256:t", "wrapped_accessor": "hmac-sha256:w"}}
    assert places(line("auth/jwt/login", auth=None, response=wrapped)) == (ENTITY,)
    task = {"accessor": "hmac-sha256:b", "entity_id": "e-1", "policies": ["jitvault-access-1"]}
    assert places(line("auth/token/renew-accessor", response={"auth": task})) == ()
    assert places(line("auth/token/create/jitvault-15m", response=wrapped)) == ()


# -- facts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "data", "place"),
    [
        ("sys/policies/acl/p", {}, POLICIES),
        ("auth/token/roles/r", {}, ROLES),
        ("jitvault-transit/keys/k", {}, KEYS),
        ("database/roles/r", {}, "database/"),
        ("database/config/app", {}, "database/"),
        ("team/pki/roles/r", {}, "team/"),
        ("jitvault/metadata/freezes/", {"keys": ["a/"]}, "jitvault/freezes/"),
        ("jitvault/metadata/freezes/e/", {"keys": ["a"]}, "jitvault/freezes/e/"),
        ("jitvault/metadata/", {"keys": ["freezes/"]}, "jitvault/"),
        ("jitvault/metadata/decisions/", {"keys": ["e/"]}, "jitvault/decisions/"),
        (
            "jitvault/data/requests/e/t/end",
            {"data": {}, "metadata": {"deletion_time": ""}},
            "jitvault/requests/e/t/end",
        ),
        ("jitvault/data/tasks/t", {"data": {}, "metadata": {"deletion_time": ""}}, "jitvault/tasks/t"),
    ],
)
def test_a_fact_has_the_place_of_the_writes_that_change_it(path: str, data: dict[str, Any], place: str) -> None:
    assert places_of(path, {"data": data}) == (EVERYTHING, place)


@pytest.mark.parametrize(
    "path",
    [
        *("jitvault/data/decisions/e/t", "jitvault/metadata/decisions/e/", "jitvault/metadata/requests/e"),
        *("jitvault/metadata/decisions/e/t", "jitvault/metadata/tasks/t", "sys/health"),
        *("auth/token/lookup-self", "sys/leases/lookup/x", "database/creds/r", "sys/auth", "identity/entity/id"),
        *("jitvault-inbox/data/e/t", "pki/cert/ca", "auth/token/roles"),
    ],
)
def test_what_is_no_fact_is_not_kept(path: str) -> None:
    assert places_of(path, {"data": {"data": {}, "metadata": {"deletion_time": ""}}}) == ()


def test_that_a_document_is_not_there_is_a_fact_and_that_an_entity_is_not_is_none() -> None:
    assert places_of("jitvault/data/requests/e/t/end", None) == (EVERYTHING, "jitvault/requests/e/t/end")
    assert places_of("jitvault/metadata/decisions/", None) == (EVERYTHING, "jitvault/decisions/")
    for path in ("jitvault/data/decisions/e/t", "identity/entity/name/otto", "database/roles/r", "sys/policies/acl/p"):
        assert places_of(path, None) == ()


def test_what_ends_by_time_alone_is_not_kept() -> None:
    ends = {"data": {}, "metadata": {"deletion_time": "2031-01-31T09:00:00Z"}}
    assert places_of("jitvault/data/checks/t", {"data": ends}) == ()


def test_an_entity_depends_on_its_own_logins_and_a_group_on_all_if_it_is_external() -> None:
    for path in ("identity/entity/id/e-1", "identity/entity/name/otto"):
        assert places_of(path, {"data": {"id": "e-1"}}) == (EVERYTHING, ENTITY, "identity/entity/id/e-1")
    group = "identity/group/name/g"
    assert places_of(group, {"data": {"type": "internal"}}) == (EVERYTHING, ENTITY)
    for data in ({"type": "external"}, {}):
        assert places_of(group, {"data": data}) == (EVERYTHING, ENTITY, "identity/ of external groups")
