"""What Vault itself lets each role do, tried with real logins against the policies that `init` wrote.

A 403 is Vault's ACL. Every other answer, a 404 too, means that the ACL let the request through.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from copied_world import copied_world

from jitvault.formats.secret import Secret
from jitvault.model.vault_access import access_policy
from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault

PEOPLE = {
    "operator": "operator",
    "approver": "approver-1",
    "agent": "research-agent",
    "auditor": "auditor",
}
ACCESS = access_policy("database/creds/app-readonly").name
INPUT = {"input": base64.b64encode(b"a document").decode()}
DOCUMENT = {"data": {"any": "thing"}}
CREATE = {"policies": [ACCESS], "meta": {"jitvault_task": "t"}, "ttl": "60s"}


@dataclass(frozen=True)
class Caller:
    """Somebody with a token; answers with whole HTTP responses."""

    address: str
    token: str

    def __call__(self, method: str, path: str, body: object = None, **kwargs: Any) -> requests.Response:
        headers = {"X-Vault-Token": self.token, **kwargs.pop("headers", {})}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method, f"{self.address}/v1/{path}", json=body, headers=headers, timeout=10, **kwargs
            )

    def wrapped(self, path: str, body: object, ttl: str = "60s") -> requests.Response:
        return self("PUT", path, body, headers={"X-Vault-Wrap-TTL": ttl})


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with copied_world() as made:
        admin = Vault(Connection(made.address), made.admin_token)
        ids = made.entity_ids
        for name in ("operator", "operator-2", "approver-1", "approver-2", "research-agent", "auditor"):
            admin.write(f"jitvault/data/requests/{ids[name]}/seeded/submit", DOCUMENT)
            admin.write(f"jitvault/data/decisions/{ids[name]}/seeded", DOCUMENT)
            admin.write(f"jitvault-inbox/data/{ids[name]}/seeded", DOCUMENT)
        admin.write("jitvault/data/tasks/seeded", DOCUMENT)
        # an access that no template gives
        role = (admin.read("database/roles/app-readonly") or {})["data"]
        admin.write("database/roles/other", role)
        admin.write("database/config/app", {"allowed_roles": ["app-readonly", "app-readwrite", "other"]})
        yield made


@pytest.fixture(scope="module")
def admin(world: World) -> Caller:
    return Caller(world.address, world.admin_token.reveal())


@pytest.fixture(scope="module")
def worker(world: World) -> Caller:
    return Caller(world.address, world.worker_token.reveal())


def caller(world: World, role: str) -> Caller:
    tokens: dict[str, Secret] = {
        "worker": world.worker_token,
        "operator": world.operator_token,
        "operator-2": world.operator_2_token,
        "approver": world.approver_1_token,
        "agent": world.agent_token,
        "auditor": world.auditor_token,
    }
    return Caller(world.address, tokens[role].reveal())


def filled(world: World, role: str, path: str) -> str:
    """`path` with the caller's own entity id, another person's, and the approver's."""
    ids = world.entity_ids
    own = ids[PEOPLE.get(role, role)]
    other = ids["approver-2" if role == "approver" else "operator-2"]
    return path.format(own=own, other=other, operator=ids["operator"], approver=ids["approver-1"])


def lease(admin: Caller, role: str) -> str:
    return str(admin("GET", f"database/creds/{role}").json()["lease_id"])


def is_live(admin: Caller, lease_id: str) -> bool:
    return admin("PUT", "sys/leases/lookup", {"lease_id": lease_id}).status_code == 200


