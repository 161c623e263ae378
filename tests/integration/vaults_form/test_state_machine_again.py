"""Acts, deaths and outages at random, by `make soak-state` alone: what the form decides is in the files beside."""

from __future__ import annotations

import pytest
from test_state_machine import SEED, SOAK_S, test_whatever_happens_in_whatever_order

pytestmark = [
    pytest.mark.needs("lines-of-openbao"),
    pytest.mark.skipif(not SOAK_S and SEED is None, reason="a round at random: make soak-state"),
]
