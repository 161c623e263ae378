"""`jitvault doctor` on real servers: all well with each identity, and everything that it has to notice, broken once."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from commands import SPEC, Quick, Result
from rig import Rig

from jitvault import shipped_files as shipped
from jitvault.doctor.check import Unknown
from jitvault.doctor.vault_health import takes_large
from jitvault.provision import init
from jitvault.provision.items import TokenRole
from jitvault.sandbox import vault_configuration
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import shipped_want
from jitvault.stream import reading as observe
from jitvault.vault.client import Connection

pytestmark = pytest.mark.usefixtures("lab")

WORKER = {"JITVAULT_ADMIN_TOKEN": ""}
SKIPS_FOR_ADMINS = {
    *("mount", "audited header", "policy", "mount tuning", "as a whole", "devices"),
    *("engine configuration", "read limit", "secrets in the log", "agents' tokens", "logins by certificate"),
}
Environment = dict[str, str]


@pytest.fixture(autouse=True)
def renewed(rig: Rig) -> None:
    """No worker runs here that would keep the list of revoked certificates valid."""
    rig.admin.read("pki/crl/rotate")


Break = Callable[[Rig], contextlib.AbstractContextManager[Environment]]


def doctor(rig: Rig, who: str | None = "admin", extra: Environment | None = None) -> Result:
    return rig(who, "doctor", code=None, extra=extra)


def checks(result: Result) -> dict[str, dict[str, Any]]:
    """The checks by name; `area, name` where two areas have the same."""
    found: dict[str, dict[str, Any]] = {}
    for check in result.json["checks"]:
        found[f"{check['area']}, {check['name']}"] = found[check["name"]] = check
    return found


def status(result: Result, status: str) -> set[str]:
    return {check["name"] for check in result.json["checks"] if check["status"] == status}


# -- all well ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "worker", "code", "skipped"),
    [
        ("admin", True, 0, {"in use"}),
        (None, True, 0, SKIPS_FOR_ADMINS | {"in use", "person"}),
        ("operator", True, 0, SKIPS_FOR_ADMINS | {"in use"}),
    ],
    ids=["administrator", "worker", "operator with the worker's"],
)
def test_all_is_well_for_whoever_has_the_worker_s_identity(
    rig: Rig, who: str | None, worker: bool, code: int, skipped: set[str]
) -> None:
    result = doctor(rig, who, None if who == "admin" else WORKER)
    assert result.code == code, result
    assert status(result, "fail") == set()
    assert result.json["can"] == {"grant": True, "revoke": True, "prove": True}
    # of a server's disk nothing is known
    in_file = isinstance(rig.place, Path)
    assert status(result, "skipped") == skipped | (set() if in_file else {"room", "write-ahead log"})
    # the entity's name, by which somebody disables it, and not that of the login
    assert checks(result)["worker entity"]["seen"] == "worker, enabled"
    # the sandbox has one audit device, and a root token is nobody
    # and nothing tells its entities' persons
    odd = {"people", *({"devices", "person"} if who == "admin" else ())}
    assert status(result, "warn") == odd


@pytest.mark.parametrize("who", ["operator", "approver-1", "agent", None])
def test_a_person_alone_is_told_what_could_not_be_looked_at(rig: Rig, who: str | None) -> None:
    result = Quick(rig.cli.variables, rig.cli.home)(who, "doctor", "--json", code=2, worker=False, extra=WORKER)
    assert status(result, "fail") == set()
    assert result.json["can"] == {"grant": None, "revoke": None, "prove": None}
    found = checks(result)
    assert found["trust"]["status"] == found["worker token"]["status"] == "skipped"
    assert all(check["mend"] for check in result.json["checks"] if check["status"] == "skipped")
    # what could not be looked at is no error
    assert result.stderr == ""
    told = rig.cli(who, "doctor", code=2, worker=False, extra=WORKER)
    assert told.stdout.endswith("Each check with a - says what it needs.\n") and told.stderr == ""


def test_it_changes_nothing(rig: Rig) -> None:
    """Neither in Vault nor in a ledger, which it does not even make."""
    rig.ledger_path.unlink()
    doctor(rig)
    assert not rig.ledger_path.exists()
    before = rig.world.audit_file.stat().st_size
    doctor(rig)
    lines = rig.world.audit_file.read_bytes()[before:].decode().splitlines()
    written = {line.split('"path":"', 1)[1].split('"', 1)[0] for line in lines if '"operation":"update"' in line}
    # a question to OCSP is sent by POST, and changes nothing
    assert written == {"sys/audit-hash/jitvault", "sys/capabilities-self", "pki/ocsp"}


def test_no_secret_is_in_what_it_prints(rig: Rig) -> None:
    rig.granted(_spec(rig, "no-secret"))
    said = doctor(rig)
    people = rig.cli(*("admin", "doctor"), code=0)
    dsn = rig.document("probes/postgres")["dsn"]
    tokens = [value for name, value in rig.cli.variables.items() if name.endswith("_TOKEN")]
    for text in (said.stdout, said.stderr, people.stdout, people.stderr):
        assert not [s for s in [*tokens, dsn, dsn.partition("password=")[2].split()[0]] if s in text]
    assert "Can it grant: yes, revoke: yes, prove: yes" in people.stdout


# -- what is broken --------------------------------------------------------------------------------------


@contextlib.contextmanager
def header_gone(rig: Rig) -> Iterator[Environment]:
    rig.admin.delete("sys/config/auditing/request-headers/X-Jitvault-Op")
    yield {}
    rig.admin.write("sys/config/auditing/request-headers/X-Jitvault-Op", {"hmac": False})


@contextlib.contextmanager
def provisioned_again(rig: Rig) -> Iterator[None]:
    yield
    init.apply(rig.admin, init.plan(rig.admin, shipped_want()))


@contextlib.contextmanager
def limit_gone(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        for name in rig.admin.list("sys/quotas/rate-limit"):
            rig.admin.delete(f"sys/quotas/rate-limit/{name}")
        yield {}


@contextlib.contextmanager
def role_edited(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        rig.admin.write("auth/token/roles/jitvault-15m", TokenRole("jitvault-15m", 86_400, ()).body)
        yield WORKER


@contextlib.contextmanager
def saved_for_long(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        rig.admin.write("pki/config/crl", {"ocsp_expiry": "12h"})
        yield {}


@contextlib.contextmanager
def inbox_kept(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        rig.admin.write("jitvault-inbox/config", {"delete_version_after": "24h"})
        yield {}


@contextlib.contextmanager
def inbox_gone(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        rig.admin.delete("sys/mounts/jitvault-inbox")
        yield {}


@contextlib.contextmanager
def network_widened(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        body = TokenRole("jitvault-1h-loopback", 3600, ("10.0.0.0/8", "127.0.0.0/8")).body
        rig.admin.write("auth/token/roles/jitvault-1h-loopback", body)
        yield {}


@contextlib.contextmanager
def worker_policy_wider(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        text = rig.admin.read("sys/policies/acl/jitvault-worker") or {}
        more = text["data"]["policy"] + 'path "secret/*" { capabilities = ["read"] }\n'
        rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": more})
        yield {}


@contextlib.contextmanager
def key_deletable(rig: Rig) -> Iterator[Environment]:
    with provisioned_again(rig):
        rig.admin.write("jitvault-transit/keys/jitvault-receipts/config", {"deletion_allowed": True})
        yield {}


@contextlib.contextmanager
def worker_lacks(rig: Rig, path: str) -> Iterator[Environment]:
    """What nobody but the worker can see where there is no administrator's token."""
    with provisioned_again(rig):
        text = (rig.admin.read("sys/policies/acl/jitvault-worker") or {})["data"]["policy"]
        assert f'path "{path}' in text
        rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": text.replace(f'"{path}', f'"nowhere/{path}')})
        yield WORKER