ALLOWED = [
    # the worker
    ("worker", "LIST", "auth/token/roles", None),
    ("worker", "GET", "auth/token/roles/jitvault-1h-loopback", None),
    ("worker", "GET", "auth/token/lookup-self", None),
    ("worker", "PUT", "auth/token/renew-self", {}),
    ("worker", "PUT", "sys/audit-hash/jitvault", {"input": "canary"}),
    ("worker", "GET", f"sys/policies/acl/{ACCESS}", None),
    ("worker", "GET", "identity/entity/id/{operator}", None),
    ("worker", "GET", "identity/entity/name/operator", None),
    ("worker", "GET", "identity/group/name/jitvault-approvers", None),
    ("worker", "LIST", "jitvault/metadata/requests", None),
    ("worker", "LIST", "jitvault/metadata/requests/", None),
    ("worker", "LIST", "jitvault/metadata/requests/{operator}", None),
    ("worker", "LIST", "jitvault/metadata/requests/{operator}/seeded/", None),
    ("worker", "GET", "jitvault/data/requests/{operator}/seeded/submit", None),
    ("worker", "LIST", "jitvault/metadata/decisions", None),
    ("worker", "LIST", "jitvault/metadata/decisions/{approver}/", None),
    ("worker", "GET", "jitvault/data/decisions/{approver}/seeded", None),
    ("worker", "PUT", "jitvault/data/tasks/made", DOCUMENT),
    ("worker", "PUT", "jitvault/data/tasks/made", DOCUMENT),
    ("worker", "GET", "jitvault/data/tasks/made", None),
    ("worker", "GET", "jitvault/metadata/tasks/made", None),
    ("worker", "LIST", "jitvault/metadata/tasks", None),
    ("worker", "DELETE", "jitvault/metadata/tasks/made", None),
    ("worker", "PUT", "jitvault-inbox/data/{operator}/made", DOCUMENT),
    ("worker", "PUT", "jitvault-inbox/data/{operator}/made", DOCUMENT),
    ("worker", "GET", "jitvault/data/probes/postgres", None),
    ("worker", "GET", "jitvault/data/checks/postgres-readonly", None),
    ("operator", "GET", "jitvault/data/checks/postgres-readonly", None),
    ("auditor", "GET", "jitvault/data/checks/postgres-readonly", None),
    ("worker", "PUT", "jitvault/data/templates", DOCUMENT),
    ("worker", "GET", "jitvault/data/templates", None),
    ("agent", "GET", "jitvault/data/templates", None),
    ("worker", "GET", "jitvault/data/installation", None),
    ("worker", "GET", "jitvault-transit/keys/jitvault-signer-{operator}", None),
    ("worker", "GET", "jitvault-transit/keys/jitvault-receipts", None),
    ("worker", "PUT", "jitvault-transit/sign/jitvault-receipts", INPUT),
    ("worker", "GET", "database/roles/app-readonly", None),
    ("worker", "GET", "database/config/app", None),
    # the operator
    ("operator", "PUT", "jitvault/data/requests/{own}/mine/submit", DOCUMENT),
    ("operator", "PUT", "jitvault/data/requests/{own}/mine/submit", DOCUMENT),
    ("operator", "PUT", "jitvault/data/requests/{own}/mine/grant", DOCUMENT),
    ("operator", "GET", "jitvault/data/requests/{own}/mine/submit", None),
    ("operator", "GET", "jitvault-inbox/data/{own}/seeded", None),
    ("operator", "DELETE", "jitvault-inbox/metadata/{own}/seeded", None),
    ("operator", "LIST", "jitvault/metadata/requests/{own}/", None),
    ("operator", "DELETE", "jitvault/metadata/requests/{own}/mine/grant", None),
    ("operator", "GET", "jitvault/data/tasks/seeded", None),
    ("operator", "LIST", "jitvault/metadata/tasks", None),
    ("operator", "LIST", "jitvault/metadata/tasks/", None),
    ("operator", "PUT", "jitvault-transit/sign/jitvault-signer-{own}", INPUT),
    ("operator", "GET", "auth/token/roles/jitvault-15m-loopback", None),
    ("operator", "GET", "auth/token/lookup-self", None),
    ("operator", "GET", "jitvault/data/installation", None),
    # the approver
    ("approver", "PUT", "jitvault/data/decisions/{own}/mine", DOCUMENT),
    ("approver", "PUT", "jitvault/data/decisions/{own}/mine", DOCUMENT),
    ("approver", "GET", "jitvault/data/decisions/{own}/mine", None),
    ("approver", "GET", "jitvault/data/tasks/seeded", None),
    ("approver", "LIST", "jitvault/metadata/tasks", None),
    ("approver", "LIST", "jitvault/metadata/tasks/", None),
    ("approver", "PUT", "jitvault-transit/sign/jitvault-signer-{own}", INPUT),
    ("approver", "GET", "auth/token/lookup-self", None),
    # the agent
    ("agent", "PUT", "jitvault/data/requests/{own}/mine/end", DOCUMENT),
    ("agent", "PUT", "jitvault/data/requests/{own}/mine/end", DOCUMENT),
    ("agent", "GET", "jitvault/data/requests/{own}/mine/end", None),
    ("agent", "PUT", "jitvault/data/requests/{own}/mine/submit", DOCUMENT),
    ("agent", "PUT", "jitvault/data/requests/{own}/mine/grant", DOCUMENT),
    ("agent", "GET", "jitvault-inbox/data/{own}/seeded", None),
    ("agent", "DELETE", "jitvault-inbox/metadata/{own}/seeded", None),
    ("agent", "DELETE", "jitvault/metadata/requests/{own}/mine/end", None),
    ("agent", "GET", "jitvault/data/tasks/seeded", None),
    ("agent", "PUT", "jitvault-transit/sign/jitvault-signer-{own}", INPUT),
    # for a part of a task that has a network
    ("agent", "GET", "auth/token/roles/jitvault-15m-loopback", None),
    ("agent", "GET", "auth/token/lookup-self", None),
    ("agent", "GET", "identity/entity/id/{own}", None),
    # the auditor
    ("auditor", "LIST", "jitvault/metadata/requests", None),
    ("auditor", "LIST", "jitvault/metadata/requests/{operator}/seeded", None),
    ("auditor", "GET", "jitvault/data/requests/{operator}/seeded/submit", None),
    ("auditor", "LIST", "jitvault/metadata/decisions/", None),
    ("auditor", "GET", "jitvault/data/decisions/{approver}/seeded", None),
    ("auditor", "LIST", "jitvault/metadata/tasks", None),
    ("auditor", "GET", "jitvault/data/tasks/seeded", None),
    ("auditor", "GET", "jitvault-transit/keys/jitvault-signer-{operator}", None),
    ("auditor", "GET", "jitvault-transit/keys/jitvault-receipts", None),
    ("auditor", "GET", "identity/group/name/jitvault-auditors", None),
    ("auditor", "GET", "identity/entity/name/worker", None),
    # whose the ledger is that they read
    ("approver", "GET", "jitvault/data/installation", None),
    ("agent", "GET", "jitvault/data/installation", None),
    ("auditor", "GET", "jitvault/data/installation", None),
]

