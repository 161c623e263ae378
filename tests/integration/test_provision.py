"""`init` against a real OpenBao: what it makes, that it can be run again, and what it refuses to touch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jitvault.documents.signed import RECEIPT_KEY, signer_key
from jitvault.errors import InvalidInput, VaultRefused, WrongState
from jitvault.formats.secret import Secret
from jitvault.model.template import AccessTemplate
from jitvault.model.vault_access import CAPS, access_policy, role_name
from jitvault.provision import init
from jitvault.provision.desired import checked_access_path
from jitvault.provision.names import GROUPS, MARKER, MARKER_LINE
from jitvault.provision.plan import carry_out
from jitvault.provision.worker_login import worker_login
from jitvault.sandbox.vault_configuration import AuditDevice
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import shipped_want
from jitvault.vault.client import Connection, Vault

ROLES = [role_name(cap, network) for network in (None, "loopback") for cap in CAPS]
READONLY = access_policy("database/creds/app-readonly")


@pytest.fixture
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """An empty OpenBao with the administrator's secrets engines, and nothing of jitvault."""
    with VaultServer(tmp_path_factory.mktemp("openbao")) as bao:
        admin = Vault(Connection(bao.address), Secret(bao.root_token))
        admin.write("sys/mounts/database", {"type": "database"})
        admin.write("sys/mounts/pki", {"type": "pki"})
        yield admin
        admin.close()


@pytest.fixture(scope="module")
def want() -> init.Want:
    return shipped_want()


def ready(vault: Vault, want: init.Want) -> None:
    init.apply(vault, init.plan(vault, want))


def changes(vault: Vault, want: init.Want) -> list[tuple[str, str, str]]:
    return [(step.action, step.kind, step.name) for step in init.plan(vault, want).changes]


def data(vault: Vault, path: str) -> dict[str, Any]:
    answer = vault.read(path)
    assert answer is not None, path
    return dict(answer["data"])


def everything(vault: Vault) -> object:
    """All that init could have written to."""
    policies = {name: data(vault, f"sys/policies/acl/{name}") for name in vault.list("sys/policies/acl")}
    roles = {name: data(vault, f"auth/token/roles/{name}") for name in vault.list("auth/token/roles")}
    groups = {name: data(vault, f"identity/group/name/{name}") for name in vault.list("identity/group/name")}
    headers = data(vault, "sys/config/auditing/request-headers")
    return policies, roles, groups, headers, data(vault, "sys/mounts")


def with_template(want: init.Want, template: AccessTemplate) -> init.Want:
    return replace(want, templates={template.name: template})


def changed_body(template: AccessTemplate, **values: object) -> AccessTemplate:
    """The template with values that its own validation would refuse."""
    return template.model_copy(update={"spec": template.spec.model_copy(update=values)})


def test_the_first_run_makes_everything(vault: Vault, want: init.Want) -> None:
    plan = init.plan(vault, want)
    assert {step.action for step in plan.steps} == {"create", "update"}
    updates = [(step.kind, step.name) for step in plan.steps if step.action == "update"]
    changed = [("mount tuning", "database/"), ("mount tuning", "pki/"), ("engine configuration", "pki/config/crl")]
    assert updates == changed
    assert all(step.detail for step in plan.steps)
    before = everything(vault)
    init.plan(vault, want)
    assert everything(vault) == before, "a plan writes nothing"

    init.apply(vault, plan)
    mounts = data(vault, "sys/mounts")
    assert (mounts["jitvault/"]["type"], mounts["jitvault/"]["options"]) == ("kv", {"version": "2"})
    ours = [mount for mount in mounts.values() if mount["description"] == MARKER]
    assert sorted(mount["type"] for mount in ours) == ["kv", "kv", "transit"]
    life = data(vault, "jitvault-inbox/config")
    assert (life["max_versions"], life["delete_version_after"], life["cas_required"]) == (1, "10m0s", False)
    assert len(data(vault, "jitvault/data/installation")["data"]["id"]) == 32
    assert set(vault.list("auth/token/roles")) == set(ROLES)
    assert data(vault, f"sys/policies/acl/{READONLY.name}")["policy"] == READONLY.text
    for name in ("jitvault-worker", *GROUPS.values()):
        assert data(vault, f"sys/policies/acl/{name}")["policy"].startswith(MARKER_LINE + "\n")
    for name, policy in GROUPS.items():
        assert data(vault, f"identity/group/name/{name}")["policies"] == [policy]
    assert data(vault, "sys/config/auditing/request-headers")["headers"] == {"x-jitvault-op": {"hmac": False}}
    assert data(vault, "sys/mounts/database/tune")["audit_non_hmac_response_keys"] == ["username"]
    assert data(vault, "sys/mounts/pki/tune")["audit_non_hmac_response_keys"] == ["serial_number"]
    key = data(vault, f"jitvault-transit/keys/{RECEIPT_KEY}")
    assert (key["type"], key["exportable"], key["deletion_allowed"]) == ("ed25519", False, False)


