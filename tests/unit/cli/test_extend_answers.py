"""What `extend` says when the task ended before the command looked again."""

from __future__ import annotations

from typing import Any

import pytest
from test_published_task import EXTENSION, HONEST, read

from jitvault.cli.commands.requests.extend import _raise_for
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import Denied


@pytest.mark.parametrize(
    ("state", "request_", "said"),
    [
        ("extended", "own", "ended after its deadline was moved: it is confirmed"),
        ("pending", "own", "was not extended: it is confirmed"),
        ("extended", "earlier", "was not extended: it is confirmed"),
    ],
)
def test_a_task_that_is_over_was_extended_before_or_was_not(state: str, request_: str, said: str) -> None:
    extension: dict[str, Any] = {**EXTENSION, "state": state, "request": request_, "error": None}
    document = read({**HONEST, "state": "confirmed", "extension": extension})
    assert isinstance(document, PublishedTask)
    with pytest.raises(Denied, match=said):
        _raise_for(document, "own")
