"""A shell that sources a role's file is that role and no other, whatever it was before."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from jitvault import settings
from jitvault.errors import UsageError
from jitvault.sandbox.role_files import ROLES, remove_role_files, write_env_file, write_role_files

TOKENS = {role.token: f"s.token-of-{role.name}" for role in ROLES}
VARIABLES = {
    **TOKENS,
    "VAULT_ADDR": "http://127.0.0.1:8200",
    "JITVAULT_LEDGER": "sqlite:////tmp/a place/ledger.db",
    "JITVAULT_AUDIT_FILE": "/tmp/it's/audit.log",
    "JITVAULT_SETTLE_WINDOW": "2s",
    "JITVAULT_SHARED_HOSTS": "127.0.0.0/8",
    "JITVAULT_TASKS_PER_SECOND": "10000",
    "JITVAULT_TARGET_DSN": "host='127.0.0.1' password='secret'",
    "JITVAULT_EXAMPLE_SPEC": "/tmp/read-orders.yaml",
}
NAMES = [role.name for role in ROLES]
ELSEWHERE = {"VAULT_TOKEN": "s.elsewhere", "BAO_TOKEN": "s.elsewhere", "JITVAULT_WORKER_LOGIN": "approle"}
OURS = {*settings.variables(), *VARIABLES}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "roles of mine"
    write_role_files(directory, VARIABLES)
    return directory


def sourced(*paths: Path) -> dict[str, str]:
    """The variables of ours in a shell that has sourced these files in turn, with what it had for other servers."""
    script = "".join('. "$1"; shift; ' for _ in paths) + "exec env -0"
    argv = ["sh", "-euc", script, "sh", *map(str, paths)]
    environment = {"PATH": os.environ["PATH"], **ELSEWHERE}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    found = dict(word.split("=", 1) for word in done.stdout.split("\0") if word)
    return {name: value for name, value in found.items() if name in OURS}


def tokens(found: dict[str, str]) -> set[str]:
    return {value for value in found.values() if value.startswith("s.")}


def test_a_role_has_its_own_token_alone_and_everything_as_it_is(files: Path) -> None:
    assert sorted(path.name for path in files.iterdir()) == sorted([".mcp.json", *(f"{name}.env" for name in NAMES)])
    for name in NAMES:
        found = sourced(files / f"{name}.env")
        assert tokens(found) == {f"s.token-of-{name}"}, name
        assert found["VAULT_ADDR"] == VARIABLES["VAULT_ADDR"]
        for variable, value in found.items():
            assert value == VARIABLES.get(variable, f"s.token-of-{name}"), variable


@pytest.mark.parametrize(("before", "after"), list(permutations(NAMES, 2)))
def test_of_the_role_before_nothing_is_left(files: Path, before: str, after: str) -> None:
    assert sourced(files / f"{before}.env", files / f"{after}.env") == sourced(files / f"{after}.env")


def test_only_who_reads_the_ledger_knows_it_and_only_the_worker_has_its_identity(files: Path) -> None:
    found = {name: sourced(files / f"{name}.env") for name in NAMES}
    assert {name for name in NAMES if "JITVAULT_LEDGER" in found[name]} == {"auditor", "worker", "admin"}
    assert {name for name in NAMES if "JITVAULT_WORKER_TOKEN" in found[name]} == {"worker"}
    # without it a command uses what `bao login` left, which is somebody else's
    assert all(found[name]["VAULT_TOKEN"] == f"s.token-of-{name}" for name in NAMES)
    assert {name for name in NAMES if "JITVAULT_TARGET_DSN" in found[name]} == {"admin"}
    assert "JITVAULT_ADMIN_TOKEN" not in found["admin"], "VAULT_TOKEN is the administrator's already"


def test_a_role_goes_by_the_templates_and_policies_of_the_sandbox(tmp_path: Path) -> None:
    own = {"JITVAULT_TEMPLATES": "/own/templates", "JITVAULT_POLICIES": "/own/policies"}
    write_role_files(tmp_path / "own", {**VARIABLES, **own})
    for name in NAMES:
        assert own.items() <= sourced(tmp_path / "own" / f"{name}.env").items()


def test_an_mcp_client_has_a_server_that_is_the_agent(files: Path) -> None:
    server = json.loads((files / ".mcp.json").read_text())["mcpServers"]["jitvault"]
    own = {name: value for name, value in server["env"].items() if name != "PATH"}
    assert own == sourced(files / "agent.env")
    # as a client starts it, which passes nothing else on
    argv = [server["command"], *server["args"], "--help"]
    subprocess.run(argv, env=server["env"], capture_output=True, check=True)
    assert shutil.which("psql", path=server["env"]["PATH"])


def test_nobody_else_can_read_the_files(files: Path) -> None:
    assert stat.S_IMODE(files.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.iterdir()} == {0o600}


def test_the_file_for_scripts_has_everybodys_tokens_and_says_so(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "dev.env"
    write_env_file(path, VARIABLES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("# everybody's tokens, for scripts")
    assert sourced(path) == VARIABLES
    assert sourced(files / "worker.env", path) == VARIABLES


def test_a_directory_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write_role_files(tmp_path / "no" / "such", VARIABLES)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("precious")
    with pytest.raises(UsageError, match="cannot be written"):
        write_role_files(taken, VARIABLES)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"] and (taken / "mine").read_text() == "precious"


def test_what_somebody_else_put_into_the_directory_stays(files: Path) -> None:
    (files / "wrapped.json").write_text("mine")
    remove_role_files(files)
    assert [path.name for path in files.iterdir()] == ["wrapped.json"]
    (files / "wrapped.json").unlink()
    remove_role_files(files)
    assert not files.exists()


def added(path: Path) -> list[str]:
    """The directories that a shell has in PATH besides its own, once the file was sourced twice."""
    argv = ["sh", "-euc", '. "$1"; . "$1"; printf %s "$PATH"', "sh", str(path)]
    done = subprocess.run(argv, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    own = "/usr/bin:/bin:"
    assert done.stdout.startswith(own), "what the shell finds already comes first"
    return done.stdout.removeprefix(own).split(":")


def test_every_role_has_psql_and_the_commands_behind_its_own(tmp_path: Path) -> None:
    server = tmp_path / "a server's" / "bao"
    write_role_files(tmp_path / "roles", VARIABLES, server)
    for name in NAMES:
        psql, *commands = added(tmp_path / "roles" / f"{name}.env")
        assert (Path(psql) / "psql").exists(), name
        assert commands == [str(Path(sys.executable).parent), str(server.parent)], name
