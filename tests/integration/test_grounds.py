"""What was approved is what is granted: a change of anything that it rests on is another digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rig import Rig

from jitvault import shipped_files as shipped

pytestmark = pytest.mark.usefixtures("lab", "hurried", "in_this_process")
Spec = Callable[..., Path]
Extra = dict[str, str]
ROLE, CONNECTION = "database/roles/app-readonly", "database/config/app"
_OF_ROLE = ("db_name", "default_ttl", "max_ttl", "creation_statements", "revocation_statements")


@dataclass(frozen=True)
class Ground:
    """One thing that a grant rests on, and how it is changed; `extra` is the environment afterwards."""

    changed: Callable[[Rig, Path], Any]
    told: str


@contextmanager
def _role(rig: Rig, **change: object) -> Iterator[Extra]:
    before = (rig.admin.read(ROLE) or {})["data"]
    kept = {name: before[name] for name in _OF_ROLE}
    rig.admin.write(ROLE, {**kept, **change})
    try:
        yield {}
    finally:
        rig.admin.write(ROLE, kept)


@contextmanager
def _creation(rig: Rig, _home: Path) -> Iterator[Extra]:
    statements = (rig.admin.read(ROLE) or {})["data"]["creation_statements"]
    with _role(rig, creation_statements=[*statements, "SELECT 1;"]) as extra:
        yield extra


@contextmanager
def _revocation(rig: Rig, _home: Path) -> Iterator[Extra]:
    statements = (rig.admin.read(ROLE) or {})["data"]["revocation_statements"]
    with _role(rig, revocation_statements=[*statements, "SELECT 1;"]) as extra:
        yield extra


@contextmanager
def _connection(rig: Rig, _home: Path) -> Iterator[Extra]:
    before = (rig.admin.read(CONNECTION) or {})["data"]["connection_details"].get("max_open_connections", 4)
    rig.admin.write(CONNECTION, {"max_open_connections": 7})
    try:
        yield {}
    finally:
        rig.admin.write(CONNECTION, {"max_open_connections": before})


@contextmanager
def _template(_rig: Rig, home: Path) -> Iterator[Extra]:
    yield _templates(home, "lease_budget: 5", "lease_budget: 4")


def _templates(home: Path, old: str, new: str) -> Extra:
    directory = home / "templates"
    directory.mkdir(exist_ok=True)
    for path in shipped.templates_dir().iterdir():
        text = path.read_text()
        if path.stem == "postgres-readonly":
            assert old in text
            text = text.replace(old, new)
        (directory / path.name).write_text(text)
    return {"JITVAULT_TEMPLATES": str(directory)}


@contextmanager
def _path(_rig: Rig, home: Path) -> Iterator[Extra]:
    # the other role's: its ACL policy is provisioned, too
    yield _templates(home, "creds/{database}-readonly", "creds/{database}-readwrite")


GROUNDS = {
    "creation statements": Ground(_creation, "access[0].engine_config"),
    "revocation statements": Ground(_revocation, "access[0].engine_config"),
    "connection": Ground(_connection, "access[0].engine_config"),
    "template": Ground(_template, "access[0].lease_budget"),
    "resolved path": Ground(_path, "access[0].path"),
}


@pytest.mark.parametrize("what", GROUNDS)
def test_a_change_waits_for_a_new_approval_and_ends_what_was_granted(
    rig: Rig, spec: Spec, tmp_path: Path, what: str
) -> None:
    rig.recheck()
    ground = GROUNDS[what]
    held, waiting = spec(criticality="medium"), spec(criticality="medium")
    for file in (held, waiting):
        rig("operator", "grant", file, code=4)
        rig("approver-1", "approve", file.stem, "--yes")
    token = rig.use(rig.granted(Path(held.stem)), read=False).token
    old = rig.record(waiting.stem).task
    with ground.changed(rig, tmp_path) as extra:
        rig.vouch()
        if extra:
            rig("admin", "templates", "check", "postgres-readonly", extra=extra, code=None)
        asked = rig("operator", "grant", waiting.stem, code=4, extra=extra).json
        assert asked["digest"] != old.digest and rig.record(waiting.stem).task.revision == 2
        assert rig.task_tokens(waiting.stem) == []
        (block,) = (one for one in waits_for(rig, "approver-2") if one["task_id"] == waiting.stem)
        assert any(line.startswith(ground.told) for line in block["changes"])
        ended = rig("operator", "status", held.stem, code=None, extra=extra).json
        assert ended["end_reason"] == "drift" and not rig.is_live(token)
        (note,) = [event.body["note"] for event in rig.record(held.stem).events if event.kind == "ending"]
        assert note.startswith(f"it is not what was approved: {block['changes'][0].partition(':')[0]}")


def waits_for(rig: Rig, who: str, extra: Extra | None = None) -> list[dict[str, Any]]:
    """By a person's own machine: no worker's identity, no ledger."""
    return list(rig.cli(who, "approvals", "--json", worker=False, extra=extra).json["tasks"])


def test_an_acl_policy_that_is_not_the_approved_text_is_never_issued_from(rig: Rig, spec: Spec) -> None:
    rig.recheck()
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    name = f"sys/policies/acl/{rig.record(file.stem).revision.body.decode().split('jitvault-access-')[1][:16]}"
    name = name.replace("acl/", "acl/jitvault-access-")
    text = (rig.admin.read(name) or {})["data"]["policy"]
    rig.admin.write(name, {"policy": text + "# more\n"})
    try:
        refused = rig("operator", "grant", file.stem, code=8).error
        assert "is not provisioned" in refused["message"] and rig.task_tokens(file.stem) == []
    finally:
        rig.admin.write(name, {"policy": text})


def test_a_changed_spec_waits_for_approval_and_shows_what_changed(rig: Rig, spec: Spec) -> None:
    rig.recheck()
    file = spec(criticality="medium")
    rig("operator", "grant", file, code=4)
    (block,) = (one for one in waits_for(rig, "approver-1") if one["task_id"] == file.stem)
    assert block["changes"] is None and block["groups"] == ["jitvault-approvers"]
    rig("approver-1", "approve", file.stem, "--yes")
    assert file.stem not in [one["task_id"] for one in waits_for(rig, "approver-2")]
    longer = spec(task=file.stem, criticality="medium", window="20m")
    rig("operator", "submit", longer, "--revise")
    (block,) = (one for one in waits_for(rig, "approver-1") if one["task_id"] == file.stem)
    assert (block["revision"], block["changes"]) == (2, ["spec.spec.window.for: '15m' → '20m'"])
    # the same for the eye, and before it is signed
    told = rig.cli("approver-1", "approvals", worker=False, extra={"COLUMNS": "200"}).stdout
    assert "spec.spec.window.for: '15m' → '20m'" in told and f"jitvault approve {file.stem}" in told
    shown = rig.cli("approver-1", "approve", file.stem, "--yes", extra={"COLUMNS": "200"})
    assert "spec.spec.window.for: '15m' → '20m'" in shown.stderr
    # a revision that nobody approved is not what the next one is compared with
    rig("operator", "submit", spec(task=file.stem, criticality="medium", window="25m"), "--revise")
    rig("operator", "submit", spec(task=file.stem, criticality="medium", window="30m"), "--revise")
    (block,) = (one for one in waits_for(rig, "approver-1") if one["task_id"] == file.stem)
    assert block["changes"] == ["spec.spec.window.for: '20m' → '30m'"]


def test_approvals_shows_only_what_the_caller_can_bring_further(rig: Rig, spec: Spec) -> None:
    rig.recheck()
    high = spec(criticality="high")
    rig("operator", "grant", high, code=4)
    owned = spec(criticality="medium")
    owned.write_text(owned.read_text().replace("owner: data-owner", "owner: approver-1"))
    rig("operator", "grant", owned, code=4)

    def tasks(who: str) -> set[str]:
        return {one["task_id"] for one in waits_for(rig, who)} & {high.stem, owned.stem}

    assert tasks("approver-1") == {high.stem} and tasks("approver-2") == {high.stem, owned.stem}
    rig("approver-1", "approve", high.stem, "--yes")
    assert tasks("approver-1") == set() and tasks("approver-2") == {high.stem, owned.stem}
    # whoever is no approver is told so
    assert "members of jitvault-approvers" in rig("operator", "approvals", code=10).error["hint"]


OWNER = """
@id("ask") permit (principal, action == Action::"submit", resource);
@id("may-approve") permit (principal, action == Action::"approve", resource);
@id("p") @approvals("1") @owner_may_approve("VALUE")
permit (principal, action in [Action::"grant", Action::"renew"], resource);
"""


@pytest.mark.parametrize("allowed", [True, False])
def test_the_owner_approves_only_where_policy_lets_them(rig: Rig, spec: Spec, tmp_path: Path, allowed: bool) -> None:
    rig.recheck()
    directory = tmp_path / "own"
    directory.mkdir()
    (directory / "own.cedar").write_text(OWNER.replace("VALUE", str(allowed).lower()))
    schema = shipped.policies_dir() / "cedar" / "jitvault.cedarschema"
    (directory / schema.name).write_text(schema.read_text())
    extra = {"JITVAULT_POLICIES": str(directory)}
    file = spec()
    file.write_text(file.read_text().replace("owner: data-owner", "owner: approver-1"))
    rig("operator", "grant", file, code=4, extra=extra)
    approved = rig("approver-1", "approve", file.stem, "--yes", code=0 if allowed else 3, extra=extra)
    if allowed:
        assert approved.json["state"] == "approved"
        rig("operator", "grant", file.stem, extra=extra)
        assert rig("operator", "status", file.stem, extra=extra).json["state"] == "issued"
