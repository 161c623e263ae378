"""The check of a template on real servers: what passes, what is refused and told why, and that nothing stays behind.

These change the database mount and the target's logins, so they have servers of their own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

import psycopg
import pytest
import requests
from commands import Result, at_terminal
from psycopg.conninfo import conninfo_to_dict
from rig import ENGINE_ROLE, PREFIX, Rig, role_with

from jitvault import shipped_files as shipped
from jitvault.engines.postgresql.probe import PostgresqlProbe
from jitvault.engines.postgresql.trial import PostgresqlTrial
from jitvault.errors import NotConfirmed, ProbeUnusable, VaultRejected, WrongState
from jitvault.model.read_limit import name_of
from jitvault.provision.template_check import record as template_check
from jitvault.provision.template_check import trial as selftest
from jitvault.sandbox.target import REVOCATION
from jitvault.sandbox.world import shipped_want
from jitvault.vault.client import Vault

pytestmark = pytest.mark.usefixtures("lab", "hurried", "checked", "in_this_process")
Spec = Callable[..., Path]
NAME = "postgres-readonly"
RECORD = f"checks/{NAME}"
ASKED = f"an administrator runs `jitvault templates check {NAME}`"


def check(rig: Rig, *options: str, code: int = 0) -> Result:
    result = rig("admin", "templates", "check", NAME, *options, code=code)
    assert result.json["passed"] is (code == 0)
    return result


def failed(result: Result) -> dict[str, str]:
    """The steps of the one path that are not ok: name → evidence. Each says what to mend."""
    (path,) = result.json["paths"]
    assert all(step["mend"] for step in path["steps"] if not step["ok"])
    return {step["name"]: step["evidence"] for step in path["steps"] if not step["ok"]}


def left_behind(result: Result) -> list[str]:
    return list(result.json["paths"][0]["left_behind"])


def refused(rig: Rig, file: Path) -> str:
    """Why nothing is granted; no token was made, and the message names the command that helps."""
    error = rig("operator", "grant", file, code=8).error
    assert error["message"].startswith(f"template {NAME} is not granted: ")
    assert error["message"].endswith(ASKED)
    assert rig.task_tokens(file.stem) == []
    return str(error["message"])


@contextmanager
def at_target(rig: Rig, statement: str, undo: str) -> Iterator[None]:
    with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
        target.execute(statement.encode())
        try:
            yield
        finally:
            target.execute(undo.encode())


# -- what passes ---------------------------------------------------------------------------------------------


def test_the_sandboxs_templates_pass_and_nothing_of_a_check_stays(rig: Rig, spec: Spec) -> None:
    before = rig.database_roles()
    result = check(rig)
    (path,) = result.json["paths"]
    assert (path["path"], path["with"], left_behind(result)) == (PREFIX, {"database": "app"}, [])
    assert [step["name"] for step in path["steps"]] == list(selftest.STEPS.values())
    assert rig.database_roles() <= before
    lease = path["steps"][1]["evidence"].removeprefix("lease ")
    assert lease.startswith(f"{PREFIX}/") and not rig.lease_is_live(lease)
    assert _check_tokens(rig) == []
    record = rig.document(RECORD)
    assert (record["running"], record["paths"][PREFIX]["passed"]) == ([], True)
    assert rig.active(spec()).lease_id


def test_a_rate_limit_in_the_middle_of_a_check_is_told_as_one(rig: Rig) -> None:
    quota = f"sys/quotas/rate-limit/{name_of(PREFIX)}"
    before = (rig.admin.read(quota) or {})["data"]
    rig.admin.write(quota, {"path": PREFIX, "rate": 1, "interval": "60s"})
    try:
        result = check(rig, code=6)
    finally:
        rig.admin.write(quota, {key: before[key] for key in ("path", "rate", "interval", "block_interval")})
    (path,) = result.json["paths"]
    mends = {step["name"]: step["mend"] for step in path["steps"] if not step["ok"]}
    assert set(mends) == set(PostgresqlTrial.resistances) and left_behind(result) == []
    assert all("run the same command again in a moment" in mend for mend in mends.values())
    check(rig)


def _check_tokens(rig: Rig) -> list[dict[str, Any]]:
    facts = []
    for accessor in rig.admin.list("auth/token/accessors/"):
        # one that others end meanwhile is not the check's, whose end was waited for
        with suppress(VaultRejected):
            facts.append(rig.admin.write("auth/token/lookup-accessor", {"accessor": accessor})["data"])
    return [one for one in facts if one["display_name"] == "token-jitvault-check"]


def test_the_secret_is_nowhere_but_in_memory(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    use = PostgresqlTrial.use

    def watched(self: PostgresqlTrial, dsn: str, issued: Any, *more: Any) -> Any:
        seen.append(issued["password"])
        return use(self, dsn, issued, *more)

    monkeypatch.setattr(PostgresqlTrial, "use", watched)
    result = check(rig)
    (password,) = seen
    record = json.dumps(rig.document(RECORD))
    assert len(password) > 10
    assert not any(password in text for text in (result.stdout, result.stderr, record))


def test_only_the_named_choices_are_tried(rig: Rig) -> None:
    assert check(rig, "--with", "database=app").json["paths"][0]["with"] == {"database": "app"}
    for wrong in ("database=crm", "table=app", "database"):
        rig("admin", "templates", "check", NAME, "--with", wrong, code=2)
    assert rig("admin", "templates", "check", "nothing", code=9).error["message"] == "there is no template 'nothing'"


def test_whoever_is_no_administrator_checks_nothing(rig: Rig) -> None:
    """An operator's token is refused before anything is made, and without a token nothing is tried."""
    rig("operator", "templates", "check", NAME, code=10)
    rig(None, "templates", "check", NAME, code=2)


