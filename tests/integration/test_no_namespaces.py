"""A namespace that is set by mistake for a Vault that has none: such a server takes its root for it, without a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from go_between import GoBetween
from rig import Rig

Spec = Callable[..., Path]


def as_a_vault(what: str, answer: bytes) -> bytes:
    """What a Vault that is not Enterprise says of itself."""
    if not what.startswith(("GET sys/health", "GET sys/seal-status")):
        return answer
    said = {key: value for key, value in json.loads(answer).items() if key not in ("commit_date", "enterprise")}
    return json.dumps({**said, "version": "1.14.9"}).encode()


@pytest.fixture
def between(rig: Rig) -> Iterator[GoBetween]:
    server = rig.world.servers.vault
    there = GoBetween((server.host, server.port), change=as_a_vault)
    rig.cli.variables = {**rig.cli.variables, "VAULT_ADDR": there.address}
    yield there
    there.down()


@pytest.mark.parametrize("variable", ["VAULT_NAMESPACE", "BAO_NAMESPACE"])
def test_every_command_refuses_a_namespace_at_once_where_the_server_has_none(
    rig: Rig, spec: Spec, between: GoBetween, variable: str
) -> None:
    file = spec()
    rig("operator", "submit", file)
    between.seen.clear()
    set_by_mistake = {variable: "team"}
    commands = [
        ("operator", "grant", str(file)),
        ("operator", "revoke", "--all", "--reason", "x", "--yes"),
        ("operator", "freeze", "--all", "--yes", "--reason", "x"),
        ("agent", "unwrap", "s.0"),
        ("admin", "init", "--plan"),
        ("admin", "sweep"),
    ]
    for who, *words in commands:
        refused = rig(who, *words, code=2, extra=set_by_mistake).error
        assert f"{variable} is 'team'" in refused["message"] and "no namespaces" in refused["message"], words
        assert refused["hint"] == f"Unset {variable} and run it again."
    assert "no namespaces" in rig.cli("operator", "worker", code=2, extra=set_by_mistake).stderr
    # nobody's token was sent, and nothing was asked but which server it is
    assert {path.partition("?")[0] for path in between.seen} <= {
        f"GET sys/{s}" for s in ("health", "seal-status", "leader")
    }
    found = rig("operator", "doctor", code=None, extra=set_by_mistake).json["checks"]
    assert [check["status"] for check in found if check["name"] == "namespace"] == ["fail"]


def test_a_worker_s_login_in_a_namespace_is_refused_there_too(rig: Rig, between: GoBetween) -> None:
    refused = rig("operator", "audit", "status", code=2, extra={"JITVAULT_WORKER_LOGIN_NAMESPACE": "team"}).error
    assert "JITVAULT_WORKER_LOGIN_NAMESPACE is 'team'" in refused["message"]


def test_the_root_namespace_by_its_names_is_the_one_whose_lines_are_read(rig: Rig, spec: Spec) -> None:
    """Lines of the root name no namespace: whoever looked for `root` in them would pass over all, for everybody."""
    for name in ("root", "/", "root/"):
        file = spec()
        rig.cli.variables = {**rig.cli.variables, "VAULT_NAMESPACE": name}
        rig.active(file)
        assert rig("operator", "complete", file.stem).json["confirmed"]
