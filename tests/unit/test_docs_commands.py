"""Every page whose commands name `bao` says how to type them where there is only HashiCorp's `vault`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
_BLOCK = re.compile(r"^```(?:sh|console|bash)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^\s*bao ", re.MULTILINE)


def test_a_page_with_commands_for_bao_helps_whoever_has_vault() -> None:
    pages = [page for page in DOCS.rglob("*.md") if any(map(_TYPED.search, _BLOCK.findall(page.read_text())))]
    assert {page.name for page in pages} >= {"worker-identity.md", "break-glass.md", "approvals.md", "auditors.md"}
    helps = [page for page in pages if re.search(r"servers\.md#commands|command -v bao", page.read_text())]
    assert helps == pages


# HashiCorp's program: it knows no BAO_ variables, whatever it is called
_VAULT = '#!/bin/sh\necho "$VAULT_ADDR $VAULT_TOKEN $*"\n'
_DEFINITION = re.compile(r"^.*\bcommand -v bao\b.*\n(?:  .*\n)*", re.MULTILINE)
_BEFORE = {
    "nothing": "",
    "a shorter one": 'bao() { vault "$@"; }\n',
    "the same": None,
}


def _definitions() -> list[str]:
    return [found for page in sorted(DOCS.rglob("*.md")) for found in _DEFINITION.findall(page.read_text())]


def test_the_pages_define_bao_in_the_same_words() -> None:
    assert len(_definitions()) >= 4 and len(set(_definitions())) == 1


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("before", _BEFORE)
def test_bao_by_vault_is_who_bao_token_says_whatever_was_pasted_before(tmp_path: Path, shell: str, before: str) -> None:
    definition = _definitions()[0]
    pasted = _BEFORE[before] if _BEFORE[before] is not None else definition
    _program(tmp_path / "vault", _VAULT)
    script = f"set -u\n{pasted}{definition}bao token lookup"
    assert _said(shell, script, tmp_path, BAO_ADDR="b", BAO_TOKEN="admin", VAULT_TOKEN="o") == "b admin token lookup"
    assert _said(shell, script, tmp_path, VAULT_ADDR="v", VAULT_TOKEN="operator") == "v operator token lookup"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_bao_that_is_installed_is_left_as_it_is(tmp_path: Path, shell: str) -> None:
    _program(tmp_path / "vault", _VAULT)
    _program(tmp_path / "bao", '#!/bin/sh\necho "itself $*"\n')
    assert _said(shell, f"{_definitions()[0]}bao status", tmp_path) == "itself status"


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _said(shell: str, script: str, programs: Path, **environment: str) -> str:
    path = f"{programs}:/usr/bin:/bin"
    done = subprocess.run(
        [shell, "-c", script], env={"PATH": path, **environment}, capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout.strip()