@pytest.mark.parametrize("own", [{}, {"delete_version_after": "24h"}], ids=["the mount's", "and its own"])
def test_what_lies_in_an_inbox_is_one_version_and_goes_after_ten_minutes(
    vault: Vault, want: init.Want, own: Mapping[str, Any]
) -> None:
    ready(vault, want)
    if own:
        vault.write("jitvault-inbox/metadata/e/t", own)
    for n in (1, 2):
        vault.write("jitvault-inbox/data/e/t", {"data": {"n": n}})
    found = data(vault, "jitvault-inbox/metadata/e/t")["versions"]
    (written, deleted) = (datetime.fromisoformat(found["2"][name]) for name in ("created_time", "deletion_time"))
    assert (list(found), deleted - written) == (["2"], timedelta(minutes=10))


def test_a_token_role_is_what_the_design_says(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    role = data(vault, "auth/token/roles/jitvault-15m-loopback")
    assert role["token_bound_cidrs"] == ["127.0.0.0/8"]
    assert role["token_explicit_max_ttl"] == 900
    assert role["allowed_policies_glob"] == ["jitvault-access-*"]
    assert (role["orphan"], role["renewable"], role["token_no_default_policy"]) == (True, True, True)
    assert role["token_type"] == "service"
    assert not data(vault, "auth/token/roles/jitvault-8h").get("token_bound_cidrs")


def test_the_second_run_keeps_everything(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    before, installation = everything(vault), data(vault, "jitvault/data/installation")
    plan = init.plan(vault, want)
    assert {step.action for step in plan.steps} == {"keep"}
    assert plan.missing == ()
    init.apply(vault, plan)
    assert everything(vault) == before
    assert data(vault, "jitvault/data/installation") == installation


def test_every_form_of_a_network_compares_equal(vault: Vault, want: init.Want) -> None:
    cidrs = ["10.0.0.7/32", "10.0.0.7", "192.168.0.0/16", "2001:DB8::/32", "2001:db8::1/128"]
    offices = replace(want, networks={"offices": cidrs})
    ready(vault, offices)
    assert changes(vault, offices) == []


def test_drift_is_shown_and_mended(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    installation = data(vault, "jitvault/data/installation")
    role = data(vault, "auth/token/roles/jitvault-1h-loopback")
    vault.write("auth/token/roles/jitvault-1h-loopback", role | {"token_bound_cidrs": [], "token_period": "1h"})
    vault.write("auth/token/roles/jitvault-8h", {"token_explicit_max_ttl": "24h", "allowed_policies": ["root"]})
    vault.write("sys/policies/acl/jitvault-auditor", {"policy": f'{MARKER_LINE}\npath "sys/*" {{}}\n'})
    vault.write("identity/group/name/jitvault-agents", {"policies": ["jitvault-agent", "admin"]})
    vault.write("sys/config/auditing/request-headers/X-Jitvault-Op", {"hmac": True})
    vault.write("sys/mounts/database/tune", {"audit_non_hmac_response_keys": ["other"]}, method="post")
    vault.write(f"jitvault-transit/keys/{RECEIPT_KEY}/config", {"deletion_allowed": True})
    vault.write("jitvault-inbox/config", {"delete_version_after": "24h", "max_versions": 0, "cas_required": True})
    vault.write("pki/config/crl", {"expiry": "4m", "ocsp_expiry": "12h", "delta_rebuild_interval": "20m"})

    plan = init.plan(vault, want)
    details = {step.name: "\n".join(step.detail) for step in plan.changes}
    assert {step.action for step in plan.changes} == {"update"}
    assert set(details) == {
        "jitvault-1h-loopback",
        "jitvault-8h",
        "jitvault-auditor",
        "jitvault-agents",
        "X-Jitvault-Op",
        "database/",
        "pki/config/crl",
        "jitvault-inbox/config",
        RECEIPT_KEY,
    }
    assert details["jitvault-inbox/config"] == (
        "max_versions: 0 → 1\ndelete_version_after: 24h0m0s → 10m0s\ncas_required: True → False"
    )
    assert details["pki/config/crl"].startswith("ocsp_expiry: 12h → 5m\na worker renews the list in time; ")
    assert "token_bound_cidrs: none → 127.0.0.0/8" in details["jitvault-1h-loopback"]
    assert "token_period: 3600 → 0" in details["jitvault-1h-loopback"]
    assert "token_explicit_max_ttl: 86400 → 28800" in details["jitvault-8h"]
    assert "allowed_policies: root → none" in details["jitvault-8h"]
    assert '-path "sys/*" {}' in details["jitvault-auditor"]
    assert "admin" in details["jitvault-agents"]

    init.apply(vault, plan)
    assert changes(vault, want) == []
    assert data(vault, "sys/mounts/database/tune")["audit_non_hmac_response_keys"] == ["other", "username"]
    # what is short enough stays, and so does whatever else an administrator set
    crl = data(vault, "pki/config/crl")
    assert (crl["expiry"], crl["ocsp_expiry"], crl["delta_rebuild_interval"]) == ("4m", "5m", "20m")
    assert data(vault, "jitvault/data/installation") == installation


def test_the_worker_gets_a_login_where_that_is_asked_for(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    cidrs = ("127.0.0.1", "127.0.0.64/26")
    asked = replace(want, worker_login=worker_login(cidrs))
    assert changes(vault, asked) == [("create", "worker's AppRole", "jitvault-worker")]
    ready(vault, asked)
    assert changes(vault, asked) == changes(vault, want) == []
    role = "auth/approle/role/jitvault-worker"
    ids = {
        "role_id": data(vault, f"{role}/role-id")["role_id"],
        "secret_id": vault.write(f"{role}/secret-id")["data"]["secret_id"],
    }
    auth = Vault(vault.connection, None).write("auth/approle/login", ids)["auth"]
    assert (auth["policies"], auth["lease_duration"]) == (["jitvault-worker"], 3600)
    # whom break-glass disables
    assert auth["entity_id"] == data(vault, "identity/entity/name/jitvault-worker")["id"]

    vault.write(role, {"token_policies": ["jitvault-worker", "root"], "token_bound_cidrs": [], "secret_id_ttl": 0})
    vault.delete("identity/entity/name/jitvault-worker")
    (step,) = init.plan(vault, asked).changes
    assert [line.partition(":")[0] for line in step.detail] == [
        *("secret_id_ttl", "token_bound_cidrs", "token_policies"),
        "its entity jitvault-worker",
    ]
    ready(vault, asked)
    assert changes(vault, asked) == []
    with pytest.raises(InvalidInput, match="--worker-cidr"):
        worker_login(("10.0.0.1/8",))
    vault.delete("sys/auth/approle")
    vault.write("sys/auth/approle", {"type": "userpass"}, method="post")
    with pytest.raises(WrongState, match="expected approle"):
        init.plan(vault, asked)


def test_each_issuing_path_has_a_limit_and_an_administrators_own_stays(vault: Vault, want: init.Want) -> None:
    want = replace(want, tasks_per_second=10)
    ready(vault, want)
    limits = {
        limit["path"]: limit
        for name in vault.list("sys/quotas/rate-limit")
        for limit in [data(vault, f"sys/quotas/rate-limit/{name}")]
    }
    rates = {path: (limit["rate"], limit["interval"], limit["block_interval"]) for path, limit in limits.items()}
    expected = {"database/creds/app-readonly": 50, "database/creds/app-readwrite": 30, "pki/issue/service": 30}
    assert rates == {path: (rate, 1, 0) for path, rate in expected.items()}
    pki = f"sys/quotas/rate-limit/{limits['pki/issue/service']['name']}"
    vault.write(pki, {"path": "pki/issue/service", "rate": 500, "interval": "1m"})
    (step,) = init.plan(vault, want).changes
    assert (step.kind, step.name, step.detail) == (
        "read limit",
        "pki/issue/service",
        ("rate: 500.0 → 30.0 reads a second of one address", "interval: 60 → 1"),
    )
    vault.delete(pki)
    vault.write("sys/quotas/rate-limit/own", {"path": "pki/issue/service", "rate": 5})
    plan = init.plan(vault, want)
    assert (plan.changes, len(plan.missing), "the quota own" in plan.missing[0]) == ((), 1, True)
    # nobody is limited where an administrator says so; what there is already is told
    none = init.plan(vault, replace(want, tasks_per_second=0))
    assert (none.changes, len(none.missing)) == ((), 2)


def test_members_get_signing_keys_also_through_groups(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    ids = {name: vault.write("identity/entity", {"name": name})["data"]["id"] for name in ("ann", "bo", "cy")}
    inner = vault.write("identity/group", {"name": "night-shift", "member_entity_ids": [ids["bo"]]})
    outer = {"name": "everybody", "member_group_ids": [inner["data"]["id"]]}
    team = vault.write("identity/group", outer)["data"]["id"]
    members = {"member_entity_ids": [ids["ann"]], "member_group_ids": [team]}
    vault.write("identity/group/name/jitvault-approvers", members)
    assert sorted(changes(vault, want)) == sorted(
        ("create", "signing key", signer_key(ids[name])) for name in ("ann", "bo")
    )
    vault.write("identity/group/name/jitvault-approvers", {"policies": []})

    ready(vault, want)
    assert changes(vault, want) == []
    group = data(vault, "identity/group/name/jitvault-approvers")
    assert (group["member_entity_ids"], group["member_group_ids"]) == ([ids["ann"]], [team])
    assert group["policies"] == ["jitvault-approver"]
    assert vault.read(f"jitvault-transit/keys/{signer_key(ids['cy'])}") is None


def test_a_network_confines_its_tokens(vault: Vault, want: init.Want) -> None:
    ready(vault, replace(want, networks={"here": ["127.0.0.0/8"], "elsewhere": ["10.9.0.0/16"]}))

    def token(role: str) -> Vault:
        body = {"policies": [READONLY.name], "ttl": "60s"}
        answer = vault.write(f"auth/token/create/{role}", body)
        return vault.with_token(Secret(answer["auth"]["client_token"]))

    assert token("jitvault-15m-here").read("auth/token/lookup-self")
    with pytest.raises(VaultRefused):
        token("jitvault-15m-elsewhere").read("auth/token/lookup-self")


def test_a_run_that_ends_after_any_step_is_finished_by_the_next(vault: Vault, want: init.Want) -> None:
    made = 0
    while plan := init.plan(vault, want).changes:
        carry_out(vault, plan[0])
        made += 1
        assert len(init.plan(vault, want).changes) == len(plan) - 1
    assert made > 20


def test_a_run_that_vault_stops_half_way_is_finished_by_the_next(vault: Vault, want: init.Want) -> None:
    policy = 'path "*" {\n capabilities = ["read", "list", "create", "update", "sudo"]\n}\n'
    policy += 'path "auth/token/roles/*" {\n capabilities = ["read", "list"]\n}\n'
    vault.write("sys/policies/acl/half", {"policy": policy})
    token = vault.write("auth/token/create", {"policies": ["half"]})["auth"]["client_token"]
    half = vault.with_token(Secret(token))
    plan = init.plan(half, want)
    with pytest.raises(VaultRefused, match="auth/token/roles/jitvault-15m"):
        init.apply(half, plan)
    installation = data(vault, "jitvault/data/installation")
    left = init.plan(vault, want)
    assert 0 < len(left.changes) < len(plan.changes)
    init.apply(vault, left)
    assert changes(vault, want) == []
    assert data(vault, "jitvault/data/installation") == installation


def _mount_kv(vault: Vault) -> None:
    vault.write("sys/mounts/jitvault", {"type": "kv", "options": {"version": "2"}, "description": "secrets"})


def _mount_kv_1(vault: Vault) -> None:
    vault.write("sys/mounts/jitvault", {"type": "kv", "description": MARKER})


def _mount_inbox(vault: Vault) -> None:
    vault.write("sys/mounts/jitvault-inbox", {"type": "kv", "options": {"version": "2"}, "description": "mail"})


def _mount_transit(vault: Vault) -> None:
    vault.write("sys/mounts/jitvault-transit", {"type": "transit"})


def _policy(vault: Vault) -> None:
    vault.write("sys/policies/acl/jitvault-operator", {"policy": f'path "x" {{}}\n{MARKER_LINE}\n'})


def _access_policy(vault: Vault) -> None:
    text = READONLY.text + '\npath "database/creds/root" {\n  capabilities = ["read"]\n}\n'
    vault.write(f"sys/policies/acl/{READONLY.name}", {"policy": text})


def _group(vault: Vault) -> None:
    vault.write("identity/group/name/jitvault-operators", {"metadata": {"managed-by": "somebody"}})


def _external_group(vault: Vault) -> None:
    vault.write("identity/group/name/jitvault-agents", {"type": "external", "metadata": {"managed-by": "jitvault"}})


def _role(vault: Vault) -> None:
    vault.write("auth/token/roles/jitvault-8h", {"orphan": True})


FOREIGN = [
    (_mount_kv, "the mount jitvault/ is not jitvault's"),
    (_mount_kv_1, "the mount jitvault/ is not jitvault's: it is of type kv"),
    (_mount_inbox, "the mount jitvault-inbox/ is not jitvault's"),
    (_mount_transit, "the mount jitvault-transit/ is not jitvault's"),
    (_policy, "the policy jitvault-operator is not jitvault's: its first line"),
    (_access_policy, f"the policy {READONLY.name} was changed"),
    (_group, "the group jitvault-operators is not jitvault's"),
    (_external_group, "the group jitvault-agents is not jitvault's: it is external"),
    (_role, "the token role jitvault-8h is not jitvault's"),
]


@pytest.mark.parametrize(("make", "message"), FOREIGN, ids=[make.__name__ for make, _ in FOREIGN])
def test_what_is_not_ours_is_refused_and_nothing_written(
    vault: Vault, want: init.Want, make: Any, message: str
) -> None:
    make(vault)
    before = everything(vault)
    with pytest.raises(WrongState, match=message) as caught:
        init.plan(vault, want)
    assert "jitvault init" in caught.value.hint
    assert everything(vault) == before


def test_a_key_that_others_may_hold_is_refused(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    vault.write(f"jitvault-transit/keys/{RECEIPT_KEY}/config", {"exportable": True})
    with pytest.raises(WrongState, match=r"cannot be trusted to sign: it is ed25519, exportable"):
        init.plan(vault, want)


def test_a_lost_installation_is_not_made_anew(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    vault.delete("jitvault/data/installation")
    with pytest.raises(WrongState, match="jitvault/installation was deleted or changed"):
        init.plan(vault, want)
    vault.write("jitvault/data/installation", {"data": {"id": "mine"}})
    with pytest.raises(WrongState, match="jitvault/installation was deleted or changed"):
        init.plan(vault, want)


def test_two_at_once_agree_on_one_installation(vault: Vault, want: init.Want) -> None:
    ready(vault, want)
    first = data(vault, "jitvault/data/installation")["data"]
    [step] = [step for step in init.plan(vault, want).steps if step.name == "jitvault/installation"]
    with pytest.raises(VaultRefused, match="check-and-set"):
        carry_out(vault, step)
    assert data(vault, "jitvault/data/installation")["data"] == first


def test_what_init_does_not_make_is_told(vault: Vault, want: init.Want) -> None:
    vault.delete("sys/mounts/database")
    assert init.plan(vault, want).missing == ("there is no secrets engine database/ (database), which templates use",)
    vault.write("sys/mounts/database", {"type": "kv"})
    ready(vault, want)
    vault.write("auth/token/roles/jitvault-1h-old", {"orphan": True})
    plan = init.plan(vault, want)
    assert plan.changes == ()
    assert plan.missing == (
        "the secrets engine database/ is kv; templates expect database",
        "the token role jitvault-1h-old belongs to no network: `jitvault init --remove-network old` deletes it",
    )


class OtherwiseAudited(VaultServer):
    """With an audit device of another name."""

    def _devices(self) -> tuple[AuditDevice, ...]:
        return tuple(replace(device, name="other") for device in super()._devices())


def test_a_missing_audit_device_is_told(tmp_path: Path, want: init.Want) -> None:
    with OtherwiseAudited(tmp_path / "openbao") as bao:
        admin = Vault(Connection(bao.address), Secret(bao.root_token))
        admin.write("sys/mounts/database", {"type": "database"})
        admin.write("sys/mounts/pki", {"type": "pki"})
        ready(admin, want)
        plan = init.plan(admin, want)
        assert (plan.changes, len(plan.missing)) == ((), 1)
        assert "there is no audit device jitvault/" in plan.missing[0]


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ({"office": []}, "network office: expected a list of at least one CIDR"),
        ({"office": "10.0.0.0/8"}, "network office: expected a list"),
        ({"office": ["10.0.0.1/8"]}, "network office: 10.0.0.1/8 has host bits set"),
        ({"office": ["example.org"]}, "network office: 'example.org' does not appear to be"),
        ({"Office": ["10.0.0.0/8"]}, "network 'Office': expected a name"),
        ({"a/b": ["10.0.0.0/8"]}, "network 'a/b': expected a name"),
        ({"": ["10.0.0.0/8"]}, "network '': expected a name"),
    ],
)
def test_a_wrong_network_is_refused(vault: Vault, want: init.Want, networks: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        init.plan(vault, replace(want, networks=networks))


@pytest.mark.parametrize(
    "path",
    [
        "*", "+/creds/x", "database/*", "database/creds/+", "database", "database/../sys/mounts",
        "/database/x", "database//x", "database/x/", "database/x\n", 'database/x" { }',
        "database/creds/{{identity.entity.name}}", "sys/mounts", "auth/token/create", "identity/entity/id/x",
        "cubbyhole/x", "jitvault/data/tasks/x", "jitvault-inbox/data/e/x", "jitvault-transit/keys/x",
    ],
)  # fmt: skip
def test_no_policy_is_made_for_such_a_path(path: str) -> None:
    with pytest.raises(InvalidInput, match="template t: "):
        checked_access_path(path, "t")


def test_unusable_templates_and_engines_are_refused(vault: Vault, want: init.Want) -> None:
    template = want.templates["postgres-readonly"]
    with pytest.raises(InvalidInput, match="below sys/, which is Vault's own"):
        init.plan(vault, with_template(want, changed_body(template, mount="sys")))
    with pytest.raises(InvalidInput, match="is no path for an access policy"):
        init.plan(vault, with_template(want, changed_body(template, path="creds/*", parameters={})))
    with pytest.raises(InvalidInput, match=r"template postgres-readonly: .* spec\.data has to be empty"):
        init.plan(vault, with_template(want, changed_body(template, data={"ttl": "5m"})))
    with pytest.raises(InvalidInput, match="jitvault knows no engine ssh; it knows database"):
        init.plan(vault, with_template(want, changed_body(template, engine="ssh")))
    pki = want.templates["pki-service"]
    for change, message in (
        ({"data": {"common_name": "{service}", "not_after": "2099-01-01T00:00:00Z"}}, r"data\.not_after sets"),
        ({"data": {"common_name": "{service}", "ttl": "1h"}}, r"data\.ttl asks for '1h'"),
        ({"accepted_after_end": None}, "template pki-service: a pki template says in accepted_after_end"),
        ({"path": "sign-verbatim/service"}, "whatever the role allows"),
    ):
        with pytest.raises(InvalidInput, match=message):
            init.plan(vault, with_template(want, changed_body(pki, **change)))
    many = template.spec.parameters["database"].model_copy(
        update={"choices": tuple(f"db{number}" for number in range(257))}
    )
    with pytest.raises(InvalidInput, match="at most 256 combinations"):
        init.plan(vault, with_template(want, changed_body(template, parameters={"database": many})))


def test_unusable_policy_files_are_refused(vault: Vault, want: init.Want) -> None:
    for name, text, message in (
        ("agent.hcl", 'path "x" {}\n', "the first line has to be `# managed by jitvault`"),
        ("worker-token-role.hcl", 'path "$rolle" {}\n', r"expected no placeholder but \$role"),
    ):
        with pytest.raises(InvalidInput, match=message):
            init.plan(vault, replace(want, policies={**want.policies, name: text}))
    with pytest.raises(InvalidInput, match=r"worker\.hcl is missing"):
        init.plan(vault, replace(want, policies={}))


def test_each_choice_of_what_is_sent_has_a_policy_and_their_path_one_stanza(vault: Vault, want: init.Want) -> None:
    template = want.templates["pki-service"]
    services = template.spec.parameters["service"].model_copy(update={"choices": ("billing", "orders")})
    several = with_template(want, changed_body(template, parameters={"service": services}))
    ready(vault, several)
    for service in ("billing", "orders"):
        sent = {"common_name": f"{service}.svc.internal", "ttl": "15m"}
        policy = access_policy("pki/issue/service", "update", sent)
        assert data(vault, f"sys/policies/acl/{policy.name}")["policy"] == policy.text
    worker = data(vault, "sys/policies/acl/jitvault-worker")["policy"]
    assert worker.count('path "sys/leases/revoke/pki/issue/service/*"') == 1
    assert worker.count('path "pki/issuer/*"') == 1
    assert changes(vault, several) == []