def test_a_role_that_the_connection_does_not_allow_is_named_as_that(rig: Rig) -> None:
    """Vault says so with a 500, and there is no credential whose lease could be missing."""
    connection = "database/config/app"
    allowed = (rig.admin.read(connection) or {})["data"]["allowed_roles"]
    for patterns in ([], ["app-readwrite", "other-*"]):
        rig.admin.write(connection, {"allowed_roles": patterns, "verify_connection": False})
        try:
            result = check(rig, code=6)
        finally:
            rig.admin.write(connection, {"allowed_roles": allowed, "verify_connection": False})
        (mend,) = (step["mend"] for step in result.json["paths"][0]["steps"] if not step["ok"])
        now = ", ".join(patterns) or "none"
        assert mend == (
            f"The connection app does not allow the role app-readonly: add it to its allowed_roles, now {now}. "
            "Do it while no task holds access through this connection, since a change of it ends them; then check its "
            "other templates again."
        )
        assert left_behind(result) == []
    check(rig)


def test_a_group_role_that_the_database_does_not_have_is_named_with_what_to_do(rig: Rig) -> None:
    created = (rig.admin.read(ENGINE_ROLE) or {})["data"]["creation_statements"]
    with role_with(rig, creation_statements=[text.replace("app_readonly", "app_readers") for text in created]):
        result = check(rig, code=6)
    (step,) = (step for step in result.json["paths"][0]["steps"] if not step["ok"])
    assert 'role "app_readers" does not exist' in step["evidence"]
    assert "creation_statements name, such as the group role" in step["mend"] and "same command" not in step["mend"]
    check(rig)


# -- what is refused for granting, and why -------------------------------------------------------------------


