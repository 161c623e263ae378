"""Whose a wrapping or a dead token was is told by its HMAC alone, in the one form or the other."""

from __future__ import annotations

import pytest
from test_tripwires import (
    test_a_client_that_renews_and_looks_up_its_own_token_and_leases_ends_nothing,
    test_a_renewal_or_look_up_of_what_is_somebody_elses_ends_the_task_at_once,
    test_a_rewrap_is_an_interception_and_what_it_gave_is_the_tasks_too,
    test_a_second_unwrap_by_somebody_else_is_an_interception,
    test_a_token_renewal_by_an_administrator_is_a_finding_and_ends_the_task,
    test_a_wrapping_that_is_read_by_the_old_way_is_an_interception,
    test_a_wrapping_that_was_used_up_by_a_request_it_is_not_for_is_an_interception,
    test_after_an_end_that_it_was_not_told_of_the_agent_has_a_grace,
    test_an_unwrap_whose_answer_is_wrapped_again_is_an_interception,
    test_use_after_completion_is_told_at_once_and_everything_shows_it,
)

pytestmark = pytest.mark.needs("lines-of-openbao")
