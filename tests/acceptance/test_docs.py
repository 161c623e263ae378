"""The documents say what the product does: the README's commands run, the reference has all commands and codes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import Cli
from forked import write_program

from jitvault.errors import JitvaultError

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()

WALK_S = 150
READY_S = 60
# what differs from run to run
_VARIES = (
    # a worker issues an approved task at once, before or after the command looks
    (r"; it is issued$", "; it is approved"),
    (r"database/creds/app-readonly/\w+", "LEASE"),
    (r"sha256:[0-9a-f]{64}", "DIGEST"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "TIME"),
    (r"\b\d+ ms", "N ms"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"^  password  .*$", "  password  …"),
    (r"^  username  .*$", "  username  …"),
    (r"─+", "─"),
    # what `verify` says of the files that it read
    (r"SHA-256 of the key: \w+", "SHA-256 of the key: …"),
    (r"\([\d,]+ lines, [^)]*\)", "(N lines)"),
    (r"\d{4}-\d\d-\d\dT\S+", "TIME"),
)


# of the sandbox's worker, which may begin later than the first commands on a machine that does much else
_SLOW = "No worker has answered yet. "


def normal(text: str) -> list[str]:
    lines = [re.sub(r" +$", "", line) for line in text.strip().splitlines() if not line.startswith(_SLOW)]
    for pattern, replacement in _VARIES:
        lines = [re.sub(pattern, replacement, line) for line in lines]
    # columns are as wide as their content
    return [re.sub(r"(?<=\S) {2,}", "  ", line) for line in lines]


def walk_through() -> Iterator[tuple[str, str]]:
    """Every `$ command` of the README's console blocks, in order, with the output that is shown below it."""
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


@contextlib.contextmanager
def developing(command: str, directory: Path, environment: dict[str, str]) -> Iterator[None]:
    """The README's own `jitvault dev`, in its terminal, until the block ends."""
    with (directory / "dev.log").open("w") as log:
        dev = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], env=environment, cwd=directory, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + READY_S
        while not (directory / "dev").exists():
            assert dev.poll() is None and time.monotonic() < deadline, (directory / "dev.log").read_text()
            time.sleep(0.05)
        yield
    finally:
        dev.send_signal(signal.SIGINT)
        dev.wait(30)


def test_the_readme_walk_through_prints_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    write_program(binaries / "jitvault")
    (binaries / "bao").symlink_to(Path(sys.executable).parent / "bao")
    steps = list(walk_through())
    assert len(steps) >= 12
    script = "".join(f"echo @@{n} $SECONDS; {{ {command}\n}} 2>&1\n" for n, (command, _) in enumerate(steps))
    base = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment = {**base, "HOME": str(tmp_path), "COLUMNS": "80"}
    out = tmp_path / "printed"
    (start,) = re.findall(r"^\.venv/bin/jitvault dev .*$", README, re.MULTILINE)
    with developing(start, tmp_path, environment), out.open("w") as file:
        # on a machine that does four things at once it takes five times as long as alone
        shell = subprocess.Popen(["bash", "-c", script], env=environment, cwd=tmp_path, stdout=file)
        try:
            shell.wait(WALK_S)
        except subprocess.TimeoutExpired:
            shell.kill()
            pytest.fail(f"not done after {WALK_S} s; printed until then:\n{out.read_text()}")
    printed = re.split(r"^@@\d+ \d+\n", out.read_text(), flags=re.MULTILINE)[1:]
    for (command, expected), actual in zip(steps, printed, strict=True):
        assert normal(actual) == normal(expected), command


_GROUPS = ("spec", "templates", "audit", "policy", "approvers", "ledger")


def commands(cli: Cli) -> list[str]:
    """Every command of the CLI, groups unfolded, from its own help."""
    found = []
    for name in _listed(cli(None, "--help").stdout):
        inner = _listed(cli(None, name, "--help").stdout) if name in _GROUPS else []
        found += [f"{name} {sub}" for sub in inner] or [name]
    return found


def _listed(help_text: str) -> list[str]:
    panels = help_text.rsplit("─ Options", maxsplit=1)[-1].split("╯", 1)[1]
    return re.findall(r"^│ ([a-z][a-z-]*)  ", panels, re.MULTILINE)


def test_every_command_is_in_the_reference(cli: Cli) -> None:
    names = commands(cli)
    assert {"grant", "spec check", "templates show", "report", "audit status", "unfreeze"} <= set(names)
    for name in names:
        assert f"jitvault {name}" in REFERENCE, name
        assert re.search(rf"^\| `(.*`)?{name}[ `]", REFERENCE, re.MULTILINE), name


def test_every_exit_code_is_in_the_reference_and_the_help(cli: Cli) -> None:
    codes = {kind.exit_code for kind in JitvaultError.__subclasses__()}
    help_text = cli(None, "--help").stdout
    for code in sorted(codes):
        assert re.search(rf"\| {code} \|", REFERENCE), code
        assert re.search(rf"\b{code}\s+\w", help_text), code


def test_every_setting_is_in_the_reference() -> None:
    import inspect

    from jitvault import settings

    for name in re.findall(r"^\s+((?:JITVAULT|VAULT)_\w+)", inspect.getdoc(settings) or "", re.MULTILINE):
        assert name in REFERENCE, name


@pytest.mark.parametrize("document", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_inside_the_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_compose_file_is_yaml_with_an_audit_device_that_openbao_takes() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    configuration = compose["configs"]["openbao"]["content"]
    assert re.search(r'audit "file" "jitvault" \{\s+options \{\n\s+file_path', configuration)
