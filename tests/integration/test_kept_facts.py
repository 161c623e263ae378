"""A worker's facts, on the real server: each is read anew after every change that Vault offers, and not otherwise.

The worker looks through the stream itself. Whatever changes a fact is done by an administrator right before a turn.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hands import Mirror
from rig import Rig

from jitvault.audit.changes import places_of
from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted, JitvaultError, VaultRefused
from jitvault.sandbox.world import World
from jitvault.stream import reading
from jitvault.stream.kept_facts import let_facts_count
from jitvault.stream.looking import look_through
from jitvault.stream.reading import canary
from jitvault.vault.client import Vault
from jitvault.worker.process import context_factory

# a world of its own: what is changed here would trip other tests
pytestmark = pytest.mark.usefixtures("lab")
KEPT = "kept"


class Scene:
    """A worker's context, an administrator's hands, and what is sent to Vault for the worker's reads."""

    def __init__(self, rig: Rig, worker: WorkerContext) -> None:
        self.rig, self.worker = rig, worker
        self.entity = self._entity(KEPT)
        self.group = self._group(f"jitvault-{KEPT}-group", member_entity_ids=[self.entity])
        self.external = self._group(f"jitvault-{KEPT}-external", type="external")

    def _entity(self, name: str) -> str:
        self.rig.admin.write(f"identity/entity/name/{name}", {"metadata": {"a": "b"}})
        return self.id_of(f"identity/entity/name/{name}")

    def _group(self, name: str, **how: Any) -> str:
        self.rig.admin.write(f"identity/group/name/{name}", how)
        return self.id_of(f"identity/group/name/{name}")

    def id_of(self, path: str) -> str:
        return str((self.rig.admin.read(path) or {})["data"]["id"])

    def clean(self) -> None:
        admin = self.rig.admin
        for name in (f"jitvault-{KEPT}-group", f"jitvault-{KEPT}-external", "kept-renamed", "kept-third"):
            admin.delete(f"identity/group/name/{name}")
        for name in (KEPT, "kept-other", "kept-renamed"):
            admin.delete(f"identity/entity/name/{name}")
        for path in ("checks/kept", "probes/kept", "freezes/kept/all"):
            admin.delete(f"jitvault/metadata/{path}")

    def api(self, method: str, path: str, body: dict[str, Any], **headers: str) -> None:
        """Send what jitvault's own client has no method for."""
        headers = {**headers, "X-Vault-Token": self.rig.world.admin_token.reveal()}
        url = f"{self.rig.world.address}/v1/{path}"
        asked = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
        urllib.request.urlopen(asked).close()

    def patch(self, path: str, body: dict[str, Any]) -> None:
        self.api("PATCH", path, body, **{"Content-Type": "application/merge-patch+json"})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reads that any client has sent."""
    found: list[str] = []
    really = Vault._request_once

    def counted(self: Vault, address: str, method: str, path: str, url: str, **how: Any) -> Any:
        if method in ("get", "list"):
            found.append(path)
        return really(self, address, method, path, url, **how)

    monkeypatch.setattr(Vault, "_request_once", counted)
    return found


@pytest.fixture
def scene(rig: Rig) -> Iterator[Scene]:
    with closing(rig.wiring()) as wiring:
        made = Scene(rig, context_factory(wiring)())
        try:
            yield made
        finally:
            made.clean()


def turn(worker: WorkerContext, path: str, sent: list[str]) -> tuple[Any, bool]:
    """Read in a turn that the stream covers; return the answer and whether it was asked for."""
    with worker.facts.turn():
        canary(worker)
        before = len(sent)
        ask = worker.reader.list if path.endswith("/") else worker.reader.read  # type: ignore[attr-defined]
        answer = ask(path)
        return answer, path.rstrip("/") in [each.rstrip("/") for each in sent[before:]]


def content(answer: Any) -> Any:
    """What an answer says; Vault lists an entity's groups in any order."""
    data = answer["data"] if isinstance(answer, dict) else answer
    if not isinstance(data, dict):
        return data
    return {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in data.items()}


def is_kept(worker: WorkerContext, path: str, sent: list[str]) -> bool:
    return not turn(worker, path, sent)[1]


def check(scene: Scene, path: str, sent: list[str], change: Callable[[], object]) -> None:
    """See that a fact is kept, and that a turn after `change` reads it anew and keeps it again."""
    turn(scene.worker, path, sent)
    assert is_kept(scene.worker, path, sent)
    change()
    changed, is_asked = turn(scene.worker, path, sent)
    assert is_asked
    there = scene.rig.admin.list(path) if path.endswith("/") else scene.rig.admin.read(path)
    assert content(changed) == content(there)
    if changed:
        assert is_kept(scene.worker, path, sent)


