"""An access is given back where Vault says so, and never because something refused to end it."""

from __future__ import annotations

from itertools import product

import pytest

from jitvault.cli.access.giving_back import Answer, is_given_back


@pytest.mark.parametrize(("answer", "has_token", "is_known"), [*product(Answer, (True, False), (True, False))])
def test_a_refusal_counts_only_where_the_end_is_known(answer: Answer, has_token: bool, is_known: bool) -> None:
    found = is_given_back(answer, has_token=has_token, is_known=is_known)
    if answer is Answer.ACKNOWLEDGED:
        assert found
    elif has_token:
        assert found == (answer is Answer.REFUSED and is_known)
    else:
        assert found == is_known