# The networks are the administrator's alone: `init` makes the worker's rights from them.
NETWORKS_REFUSED = [
    ("PUT", "jitvault/data/networks", DOCUMENT),
    ("PATCH", "jitvault/data/networks", DOCUMENT),
    ("DELETE", "jitvault/data/networks", None),
    ("DELETE", "jitvault/metadata/networks", None),
    ("PUT", "jitvault/destroy/networks", {"versions": [1]}),
    ("GET", "jitvault/data/networks", None),
]

# Whoever may set these can keep a delivery out of an inbox, or a wrapping token in it.
INBOX_REFUSED = [
    ("PUT", "jitvault-inbox/config", {"cas_required": True}),
    ("PUT", "jitvault-inbox/config", {"delete_version_after": "24h"}),
]

WORKER_REFUSED = [
    *NETWORKS_REFUSED,
    # provisioning is the administrator's
    ("PUT", "sys/policies/acl/jitvault-access-0000000000000000", {"policy": ""}),
    ("PUT", f"sys/policies/acl/{ACCESS}", {"policy": ""}),
    ("PUT", "sys/policies/acl/jitvault-worker", {"policy": ""}),
    ("GET", "sys/policies/acl/jitvault-worker", None),
    ("PUT", "sys/policy/jitvault-worker", {"policy": ""}),
    ("PUT", "auth/token/roles/jitvault-15m", {"allowed_policies": ["root"]}),
    ("DELETE", "auth/token/roles/jitvault-15m", None),
    ("POST", "sys/mounts/mine", {"type": "kv"}),
    ("POST", "sys/mounts/database/tune", {"audit_non_hmac_response_keys": ["password"]}),
    ("DELETE", "sys/mounts/database", None),
    ("PUT", "sys/remount", {"from": "database", "to": "elsewhere"}),
    ("POST", "sys/auth/mine", {"type": "userpass"}),
    ("PUT", "sys/audit/mine", {"type": "file"}),
    ("DELETE", "sys/audit/jitvault", None),
    ("PUT", "database/roles/app-readonly", {"db_name": "app"}),
    ("PUT", "database/config/app", {"allowed_roles": "*"}),
    ("PUT", "database/rotate-root/app", {}),
    ("PUT", "identity/group/name/jitvault-approvers", {"member_entity_ids": []}),
    ("PUT", "identity/entity/name/operator", {"policies": ["root"]}),
    # no credential of its own making
    ("GET", "database/creds/app-readonly", None),
    ("PUT", "auth/token/create", CREATE),
    ("PUT", "auth/token/create-orphan", CREATE),
    ("PUT", "auth/token/create/other-role", CREATE),
    ("LIST", "auth/token/accessors", None),
    ("PUT", "auth/userpass/users/operator", {"password": "x"}),
    # leases by prefix, by force, or by a body alone
    ("PUT", "sys/leases/revoke", {"lease_id": "database/creds/other/x"}),
    ("PUT", "sys/leases/revoke/database/creds/other/x", {}),
    ("PUT", "sys/leases/revoke-prefix/database/creds/app-readonly", {}),
    ("PUT", "sys/leases/revoke-prefix/database/creds/app-readonly/x", {}),
    ("PUT", "sys/leases/revoke-force/database/creds/app-readonly", {}),
    ("PUT", "sys/leases/revoke-force/database/creds/other/x", {}),
    ("PUT", "sys/leases/revoke-force/auth/token/create/jitvault-1h", {}),
    ("PUT", "sys/leases/revoke-prefix/auth/token/create", {}),
    ("PUT", "sys/leases/revoke-prefix/auth/token/create/other-role", {}),
    ("PUT", "sys/leases/tidy", {}),
    ("LIST", "sys/leases/lookup/", None),
    ("LIST", "sys/leases/lookup/database/creds/", None),
    ("LIST", "sys/leases/lookup/database/creds/other/", None),
    ("LIST", "sys/leases/lookup/auth/userpass/login/", None),
    # nobody's hand
    ("PUT", "jitvault-transit/sign/jitvault-signer-{operator}", INPUT),
    ("PUT", "jitvault-transit/sign/jitvault-signer-{approver}", INPUT),
    ("PUT", "jitvault-transit/sign/jitvault-signer-{approver}/sha2-256", INPUT),
    ("PUT", "jitvault-transit/sign/jitvault-receipts", {**INPUT, "key_version": 1}),
    ("PUT", "jitvault-transit/keys/jitvault-receipts/rotate", {}),
    ("PUT", "jitvault-transit/keys/jitvault-receipts/config", {"deletion_allowed": True}),
    ("GET", "jitvault-transit/export/signing-key/jitvault-receipts", None),
    # nobody's words
    ("PUT", "jitvault/data/requests/{operator}/seeded/submit", DOCUMENT),
    ("PUT", "jitvault/data/requests/{operator}/forged/submit", DOCUMENT),
    ("PATCH", "jitvault/data/requests/{operator}/seeded/submit", DOCUMENT),
    ("DELETE", "jitvault/metadata/requests/{operator}/seeded/submit", None),
    ("PUT", "jitvault/destroy/requests/{operator}/seeded/submit", {"versions": [1]}),
    ("PUT", "jitvault/data/decisions/{approver}/seeded", DOCUMENT),
    ("PUT", "jitvault/data/decisions/{approver}/forged", DOCUMENT),
    ("DELETE", "jitvault/data/decisions/{approver}/seeded", None),
    ("DELETE", "jitvault/metadata/decisions/{approver}/seeded", None),
    ("PUT", "jitvault/data/installation", DOCUMENT),
    ("PUT", "jitvault/data/probes/postgres", DOCUMENT),
    # nobody's check
    ("PUT", "jitvault/data/checks/postgres-readonly", DOCUMENT),
    ("PATCH", "jitvault/data/checks/postgres-readonly", DOCUMENT),
    ("DELETE", "jitvault/data/checks/postgres-readonly", None),
    ("DELETE", "jitvault/metadata/checks/postgres-readonly", None),
    ("PUT", "jitvault/undelete/checks/postgres-readonly", {"versions": [1]}),
    ("PUT", "jitvault/config", {"max_versions": 1}),
    # nobody's inbox is closed, kept for longer, or emptied
    *INBOX_REFUSED,
    ("PUT", "jitvault-inbox/metadata/{operator}/made", {"cas_required": True}),
    ("PATCH", "jitvault-inbox/metadata/{operator}/made", {"cas_required": True}),
    ("DELETE", "jitvault-inbox/data/{operator}/made", None),
    ("PUT", "jitvault-inbox/delete/{operator}/made", {"versions": [1]}),
    ("PUT", "jitvault-inbox/destroy/{operator}/made", {"versions": [1]}),
    ("DELETE", "jitvault-inbox/metadata/{operator}/made", None),
    # what it delivered is not its own any more
    ("GET", "jitvault-inbox/data/{approver}/seeded", None),
    ("GET", "jitvault-inbox/subkeys/{approver}/seeded", None),
    ("GET", "jitvault-inbox/metadata/{approver}/seeded", None),
    ("LIST", "jitvault-inbox/metadata", None),
    ("LIST", "jitvault-inbox/metadata/{approver}", None),
]