def _write(path: str, **body: Any) -> Callable[[Scene], object]:
    return lambda s: s.rig.admin.write(path, body)


_OF_AN_ENTITY: dict[str, Callable[[Scene], object]] = {
    "written by name": _write(f"identity/entity/name/{KEPT}", metadata={"a": "c"}),
    "written by id": lambda s: s.rig.admin.write(f"identity/entity/id/{s.entity}", {"metadata": {"a": "d"}}),
    "disabled": _write(f"identity/entity/name/{KEPT}", disabled=True),
    "renamed": lambda s: s.rig.admin.write(f"identity/entity/id/{s.entity}", {"name": "kept-renamed"}),
    "deleted by name": lambda s: s.rig.admin.delete(f"identity/entity/name/{KEPT}"),
    "deleted by id": lambda s: s.rig.admin.delete(f"identity/entity/id/{s.entity}"),
    "deleted among others": lambda s: s.rig.admin.write("identity/entity/batch-delete", {"entity_ids": [s.entity]}),
    "merged into": lambda s: s.rig.admin.write(
        "identity/entity/merge", {"from_entity_ids": [s._entity("kept-other")], "to_entity_id": s.entity}
    ),
    "in another group": lambda s: s._group("kept-third", member_entity_ids=[s.entity]),
    "out of its group": _write(f"identity/group/name/jitvault-{KEPT}-group", member_entity_ids=[]),
    "its group is deleted": lambda s: s.rig.admin.delete(f"identity/group/name/jitvault-{KEPT}-group"),
    "its group is in another": lambda s: s._group("kept-third", member_group_ids=[s.group]),
    "an alias": lambda s: s.rig.admin.write(
        "identity/entity-alias", {"name": KEPT, "canonical_id": s.entity, "mount_accessor": _accessor(s)}
    ),
}


def _accessor(scene: Scene) -> str:
    mounts = (scene.rig.admin.read("sys/auth") or {})["data"]
    return str(mounts["token/"]["accessor"])


@pytest.mark.parametrize("by", ["id", "name"])
@pytest.mark.parametrize("how", _OF_AN_ENTITY)
def test_an_entity_is_read_anew_once_it_was(scene: Scene, sent: list[str], how: str, by: str) -> None:
    path = f"identity/entity/id/{scene.entity}" if by == "id" else f"identity/entity/name/{KEPT}"
    check(scene, path, sent, lambda: _OF_AN_ENTITY[how](scene))


_OF_A_GROUP: dict[str, Callable[[Scene], object]] = {
    "written by name": _write(f"identity/group/name/jitvault-{KEPT}-group", member_entity_ids=[]),
    "written by id": lambda s: s.rig.admin.write(f"identity/group/id/{s.group}", {"metadata": {"a": "d"}}),
    "given a policy": _write(f"identity/group/name/jitvault-{KEPT}-group", policies=["default"]),
    "renamed": lambda s: s.rig.admin.write(f"identity/group/id/{s.group}", {"name": "kept-renamed"}),
    "deleted by name": lambda s: s.rig.admin.delete(f"identity/group/name/jitvault-{KEPT}-group"),
    "deleted by id": lambda s: s.rig.admin.delete(f"identity/group/id/{s.group}"),
    "without a member that was deleted": lambda s: s.rig.admin.delete(f"identity/entity/id/{s.entity}"),
}


@pytest.mark.parametrize("how", _OF_A_GROUP)
def test_a_group_is_read_anew_once_it_was(scene: Scene, sent: list[str], how: str) -> None:
    check(scene, f"identity/group/name/jitvault-{KEPT}-group", sent, lambda: _OF_A_GROUP[how](scene))