def test_a_role_whose_revocation_does_nothing_fails_its_check_which_names_what_stays(rig: Rig, spec: Spec) -> None:
    before = rig.database_roles()
    with role_with(rig, revocation_statements=["SELECT 1;"]):
        result = check(rig, code=6)
        assert set(failed(result)) == {"session_ended", "login_refused", "probe_sees_end"}
        (login,) = rig.database_roles() - before
        assert left_behind(result) == [f"{login} at the target"]
        commands = result.json["paths"][0]["clear"]
        assert all(login in command for command in commands) and len(commands) == 3
        shown = at_terminal(rig.cli, "admin", "templates", "check", NAME).stdout
        (another,) = rig.database_roles() - before - {login}
        lines = [line.strip() for line in shown.splitlines()]
        assert f'DROP OWNED BY "{another}"; DROP ROLE "{another}";' in lines, "to be copied"
        for command in (*commands, *(command.replace(login, another) for command in commands)):
            with psycopg.connect(rig.world.target_dsn, autocommit=True) as target:
                target.execute(command.encode())
        assert rig.database_roles() <= before
        assert f"LEFT BEHIND: {login} at the target" in result.error["message"]
        assert "the check of database/creds/app-readonly failed: session_ended" in refused(rig, spec())
    assert "changed since" in refused(rig, file := spec())
    check(rig)
    assert rig.granted(file)["state"] == "issued"


def test_a_revocation_that_leaves_sessions_open_is_found(rig: Rig, spec: Spec) -> None:
    with role_with(rig, revocation_statements=[REVOCATION[-1]]):
        result = check(rig, code=6)
        assert failed(result) == {"session_ended": "what was opened before is still open"}
        assert left_behind(result) == []
        assert "session_ended: what was opened before is still open" in refused(rig, spec())


def test_vaults_login_that_may_not_end_sessions_is_found(rig: Rig, spec: Spec) -> None:
    before = rig.database_roles()
    with at_target(rig, "REVOKE pg_signal_backend FROM vault_manager", "GRANT pg_signal_backend TO vault_manager"):
        result = check(rig, code=6)
        assert set(failed(result)) == {"revoked"}
        assert "permission denied to terminate process" in failed(result)["revoked"]
        assert "pg_signal_backend" in result.json["paths"][0]["steps"][6]["mend"]
        assert "revoked: Vault could not revoke the lease" in refused(rig, spec())
    # with the session over, the second try at the end could drop the role
    assert left_behind(result) == [] and rig.database_roles() <= before


def test_a_probe_without_its_right_is_found(rig: Rig, spec: Spec) -> None:
    with at_target(rig, "REVOKE pg_signal_backend FROM jitvault_probe", "GRANT pg_signal_backend TO jitvault_probe"):
        assert failed(check(rig, code=6)) == {"probe_rights": "the probe postgres: it lacks pg_signal_backend"}
        assert "it lacks pg_signal_backend" in refused(rig, spec())


def test_a_mount_that_hides_the_name_is_found(rig: Rig, spec: Spec) -> None:
    rig.admin.write("sys/mounts/database/tune", {"audit_non_hmac_response_keys": []}, method="post")
    try:
        assert failed(check(rig, code=6)) == {"name_shown": "the audit stream hides `username` of database/"}
        assert "name_shown: the audit stream hides `username`" in refused(rig, spec())
    finally:
        keys = {"audit_non_hmac_response_keys": ["username"]}
        rig.admin.write("sys/mounts/database/tune", keys, method="post")


def test_a_probe_that_cannot_log_in_is_found(rig: Rig, spec: Spec) -> None:
    right = rig.document("probes/postgres")
    rig.put("probes/postgres", {"dsn": rig.world.servers.postgres.dsn("app", user="jitvault_probe", password="x")})
    try:
        result = check(rig, code=6)
        assert set(failed(result)) == {"probe_rights", "probe_sees_it", "probe_sees_end"}
        mends = {step["mend"] for step in result.json["paths"][0]["steps"] if not step["ok"]}
        assert mends == {ProbeUnusable.default_hint}, "the role is not to blame"
        assert left_behind(result) == []
        assert "the probe could not ask the target: password authentication failed" in refused(rig, spec())
    finally:
        rig.put("probes/postgres", right)
    assert "the probe was changed since" in refused(rig, spec())
    rig.admin.delete("jitvault/data/probes/postgres")
    try:
        missing = rig("admin", "templates", "check", NAME, code=9).error["message"]
        assert missing.endswith("there is no probe postgres in jitvault/probes/, so its target cannot be asked")
    finally:
        rig.put("probes/postgres", right)