# What no person may do, whatever the role.
PEOPLE_REFUSED = [
    ("PUT", "auth/token/create", CREATE),
    ("PUT", "auth/token/create-orphan", CREATE),
    ("PUT", "auth/token/create/jitvault-15m", CREATE),
    ("PUT", "auth/token/roles/jitvault-15m", {}),
    ("PUT", "auth/token/revoke-accessor", {"accessor": "x"}),
    ("PUT", "auth/token/lookup-accessor", {"accessor": "x"}),
    ("PUT", "sys/leases/revoke", {"lease_id": "database/creds/app-readonly/x"}),
    ("PUT", "sys/leases/revoke/database/creds/app-readonly/x", {}),
    ("PUT", "sys/leases/revoke-prefix/database/creds/app-readonly", {}),
    ("LIST", "sys/leases/lookup/database/creds/app-readonly/", None),
    ("GET", "database/creds/app-readonly", None),
    ("GET", "jitvault/data/probes/postgres", None),
    ("PUT", "jitvault/data/checks/postgres-readonly", DOCUMENT),
    ("PUT", "jitvault/data/templates", DOCUMENT),
    ("DELETE", "jitvault/data/checks/postgres-readonly", None),
    ("DELETE", "jitvault/metadata/checks/postgres-readonly", None),
    ("PUT", "jitvault/undelete/checks/postgres-readonly", {"versions": [1]}),
    ("PUT", "sys/policies/acl/mine", {"policy": ""}),
    ("PUT", "identity/group/name/jitvault-approvers", {}),
    ("PUT", "jitvault-transit/sign/jitvault-signer-{other}", INPUT),
    ("PUT", "jitvault-transit/sign/jitvault-receipts", INPUT),
    ("PUT", "jitvault-transit/sign/jitvault-signer-{own}/sha2-256", INPUT),
    ("PUT", "jitvault-transit/sign/jitvault-signer-{own}", {**INPUT, "key_version": 1}),
    ("PUT", "jitvault-transit/keys/jitvault-signer-{own}/rotate", {}),
    ("GET", "jitvault-transit/export/signing-key/jitvault-signer-{own}", None),
    ("PUT", "jitvault/data/requests/{other}/forged/submit", DOCUMENT),
    ("PUT", "jitvault/data/requests/{other}/forged/end", DOCUMENT),
    ("PUT", "jitvault/data/decisions/{other}/forged", DOCUMENT),
    ("PUT", "jitvault/data/decisions/{other}/seeded", DOCUMENT),
    ("GET", "jitvault-inbox/data/{other}/seeded", None),
    ("GET", "identity/entity/id/{other}", None),
    ("GET", "jitvault-inbox/subkeys/{other}/seeded", None),
    ("LIST", "jitvault-inbox/metadata/{other}", None),
    ("PUT", "jitvault-inbox/data/{other}/forged", DOCUMENT),
    ("PUT", "jitvault-inbox/data/{own}/forged", DOCUMENT),
    ("DELETE", "jitvault-inbox/metadata/{other}/seeded", None),
    *INBOX_REFUSED,
    ("PUT", "jitvault-inbox/metadata/{own}/seeded", {"cas_required": True}),
    ("PUT", "jitvault/data/tasks/seeded", DOCUMENT),
    ("DELETE", "jitvault/metadata/tasks/seeded", None),
    # by it a ledger is known for this Vault's or another's
    ("PUT", "jitvault/data/installation", DOCUMENT),
    ("DELETE", "jitvault/data/installation", None),
    ("DELETE", "jitvault/metadata/installation", None),
    *NETWORKS_REFUSED,
]

