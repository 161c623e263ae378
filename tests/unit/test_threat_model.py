"""What the threat model promises is shown by tests that exist, or it says that nothing shows it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
_, _, TABLES = (ROOT / "docs" / "security" / "threat-model.md").read_text().partition("\n## Which test shows it\n")
ROWS = [line for line in TABLES.splitlines() if line.startswith("| ") and not line.endswith("| shown by |")]
NAMED = re.compile(r"`(test_\w+)`")
DEFINED = re.compile(r"^def (test_\w+)\(", re.MULTILINE)
NOBODY = ("only detected", "not guarded")


def test_each_promise_names_a_test_or_says_that_there_is_none() -> None:
    assert len(ROWS) > 50
    bare = [row for row in ROWS if not NAMED.search(row) and not any(word in row for word in NOBODY)]
    assert bare == []


def test_each_test_that_is_named_exists_once() -> None:
    files = (ROOT / "tests").rglob("test_*.py")
    defined = Counter(name for file in files for name in DEFINED.findall(file.read_text()))
    named = {name: defined[name] for row in ROWS for name in NAMED.findall(row)}
    assert named and {name: count for name, count in named.items() if count != 1} == {}