ALTER = "ALTER ROLE jitvault_probe"


@pytest.mark.parametrize(
    ("broken", "mended", "is_refused", "says"),
    [
        (f"{ALTER} PASSWORD '{token_hex(8)}'", "", True, "password authentication failed"),
        (f"{ALTER} NOLOGIN", f"{ALTER} LOGIN", True, "it does not let this login in"),
        (f"{ALTER} CONNECTION LIMIT 0", f"{ALTER} CONNECTION LIMIT -1", False, "every connection .* is taken"),
    ],
    ids=["password", "no login", "busy"],
)
def test_a_grant_asks_the_probe_and_a_busy_target_refuses_nobody(
    rig: Rig, spec: Spec, broken: str, mended: str, is_refused: bool, says: str
) -> None:
    probe = rig.document("probes/postgres")
    mended = mended or f"{ALTER} PASSWORD '{conninfo_to_dict(probe['dsn'])['password']}'"
    file = spec()
    with at_target(rig, broken, mended):
        with pytest.raises(NotConfirmed, match=says) as found:
            PostgresqlProbe().missing_rights(probe)
        assert isinstance(found.value, ProbeUnusable) is is_refused
        granted = rig("operator", "grant", file, code=8 if is_refused else 0)
        if is_refused:
            assert re.search(f"its end could not be proven: the probe postgres.*{says}", granted.error["message"])
            assert rig.task_tokens(file.stem) == []
    if is_refused:
        granted = rig("operator", "grant", file.stem)
    rig("operator", "complete", file.stem)


def test_a_target_that_is_down_is_no_pass(rig: Rig, spec: Spec) -> None:
    before = rig.database_roles()
    rig.world.servers.postgres.kill()
    try:
        result = check(rig, code=6)
        assert set(failed(result)) == {"leased"}
        assert "leased: " in refused(rig, spec())
    finally:
        rig.world.servers.postgres.start()
    check(rig)
    assert rig.database_roles() <= before