# What belongs to another role.
ROLE_REFUSED = [
    ("operator", "PUT", "jitvault/data/decisions/{own}/mine", DOCUMENT),
    ("operator", "GET", "jitvault/data/decisions/{approver}/seeded", None),
    ("operator", "GET", "jitvault/data/requests/{other}/seeded/submit", None),
    ("operator", "DELETE", "jitvault/metadata/requests/{other}/seeded/submit", None),
    ("operator", "LIST", "jitvault/metadata/requests/{other}/", None),
    ("operator", "PUT", "jitvault/metadata/requests/{own}/seeded/submit", {"max_versions": 1}),
    ("agent", "DELETE", "jitvault/metadata/requests/{other}/seeded/submit", None),
    ("approver", "PUT", "jitvault/data/requests/{own}/mine/submit", DOCUMENT),
    ("approver", "DELETE", "jitvault/data/decisions/{own}/seeded", None),
    ("approver", "DELETE", "jitvault/metadata/decisions/{own}/seeded", None),
    ("approver", "PUT", "jitvault/delete/decisions/{own}/seeded", {"versions": [1]}),
    ("approver", "GET", "jitvault-inbox/data/{own}/seeded", None),
    ("agent", "PUT", "jitvault/data/requests/{own}/mine/revise", DOCUMENT),
    ("agent", "PUT", "jitvault/data/requests/{operator}/mine/submit", DOCUMENT),
    ("agent", "PUT", "jitvault/data/requests/{own}/a/b/end", DOCUMENT),
    ("agent", "PUT", "jitvault/data/decisions/{own}/mine", DOCUMENT),
    ("agent", "LIST", "jitvault/metadata/tasks", None),
    ("agent", "LIST", "auth/token/roles", None),
    ("auditor", "PUT", "jitvault/data/requests/{own}/mine/submit", DOCUMENT),
    ("auditor", "PUT", "jitvault/data/decisions/{own}/mine", DOCUMENT),
    ("auditor", "PUT", "jitvault-transit/sign/jitvault-signer-{own}", INPUT),
    ("auditor", "GET", "jitvault-inbox/data/{own}/seeded", None),
]


