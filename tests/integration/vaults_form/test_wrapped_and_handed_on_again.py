"""What was read in a wrapping has its lease where that is opened; what a child held is proven before its parent's."""

from __future__ import annotations

import pytest
from test_handed_on import (
    child,
    test_a_late_lease_below_takes_the_proof_above_it_back,
    test_reads_that_any_token_may_make_block_no_proof_of_a_task_or_its_parent,
    test_the_end_of_a_parent_ends_all_below_it_from_the_leaves_up,
)
from test_wrapped_reads import (
    test_one_read_in_a_wrapping_ends_the_task_when_it_is_asked_for,
    test_what_was_wrapped_as_a_jwt_is_never_sealed_over,
    test_what_was_wrapped_within_a_gap_is_never_sealed_over,
)

pytestmark = pytest.mark.needs("lines-of-openbao")