def worker_cannot_revoke(rig: Rig) -> contextlib.AbstractContextManager[Environment]:
    return worker_lacks(rig, "sys/leases/revoke-prefix/auth/token/create/jitvault-1h-loopback")


def worker_cannot_ask(rig: Rig) -> contextlib.AbstractContextManager[Environment]:
    """As with the policy of an older version."""
    return worker_lacks(rig, "sys/capabilities-self")


@contextlib.contextmanager
def worker_has_more(rig: Rig) -> Iterator[Environment]:
    made = rig.admin.write("auth/token/create", {"policies": ["jitvault-worker", "jitvault-operator"], "ttl": "10m"})
    yield {**WORKER, "JITVAULT_WORKER_TOKEN": made["auth"]["client_token"]}


@contextlib.contextmanager
def worker_revoked(rig: Rig) -> Iterator[Environment]:
    made = rig.admin.write("auth/token/create", {"policies": ["jitvault-worker"], "ttl": "10m"})["auth"]
    rig.admin.write("auth/token/revoke-accessor", {"accessor": made["accessor"]})
    yield {**WORKER, "JITVAULT_WORKER_TOKEN": made["client_token"]}


@contextlib.contextmanager
def worker_disabled(rig: Rig) -> Iterator[Environment]:
    rig.admin.write("identity/entity/name/worker", {"disabled": True})
    yield WORKER
    rig.admin.write("identity/entity/name/worker", {"disabled": False})