def test_a_target_that_goes_down_while_it_is_used_is_no_pass(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is let in and every session is over, as after a good revocation."""
    revoke = selftest._Check._revoke

    def killing(trial: Any) -> bool:
        done = revoke(trial)
        rig.world.servers.postgres.kill()
        return done

    monkeypatch.setattr(selftest._Check, "_revoke", killing)
    try:
        result = check(rig, code=6)
    finally:
        rig.world.servers.postgres.start()
    said = "the probe could not ask the target: there is no connection to it (OperationalError)"
    assert failed(result) == {"probe_sees_end": said}


def test_a_lease_that_outlives_the_template_is_found(rig: Rig, spec: Spec) -> None:
    with role_with(rig, default_ttl="1h", max_ttl="1h"):
        said = "the lease lives 1h, renewed 1h; the template says 15m"
        assert failed(check(rig, code=6)) == {"ttl_within": said}
        assert "ttl_within" in refused(rig, spec())


def test_a_lease_that_can_be_renewed_past_the_template_is_found(rig: Rig) -> None:
    with role_with(rig, max_ttl="1h"):
        said = "the lease lives 15m, renewed 1h; the template says 15m"
        assert failed(check(rig, code=6)) == {"ttl_within": said}


def test_a_role_that_does_not_exist_cannot_be_checked(rig: Rig) -> None:
    kept = (rig.admin.read(ENGINE_ROLE) or {})["data"]
    rig.admin.delete(ENGINE_ROLE)
    try:
        rig("admin", "templates", "check", NAME, code=8)
    finally:
        rig.admin.write(ENGINE_ROLE, {k: v for k, v in kept.items() if v})


def test_a_role_that_is_changed_while_it_is_checked_is_no_pass(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = PostgresqlProbe.missing_rights

    def changing(self: PostgresqlProbe, dsn: str) -> tuple[str, ...]:
        with role_with(rig):
            rig.admin.write("database/config/app", {"max_open_connections": 7})
        return probe(self, dsn)

    monkeypatch.setattr(PostgresqlProbe, "missing_rights", changing)
    assert set(failed(check(rig, code=6))) == {"unchanged"}


# -- what the worker makes of the record ----------------------------------------------------------------------


def test_a_role_that_is_changed_after_its_check_is_refused_until_it_passes_again(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4)
    with role_with(rig, revocation_statements=[*REVOCATION, "SELECT 1;"]):
        assert "the engine's role or connection was changed since" in refused(rig, file)
        check(rig)
        rig("operator", "grant", file.stem, code=4)
        rig("approver-1", "approve", file.stem, "--yes")
        assert rig("operator", "grant", file.stem).json["wrapping"]


def test_an_administrators_list_says_that_a_check_no_longer_holds(rig: Rig) -> None:
    def listed(who: str) -> str:
        found = rig(who, "templates", "list").json["templates"]
        return str(next(each["check"] for each in found if each["metadata"]["name"] == NAME))

    assert (listed("admin"), listed("operator")) == ("passed", "passed")
    assert "last check recorded" not in rig.cli("admin", "templates", "list").stderr
    with role_with(rig, revocation_statements=[*REVOCATION, "SELECT 1;"]):
        assert (listed("admin"), listed("operator")) == ("needed", "passed")
        assert rig("admin", "templates", "show", NAME).json["check"] == "needed"
        said = rig.cli("operator", "templates", "list").stderr
        assert "`passed` is what the last check recorded. Whether the engine's role or connection has changed" in said


FORGED: list[tuple[dict[str, Any], str]] = [
    ({"installation": "0" * 32}, "its check was made by another installation"),
    ({"template": "postgres-readwrite"}, "is not one of this template"),
    ({"kind": "Task"}, "is not one of this template"),
    ({"more": True}, "is not one of this template"),
    ({"running": None}, "is not one of this template"),
    ({"paths": {}}, f"it was never checked that the revocation of {PREFIX} works"),
    ({"paths": {PREFIX: {"passed": True}}}, "is not one of this template"),
    ({"passed": "true"}, "is not one of this template"),
    ({"passed": False}, f"the check of {PREFIX} failed: no reason given"),
    ({"failed": ["session_ended: it was open"]}, f"the check of {PREFIX} failed: session_ended: it was open"),
    ({"template_": "sha256:" + "0" * 64}, f"the template was changed since {PREFIX} was checked"),
    ({"engine": "sha256:" + "0" * 64}, "the engine's role or connection was changed since"),
    ({"engine": "anything"}, "is not one of this template"),
    ({"probe_written_at": "2020-01-01T00:00:00Z"}, "the probe was changed since"),
    ({"probe_written_at": None}, "the probe was changed since"),
]


def test_a_forged_or_garbled_record_is_no_pass(rig: Rig, spec: Spec) -> None:
    good = rig.document(RECORD)
    (inner,) = good["paths"].values()
    try:
        for change, why in FORGED:
            of_path = {k.rstrip("_"): v for k, v in change.items() if k.rstrip("_") in inner and k != "template"}
            rig.put(RECORD, {**good, "paths": {PREFIX: {**inner, **of_path}}} if of_path else {**good, **change})
            assert why in refused(rig, spec()), change
    finally:
        rig.put(RECORD, good)
    assert rig.granted(spec())["state"] == "issued"


def test_without_a_record_nothing_is_granted_and_what_is_held_goes_on(rig: Rig, spec: Spec) -> None:
    held, waiting = spec(), spec(criticality="medium")
    active = rig.active(held)
    rig("operator", "grant", waiting, code=4)
    rig("approver-1", "approve", waiting.stem, "--yes")
    good = rig.document(RECORD)
    rig.admin.delete(f"jitvault/metadata/{RECORD}")
    try:
        assert "it was never checked that its revocation works" in refused(rig, spec())
        # nobody is asked to approve what would not be granted
        assert rig("operator", "submit", spec(criticality="medium"), code=8).error["message"].endswith(ASKED)
        assert "it was never checked" in refused(rig, waiting)
        assert rig("operator", "status", held.stem).json["state"] == "active"
        assert rig.is_live(active.token)
        assert rig("operator", "complete", held.stem).json["confirmed"]
    finally:
        rig.put(RECORD, good)
    # refused is not settled for what was approved: the same command goes on
    assert rig("operator", "grant", waiting.stem).json["wrapping"]


def test_a_worker_of_an_earlier_policy_is_told_to_have_init_run(rig: Rig, spec: Spec) -> None:
    policy = (rig.admin.read("sys/policies/acl/jitvault-worker") or {})["data"]["policy"]
    old = policy.replace('path "jitvault/data/checks/*"', 'path "jitvault/data/nothing/*"')
    assert old != policy
    file = spec()
    active = rig.active(file)
    rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": old})
    try:
        error = rig("operator", "grant", spec(), code=8).error
        assert "the worker may not read jitvault/checks/: an administrator runs `jitvault init`" in error["message"]
        # to end something does not depend on it, also where a lease of nobody is to be explained
        wrapped_read(rig, active.token)
        other = str((rig.admin.read(PREFIX) or {})["lease_id"])
        rig("operator", "complete", file.stem, code=6)
        rig.admin.write(f"sys/leases/revoke/{other}", {"sync": True})
        assert rig("operator", "complete", file.stem, code=None).json["confirmed"]
    finally:
        rig.admin.write("sys/policies/acl/jitvault-worker", {"policy": policy})


# -- proof by audit alone -------------------------------------------------------------------------------------


@pytest.fixture
def by_audit(tmp_path: Path) -> dict[str, str]:
    """A template that is proven by the audit stream alone, and says why."""
    templates = tmp_path / "templates"
    templates.mkdir()
    text = (shipped.templates_dir() / f"{NAME}.yaml").read_text()
    text = text.replace("confirm: target\n  probe: postgres", "confirm: audit\n  confirm_why: Nobody can ask it.")
    (templates / f"{NAME}.yaml").write_text(text)
    return {"JITVAULT_TEMPLATES": str(templates)}


def test_a_template_that_says_why_it_is_proven_by_audit_alone_needs_no_check(
    rig: Rig, spec: Spec, by_audit: dict[str, str]
) -> None:
    file, said = spec(criticality="medium"), "postgres-readonly: Nobody can ask it."
    with role_with(rig, revocation_statements=[*REVOCATION, "SELECT 2;"]):
        rig("operator", "grant", file, code=4, extra=by_audit)
        approved = rig("approver-1", "approve", file.stem, "--yes", extra=by_audit)
        assert f"revoked at Vault; the target is not asked about {said}" in " ".join(approved.stderr.split())
        granted = rig("operator", "grant", file.stem, extra=by_audit).json
        rig.use(granted)
        shown = rig.cli("operator", "status", file.stem, extra=by_audit).stdout
        assert f"revoked at Vault; the target is not asked about {said}" in " ".join(shown.split())
        ended = rig("operator", "complete", file.stem, extra=by_audit).json
        assert [lease["verdict"] for lease in ended["leases"]] == ["audit_confirmed"]
        assert ended["target_asked"] is False
        assert ended["not_proven"] == [f"{NAME}: revoked at Vault; the target was not asked: Nobody can ask it."]
    states = rig("operator", "templates", "list", extra=by_audit).json["templates"]
    assert [one["check"] for one in states] == ["exempt"]
    assert "Nobody can ask it." in rig.cli("operator", "templates", "show", NAME, extra=by_audit).stdout
    error = rig("admin", "templates", "check", NAME, code=9, extra=by_audit).error
    assert "it names no probe" in error["message"]


# -- what an administrator and an operator see -----------------------------------------------------------------


def states(rig: Rig) -> dict[str, str]:
    found = rig("operator", "templates", "list").json["templates"]
    return {one["metadata"]["name"]: one["check"] for one in found}


def test_the_list_and_init_name_the_templates_that_need_a_check(rig: Rig) -> None:
    plan = ("init", "--plan")
    assert set(states(rig).values()) == {"passed"} and rig("admin", *plan).json["missing"] == []
    good = rig.document(RECORD)
    (inner,) = good["paths"].values()
    rig.put(RECORD, {**good, "paths": {PREFIX: {**inner, "passed": False, "failed": ["used: no"]}}})
    assert states(rig)[NAME] == "failed"
    (note,) = rig("admin", *plan).json["missing"]
    assert note == (
        f"template {NAME} is not granted: the check of {PREFIX} failed: used: no; run `jitvault templates check {NAME}`"
    )
    for bad in ({**good, "paths": {}}, {"garbage": 1}):
        rig.put(RECORD, bad)
        assert states(rig)[NAME] == "needed"
        assert len(rig("admin", *plan).json["missing"]) == 1
    check(rig)
    assert states(rig)[NAME] == "passed"


def test_who_may_not_see_records_still_sees_templates(rig: Rig) -> None:
    for who in ("agent", None):
        assert {one["check"] for one in rig(who, "templates", "list").json["templates"]} == {None}
    away = {"VAULT_ADDR": "http://127.0.0.1:1"}
    assert rig("operator", "templates", "list", extra=away).json["templates"][0]["check"] is None


def test_a_failure_is_readable_at_80_columns(rig: Rig) -> None:
    with role_with(rig, revocation_statements=[REVOCATION[-1]]):
        shown = rig.cli("admin", "templates", "check", NAME, code=6, extra={"COLUMNS": "80"})
    lines = shown.stdout.splitlines()
    assert lines[1] == "  1✓ 2✓ 3✓ 4✓ 5✓ 6✓ 7✓ 8✗ 9✓ 10✓ 11✓ 12✓ 13✓ 14✓ 19✓ 20✓"
    assert lines[2] == "  step 8 ✗  session_ended: what was opened before is still open"
    assert "pg_terminate_backend" in " ".join(lines[3:]) and max(map(len, lines)) <= 80


# -- other tasks, other checks, and sudden ends ------------------------------------------------------------------


def wrapped_read(rig: Rig, token: str) -> None:
    """The agent has what it reads wrapped: its lines do not say which lease it got, so Vault has to list them."""
    headers = {"X-Vault-Token": token, "X-Vault-Wrap-TTL": "60s"}
    assert requests.get(f"{rig.world.address}/v1/{PREFIX}", headers=headers, timeout=10).status_code == 200


def checking(vault: Vault) -> list[selftest.Outcome]:
    want = shipped_want()
    template = want.templates[NAME]
    return list(template_check.check_template(vault, want.engines, template, template.all_choices()))


def test_the_lease_of_a_check_that_hangs_holds_no_task_back(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task is ended by a listing while the lease of a check, made in its time, lies below the same path."""
    in_use, go_on = threading.Event(), threading.Event()
    use, outcomes = PostgresqlTrial.use, list[selftest.Outcome]()

    @contextmanager
    def slow(self: PostgresqlTrial, dsn: str, issued: Any, *more: Any) -> Iterator[Any]:
        with use(self, dsn, issued, *more) as used:
            in_use.set()
            go_on.wait(30)
            yield used

    monkeypatch.setattr(PostgresqlTrial, "use", slow)
    files = [spec(), spec()]
    # their tokens are older than the lease of the check, so that it could be one of theirs
    held = [rig.use(rig.granted(file), read=False) for file in files]
    thread = threading.Thread(target=lambda: outcomes.extend(checking(rig.admin)))
    thread.start()
    try:
        assert in_use.wait(10)
        # one by one: what one task has in a wrapping holds back every other task of the path
        for file, one in zip(files, held, strict=True):
            wrapped_read(rig, one.token)
            assert rig("operator", "complete", file.stem, code=12).json["confirmed"]
            assert rig.findings(file.stem) == ["wrapped_lease"]
            assert [op.answer for op in rig.record(file.stem).operations if op.kind == "list_leases"][-1] == "accounted"
    finally:
        go_on.set()
        thread.join()
    assert [outcome.passed for outcome in outcomes] == [True]


def test_checks_that_run_all_the_time_trip_nothing(rig: Rig, spec: Spec) -> None:
    stop, outcomes = threading.Event(), list[selftest.Outcome]()

    def again() -> None:
        while not stop.is_set():
            outcomes.extend(checking(rig.admin))

    thread = threading.Thread(target=again)
    thread.start()
    n = 0
    try:
        # checks and tasks share the cores, so that nobody knows how many checks a task's life sees
        while n < 4 or len(outcomes) < 5:
            assert thread.is_alive()
            file = spec()
            held = rig.use(rig.granted(file), read=n % 2 == 0)
            wraps = n % 2 == 1
            if wraps:
                wrapped_read(rig, held.token)
            assert rig("operator", "complete", file.stem, code=12 if wraps else 0).json["confirmed"]
            assert rig.findings(file.stem) == (["wrapped_lease"] if wraps else [])
            n += 1
    finally:
        stop.set()
        thread.join()
    assert rig("operator", "audit", "status").json["frozen"] is None
    assert all(outcome.passed for outcome in outcomes)


def test_two_checks_of_a_template_do_not_mix(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    use, inner = PostgresqlTrial.use, list[list[selftest.Outcome]]()
    before = rig.database_roles()

    def another_first(self: PostgresqlTrial, dsn: str, issued: Any, *more: Any) -> Any:
        monkeypatch.setattr(PostgresqlTrial, "use", use)
        inner.append(checking(rig.admin))
        return use(self, dsn, issued, *more)

    monkeypatch.setattr(PostgresqlTrial, "use", another_first)
    with pytest.raises(WrongState, match="another check of template postgres-readonly is running"):
        checking(rig.admin)
    assert inner[0][0].passed and rig.document(RECORD)["paths"][PREFIX]["passed"]
    assert rig.database_roles() <= before


def test_an_interrupted_check_leaves_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rig.database_roles()

    def interrupt(self: PostgresqlTrial, dsn: str, issued: Any, *more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(PostgresqlTrial, "use", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checking(rig.admin)
    (lease,) = rig.document(RECORD)["running"]
    assert not rig.lease_is_live(lease)
    assert rig.database_roles() <= before and _check_tokens(rig) == []


def test_an_interrupted_check_that_cannot_clean_up_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: PostgresqlTrial, dsn: str, issued: Any, *more: Any) -> Any:
        rig.world.servers.postgres.kill()
        raise KeyboardInterrupt

    before = rig.database_roles()
    with monkeypatch.context() as patched:
        patched.setattr(PostgresqlTrial, "use", interrupt)
        try:
            error = rig("admin", "templates", "check", NAME, code=6).error
        finally:
            rig.world.servers.postgres.start()
    (lease,) = rig.document(RECORD)["running"]
    assert f"was interrupted and LEFT BEHIND: lease {lease}" in error["message"]
    rig.admin.write(f"sys/leases/revoke/{lease}", {"sync": True})
    assert rig.database_roles() <= before


_KILLED = """
import os, signal
from jitvault.cli import app
from jitvault.engines.postgresql.probe import PostgresqlProbe
from jitvault.engines.postgresql.trial import PostgresqlTrial
from jitvault.provision.template_check import trial
trial.ISSUER_TTL_S = 2
PostgresqlTrial.use = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
app.main()
"""


def test_what_a_killed_check_had_made_ends_with_its_token(rig: Rig) -> None:
    before = rig.database_roles()
    argv = [sys.executable, "-c", _KILLED, "templates", "check", NAME]
    killed = subprocess.run(argv, env=rig.cli.environment("admin"), capture_output=True, timeout=30, check=False)
    assert killed.returncode == -9
    (login,) = rig.database_roles() - before
    (lease,) = rig.document(RECORD)["running"]
    deadline = time.monotonic() + 15
    while login in rig.database_roles() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert rig.database_roles() <= before and not rig.lease_is_live(lease)
    # what was found before still counts
    assert rig.document(RECORD)["paths"][PREFIX]["passed"]
    check(rig)
