"""`jitvault dev`: each role from its own file, templates and policies of one's own, and what happens, told."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import SPEC
from forked import run_forked
from newcomer import COMMAND, ELSEWHERE, environment

from jitvault import shipped_files as shipped

OWN_RULE = "mine-low-risk"
OWN_TEMPLATE = "orders-readwrite"
BROKEN_TEMPLATE = "orders-of-nobody"
SHORT_TEMPLATE = "orders-for-short"
READY_S = 60


@dataclass
class Sandbox:
    """A running `jitvault dev --env-dir`, and the terminals beside it."""

    process: subprocess.Popen[str]
    roles: Path
    directory: Path
    printed: Path

    def shell(self, role: str, script: str) -> subprocess.CompletedProcess[str]:
        """What somebody does who has sourced a role's file in a terminal."""
        argv = ["bash", "-c", f"source {shlex.quote(str(self.roles / f'{role}.env'))} && {script}"]
        environ = {**ELSEWHERE, **environment(self.directory)}
        return subprocess.run(
            argv, env=environ, cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )

    def told(self, pattern: str, seconds: float = 20) -> list[str]:
        """The lines that `dev` has printed, as soon as one of them has the pattern."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.printed.read_text().splitlines()
            if any(re.search(pattern, line) for line in lines):
                return lines
            assert time.monotonic() < deadline, (pattern, lines)
            time.sleep(0.1)


def own_files(directory: Path) -> tuple[Path, Path]:
    """Templates and policies that differ from the shipped ones by a name."""
    templates, policies = directory / "templates", directory / "policies"
    templates.mkdir()
    policies.mkdir()
    text = (shipped.templates_dir() / "postgres-readonly.yaml").read_text()
    (templates / "postgres-readonly.yaml").write_text(text)
    writing = (shipped.templates_dir() / "postgres-readwrite.yaml").read_text()
    (templates / "own.yaml").write_text(writing.replace("postgres-readwrite", OWN_TEMPLATE))
    broken = text.replace("postgres-readonly", BROKEN_TEMPLATE).replace("{database}-readonly", "{database}-nobody")
    (templates / "broken.yaml").write_text(broken)
    short = text.replace("postgres-readonly", SHORT_TEMPLATE).replace("\n  ttl: 15m", "\n  ttl: 10m")
    (templates / "short.yaml").write_text(short)
    for path in (shipped.policies_dir() / "cedar").iterdir():
        (policies / path.name).write_text(path.read_text().replace("low-risk-is-approved-at-once", OWN_RULE))
    return templates, policies


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    # not pytest's own directory: as root, PostgreSQL runs as somebody else, who has to get to its files
    with tempfile.TemporaryDirectory(prefix="jitvault-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        templates, policies = own_files(directory)
        roles, printed = directory / "roles", directory / "printed"
        argv = [*COMMAND, "dev", "--env-dir", str(roles), "--templates", str(templates), "--policies", str(policies)]
        environ = {**ELSEWHERE, **environment(directory), "COLUMNS": "80"}
        with printed.open("w") as out:
            process = subprocess.Popen(argv, env=environ, stdout=out, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + READY_S
            while not roles.exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield Sandbox(process, roles, directory, printed)
        finally:
            process.kill()
            process.communicate()


def test_it_says_where_everything_is_and_how_to_begin(sandbox: Sandbox) -> None:
    lines = sandbox.told("What happens")
    text = "\n".join(lines)
    address = sandbox.shell("operator", "echo $VAULT_ADDR").stdout.strip()
    ledger = sandbox.shell("auditor", "echo $JITVAULT_LEDGER").stdout.strip()
    assert address in text and ledger in text and re.search(r"target +postgresql://127\.0\.0\.1:\d+/app", text)
    for role in ("operator", "agent", "approver-1", "approver-2", "auditor", "worker", "admin"):
        assert re.search(rf"^  {role}  ", text, re.MULTILINE), role
    begun = [line.strip() for line in lines if line.startswith(("  source", "  jitvault"))]
    assert begun == [
        f"source {sandbox.roles}/operator.env",
        "jitvault templates list",
        'jitvault grant "$JITVAULT_EXAMPLE_SPEC"',
        f"source {sandbox.roles}/agent.env",
        "jitvault unwrap read-orders --read",
    ]
    assert "JITVAULT_TEMPLATES is set for another Vault and is not used here" in text
    assert not re.search(r"\b(hvs|s)\.[A-Za-z0-9]{20,}|password", text), "a terminal keeps what it has shown"
    # a path cannot be cut where it is to be copied, and a sentence is one line in a pipe
    assert [
        line for line in lines if line.startswith("  ") and len(line) > 80 and str(sandbox.directory) not in line
    ] == []


def test_a_template_that_fails_its_check_is_told_and_keeps_nobody_from_the_others(sandbox: Sandbox) -> None:
    text = " ".join(" ".join(sandbox.told("What happens")).split())
    assert f"Nothing is granted by the template {BROKEN_TEMPLATE}: " in text
    assert f"as admin: jitvault templates check {BROKEN_TEMPLATE}" in text
    listed = json.loads(sandbox.shell("operator", "jitvault templates list --json").stdout)["templates"]
    assert {each["metadata"]["name"]: each["check"] for each in listed} == {
        "postgres-readonly": "passed",
        OWN_TEMPLATE: "passed",
        BROKEN_TEMPLATE: "needed",
        SHORT_TEMPLATE: "failed",
    }


def test_an_agent_connects_to_the_sandbox_whatever_its_template_names(sandbox: Sandbox) -> None:
    assert "app-db.example.org" in (sandbox.directory / "templates" / "postgres-readonly.yaml").read_text()
    spec = sandbox.directory / "here.yaml"
    text = SPEC.format(
        id="here", criticality="low", template="postgres-readonly", window="15m", intent="Count.", more=""
    )
    spec.write_text(f"{text}  deliver: agent\n")
    assert sandbox.shell("operator", "jitvault grant here.yaml").returncode == 0
    counted = sandbox.shell(
        "agent", 'unset ${!PG*}; psql "$(jitvault unwrap here --read -o dsn)" -Atc "select count(*) from orders"'
    )
    assert counted.stdout == "3\n", counted
    said = " ".join(" ".join(sandbox.told("What happens")).split())
    assert "/app, without TLS; agents connect there, whatever a template's connection says" in said


def test_a_template_is_corrected_as_it_was_told_and_the_worker_reads_it(sandbox: Sandbox) -> None:
    file = sandbox.directory / "templates" / "short.yaml"
    said = " ".join(" ".join(sandbox.told("What happens")).split())
    assert f"Nothing is granted by the template {SHORT_TEMPLATE}: " in said and f"in {file} mend" in said
    change = re.search(r"change the template's line `(.+?)` to `(.+?)`", said)
    assert change is not None, said
    kept = file.read_text()
    file.write_text("no template")
    sandbox.told(r"sandbox +not read; the worker keeps those of before$")
    file.write_text(kept.replace(f"\n  {change[1]}\n", f"\n  {change[2]}\n"))
    sandbox.told(r"sandbox +edited files are read again$")
    assert sandbox.shell("admin", f"unset ${{!PG*}}; jitvault templates check {SHORT_TEMPLATE}").returncode == 0
    spec = sandbox.directory / "short.yaml"
    spec.write_text(
        SPEC.format(id="short", criticality="low", template=SHORT_TEMPLATE, window="15m", intent="Count.", more="")
    )
    granted = sandbox.shell("operator", "jitvault grant short.yaml --out short.json")
    assert granted.returncode == 0, granted


def test_a_task_goes_from_role_to_role_and_each_step_is_told(sandbox: Sandbox) -> None:
    done = sandbox.shell("operator", 'jitvault grant "$JITVAULT_EXAMPLE_SPEC" --json')
    assert done.returncode == 0 and json.loads(done.stdout)["wrapping"] == [], done
    taken = sandbox.shell("agent", "jitvault unwrap read-orders --read --json")
    assert taken.returncode == 0 and json.loads(taken.stdout)["secrets"], taken
    refused = sandbox.shell("auditor", "jitvault complete read-orders --json")
    assert refused.returncode == 10, "the auditor's file leaves nobody else's token"
    ended = sandbox.shell("operator", "jitvault complete read-orders --json")
    assert ended.returncode == 0 and json.loads(ended.stdout)["confirmed"], ended
    lines = sandbox.told(r"read-orders .*sealed")
    seen = [line[10:] for line in lines if re.match(r"\d\d:\d\d:\d\d  read-orders ", line)]
    wanted = (
        *("submitted: approved", "token created", "issued", "active", "credential read: database/creds/app-readonly"),
        *("ending: completed, asked for by operator", "revoked: ", "confirmed", "sealed"),
    )
    places = [next((n for n, line in enumerate(seen) if words in line), -1) for words in wanted]
    assert -1 not in places and places.index(max(places)) == len(places) - 1, seen
    report = sandbox.shell("auditor", "jitvault report read-orders")
    assert report.returncode == 0 and json.loads(report.stdout)["leases"][0]["state"] == "sealed"


def test_who_decides_is_told_by_name(sandbox: Sandbox) -> None:
    spec = sandbox.directory / "told.yaml"
    text = SPEC.format(id="told", criticality="medium", template=OWN_TEMPLATE, window="15m", intent="Count.", more="")
    spec.write_text(text)
    assert sandbox.shell("operator", "jitvault grant told.yaml").returncode == 4
    sandbox.told(r"told +submitted: waits for 1 of approvers$")
    assert sandbox.shell("approver-2", "jitvault deny told --reason no --yes").returncode == 0
    sandbox.told(r"told +decided: denied by approver-2$")


def test_a_line_in_a_file_is_not_cut(sandbox: Sandbox) -> None:
    spec = SPEC.format(
        id="whole", criticality="low", template="postgres-readonly", window="15m", intent="Count.", more=""
    )
    (sandbox.directory / "whole.yaml").write_text(spec)
    assert sandbox.shell("operator", "jitvault grant whole.yaml --out whole.json").returncode == 0
    reason = f"{'a long reason ' * 9}and its last word"
    assert sandbox.shell("operator", f"jitvault revoke whole --reason '{reason}'").returncode == 0
    sandbox.told(rf"^\d\d:\d\d:\d\d  whole +ending: revoked, asked for by operator \({reason}\)$")


def test_what_is_explained_is_what_the_worker_decides_by(sandbox: Sandbox) -> None:
    spec = sandbox.directory / "mine.yaml"
    spec.write_text(
        SPEC.format(id="mine", criticality="low", template="postgres-readonly", window="15m", intent="Count.", more="")
    )
    explained = json.loads(sandbox.shell("operator", "jitvault policy explain mine.yaml --json").stdout)["decision"]
    assert OWN_RULE in explained["rules"]
    assert sandbox.shell("operator", "jitvault grant mine.yaml --out mine.json --json").returncode == 0
    shown = json.loads(sandbox.shell("auditor", "jitvault status mine --json").stdout)
    assert shown["decision"]["policy_digest"] == explained["policy_digest"]
    assert shown["decision"]["rules"] == explained["rules"]
    assert json.loads(sandbox.shell("operator", "jitvault revoke mine --json").stdout)["confirmed"]


def test_a_template_that_the_worker_does_not_know_says_so(sandbox: Sandbox) -> None:
    spec = sandbox.directory / "other.yaml"
    text = SPEC.format(id="other", criticality="low", template="pki-service", window="15m", intent="Be.", more="")
    spec.write_text(text.replace("{database: app}", "{service: orders}"))
    here = sandbox.shell("operator", "jitvault grant other.yaml")
    assert here.returncode == 8 and "unknown template pki-service" in here.stderr
    assert "JITVAULT_TEMPLATES names another directory" in " ".join(here.stderr.split())
    shipped_ones = f"JITVAULT_TEMPLATES={shlex.quote(str(shipped.templates_dir()))}"
    there = sandbox.shell("operator", f"{shipped_ones} jitvault grant other.yaml")
    said = " ".join(there.stderr.split())
    assert there.returncode == 8 and "the worker has no template pki-service; it has: " in said, there
    assert OWN_TEMPLATE in said and "jitvault dev --templates DIR" in said


def test_at_the_end_the_files_of_the_roles_are_gone(sandbox: Sandbox) -> None:
    """The last of this file: it ends the sandbox."""
    sandbox.process.send_signal(signal.SIGINT)
    _, said = sandbox.process.communicate(timeout=20)
    assert sandbox.process.returncode == 0 and said == "\nThe sandbox is stopped and removed.\n"
    assert not sandbox.roles.exists() and not list((sandbox.directory / "tmp").iterdir())


def test_wrong_directories_are_told_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "a.cedar").write_text("permit (")
    (tmp_path / "wrong" / "own.cedarschema").write_text("")
    (tmp_path / "there").mkdir()
    for option, name, code, words in (
        ("--policies", "empty", 8, "needs .cedar files and one .cedarschema"),
        ("--policies", "wrong", 8, "the policy set does not parse"),
        ("--policies", "nowhere", 8, "there is no directory"),
        ("--templates", "nowhere", 8, "there is no directory"),
        ("--templates", "empty", 8, "no template"),
        ("--env-dir", "there", 2, "exists already"),
    ):
        done = run_forked(["dev", option, tmp_path / name], environment(tmp_path))
        assert (done.returncode, done.stdout) == (code, ""), (option, name, done)
        assert words in done.stderr, (option, name, done.stderr)
        # where its servers would be
        assert not list((tmp_path / "tmp").iterdir())
