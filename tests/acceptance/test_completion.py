"""`jitvault completion SHELL`: the script, and what it completes, without a server or a setting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Quick

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def alone(tmp_path: Path) -> Quick:
    """Commands without any setting: nothing that they print comes from a server."""
    return Quick({}, tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_the_program_and_its_shell(alone: Quick, shell: str) -> None:
    printed = alone(None, "completion", shell)
    assert f"_JITVAULT_COMPLETE=complete_{shell}" in printed.stdout and printed.stderr == ""


def test_another_shell_is_refused_with_those_that_there_are(alone: Quick) -> None:
    refused = alone(None, "completion", "ksh", code=2)
    assert "'ksh' is not one of 'bash', 'zsh', 'fish'" in refused.stderr and "Value error" not in refused.stderr
    assert "Choose from: bash, zsh, fish" in alone(None, "completion", code=2).stderr


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program by its name, as the script calls it."""
    path = tmp_path / "jitvault"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m jitvault "$@"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("gr", {"grant"}),
        ("findings ", {"list", "close"}),
        ("report -o ", {"json", "csv"}),
        ("list -o ", {"json"}),
        ("completion ", {*SHELLS}),
        ("status --qu", {"--quiet"}),
        ("status ", set()),
        ("spec new post", {"postgres-readonly", "postgres-readwrite"}),
        ("templates show pki", {"pki-service"}),
        ("templates check pki", {"pki-service"}),
        ("spec new pki-service --criticality h", {"high"}),
        ("close-f", set()),
    ],
)
def test_bash_completes_commands_options_formats_and_templates(program: Path, line: str, expected: set[str]) -> None:
    words = ["jitvault", *line.split(" ")]
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
source <(jitvault completion bash)
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
_jitvault_completion jitvault
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    # a Vault that does not answer: no word is asked of it
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "VAULT_ADDR": "http://127.0.0.1:9"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == "" and set(done.stdout.split()) == expected


def test_templates_that_cannot_be_read_complete_nothing(program: Path) -> None:
    asked = {"_JITVAULT_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": "jitvault spec new "}
    environment = {"PATH": os.environ["PATH"], "_TYPER_COMPLETE_FISH_ACTION": "get-args", **asked}
    for wrong in ({"JITVAULT_TEMPLATES": "/nowhere"}, {"JITVAULT_DENIED_LIMIT": "x"}):
        done = subprocess.run(
            [program], env={**environment, **wrong}, capture_output=True, text=True, timeout=30, check=True
        )
        assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize(("shell", "found"), [("zsh", '"json"'), ("fish", "json")])
def test_zsh_and_fish_are_answered_in_their_own_form(program: Path, shell: str, found: str) -> None:
    asked = {"_JITVAULT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "jitvault list -o "}
    environment = {"PATH": os.environ["PATH"], "_TYPER_COMPLETE_FISH_ACTION": "get-args", **asked}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == "" and found in done.stdout
