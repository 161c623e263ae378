from __future__ import annotations

from pathlib import Path

import pytest
from forger import Forger


@pytest.fixture
def forger(tmp_path: Path) -> Forger:
    return Forger(tmp_path)