@contextlib.contextmanager
def audit_file_gone(rig: Rig) -> Iterator[Environment]:
    yield {"JITVAULT_AUDIT_FILE": str(rig.cli.home / "nowhere.log")}


@contextlib.contextmanager
def audit_file_of_another(rig: Rig) -> Iterator[Environment]:
    """Lines stop to come, as from a device that writes elsewhere now."""
    copy = rig.cli.home / "copy.log"
    shutil.copy(rig.world.audit_file, copy)
    yield {**WORKER, "JITVAULT_AUDIT_FILE": str(copy)}


@contextlib.contextmanager
def another_device_is_read(rig: Rig) -> Iterator[Environment]:
    yield {"JITVAULT_AUDIT_DEVICE": "elsewhere"}


@contextlib.contextmanager
def schema_old(rig: Rig) -> Iterator[Environment]:
    rig.sql("UPDATE alembic_version SET version_num = '0000'")
    yield WORKER


@contextlib.contextmanager
def ledger_lost(rig: Rig) -> Iterator[Environment]:
    yield {**WORKER, "JITVAULT_LEDGER": f"sqlite:///{rig.cli.home / 'another.db'}"}


@contextlib.contextmanager
def ledger_of_another(rig: Rig) -> Iterator[Environment]:
    rig.sql("UPDATE installation SET id = ?", "0" * 32)
    yield WORKER


@contextlib.contextmanager
def event_edited(rig: Rig) -> Iterator[Environment]:
    rig.drop_triggers()
    assert rig.sql("UPDATE events SET body = '{}' WHERE seq = 1") == 1
    yield WORKER


def _policies(rig: Rig, more: str) -> str:
    directory = rig.cli.home / "other-policies"
    shutil.copytree(shipped.policies_dir() / "cedar", directory)
    (directory / "more.cedar").write_text(more)
    return str(directory)


@contextlib.contextmanager
def policies_invalid(rig: Rig) -> Iterator[Environment]:
    yield {**WORKER, "JITVAULT_POLICIES": _policies(rig, "permit (principal, action, resource) when { nonsense };")}


@contextlib.contextmanager
def templates_invalid(rig: Rig) -> Iterator[Environment]:
    directory = rig.cli.home / "bad-templates"
    directory.mkdir()
    (directory / "one.yaml").write_text("apiVersion: jitvault.dev/v1\nkind: Nothing\n")
    yield {**WORKER, "JITVAULT_TEMPLATES": str(directory)}


@contextlib.contextmanager
def probe_without_right(rig: Rig) -> Iterator[Environment]:
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        target.execute("REVOKE pg_signal_backend FROM jitvault_probe")
        yield WORKER
        target.execute("GRANT pg_signal_backend TO jitvault_probe")


@contextlib.contextmanager
def probe_written_wrong(rig: Rig) -> Iterator[Environment]:
    before = rig.document("probes/postgres")
    rig.put("probes/postgres", {"dsn": before["dsn"].replace("password=", "password=wrong")})
    yield WORKER
    rig.put("probes/postgres", before)
    rig.vouch()


@contextlib.contextmanager
def everything_frozen_by_people(rig: Rig) -> Iterator[Environment]:
    # tasks of other tests' ledgers may be held, and nobody ends those
    rig("operator", "freeze", "--all", "--yes", "--reason", "fire drill", code=None)
    yield WORKER
    rig("operator", "unfreeze", "--all", "--reason", "over")


@contextlib.contextmanager
def everything_frozen_by_a_tripwire(rig: Rig) -> Iterator[Environment]:
    rig.sql("INSERT INTO freezes (reason, line, at) VALUES ('a stolen worker', 'l', '2026-01-01 00:00:00')")
    yield WORKER


