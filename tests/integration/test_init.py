"""`jitvault init` as an administrator types it: whose identity acts, the question, and networks that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Result, at_terminal
from rig import Rig

from jitvault.sandbox.world import World
from jitvault.vault.client import Connection, Vault

Spec = Callable[..., Path]
OFFICE = ("--network", "office=10.1.0.0/16")
ROLES = [f"jitvault-{cap}-office" for cap in ("15m", "1h", "8h")]


@pytest.fixture
def rig(rig: Rig, lab: World) -> Iterator[Rig]:
    """Each test finds one network, the sandbox's own, and leaves nothing that holds access."""
    yield rig
    rig("operator", "revoke", "--all", "--yes", "--reason", "The test is over.", code=None)
    rig.settle()
    for task in rig.admin.list("jitvault/metadata/tasks/"):
        rig("operator", "status", task, code=None)
    more = sorted(set(rig.document("networks")["networks"]) - {"loopback"})
    rig("admin", "init", "--yes", *(word for name in more for word in ("--remove-network", name)))


def asked(rig: Rig, answer: str, width: int) -> Result:
    """`init` on a terminal, where the environment has the tokens of an operator and of the administrator."""
    admin = {"JITVAULT_ADMIN_TOKEN": rig.token_of("admin")}
    return at_terminal(rig.cli, "operator", "init", *OFFICE, answer=answer, width=width, **admin)


def networks(rig: Rig) -> dict[str, list[str]]:
    document = rig.document("networks")
    assert document["installation"] == rig.world.installation
    found: dict[str, list[str]] = document["networks"]
    return found


def roles(rig: Rig) -> set[str]:
    return set(rig.admin.list("auth/token/roles"))


def worker_policy(rig: Rig) -> str:
    return str((rig.admin.read("sys/policies/acl/jitvault-worker") or {})["data"]["policy"])


def test_on_a_terminal_it_shows_whose_identity_acts_and_asks(rig: Rig) -> None:
    width = 80
    before = worker_policy(rig)
    shown = asked(rig, "n", width)
    assert shown.code == 2 and "nothing was changed: the question was not answered with yes" in shown.stdout
    # the operator's VAULT_TOKEN is there as well, and is not the one that acts
    who = f"Acting as root (no entity; policies root; token from JITVAULT_ADMIN_TOKEN) at {rig.world.address}"
    lines = shown.stdout.splitlines()
    head = lines[: lines.index("~ document jitvault/networks")]
    assert " ".join(" ".join(head).split()) == who and all(len(line) <= width for line in head)
    assert "    office: none → 10.1.0.0/16" in lines and f"+ token role {ROLES[0]}" in lines
    assert "Make 5 changes in Vault? [y/N]: n" in lines
    assert (networks(rig), worker_policy(rig)) == ({"loopback": ["127.0.0.0/8"]}, before)

    made = asked(rig, "y", width)
    assert made.code == 0 and made.stdout.splitlines()[-1].startswith("5 changes made, ")
    assert networks(rig) == {"loopback": ["127.0.0.0/8"], "office": ["10.1.0.0/16"]}
    assert set(ROLES) <= roles(rig) and "auth/token/create/jitvault-15m-office" in worker_policy(rig)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_without_a_terminal_it_changes_nothing_without_yes(rig: Rig, more: tuple[str, ...]) -> None:
    refused = rig.cli("admin", "init", *OFFICE, *more, code=2, given="y\n")
    assert refused.stdout == "" and "there is no terminal on which to ask about 5 changes" in refused.stderr
    assert "--plan" in refused.stderr and "--yes" in refused.stderr and "+ token role" in refused.stderr
    assert not set(ROLES) & roles(rig)
    # where there is nothing to change there is nothing to ask
    assert rig.cli("admin", "init").stdout.splitlines()[-1].startswith("0 changes made, ")
    done = rig("admin", "init", *OFFICE, "--yes").json
    assert done["applied"] and done["by"]["name"] == "root" and done["by"]["source"] == "VAULT_TOKEN"
    assert {step["action"] for step in done["steps"] if step["kind"] == "token role"} == {"create", "keep"}


def test_networks_stay_whatever_a_later_run_names(rig: Rig) -> None:
    rig("admin", "init", "--yes", *OFFICE)
    for later in ((), ("--network", "plant=10.2.0.0/16")):
        plan = rig("admin", "init", "--plan", *later).json
        assert all("jitvault-15m-office" not in line for step in plan["steps"] for line in step["detail"])
        rig("admin", "init", "--yes", *later)
    assert set(networks(rig)) == {"loopback", "office", "plant"}
    assert rig("admin", "init", "--plan").json["missing"] == []
    moved = rig("admin", "init", "--plan", "--network", "office=10.9.0.0/16").json
    changed = {step["name"]: step["detail"] for step in moved["steps"] if step["action"] != "keep"}
    assert changed["jitvault/networks"] == ["office: 10.1.0.0/16 → 10.9.0.0/16"]
    assert set(changed) == {"jitvault/networks", *ROLES}