def test_an_external_group_and_who_logs_in_are_read_anew_after_a_login_and_nobody_else(
    scene: Scene, sent: list[str]
) -> None:
    admin, worker = scene.rig.admin, scene.worker
    with suppress(JitvaultError):
        admin.write("sys/auth/kept-userpass", {"type": "userpass"})
    try:
        admin.write("auth/kept-userpass/users/kept", {"password": "drill"})
        accessor = (admin.read("sys/auth") or {})["data"]["kept-userpass/"]["accessor"]
        admin.write("identity/entity-alias", {"name": "kept", "canonical_id": scene.entity, "mount_accessor": accessor})
        admin.write("identity/group-alias", {"name": "g", "canonical_id": scene.external, "mount_accessor": accessor})
        other = f"identity/entity/id/{scene.rig.entity('operator')}"
        own = f"identity/entity/id/{scene.entity}"
        internal, external = (f"identity/group/name/jitvault-{KEPT}-{which}" for which in ("group", "external"))
        for path in (own, other, internal, external):
            turn(worker, path, sent)
        admin.write("auth/kept-userpass/login/kept", {"password": "drill"})
        kept = {path: is_kept(worker, path, sent) for path in (own, other, internal, external)}
        assert kept == {own: False, other: True, internal: True, external: False}
        with suppress(JitvaultError):
            admin.write("auth/kept-userpass/login/kept", {"password": "wrong"})
        assert is_kept(worker, own, sent) and is_kept(worker, external, sent)
        check(scene, own, sent, lambda: admin.write("auth/kept-userpass/login/kept", {"password": "drill"}))
    finally:
        admin.delete("sys/auth/kept-userpass")


_DOCUMENTS = ("checks/kept", "probes/kept", "freezes/kept/all")
_OF_A_DOCUMENT: dict[str, Callable[[Scene, str], object]] = {
    "written": lambda s, d: s.rig.admin.write(f"jitvault/data/{d}", {"data": {"a": 1}}),
    "patched": lambda s, d: s.patch(f"jitvault/data/{d}", {"data": {"b": 1}}),
    "deleted": lambda s, d: s.rig.admin.delete(f"jitvault/data/{d}"),
    "deleted by version": lambda s, d: s.rig.admin.write(f"jitvault/delete/{d}", {"versions": [1, 2]}),
    "destroyed": lambda s, d: s.rig.admin.write(f"jitvault/destroy/{d}", {"versions": [1, 2]}),
    "taken away": lambda s, d: s.rig.admin.delete(f"jitvault/metadata/{d}"),
    "of other metadata": lambda s, d: s.rig.admin.write(f"jitvault/metadata/{d}", {"max_versions": 3}),
    "of patched metadata": lambda s, d: s.patch(f"jitvault/metadata/{d}", {"max_versions": 4}),
    "of another mount's options": lambda s, _: s.rig.admin.write("jitvault/config", {"max_versions": 10}),
    "of a tuned mount": lambda s, _: s.rig.admin.write("sys/mounts/jitvault/tune", {"description": "jitvault"}),
}


@pytest.mark.parametrize("document", _DOCUMENTS)
@pytest.mark.parametrize("how", _OF_A_DOCUMENT)
def test_a_document_is_read_anew_once_it_was(scene: Scene, sent: list[str], how: str, document: str) -> None:
    for n in (0, 1):
        scene.rig.put(document, {"a": n})
    check(scene, f"jitvault/data/{document}", sent, lambda: _OF_A_DOCUMENT[how](scene, document))


def test_a_document_that_came_back_is_read_anew_and_one_that_ends_by_itself_is_never_kept(
    scene: Scene, sent: list[str]
) -> None:
    document, path = "checks/kept", "jitvault/data/checks/kept"
    scene.rig.put(document, {"a": 1})
    scene.rig.put(document, {"a": 2})
    scene.rig.admin.delete(path)
    assert turn(scene.worker, path, sent)[0] is None
    scene.rig.admin.write(f"jitvault/undelete/{document}", {"versions": [2]})
    assert turn(scene.worker, path, sent)[0]["data"]["data"] == {"a": 2}
    scene.rig.admin.write(f"jitvault/metadata/{document}", {"delete_version_after": "1h"})
    scene.rig.put(document, {"a": 3})
    turn(scene.worker, path, sent)
    assert not is_kept(scene.worker, path, sent)


def test_a_listing_of_freezes_is_read_anew_once_one_was_written_or_taken_away(scene: Scene, sent: list[str]) -> None:
    scene.rig.put("freezes/kept/all", {"a": 1})
    path = "jitvault/metadata/freezes/"
    check(scene, path, sent, lambda: scene.rig.put("freezes/kept/all", {"a": 2}))
    check(scene, path, sent, lambda: scene.rig.admin.delete("jitvault/metadata/freezes/kept/all"))


def _rewritten(path: str) -> Callable[[Scene], object]:
    def change(scene: Scene) -> None:
        found = (scene.rig.admin.read(path) or {})["data"]
        scene.rig.admin.write(path, {key: value for key, value in found.items() if key != "name"})

    return change


def _made_anew(path: str) -> Callable[[Scene], object]:
    def change(scene: Scene) -> None:
        found = (scene.rig.admin.read(path) or {})["data"]
        scene.rig.admin.delete(path)
        scene.rig.admin.write(path, {key: value for key, value in found.items() if key != "name"})

    return change


