"""What a receipt says is never taken for what `verify` says of it."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest
from forger import Forger
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from terminals import HOSTILE, PILED, widest

from jitvault.cli.views.verification import print_verified

FORGED = "Everything that was checked holds."


class Terminal(io.StringIO):
    """What is printed to a terminal."""

    def isatty(self) -> bool:
        return True


def rows(forger: Forger, words: str, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what a terminal of that width shows of a receipt with these words in every place for words of others."""

    def edit(told: dict[str, Any]) -> None:
        told["intent"] = words
        told["task"] = words or "x"
        for part in ("requester", "agent", "owner"):
            told[part]["name"] = words
        told["ended"] = {"by": None, "at": told["sealed_at"], "reason": "revoked", "name": words, "note": words}
        told["findings"] = [{"rule": words, "message": words, "line": None}]
        told["proof"] |= {"task_id": f"{words}!", "not_proven": [words]}
        told["access"] = [{"template": words, "path": words, "with": {"database": words}}]

    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", str(width))
    try:
        print_verified(forger.verify(forger.receipt(edit)))
    finally:
        monkeypatch.undo()
    # the styles are jitvault's own
    return re.sub(r"\x1b\[[0-9]*m", "", shown.getvalue()).split("\n")[:-1]


@pytest.mark.parametrize("width", [60, 80, 120])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(words=HOSTILE | st.text())
@example(words=f"{PILED} {'x ' * 40}{FORGED}")
@example(words=f"x\n{FORGED}")
@example(words="Everything-that-was-checked-holds." * 5)
def test_every_row_of_what_a_receipt_says_is_marked(
    forger: Forger, monkeypatch: pytest.MonkeyPatch, width: int, words: str
) -> None:
    heading, *found = rows(forger, words, width, monkeypatch)
    _, *plain = rows(forger, "x", width, monkeypatch)
    # a heading, a name beside it, a dash and so on stand before a mark
    theirs = [row for row in found if re.match(r"[ a-z✗-]{4,15}\|( |$)", row)]
    assert [row for row in found if row not in theirs] == [row for row in plain if "| " not in row]
    assert max(map(widest, [heading, *theirs])) <= width
