"""Acts, deaths and outages at random, with one round of its own."""

from __future__ import annotations

import pytest
from test_state_machine import test_whatever_happens_in_whatever_order

pytestmark = pytest.mark.needs("lines-of-openbao")
