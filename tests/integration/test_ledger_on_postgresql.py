"""The story, deaths at any moment, and several processes at once, with the ledger on PostgreSQL.

They are the tests that run on SQLite as well. `make test-postgresql` runs all others like this.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import EXAMPLE, without_limits
from ledgers import WANTED, address, new_place
from rig import Rig, own_rig
from test_crash import (  # noqa: F401 - run here once more
    test_a_complete_that_dies_anywhere_ends_in_proof,
    test_a_dead_process_keeps_its_claim_for_a_while_and_the_next_command_says_so,
    test_a_grant_that_dies_anywhere_ends_in_one_token,
)
from test_two_at_once import (  # noqa: F401
    test_four_processes_grant_ten_tasks_on_one_ledger,
    test_two_that_complete_the_same_task_say_the_same,
    test_two_that_grant_the_same_task_make_one_token,
)

from jitvault.sandbox.world import World, env

if WANTED == "postgresql":
    pytest.skip("all tests do", allow_module_level=True)


@pytest.fixture(scope="module")
def variables(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    ledger = address(new_place(world.servers.postgres, Path(), "postgresql"))
    return {
        **env(world, ledger, EXAMPLE),
        "JITVAULT_POLICIES": str(without_limits(tmp_path_factory.mktemp("policies"))),
    }


@pytest.fixture
def rig(world: World, variables: dict[str, str], tmp_path: Path) -> Rig:
    return own_rig(world, variables, tmp_path)


def test_a_task_is_sealed_and_its_receipt_written(rig: Rig, tmp_path: Path) -> None:
    """From the request to the receipt, and nothing of it on SQLite."""
    rig("operator", "submit", EXAMPLE)
