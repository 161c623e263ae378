"""What looks revoked and is not, by an act of somebody else or a lease that no line of its read shows."""

from __future__ import annotations

import pytest
from test_lies import (
    test_a_credential_in_a_wrapping_that_nobody_opens_is_settled_by_a_listing,
    test_a_credential_in_a_wrapping_whose_lease_lives_on_is_never_confirmed_over,
    test_a_lease_whose_record_others_took_away_is_not_confirmed_for_its_absence,
)
from test_lies_of_others import (
    test_breaking_the_glass_leaves_a_token_provable_and_its_leases_by_our_own_revocation,
    test_what_was_tidied_after_its_revocation_failed_is_never_confirmed,
)

pytestmark = [pytest.mark.needs("lines-of-openbao"), pytest.mark.usefixtures("lab", "hurried", "checked")]