@contextlib.contextmanager
def finding_open(rig: Rig) -> Iterator[Environment]:
    # somebody else takes the token first, and the agent's own unwrap is refused
    spec = _spec(rig, "intercepted")
    granted = rig.granted(spec)
    rig.use(granted, read=False)
    rig("agent", "unwrap", granted["wrapping"][0]["token"], code=9)
    rig("operator", "status", spec.stem, code=None)
    yield WORKER


def _ago(**time: float) -> str:
    """A time as the ledger has it."""
    return f"{datetime.now(UTC) - timedelta(**time):%Y-%m-%d %H:%M:%S.%f}"


@contextlib.contextmanager
def nobody_does_what_is_due(rig: Rig) -> Iterator[Environment]:
    rig.granted(_spec(rig, "overdue"))
    assert rig.sql("UPDATE tasks SET due_at = ? WHERE state = 'issued'", _ago(minutes=5)) == 1
    yield WORKER


@contextlib.contextmanager
def end_unproven_for_long(rig: Rig) -> Iterator[Environment]:
    rig.active(_spec(rig, "unproven"))
    ending = "state = 'ending', end_reason = 'operator', ending_at = ?"
    rig.sql(f"UPDATE tasks SET {ending} WHERE state = 'issued'", _ago(hours=1))
    yield WORKER


@contextlib.contextmanager
def lease_resists(rig: Rig) -> Iterator[Environment]:
    spec = _spec(rig, "resists")
    rig.active(spec)
    rig("operator", "status", spec.stem)
    assert rig.sql("UPDATE leases SET verdict = 'irrevocable'") == 1
    yield WORKER


def _spec(rig: Rig, task: str, window: str = "15m") -> Path:
    """A spec whose task's id begins with `task`: Vault remembers those of other tests."""
    task = f"{task}-{secrets.token_hex(4)}"
    path = rig.cli.home / f"{task}.yaml"
    more = {"id": task, "criticality": "low", "template": "postgres-readonly", "window": window}
    path.write_text(SPEC.format(**more, intent="Count the orders.", more=""))
    return path


BROKEN: list[tuple[Break, str, int, str]] = [
    (header_gone, "audited header", 9, "X-Jitvault-Op is missing"),
    (limit_gone, "read limit", 9, "pki/issue/service is missing"),
    (role_edited, "token role", 9, "jitvault-15m differs (token_explicit_max_ttl: 86400 → 900)"),
    (saved_for_long, "engine configuration", 9, "pki/config/crl differs (ocsp_expiry: 12h → 5m"),
    (inbox_kept, "engine configuration", 9, "jitvault-inbox/config differs (delete_version_after: 24h0m0s → 10m0s)"),
    (inbox_gone, "mount", 9, "jitvault-inbox/ is missing"),
    (network_widened, "token role", 9, "jitvault-1h-loopback differs"),
    (worker_policy_wider, "policy", 9, "jitvault-worker differs"),
    (key_deletable, "signing key", 9, "jitvault-receipts differs (deletion_allowed: true → false)"),
    (worker_cannot_revoke, "worker rights", 10, "revoke-prefix/auth/token/create/jitvault-1h-loopback"),
    (worker_cannot_ask, "worker rights", 10, "update sys/capabilities-self"),
    (worker_has_more, "worker policies", 10, "more than jitvault-worker: default, jitvault-operator"),
    (worker_revoked, "worker token", 10, "permission denied"),
    (worker_disabled, "worker token", 10, "permission denied"),
    (audit_file_gone, "files", 7, "No such file or directory"),
    (audit_file_of_another, "trust", 7, "does not show the request that was just sent to Vault"),
    (another_device_is_read, "devices", 7, "there is no audit device elsewhere"),
    (schema_old, "usable", 11, "schema version 0000"),
    (ledger_lost, "usable", 11, "the ledger was lost"),
    (ledger_of_another, "usable", 11, "another installation"),
    (event_edited, "chains", 12, "changed by hand: any-"),
    (policies_invalid, "set", 8, "more.cedar"),
    (templates_invalid, "granted", 8, "one.yaml"),
    (probe_without_right, "postgres", 6, "it lacks pg_signal_backend"),
    (probe_written_wrong, "postgres", 6, "could not be asked"),
    (everything_frozen_by_people, "by operators", 3, "everything by operator"),
    (everything_frozen_by_a_tripwire, "by a tripwire", 12, "a stolen worker"),
    (finding_open, "findings", 12, "unwrap_refused (intercepted-"),
    (nobody_does_what_is_due, "overdue", 13, "overdue-"),
    (end_unproven_for_long, "ending", 6, "unproven-"),
    (lease_resists, "not revocable", 6, "of resists-"),
]


