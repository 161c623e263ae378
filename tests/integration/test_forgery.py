from __future__ import annotations
import pytest, time
from pathlib import Path
from conftest import Cli
from rig import Rig

@pytest.fixture
def rig(world, variables, tmp_path):
    ledger = tmp_path / "own.db"
    return Rig(world, Cli({**variables, "JITVAULT_LEDGER": f"sqlite:///{ledger}"}, tmp_path), ledger)

def test_x(rig, spec):
    f = spec()
    t=time.time()
    held = rig.active(f)
    print("active", time.time()-t); t=time.time()
    print(rig("operator","complete",f.stem).json)
    print(time.time()-t)
    print(rig.database_roles())
    print(rig.is_live(held.token), rig.lease_is_live(held.lease_id))
    print(rig.task_tokens(f.stem))
