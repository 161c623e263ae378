"""Which published documents a ledger has to have a task for, and which of them may be open."""

from __future__ import annotations

from typing import Any

import pytest
from test_published_task import HONEST, NOW, REFUSAL

from jitvault.documents.published_task import read_published
from jitvault.lifecycle.record.missing_tasks import is_own, may_be_open
from jitvault.model.states import OVER, State

ILLEGIBLE = {"task_id": "t-1", "installation": "i-1", "state": "no state"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (HONEST, True),
        (ILLEGIBLE, True),
        (REFUSAL, False),
        ({**HONEST, "installation": "i-2"}, False),
        ({**ILLEGIBLE, "installation": "i-2"}, False),
    ],
)
def test_a_ledger_has_to_have_the_tasks_of_its_own_installation(document: dict[str, Any], expected: bool) -> None:
    assert is_own(read_published("t-1", document, NOW), "i-1") is expected


def test_a_task_may_be_open_until_vault_calls_it_over() -> None:
    for state in State:
        said = read_published("t-1", {**HONEST, "state": state.value}, NOW)
        assert is_own(said, "i-1") and may_be_open(said) is (state not in OVER)
    illegible = read_published("t-1", ILLEGIBLE, NOW)
    assert is_own(illegible, "i-1") and may_be_open(illegible)
