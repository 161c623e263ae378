"""How long a token lives after its renewal stands in the answer alone, since a request's numbers are HMACs."""

from __future__ import annotations

import pytest
from test_crash_keep import (
    start,
    test_where_nobody_comes_after_a_death_all_is_gone_and_that_is_proven,
)
from test_keep import (
    rig,
    test_a_renewal_whose_answer_is_lost_is_looked_up,
    test_the_worker_dead_for_one_step_all_is_gone,
)

pytestmark = pytest.mark.needs("lines-of-openbao")
