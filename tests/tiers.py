"""Which tests `make test` runs: the ones without servers, the commands, and one test on servers for each promise.

The ledger's own tests run on SQLite there, and the slowest tests are marked by themselves. `make test-all` runs
everything. The promises are the rows of the table in docs/security/threat-model.md that says which test shows what. Of
each row the first test is in the short tier, of a test with parameters the first case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ON_SERVERS = TESTS / "integration"
THREAT_MODEL = TESTS.parent / "docs" / "security" / "threat-model.md"
_TEST = re.compile(r"`(test_\w+)`")


def promised() -> frozenset[str]:
    """Return the name of the first test in each row of the threat model's table."""
    _, _, table = THREAT_MODEL.read_text().partition("\n## Which test shows it\n")
    rows = (line for line in table.splitlines() if line.startswith("| "))
    return frozenset(found[1] for row in rows if (found := _TEST.search(row)))


def mark_thorough(items: Sequence[pytest.Item]) -> None:
    """Mark the tests that `make test` leaves to `make test-all`, besides those that are marked by themselves."""
    names, seen = promised(), set[str]()
    for item in items:
        if isinstance(item, pytest.Function) and _is_again_on_postgresql(item):
            item.add_marker("thorough")
        if not item.path.is_relative_to(ON_SERVERS):
            continue
        name = getattr(item, "originalname", item.name)
        if name not in names or name in seen:
            item.add_marker("thorough")
        seen.add(name)


def _is_again_on_postgresql(item: pytest.Function) -> bool:
    """Return whether the test also runs with its ledger in a file."""
    return hasattr(item, "callspec") and item.callspec.params.get("place") == "postgresql"