def test_each_role_can_do_its_work(world: World) -> None:
    wrong = []
    for role, method, path, body in ALLOWED:
        answer = caller(world, role)(method, filled(world, role, path), body)
        if not answer.ok:
            wrong.append((role, method, path, answer.status_code, answer.text))
    assert not wrong


REFUSED = [
    *(("worker", *row) for row in WORKER_REFUSED),
    *((role, *row) for role in PEOPLE for row in PEOPLE_REFUSED),
    *ROLE_REFUSED,
]


def test_no_role_can_do_the_work_of_another(world: World) -> None:
    wrong = []
    for role, method, path, body in REFUSED:
        answer = caller(world, role)(method, filled(world, role, path), body)
        if answer.status_code != 403:
            wrong.append((role, method, path, answer.status_code, answer.text))
    assert not wrong


def test_an_agent_renews_no_lease_whatever_else_its_token_allows(world: World, admin: Caller) -> None:
    """Vault's `default` allows `sys/leases/renew`, HashiCorp's also `sys/renew`, of every lease whose id is known."""
    lease_id = lease(admin, "app-readonly")
    answers = {}
    for policies in (("default",), ("default", "jitvault-agent")):
        made = admin("PUT", "auth/token/create", {"policies": policies, "ttl": "60s"}).json()
        asked = Caller(world.address, made["auth"]["client_token"])("PUT", "sys/leases/renew", {"lease_id": lease_id})
        answers[policies] = asked.status_code
    admin("PUT", "sys/leases/revoke", {"lease_id": lease_id})
    assert list(answers.values()) == [200, 403]

    paths = ["sys/leases/renew", f"sys/leases/renew/{lease_id}", "sys/renew", f"sys/renew/{lease_id}"]
    rules = "".join(f'path "{path}" {{ capabilities = ["update"] }}\n' for path in (*paths[::2], "sys/*"))
    admin("PUT", "sys/policies/acl/wide", {"policy": rules})
    made = admin("PUT", "auth/token/create", {"policies": ["wide", "jitvault-agent"], "ttl": "60s"}).json()
    body = {"token": made["auth"]["client_token"], "paths": paths}
    found = admin("PUT", "sys/capabilities", body).json()
    admin("DELETE", "sys/policies/acl/wide")
    assert [found[path] for path in paths] == [["deny"]] * 4


def test_a_person_of_two_roles_has_both(world: World, admin: Caller) -> None:
    ids = world.entity_ids
    both = caller(world, "operator-2")
    members = {"member_entity_ids": [ids["approver-1"], ids["approver-2"], ids["operator-2"]]}
    assert admin("PUT", "identity/group/name/jitvault-approvers", members).ok
    try:
        own = ids["operator-2"]
        assert both("PUT", f"jitvault/data/requests/{own}/both/submit", DOCUMENT).ok
        assert both("PUT", f"jitvault/data/decisions/{own}/both", DOCUMENT).ok
        assert both("PUT", f"jitvault-transit/sign/jitvault-signer-{own}", INPUT).ok
        signer = f"jitvault-transit/sign/jitvault-signer-{ids['operator']}"
        assert both("PUT", signer, INPUT).status_code == 403
    finally:
        members["member_entity_ids"].remove(ids["operator-2"])
        assert admin("PUT", "identity/group/name/jitvault-approvers", members).ok