_POLICY, _OLD_POLICY = "sys/policies/acl/jitvault-access-kept", "sys/policy/jitvault-access-kept"
_ROLE = "auth/token/roles/jitvault-15m"
_ENGINE = "database/roles/app-readonly"
_PROVISIONED: dict[str, tuple[str, Callable[[Scene], object]]] = {
    "a policy is written": (_POLICY, _write(_POLICY, policy="# another")),
    "a policy is written by its old path": (_POLICY, _write(_OLD_POLICY, policy="# a third")),
    "a policy is deleted": (_POLICY, lambda s: s.rig.admin.delete(_POLICY)),
    "a token role is written": (_ROLE, _rewritten(_ROLE)),
    "a token role is made anew": (_ROLE, _made_anew(_ROLE)),
    "tokens are tuned": (_ROLE, _write("sys/auth/token/tune", description="token based credentials")),
    "an engine's role is written": (_ENGINE, _rewritten(_ENGINE)),
    "an engine's role is made anew": (_ENGINE, _made_anew(_ENGINE)),
    "an engine's connection is reset": (_ENGINE, lambda s: s.rig.admin.write(_reset(s))),
    "an engine is tuned": (_ENGINE, _write("sys/mounts/database/tune", description="logins")),
    "another engine is mounted": (_ENGINE, _write("sys/mounts/kept-kv", type="kv")),
    "another engine is moved": (_ENGINE, _write("sys/remount", **{"from": "kept-kv", "to": "kept-moved"})),
    "another engine is unmounted": (_ENGINE, lambda s: s.rig.admin.delete("sys/mounts/kept-moved")),
}


def _reset(scene: Scene) -> str:
    return f"database/reset/{_connection(scene)}"


def _connection(scene: Scene) -> str:
    return str((scene.rig.admin.read(_ENGINE) or {})["data"]["db_name"])


@pytest.mark.parametrize("how", _PROVISIONED)
def test_what_an_administrator_provisions_is_read_anew_once(scene: Scene, sent: list[str], how: str) -> None:
    path, change = _PROVISIONED[how]
    scene.rig.admin.write(_POLICY, {"policy": "# kept"})
    try:
        check(scene, path, sent, lambda: change(scene))
    finally:
        scene.rig.admin.delete(_POLICY)


def test_an_engines_connection_is_read_anew_once_it_was_written_or_reset(scene: Scene, sent: list[str]) -> None:
    name = _connection(scene)
    path = f"database/config/{name}"
    check(scene, path, sent, lambda: scene.rig.admin.write(f"database/reset/{name}"))
    found = (scene.rig.admin.read(path) or {})["data"]
    written = {"plugin_name": found["plugin_name"], "allowed_roles": found["allowed_roles"], "verify_connection": False}
    check(scene, path, sent, lambda: scene.rig.admin.write(path, written))


def test_a_signers_key_is_read_anew_once_it_was_turned_or_limited_and_not_when_it_signs(
    scene: Scene, sent: list[str]
) -> None:
    name = f"jitvault-signer-{scene.entity}"
    path, admin = f"jitvault-transit/keys/{name}", scene.rig.admin
    admin.write(path, {"type": "ed25519"})
    try:
        check(scene, path, sent, lambda: admin.write(f"{path}/rotate"))
        check(scene, path, sent, lambda: admin.write(f"{path}/config", {"min_decryption_version": 2}))
        admin.write(f"jitvault-transit/sign/{name}", {"input": "aGk="})
        admin.write(f"jitvault-transit/verify/{name}", {"input": "aGk=", "signature": "vault:v2:aGk="})
        assert is_kept(scene.worker, path, sent)
        admin.write(f"{path}/config", {"deletion_allowed": True})
        check(scene, path, sent, lambda: admin.delete(path))
    finally:
        with suppress(JitvaultError):
            admin.delete(path)


# -- what changes nothing -----------------------------------------------------------------------------------


