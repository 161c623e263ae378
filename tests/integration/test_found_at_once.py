"""What a worker asks its ledger for a task costs what is under way, and not what ever was: by SQLite's own plans.

A table that is read from end to end is quick in every test and in the first weeks. After a year there are millions of
lines in it, and each grant waits for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attended import Attended, wait_for
from commands import Quick
from sqlalchemy import Engine, event
from stage import Stage

from jitvault.ledger.storage import schema

Spec = Callable[..., Path]
STEP_S = 2
# of these there are as many as there are audit files, tokens of workers, alarms and kinds of lines
_FEW = {"installation", "audit_sources", "audit_gaps", "audit_salts", "worker_sessions", "freezes", "lines_not_kept"}
MANY = {table.name for table in schema.metadata.sorted_tables} - _FEW
# what is read in their order, until there is enough: the tasks that are not over, the open findings, the newest canary
_SHORT = re.compile(
    r"SCAN (tasks USING (COVERING )?INDEX ix_tasks_open|findings USING INDEX ix_findings_open"
    r"|canaries USING INDEX ix_canaries_at)$"
)


@pytest.fixture
def plans() -> Iterator[dict[str, list[str]]]:
    """Of each statement that is run by this process what SQLite does for it, step by step."""
    found: dict[str, list[str]] = {}

    def note(connection: Any, _cursor: object, statement: str, values: Any, _context: object, many: bool) -> None:
        if not many and statement not in found and statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            driver = connection.connection.driver_connection
            found[statement] = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", values)]

    event.listen(Engine, "after_cursor_execute", note)
    yield found
    event.remove(Engine, "after_cursor_execute", note)


def is_long(step: str) -> bool:
    """Whether it goes through what there may be millions of."""
    scanned = re.match(r"SCAN (\w+?)(_\d+)?\b", step)
    if scanned and scanned[1] in MANY:
        return not _SHORT.match(step)
    # all lines of one kind, unless it is those since a time
    return "ix_observations_kind (kind=?)" in step


def test_nothing_that_is_done_for_a_task_goes_through_all_that_ever_was(
    stage: Stage, plans: dict[str, list[str]], spec: Spec, tmp_path: Path
) -> None:
    rig = stage.rig(tmp_path / "own")
    assert isinstance(rig.place, Path) or pytest.skip("PostgreSQL plans by what it counted")
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_ROLLING_STEP": f"{STEP_S}s"}
    person, file = Quick(rig.cli.variables, rig.cli.home), spec()
    with Attended(rig) as worker:
        granted = person("operator", "grant", file, "--json", worker=False).json
        rig.use(granted)
        wait_for(lambda: any(op.kind == "renew_lease" for op in rig.operations(file.stem)))
        person("operator", "complete", file.stem, worker=False)
        wait_for(lambda: rig.state(file.stem) == "sealed")
    assert "sealed" in " ".join(worker.log.states(file.stem))
    assert len(plans) > 60, "it was not seen what the worker asked"
    long = {statement: found for statement, steps in plans.items() if (found := [s for s in steps if is_long(s)])}
    assert long == {}