def test_the_worker_gets_no_bare_task_token(worker: Caller) -> None:
    path = "auth/token/create/jitvault-15m"
    assert worker("PUT", path, CREATE).status_code == 403
    assert worker.wrapped(path, CREATE, ttl="1s").status_code == 403
    assert worker.wrapped(path, CREATE, ttl="601s").status_code == 403
    assert worker.wrapped(path, {**CREATE, "id": "s.chosen"}).status_code == 403
    assert worker.wrapped(path, {**CREATE, "period": "1h"}).status_code == 403
    assert worker.wrapped(path, {"meta": CREATE["meta"], "ttl": "60s"}).status_code == 403
    answer = worker.wrapped(path, CREATE)
    assert answer.ok
    assert answer.json()["auth"] is None
    assert answer.json()["wrap_info"]["creation_path"] == path


@pytest.mark.parametrize("policy", ["root", "jitvault-worker", "jitvault-operator", "default"])
def test_the_worker_gives_no_policy_but_an_access_policy(worker: Caller, policy: str) -> None:
    body = {**CREATE, "policies": [ACCESS, policy]}
    assert worker.wrapped("auth/token/create/jitvault-15m", body).status_code == 400


def test_the_worker_finds_looks_up_and_revokes_what_it_made(worker: Caller) -> None:
    role = "jitvault-1h-loopback"
    first = worker.wrapped(f"auth/token/create/{role}", CREATE).json()["wrap_info"]["wrapped_accessor"]
    worker.wrapped(f"auth/token/create/{role}", CREATE)
    looked = worker("PUT", "auth/token/lookup-accessor", {"accessor": first})
    assert looked.json()["data"]["policies"] == [ACCESS]
    assert looked.json()["data"]["path"] == f"auth/token/create/{role}"
    assert worker("PUT", "auth/token/revoke-accessor", {"accessor": first}).status_code == 204
    # what is left: the second task token, and both wrapping tokens, which are listed at the same place
    names = worker("LIST", f"sys/leases/lookup/auth/token/create/{role}/").json()["data"]["keys"]
    lease_ids = [f"auth/token/create/{role}/{name}" for name in names]
    found = [worker("PUT", "sys/leases/lookup", {"lease_id": each}).json()["data"] for each in lease_ids]
    assert sorted(each["renewable"] for each in found) == [False, False, True]
    for lease_id in lease_ids:
        assert worker("PUT", f"sys/leases/revoke/{lease_id}", {"sync": True}).status_code == 204
    assert worker("LIST", f"sys/leases/lookup/auth/token/create/{role}/").status_code == 404


def test_the_worker_revokes_a_lease_of_a_template(worker: Caller, admin: Caller) -> None:
    mine = lease(admin, "app-readonly")
    listed = worker("LIST", "sys/leases/lookup/database/creds/app-readonly/").json()["data"]["keys"]
    assert mine.rsplit("/", 1)[1] in listed
    assert worker("PUT", "sys/leases/lookup", {"lease_id": mine}).ok
    assert worker("PUT", f"sys/leases/revoke/{mine}", {"sync": True}).status_code == 204
    assert not is_live(admin, mine)


def test_the_worker_renews_a_lease_of_a_template_and_no_other(worker: Caller, admin: Caller) -> None:
    mine, other = lease(admin, "app-readonly"), lease(admin, "other")
    path = f"sys/leases/renew/{mine}"
    assert worker("PUT", path, {"increment": 60}).json()["lease_duration"] == 60
    # an increment of nothing would be the role's longest
    assert worker("PUT", path, {}).status_code == 403
    for body in ({"lease_id": other, "increment": 60}, {"LEASE_ID": other, "increment": 60}):
        assert worker("PUT", path, body).status_code == 403
    worker("PUT", path, {"url_lease_id": other, "increment": 60})
    worker("PUT", f"{path}?lease_id={other}", {"increment": 60})
    assert admin("PUT", "sys/leases/lookup", {"lease_id": other}).json()["data"]["ttl"] > 800
    for wrong in ("sys/leases/renew", f"sys/leases/renew/{other}"):
        assert worker("PUT", wrong, {"lease_id": other, "increment": 60}).status_code == 403