def test_what_an_agent_may_not_do_and_what_is_no_fact_keeps_everything(scene: Scene, sent: list[str]) -> None:
    rig = scene.rig
    rig.admin.write(_POLICY, {"policy": "# kept"})
    paths = (f"identity/entity/name/{KEPT}", _ROLE, _ENGINE, _POLICY)
    kept = [path for path in paths if places_of(path, turn(scene.worker, path, sent)[0] or {})]
    agent = rig.vault(rig.token_of("agent"))
    for path in (*paths, "sys/mounts/kept-kv", "sys/remount", "jitvault/data/freezes/kept/all"):
        with suppress(VaultRefused):
            agent.write(path, {"policy": "", "type": "kv", "data": {}})
            pytest.fail(f"an agent may write {path}")
    with suppress(JitvaultError):
        rig.vault("no such token").write("sys/mounts/kept-kv", {"type": "kv"})
    rig.put("requests/kept/task/submit", {})
    rig.admin.delete("jitvault/metadata/requests/kept/task/submit")
    with suppress(JitvaultError):
        agent.write("sys/capabilities-self", {"paths": ["a"]})
        agent.write("auth/token/renew-self")
    assert [path for path in kept if not is_kept(scene.worker, path, sent)] == []


def test_nothing_is_older_than_ten_seconds_by_whatever_the_stream_shows(
    scene: Scene, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jitvault.vault.facts.AGE_S", 0.5)
    turn(scene.worker, _ROLE, sent)
    assert is_kept(scene.worker, _ROLE, sent)
    time.sleep(0.6)
    assert not is_kept(scene.worker, _ROLE, sent)


# -- streams ------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(lab: World, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """What the rig reads instead of Vault's own file; it does not wait long for a line."""
    monkeypatch.setattr(reading, "PATIENCE_S", 1.0)
    copy = Mirror(lab.audit_file, tmp_path / "mirror.log")
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": str(copy.path)}
    yield copy
    copy.close()


def test_a_shipper_that_lags_lets_no_fact_count_and_no_turn_wait_for_it_twice(
    rig: Rig, mirror: Mirror, sent: list[str]
) -> None:
    with closing(rig.wiring()) as wiring:
        worker = context_factory(wiring)()
        entities = [f"identity/entity/id/{rig.entity(name)}" for name in ("operator", "approver-1", "approver-2")]
        for path in (_ROLE, _ENGINE, *entities):
            turn(worker, path, sent)
        assert is_kept(worker, _ROLE, sent)
        mirror.hold()
        with worker.facts.turn():
            before = len(sent)
            assert worker.facts.needs_canary
            let_facts_count(worker)
            assert not worker.facts.needs_canary
            worker.reader.read(_ROLE)
            assert sent[before:] == [_ROLE]
        with pytest.raises(AuditUntrusted), worker.facts.turn():
            canary(worker)
        mirror.let_go()
        assert not is_kept(worker, _ROLE, sent)
        assert is_kept(worker, _ROLE, sent)
        for path in (_ENGINE, *entities):
            turn(worker, path, sent)
        rig.admin.write(*_same(rig, _ROLE))
        with worker.facts.turn():
            assert worker.facts.needs_canary
            let_facts_count(worker)
            assert worker.facts.is_covered
            before = len(sent)
            for path in (_ROLE, _ENGINE, *entities):
                worker.reader.read(path)
            assert sent[before:] == [_ROLE]


def test_lines_that_another_process_read_are_looked_through(rig: Rig, sent: list[str]) -> None:
    with closing(rig.wiring()) as one, closing(rig.wiring()) as other:
        here, there = context_factory(one)(), context_factory(other)()
        for path in (_ROLE, _ENGINE):
            turn(here, path, sent)
        turn(there, _ENGINE, sent)
        rig.admin.write(*_same(rig, _ROLE))
        canary(there)
        assert not is_kept(here, _ROLE, sent)
        assert is_kept(here, _ENGINE, sent)


def test_what_another_process_read_of_another_segment_drops_everything(scene: Scene, sent: list[str]) -> None:
    worker = scene.worker
    turn(worker, _ROLE, sent)
    assert is_kept(worker, _ROLE, sent)
    (source,) = worker.sources.present()
    known = worker.facts.read_to(source.name)
    assert known is not None
    look_through(worker, source, replace(known, epoch=known.epoch + 1))
    assert not is_kept(worker, _ROLE, sent)


def _same(rig: Rig, path: str) -> tuple[str, dict[str, Any]]:
    found = (rig.admin.read(path) or {})["data"]
    return path, {key: value for key, value in found.items() if key != "name"}


def test_a_connection_that_was_lost_drops_everything(scene: Scene, sent: list[str]) -> None:
    turn(scene.worker, _ROLE, sent)
    assert is_kept(scene.worker, _ROLE, sent)
    connections = scene.worker.reader._session._connections  # type: ignore[attr-defined]
    for connection in connections.values():
        connection._socket._opened.shutdown(socket.SHUT_RDWR)
    with suppress(JitvaultError):
        scene.worker.reader.read(_ENGINE)
    assert not is_kept(scene.worker, _ROLE, sent)
