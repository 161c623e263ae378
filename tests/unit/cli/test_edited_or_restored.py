"""What `ledger check` makes of what it found: an edited ledger, or an older one that was put back."""

from __future__ import annotations

import pytest

from jitvault.cli.commands.installation.ledger import edited_or_restored
from jitvault.ledger.chains import ChainCheck


@pytest.mark.parametrize(
    ("broken", "unguarded", "missing", "told"),
    [
        ({}, (), ["t-1", "t-2"], "was restored"),
        ({"t-1": ["event 1 was changed"]}, (), [], "was edited"),
        ({"t-1": ["event 1 was changed"]}, (), ["t-2"], "was edited"),
        ({}, ("events_no_delete",), ["t-1"], "was edited"),
    ],
)
def test_a_ledger_with_whole_chains_that_lacks_something_was_restored(
    broken: dict[str, list[str]], unguarded: tuple[str, ...], missing: list[str], told: str
) -> None:
    found = edited_or_restored(ChainCheck({}, broken, unguarded), missing)
    assert found is not None and f"the ledger {told}" in str(found)
    assert all(name in str(found) for name in (*broken, *unguarded, *missing))
    assert ("ledger recover" in found.hint) is (told == "was restored")


def test_what_is_whole_and_has_everything_is_no_finding() -> None:
    assert edited_or_restored(ChainCheck({}, {}, ()), []) is None