def test_the_worker_revokes_no_lease_outside_the_templates(worker: Caller, admin: Caller) -> None:
    other = lease(admin, "other")
    assert worker("PUT", f"sys/leases/revoke/{other}", {"sync": True}).status_code == 403
    allowed = (
        "sys/leases/revoke/database/creds/app-readonly/x",
        "sys/leases/revoke/auth/token/create/jitvault-1h/x",
    )
    for path in allowed:
        for method in ("PUT", "POST"):
            assert worker(method, path, {"lease_id": other, "sync": True}).status_code == 403
            form = worker(method, path, data={"lease_id": other, "sync": "true"})
            assert not form.ok
            # these the server does not take for a lease id, whatever it answers
            worker(method, path, {"url_lease_id": other, "LEASE_ID": other, "sync": True})
            worker(method, f"{path}?lease_id={other}", {"sync": True})
            worker(method, f"{path}/../../../../{other}", {"sync": True})
            assert is_live(admin, other), (method, path)


def audit_lines(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in world.audit_file.read_text().splitlines()]


@pytest.mark.parametrize("how", ["as the wrapping token", "by the cubbyhole"])
def test_unwrapping_what_it_made_leaves_a_line(world: World, worker: Caller, admin: Caller, how: str) -> None:
    """Nothing stops a stolen worker token from unwrapping; whoever reads the audit stream sees it."""
    wrap = worker.wrapped("auth/token/create/jitvault-15m", CREATE).json()["wrap_info"]
    thief = Caller(world.address, wrap["token"])
    hashed = admin("PUT", "sys/audit-hash/jitvault", {"input": wrap["token"]}).json()["data"]["hash"]
    if how == "as the wrapping token":
        path, stolen = "sys/wrapping/unwrap", thief("PUT", "sys/wrapping/unwrap")
    else:
        path, stolen = "cubbyhole/response", thief("GET", "cubbyhole/response")
    assert stolen.ok
    lines = [
        line
        for line in audit_lines(world)
        if line["type"] == "response"
        and line["request"]["path"] == path
        # HashiCorp Vault shows the form that was given out in `auth` alone
        and hashed in (line["request"].get("client_token"), line.get("auth", {}).get("client_token"))
    ]
    assert len(lines) == 1
    assert lines[0]["request"]["remote_address"] == "127.0.0.1"
    # and the agent, coming later, finds nothing left
    assert thief("PUT", "sys/wrapping/unwrap").status_code == 400


def test_the_worker_itself_may_not_ask_for_an_unwrap(world: World, worker: Caller, admin: Caller) -> None:
    wrap = worker.wrapped("auth/token/create/jitvault-15m", CREATE).json()["wrap_info"]
    assert worker("PUT", "sys/wrapping/unwrap", {"token": wrap["token"]}).status_code == 403
    hashed = admin("PUT", "sys/audit-hash/jitvault", {"input": wrap["token"]}).json()["data"]["hash"]
    tried = [
        line
        for line in audit_lines(world)
        if line["request"]["path"] == "sys/wrapping/unwrap"
        and (line["request"].get("data") or {}).get("token") == hashed
    ]
    assert tried


def test_the_task_token_reads_its_path_and_nothing_else(world: World, worker: Caller) -> None:
    wrap = worker.wrapped("auth/token/create/jitvault-15m-loopback", CREATE).json()["wrap_info"]
    auth = Caller(world.address, wrap["token"])("PUT", "sys/wrapping/unwrap").json()["auth"]
    assert auth["policies"] == [ACCESS]
    assert auth["orphan"] is True
    agent = Caller(world.address, auth["client_token"])
    assert agent("GET", "database/creds/app-readonly").ok
    assert agent("GET", "auth/token/lookup-self").ok
    for method, path in (
        ("GET", "database/creds/app-readwrite"),
        ("GET", "database/config/app"),
        ("PUT", "auth/token/create"),
        ("PUT", "auth/token/renew-self"),
        ("LIST", "jitvault/metadata/tasks"),
        ("PUT", "sys/leases/renew"),
    ):
        assert agent(method, path).status_code == 403, (method, path)
    assert agent("PUT", "auth/token/revoke-self").status_code == 204
    assert agent("GET", "auth/token/lookup-self").status_code == 403