@pytest.fixture
def used(rig: Rig) -> None:
    """The rig's ledger is there: Vault knows of the tasks of other tests, and without one it would be a lost ledger."""
    rig("operator", "submit", _spec(rig, "any"))


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize(("broken", "name", "code", "seen"), BROKEN, ids=[one[0].__name__ for one in BROKEN])
def test_what_is_broken_is_told_and_nothing_else(
    rig: Rig, broken: Break, name: str, code: int, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("files", "trust", "devices"):
        # the line that will not come is not waited for
        monkeypatch.setattr(observe, "PATIENCE_S", 0.5)
    with broken(rig) as extra:
        who = "operator" if extra.get("JITVAULT_ADMIN_TOKEN") == "" else "admin"
        result = doctor(rig, who, extra)
    found = checks(result)[name]
    assert (found["status"], result.code) == ("fail", code), result
    assert seen in found["seen"] and found["mend"]
    assert found["seen"] in result.error["message"]
    # what rests on it is skipped or fails for the same reason; nothing else fails
    also = {
        **{"files": {"trust"}, "devices": {"trust"}, "policy": {"worker policies"}},
        "mount": {"engine configuration"},
    }.get(name, set())
    assert status(result, "fail") <= {name} | also
    for ability in found["needed_to"]:
        assert result.json["can"][ability] is False
    if broken is saved_for_long:
        # it is one template's, and a check of that would end with the same: `init` goes first
        assert result.json["can"]["grant"] is True
        assert checks(result)["pki-service"]["mend"].startswith("`jitvault init` shortens it")


@pytest.mark.usefixtures("used")
def test_the_stream_is_judged_without_a_ledger_or_policies_that_can_be_used(rig: Rig) -> None:
    extra: Environment = {}
    with schema_old(rig) as one, policies_invalid(rig) as two, templates_invalid(rig) as three:
        for more in (one, two, three):
            extra |= more
            found = checks(doctor(rig, "operator", extra))
            assert found["trust"]["status"] == "ok", found
            assert found["by operators"]["status"] == "ok", found


def test_a_set_that_is_refused_leaves_the_last_good_one_and_it_is_named(rig: Rig) -> None:
    rig("operator", "submit", _spec(rig, "decided"))
    with policies_invalid(rig) as extra:
        found = checks(doctor(rig, "operator", extra))
    decided = rig.rows("SELECT CAST(body AS TEXT) FROM events")[0][0]
    assert found["in use"]["status"] == "warn"
    assert found["in use"]["seen"].rpartition(" ")[2] in decided


# -- what is worth a word --------------------------------------------------------------------------------


def test_an_operator_who_has_just_joined_lacks_a_key_until_init_has_made_it(rig: Rig) -> None:
    with joined(rig, "newcomer") as token:
        them = {**WORKER, "VAULT_TOKEN": token}
        found = checks(doctor(rig, "operator", them))["person's signing key"]
        assert found["status"] == "fail" and "`jitvault init` again" in found["mend"]
        refused = rig("operator", "grant", _spec(rig, "newcomer"), code=10, extra=them).error
        assert "no signing key" in refused["message"] and "`jitvault init` again" in refused["hint"]
        init.apply(rig.admin, init.plan(rig.admin, shipped_want()))
        assert checks(doctor(rig, "operator", them))["person's signing key"]["status"] == "ok"
        rig("operator", "grant", _spec(rig, "newcomer"), extra=them)


@contextlib.contextmanager
def joined(rig: Rig, name: str) -> Iterator[str]:
    """The token of somebody who was put into the group of operators; afterwards the group is as it was."""
    group = "identity/group/name/jitvault-operators"
    before = (rig.admin.read(group) or {})["data"]["member_entity_ids"]
    password = secrets.token_hex(8)
    rig.admin.write(f"auth/userpass/users/{name}", {"password": password})
    login = rig.admin.write(f"auth/userpass/login/{name}", {"password": password})["auth"]
    rig.admin.write(group, {"member_entity_ids": [*before, login["entity_id"]]})
    yield login["client_token"]
    rig.admin.write(group, {"member_entity_ids": before})


@pytest.mark.usefixtures("used")
def test_what_is_worth_a_word_stops_nothing(rig: Rig) -> None:
    rig.active(_spec(rig, "outliving", window="60s"))
    rig("operator", "freeze", "--agent", "somebody", "--unseen", "--reason", "on leave")
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        target.execute("ALTER ROLE jitvault_probe CREATEDB")
        result = doctor(rig, "operator", WORKER)
        target.execute("ALTER ROLE jitvault_probe NOCREATEDB")
    rig("operator", "unfreeze", "--agent", "somebody", "--reason", "back")
    assert result.code == 0, result
    found = checks(result)
    assert status(result, "warn") == {"people", "postgres", "by operators", "outliving leases"}
    assert "no probe needs CREATEDB" in found["postgres"]["seen"]
    assert "agent somebody by operator" in found["by operators"]["seen"]
    assert "of outliving-" in found["outliving leases"]["seen"]


def test_a_listener_that_takes_any_size_is_told(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks(doctor(rig))["request size"]["status"] == "ok"
    monkeypatch.setattr(vault_configuration, "MAX_REQUEST_BYTES", 32 * 1024 * 1024)
    with VaultServer(tmp_path / "large") as large:
        audit = large.audit_file.stat().st_size
        assert takes_large(Connection(large.address)) is True
        # its one line has no more than the length of the value
        assert large.audit_file.stat().st_size - audit < 4096
    assert isinstance(takes_large(Connection(large.address)), Unknown)


@pytest.mark.usefixtures("used")
def test_a_login_of_an_agent_that_gives_the_default_policy_is_told(rig: Rig) -> None:
    user, entity = "auth/userpass/users/research-agent", rig.entity("research-agent")
    assert checks(doctor(rig))["agents' tokens"]["status"] == "ok"
    rig.admin.write("sys/auth/approle", {"type": "approle"}, method="post")
    rig.admin.write("auth/approle/role/agents", {"token_policies": "jitvault-agent"})
    rig.admin.write(user, {"token_no_default_policy": "false"})
    accessor = (rig.admin.read("sys/auth") or {})["data"]["approle/"]["accessor"]
    alias = {"name": "r-1", "canonical_id": entity, "mount_accessor": accessor}
    rig.admin.write("identity/entity-alias", alias)
    found = checks(doctor(rig))["agents' tokens"]
    rig.admin.write(user, {"token_no_default_policy": "true"})
    rig.admin.delete("sys/auth/approle")
    assert found["status"] == "warn"
    assert found["seen"] == f"logins that give `default`: auth/approle/role/agents, {user}"
    assert "token_no_default_policy=true" in found["mend"]


@pytest.mark.usefixtures("used")
def test_a_template_whose_role_changed_is_told_and_the_others_go_on(rig: Rig) -> None:
    role = dict((rig.admin.read("database/roles/app-readwrite") or {})["data"])
    rig.admin.write("database/roles/app-readwrite", {**role, "max_ttl": "10m", "default_ttl": "10m"})
    result = doctor(rig, "operator", WORKER)
    rig.admin.write("database/roles/app-readwrite", role)
    assert result.code == 0, result
    found = checks(result)
    assert found["postgres-readwrite"]["status"] == "warn"
    assert "changed since" in found["postgres-readwrite"]["seen"]
    assert (found["granted"]["status"], found["granted"]["seen"]) == ("ok", "2 of 3 are granted")


# -- Vault away; the servers are this module's own, and nothing comes after this ---------------------------


def test_a_sealed_vault_and_one_that_is_away_are_told_with_all_that_needs_none(rig: Rig) -> None:
    rig("operator", "submit", _spec(rig, "before-the-seal"))
    rig.admin.write("sys/seal")
    sealed = doctor(rig)
    rig.world.servers.vault.kill()
    away = doctor(rig)
    for result, name in ((sealed, "unsealed"), (away, "reachable")):
        found = checks(result)
        assert (result.code, found[name]["status"]) == (5, "fail"), result
        assert status(result, "fail") == {name}
        assert result.json["can"] == {"grant": False, "revoke": False, "prove": False}
        # what lies on this machine is looked at all the same
        assert {"usable", "chains", "set", "files", "overdue"} <= status(result, "ok")
        assert {"worker token", "trust", "token role", "postgres"} & status(result, "ok") == set()
