"""Every page whose commands name `bao` says how to type them where there is only HashiCorp's `vault`."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"
_BLOCK = re.compile(r"^```(?:sh|console|bash)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^\s*bao ", re.MULTILINE)


def test_a_page_with_commands_for_bao_helps_whoever_has_vault() -> None:
    pages = [page for page in DOCS.rglob("*.md") if any(map(_TYPED.search, _BLOCK.findall(page.read_text())))]
    assert {page.name for page in pages} >= {"worker-identity.md", "break-glass.md", "approvals.md", "reference.md"}
    helps = [page for page in pages if re.search(r"servers\.md#commands|command -v bao", page.read_text())]
    assert helps == pages