def test_a_network_is_removed_by_name_and_nothing_is_left_of_it(rig: Rig) -> None:
    rig("admin", "init", "--yes", *OFFICE)
    none = rig("admin", "init", "--yes", "--remove-network", "offfice", code=9).error
    assert "no network 'offfice'" in none["message"] and "loopback, office" in none["hint"]
    both = rig("admin", "init", "--yes", *OFFICE, "--remove-network", "office", code=8).error
    assert "--network and by --remove-network" in both["message"]
    done = rig("admin", "init", "--yes", "--remove-network", "office").json
    assert [step["name"] for step in done["steps"] if step["action"] == "delete"] == ROLES
    assert networks(rig) == {"loopback": ["127.0.0.0/8"]} and not set(ROLES) & roles(rig)
    assert "office" not in worker_policy(rig)


def test_networks_whose_document_was_deleted_are_taken_from_the_token_roles(rig: Rig) -> None:
    rig("admin", "init", "--yes", *OFFICE)
    rig.admin.delete("jitvault/metadata/networks")
    plan = rig("admin", "init", "--plan").json
    changed = {step["name"]: step["action"] for step in plan["steps"] if step["action"] != "keep"}
    assert changed == {"jitvault/networks": "create"}
    rig("admin", "init", "--yes")
    assert set(networks(rig)) == {"loopback", "office"}


@pytest.mark.parametrize(
    "document",
    [{"installation": "0" * 32, "networks": {}}, {"networks": {"office": ["10.1.0.0/16"]}}, {"any": "thing"}],
    ids=["another's", "nobody's", "garbage"],
)
def test_networks_that_init_did_not_write_are_not_taken(rig: Rig, document: dict[str, object]) -> None:
    good, before = rig.document("networks"), worker_policy(rig)
    rig.put("networks", document)
    try:
        wrong = rig("admin", "init", "--yes", code=9).error
        assert "jitvault/networks was changed" in wrong["message"] and "kv rollback" in wrong["hint"]
        assert worker_policy(rig) == before
    finally:
        rig.put("networks", good)


def test_what_a_live_task_uses_is_not_removed(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec(more="  network: loopback\n")
    granted = rig.granted(file)
    before = (worker_policy(rig), roles(rig), networks(rig))
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "other.yaml").write_text(Path("templates/postgres-readwrite.yaml").read_text())
    without = {"JITVAULT_TEMPLATES": str(templates)}
    removals: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        (("--remove-network", "loopback"), {}, f"network loopback: task {file.stem} is issued"),
        ((), without, f"database/creds/app-readonly: task {file.stem} is issued"),
    ]
    for options, extra, said in removals:
        plan = rig("admin", "init", "--plan", *options, extra=extra).json
        assert said in plan["in_use"] and not plan["applied"]
        refused = rig("admin", "init", "--yes", *options, code=9, extra=extra).error
        assert said in refused["message"] and "jitvault revoke TASK" in refused["hint"]
        assert "token role jitvault-15m-loopback" in refused["message"] or extra
    assert (worker_policy(rig), roles(rig), networks(rig)) == before
    # whatever was in use is removed once nothing uses it any more
    rig.use(granted, read=False)
    rig("operator", "complete", file.stem)
    rig.settle()
    assert rig("operator", "status", file.stem).json["state"] == "sealed"
    rig("admin", "init", "--yes", "--remove-network", "loopback")
    assert networks(rig) == {}
    rig("admin", "init", "--yes", "--network", "loopback=127.0.0.0/8")


def test_a_token_that_nothing_is_published_of_keeps_its_role(rig: Rig, spec: Spec) -> None:
    file = spec(more="  network: loopback\n")
    rig("operator", "grant", file)
    published = rig.document(f"tasks/{file.stem}")
    rig.admin.delete(f"jitvault/metadata/tasks/{file.stem}")
    refused = rig("admin", "init", "--yes", "--remove-network", "loopback", code=9).error
    assert "token role jitvault-15m-loopback" in refused["message"]
    rig.put(f"tasks/{file.stem}", published)


def test_whoever_may_not_provision_is_told_as_whom_they_tried(rig: Rig) -> None:
    refused = rig("operator", "init", "--plan", code=10).error
    assert "Vault does not let you provision it as userpass-operator" in refused["message"]
    assert refused["hint"].startswith("Only an administrator can.")


@pytest.mark.needs("namespaces")
def test_the_administrator_of_a_namespace_is_told_what_belongs_to_the_root(rig: Rig) -> None:
    rig.admin.write("sys/namespaces/team-of-init")
    there = Vault(Connection(rig.world.address, "team-of-init"), rig.world.admin_token)
    there.write("sys/mounts/database", {"type": "database"})
    everything = 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }'
    there.write("sys/policies/acl/everything", {"policy": everything})
    token = there.write("auth/token/create", {"policies": ["everything"]}, method="post")["auth"]["client_token"]
    extra = {"VAULT_NAMESPACE": "team-of-init", "JITVAULT_ADMIN_TOKEN": token}
    refused = rig("operator", "init", "--plan", code=10, extra=extra).error
    assert "Vault refused sys/" in refused["message"] and "Only a token of the root namespace" in refused["hint"]
