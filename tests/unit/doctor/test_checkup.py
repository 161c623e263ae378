"""The judgements of `jitvault doctor`, one fact at a time: what is ok, what is worth a word, what fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jitvault.doctor import identity, server, stream, targets
from jitvault.doctor import ledger as record
from jitvault.doctor import policies as rules
from jitvault.doctor import provisioning as provisioned
from jitvault.doctor.check import Ability, About, Check, Known, Status, Unknown, can, counts, first_failure
from jitvault.engines.interface import Finding
from jitvault.errors import SecurityFinding, VaultUnavailable
from jitvault.formats.plural import listed
from jitvault.formats.server_product import Product
from jitvault.model.scope import FreezeStatement, Scope

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
UNKNOWN = Unknown("nobody may look", "ask somebody")
SERVER = server.Server(
    address="https://vault",
    initialised=True,
    sealed=False,
    product=Product.OPENBAO,
    enterprise=False,
    version="2.7.2",
    skew=timedelta(0),
    clustered=False,
    is_active=True,
    leader=None,
)
HOLDER = identity.Holder("worker", "e1", frozenset({"jitvault-worker"}), timedelta(hours=8), True, True)
RECORD = record.LedgerFacts(
    schema="0001",
    installation="i",
    tasks=3,
    looked_at=3,
    broken=(),
    room=record.Room(10 * 1024 * record.MB, 0),
    findings=(),
    overdue=(),
    ending=(),
    stuck=(),
)
LOGIN = record.LedgerLogin("night", writes=True, owns=False, missing=(), excess=())


def by_name(checks: object) -> dict[str, Check]:
    return {check.about.name: check for check in checks}


def statuses(checks: object) -> dict[str, str]:
    return {name: check.status.value for name, check in by_name(checks).items()}


# -- what all of them say together -----------------------------------------------------------------------

COVERS = About("vault", "covers", VaultUnavailable, frozenset({Ability.GRANT}))
ABOUTS = st.builds(
    About,
    st.sampled_from(["vault", "ledger"]),
    st.text(max_size=3),
    st.sampled_from([VaultUnavailable, SecurityFinding]),
    st.frozensets(st.sampled_from(list(Ability))),
    st.sampled_from([None, COVERS]),
)
CHECKS = st.lists(st.builds(Check, st.just(COVERS) | ABOUTS, st.sampled_from(list(Status)), st.just("seen")))


@given(CHECKS)
# nothing looked at what it covers
@example(
    [Check(About("vault", "covered", VaultUnavailable, frozenset({Ability.PROVE}), COVERS), Status.SKIPPED, "seen")]
)
def test_a_yes_needs_every_check_and_a_failure_is_a_no(checks: list[Check]) -> None:
    is_covered = any(check.about is COVERS and check.status is not Status.SKIPPED for check in checks)
    for ability, answer in can(checks).items():
        needed = [check for check in checks if ability in check.about.needed_to]
        if any(check.status is Status.FAIL for check in needed):
            assert answer is False
        elif not needed or any(c.status is Status.SKIPPED and not (c.about.covered_by and is_covered) for c in needed):
            assert answer is None
        else:
            assert answer is True
    failed = [check for check in checks if check.status is Status.FAIL]
    assert first_failure(checks) is (failed[0] if failed else None)
    assert sum(counts(checks).values()) == len(checks)


@given(st.lists(st.text(min_size=1, max_size=5)), st.integers(1, 4))
def test_what_is_left_out_of_a_list_is_counted(names: list[str], most: int) -> None:
    said = listed(names, most)
    assert said.startswith(", ".join(names[:most]))
    assert (f" and {len(names) - most} more" in said) == (len(names) > most)


def test_what_is_not_known_is_skipped_in_every_area_and_never_ok() -> None:
    everything = [
        *list(server.judge(UNKNOWN))[1:],
        identity.judge_person(UNKNOWN),
        *identity.judge_worker(UNKNOWN),
        *identity.judge_worker(identity.Refused("403")),
        identity.judge_rights(UNKNOWN),
        *provisioned.judge(dict.fromkeys(provisioned.KINDS, UNKNOWN), UNKNOWN),
        *provisioned.judge_devices(UNKNOWN, "jitvault", None),
        stream.judge_files([]),
        *stream.judge_stream(UNKNOWN),
        *stream.judge_freezes(UNKNOWN, UNKNOWN),
        *record.judge_ledger(UNKNOWN),
        *record.judge_tasks(UNKNOWN, NOW),
        *record.judge_tasks(record.Unusable("full", "free"), NOW),
        record.judge_outliving(UNKNOWN),
        *list(rules.judge_policies(rules.PolicySet(why="no set"), UNKNOWN)),
        *rules.judge_templates(UNKNOWN, NOW),
        *rules.judge_probes(UNKNOWN, NOW),
    ]
    assert {check.status for check in everything} == {Status.SKIPPED, Status.FAIL}
    assert all(check.mend for check in everything)
    failed = {check.about.name for check in everything if check.status is Status.FAIL}
    assert failed == {"worker token", "set"}
    assert by_name(server.judge(UNKNOWN))["reachable"].status is Status.FAIL


def test_rights_that_the_worker_lacks_are_named_and_a_no() -> None:
    assert identity.judge_rights([]).status is Status.OK
    found = identity.judge_rights(["update sys/leases/revoke/database/creds/a/*"])
    assert found.status is Status.FAIL and "sys/leases/revoke" in found.seen and "jitvault init" in found.mend
    assert can([found]) == dict.fromkeys(Ability, False)


# -- the server ------------------------------------------------------------------------------------------


def test_a_server_that_is_as_it_should_be() -> None:
    assert set(statuses(server.judge(SERVER)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"sealed": True}, "unsealed", "fail"),
        ({"initialised": False}, "unsealed", "fail"),
        ({"sealed": True}, "node", "skipped"),
        ({"version": "1.15.4"}, "version", "warn"),
        ({"version": "2.70.1"}, "version", "warn"),
        ({"version": ""}, "version", "warn"),
        ({"version": "2.7.9+ent"}, "version", "ok"),
        ({"version": "1.14.9", "product": Product.VAULT}, "version", "ok"),
        ({"version": "2.7.2", "product": Product.VAULT}, "version", "warn"),
        ({"version": "2.7.2", "product": None}, "version", "warn"),
        ({"skew": timedelta(seconds=-5)}, "clock", "ok"),
        ({"skew": timedelta(seconds=6)}, "clock", "warn"),
        ({"skew": timedelta(seconds=-30)}, "clock", "warn"),
        ({"skew": timedelta(hours=1)}, "clock", "fail"),
        ({"skew": timedelta(hours=-1)}, "clock", "fail"),
        ({"clustered": True}, "node", "ok"),
        ({"clustered": True, "is_active": False, "leader": "https://other"}, "node", "ok"),
        ({"clustered": True, "is_active": False}, "node", "fail"),
    ],
)
def test_what_is_said_of_a_server(change: dict[str, object], name: str, status: str) -> None:
    assert statuses(server.judge(replace(SERVER, **change)))[name] == status


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"product": Product.VAULT}, ["fail"]),
        ({"product": Product.VAULT, "enterprise": True}, []),
        ({"product": Product.OPENBAO}, []),
        ({"product": None}, []),
    ],
)
def test_a_server_without_namespaces_is_not_set_to_one(change: dict[str, object], said: list[str]) -> None:
    assert [check.status.value for check in server.judge_namespace(replace(SERVER, **change), "team")] == said


def test_a_listener_that_takes_any_size_is_told_and_stops_nothing() -> None:
    found = [server.judge_requests(takes) for takes in (False, True, UNKNOWN)]
    assert [check.status for check in found] == [Status.OK, Status.WARN, Status.SKIPPED]
    assert "max_request_size = 1048576" in found[1].mend and not found[1].about.needed_to


@pytest.mark.parametrize(
    ("product", "how"),
    [
        (Product.OPENBAO, ["in the server's configuration"]),
        (Product.VAULT, ["`vault audit enable "]),
        (None, ["on OpenBao declare", "on Vault `vault audit enable "]),
    ],
)
def test_a_second_device_is_made_in_the_server_s_own_way(product: Product | None, how: list[str]) -> None:
    alone = [provisioned.Device("jitvault", "file", raw=False)]
    (devices, _) = provisioned.judge_devices(alone, "jitvault", product)
    assert devices.status is Status.WARN and all(words in devices.mend for words in how)
    assert ("audit enable" in devices.mend) is (product is not Product.OPENBAO)


# -- who asks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policies", "has_key", "said"),
    [
        ({"jitvault-operator", "default"}, True, [Status.OK]),
        ({"jitvault-operator", "default"}, False, [Status.FAIL]),
        ({"jitvault-operator"}, UNKNOWN, []),
        ({"jitvault-auditor"}, False, []),
    ],
)
def test_an_operator_without_a_key_is_told_that_nothing_is_granted_to_them(
    policies: set[str], has_key: Known[bool], said: list[Status]
) -> None:
    person = replace(HOLDER, name="userpass-new", policies=frozenset(policies))
    found = list(identity.judge_signing_key(person, has_key))
    assert [check.status for check in found] == said
    assert can(found)[Ability.GRANT] is {Status.OK: True, Status.FAIL: False}.get(*said or [None])
    assert list(identity.judge_signing_key(identity.Refused("no"), has_key)) == []


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({}, "worker token", "ok"),
        ({"ttl": timedelta(minutes=59)}, "worker token", "warn"),
        ({"ttl": None}, "worker token", "ok"),
        ({"policies": frozenset({"jitvault-worker", "default"})}, "worker policies", "fail"),
        ({"policies": frozenset({"root"})}, "worker policies", "fail"),
        ({"policies": frozenset()}, "worker policies", "fail"),
        ({"entity_id": "", "enabled": None}, "worker entity", "warn"),
        ({"enabled": None}, "worker entity", "skipped"),
        ({"enabled": False}, "worker entity", "fail"),
        ({}, "worker entity", "ok"),
    ],
)
def test_what_is_said_of_the_worker(change: dict[str, object], name: str, status: str) -> None:
    assert statuses(identity.judge_worker(replace(HOLDER, **change)))[name] == status


def test_a_worker_that_logs_in_by_itself_is_not_said_to_run_out() -> None:
    soon = replace(HOLDER, ttl=timedelta(minutes=59, seconds=59))
    given = by_name(identity.judge_worker(soon))["worker token"]
    assert (given.status.value, given.seen) == ("warn", "59m59s left, can be renewed")
    own = by_name(identity.judge_worker(soon, "approle"))["worker token"]
    assert (own.status.value, own.mend) == ("ok", "")
    assert own.seen == "it logs in by approle, and again by itself; its token lives 59m59s"


def test_what_is_said_of_the_person() -> None:
    assert identity.judge_person(HOLDER).status is Status.OK
    assert identity.judge_person(replace(HOLDER, entity_id="")).status is Status.WARN
    assert identity.judge_person(identity.Refused("expired")).status is Status.FAIL


# -- what init made ----------------------------------------------------------------------------------------


def test_drift_is_told_by_kind_with_what_differs() -> None:
    parts = {
        "token role": [provisioned.Part("token role", "a", "keep"), provisioned.Part("token role", "b", "create")],
        "policy": [provisioned.Part("policy", "w", "update", ("-  old", "+new"))],
    }
    found = by_name(provisioned.judge(parts, ["there is no secrets engine x/"]))
    assert (found["token role"].status, found["token role"].seen) == (Status.FAIL, "b is missing")
    assert (found["policy"].status, found["policy"].seen) == (Status.FAIL, "w differs (- old, +new)")
    assert (found["mount"].status, found["as a whole"].status) == (Status.OK, Status.WARN)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([("jitvault", False), ("second", False)], ("ok", "ok")),
        ([("jitvault", False)], ("warn", "ok")),
        ([("other", False)], ("fail", "ok")),
        ([], ("fail", "ok")),
        ([("jitvault", False), ("plain", True)], ("ok", "fail")),
    ],
)
def test_what_is_said_of_audit_devices(devices: list[tuple[str, bool]], expected: tuple[str, str]) -> None:
    given_ = [provisioned.Device(name, "file", raw) for name, raw in devices]
    found = statuses(provisioned.judge_devices(given_, "jitvault", Product.OPENBAO))
    assert (found["devices"], found["secrets in the log"]) == expected


# -- the stream and freezes --------------------------------------------------------------------------------


def test_what_is_said_of_the_stream() -> None:
    good = stream.Stream(None, "", timedelta(milliseconds=20), 0, None)
    assert statuses(stream.judge_stream(good)) == {"trust": "ok", "lag": "ok", "salt": "ok"}
    slow = replace(good, lag=timedelta(seconds=2), anew=NOW, gaps=1)
    assert statuses(stream.judge_stream(slow)) == {"trust": "ok", "lag": "warn", "salt": "warn"}
    lost = replace(good, why="it belongs to another Vault", mend="look", lag=None)
    assert statuses(stream.judge_stream(lost)) == {"trust": "fail", "lag": "skipped", "salt": "ok"}
    assert stream.judge_files([stream.File("a", ""), stream.File("b", "gone")]).status is Status.FAIL
    told = stream.judge_files([stream.File("a", ""), stream.File("b", "", wrong_form="format=jsonx")])
    assert (told.status, told.seen) == (Status.FAIL, "b: format=jsonx")


def test_a_freeze_of_everything_stops_grants_and_one_of_somebody_is_told() -> None:
    some = FreezeStatement(Scope(agent="a"), True, "olga", "on leave", NOW)
    everything = FreezeStatement(Scope(), True, "olga", "fire", NOW)
    assert statuses(stream.judge_freezes(None, [])) == {"by a tripwire": "ok", "by operators": "ok"}
    assert statuses(stream.judge_freezes(None, [some]))["by operators"] == "warn"
    assert statuses(stream.judge_freezes(None, [some, everything]))["by operators"] == "fail"
    assert statuses(stream.judge_freezes(stream.Tripped("stolen", NOW), []))["by a tripwire"] == "fail"


# -- the ledger and its tasks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "name", "status"),
    [
        (RECORD, "usable", "ok"),
        (record.Unusable("old", "upgrade"), "usable", "fail"),
        (record.Unusable("old", "upgrade"), "chains", "skipped"),
        (record.NoneYet(0, None), "usable", "warn"),
        (record.NoneYet(2, None), "usable", "fail"),
        (replace(RECORD, broken=("t",)), "chains", "fail"),
        (replace(RECORD, room=record.Room(63 * record.MB, 0)), "room", "fail"),
        (replace(RECORD, room=record.Room(1023 * record.MB, 0)), "room", "warn"),
        (replace(RECORD, room=record.Room(1024 * record.MB, 257 * record.MB)), "room", "ok"),
        (replace(RECORD, room=record.Room(1024 * record.MB, 257 * record.MB)), "write-ahead log", "warn"),
        (replace(RECORD, room=None), "room", "skipped"),
        (replace(RECORD, login=LOGIN), "rights", "ok"),
        (replace(RECORD, login=replace(LOGIN, missing=("DELETE on judged",))), "rights", "fail"),
        (replace(RECORD, login=replace(LOGIN, excess=("DELETE on events",))), "rights", "warn"),
        (replace(RECORD, login=replace(LOGIN, owns=True)), "rights", "warn"),
        (record.NoneYet(0, None, is_new=True, login=replace(LOGIN, missing=("DELETE on judged",))), "rights", "fail"),
    ],
)
def test_what_is_said_of_the_ledger(found: object, name: str, status: str) -> None:
    assert statuses(record.judge_ledger(found))[name] == status


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"findings": [record.Finding("t", "denied", NOW - timedelta(hours=23))]}, "findings", "fail"),
        ({"findings": [record.Finding(None, "denied", NOW - timedelta(hours=25))]}, "findings", "warn"),
        ({"overdue": [("t", NOW - timedelta(seconds=59))]}, "overdue", "ok"),
        ({"overdue": [("t", NOW - timedelta(seconds=61))]}, "overdue", "fail"),
        ({"ending": [("t", NOW - timedelta(minutes=4))]}, "ending", "ok"),
        ({"ending": [("t", NOW - timedelta(minutes=6))]}, "ending", "fail"),
        ({"stuck": [("lease", "t")]}, "not revocable", "fail"),
        ({"over_quota": [("e-1", 2000, NOW)]}, "over quota", "warn"),
    ],
)
def test_what_is_said_of_tasks(change: dict[str, object], name: str, status: str) -> None:
    assert set(statuses(record.judge_tasks(RECORD, NOW)).values()) == {"ok"}
    assert statuses(record.judge_tasks(replace(RECORD, **change), NOW))[name] == status


def test_a_lease_that_outlives_its_task_is_worth_a_word() -> None:
    lease = record.Outliving("l", "t", NOW, NOW)
    assert record.judge_outliving((1, [lease])).status is Status.WARN
    assert record.judge_outliving((4, [])).seen == "none of 4 live leases"


# -- policies, templates, probes -----------------------------------------------------------------------------


def test_the_set_in_use_is_the_one_of_the_newest_decision() -> None:
    good = rules.PolicySet("sha256:a", 3)
    last = rules.LastDecision("sha256:a", "t", NOW)
    assert statuses(rules.judge_policies(good, last)) == {"set": "ok", "in use": "ok"}
    assert statuses(rules.judge_policies(good, replace(last, digest="sha256:b"))) == {"set": "ok", "in use": "warn"}
    assert statuses(rules.judge_policies(replace(good, idle=("r",)), None)) == {"set": "warn", "in use": "skipped"}
    refused = by_name(rules.judge_policies(rules.PolicySet(why="line 3"), last))
    assert (refused["set"].status, refused["in use"].status) == (Status.FAIL, Status.WARN)
    assert "sha256:a" in refused["in use"].seen


def test_what_is_said_of_templates() -> None:
    good = rules.TemplateState("a", None, False, False, NOW - timedelta(days=1), True)
    cases = {
        "ok": good,
        "warn": replace(good, checked_at=NOW - timedelta(days=91)),
        "skipped": replace(good, seen=False),
        "fail": replace(good, why_not="its check failed", failed=True),
    }
    for status, one in cases.items():
        assert statuses(rules.judge_templates([one], NOW))["a"] == status
    never = replace(good, name="b", why_not="it was never checked")
    assert statuses(rules.judge_templates([good, never], NOW)) == {"granted": "ok", "a": "ok", "b": "warn"}
    assert statuses(rules.judge_templates([never], NOW))["granted"] == "fail"
    # a check would end with the same: what comes first is told
    first = by_name(rules.judge_templates([replace(never, mend="`jitvault init` shortens it")], NOW))
    assert first["b"].mend == "`jitvault init` shortens it"
    assert statuses(rules.judge_templates([], NOW))["granted"] == "fail"
    assert statuses(rules.judge_templates([cases["skipped"]], NOW))["granted"] == "skipped"
    assert [statuses(rules.judge_published(own)) for own in (False, True, UNKNOWN)] == [{"published": "warn"}, {}, {}]


def test_what_is_said_of_a_standing_credential() -> None:
    good = rules.ProbeLogin("pg", ["database"], "probe", ["pg_signal_backend"], [], [], NOW - timedelta(days=3))
    [check] = rules.judge_probes([("pg", good)], NOW)
    assert check.status is Status.OK
    assert check.seen == "for database: probe, may pg_signal_backend; written 3 days ago"
    for status, one in {
        "fail": replace(good, lacking=["pg_signal_backend"]),
        "warn": replace(good, excess=["SUPERUSER"]),
    }.items():
        assert statuses(rules.judge_probes([("pg", one)], NOW)) == {"pg": status}
    assert statuses(rules.judge_probes([("pg", replace(good, written_at=NOW - timedelta(days=91)))], NOW)) == {
        "pg": "warn"
    }
    assert statuses(rules.judge_probes([("pg", UNKNOWN)], NOW)) == {"pg": "fail"}
    assert statuses(rules.judge_probes([], NOW)) == {"all": "ok"}


# -- targets and agents' logins -------------------------------------------------------------------------


def test_a_target_is_told_hazard_by_hazard_and_only_what_is_certain_keeps_from_proving() -> None:
    certain = Finding("no_foreign_code", "search_path", "it is public", "set it", True)
    meant = Finding("servers_named", "slots", "one is idle", "drop it", False)
    found = targets.judge_targets(
        [
            targets.Target(["one", "two"], [certain, meant]),
            targets.Target(["three"], []),
            targets.Target(["four"], UNKNOWN),
        ]
    )
    told = by_name(found)
    assert {name: check.status for name, check in told.items()} == {
        "one, two: search_path": Status.FAIL,
        "one, two: slots": Status.WARN,
        "three": Status.OK,
        "four": Status.SKIPPED,
    }
    assert can(list(told.values())[1:3])[Ability.PROVE] is True
    assert can(told.values())[Ability.PROVE] is False


def test_a_login_that_could_not_be_read_is_not_called_free_of_the_default_policy() -> None:
    judge = targets.judge_agents
    assert judge(targets.AgentLogins((), 2, ())).status is Status.OK
    assert judge(targets.AgentLogins((), 1, ("auth/saml",))).status is Status.WARN
    assert judge(targets.AgentLogins(("auth/userpass/users/a",), 1, ())).status is Status.WARN
    assert judge(UNKNOWN).status is Status.SKIPPED
