"""What an edited row of SQLite can hold: reading it raises CorruptRecord, whichever column it is in."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import NOW, as_is, change, file_of, grant, make, operation

from jitvault.errors import CorruptRecord
from jitvault.ledger.chains import look
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Change, CheckRow, LeaseRow
from jitvault.ledger.storage.database import Database
from jitvault.model.evidence import NoToken
from jitvault.model.states import State, Verdict

EDITS = {
    "a time": "UPDATE tasks SET ends_at = 'tomorrow'",
    "a time that is a number": "UPDATE grants SET expires_at = 5",
    "a number": "UPDATE tasks SET revision = 'one'",
    "text": "UPDATE tasks SET head = x'00'",
    "bytes": "UPDATE revisions SET body = 'text'",
    "a decision that is no JSON": "UPDATE revisions SET decision = '['",
    "a decision that is no object": "UPDATE revisions SET decision = '[]'",
    "a receipt": "UPDATE tasks SET receipt = '5'",
    "an event that is no JSON": "UPDATE events SET body = '{'",
    "an event that nests deeply": f"UPDATE events SET body = '{'[' * 100_000}'",
    "an event with a number that JSON cannot hold": """UPDATE events SET body = '{"a":1e400}'""",
    "an event with half of a character as a name": r"""UPDATE events SET body = '{"\udfff":1}'""",
    "an event that is no object": "UPDATE events SET body = 'null'",
    "a lease": "UPDATE leases SET issued_at = 'x'",
    "a lease's path": "UPDATE leases SET path = x'ff'",
    "a check": "UPDATE checks SET evidence = x'00'",
    "a check of half of a character": r"""UPDATE checks SET evidence = '{"kind":"\ud800"}'""",
    "a revision that there is not": "UPDATE tasks SET revision = 7",
    "an operation": "UPDATE operations SET sent_at = ''",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A server refuses what is of another type, and what is no JSON."""
    return tmp_path / "ledger.db"


@pytest.fixture
def held(ledger: Ledger, place: Path) -> Ledger:
    """A task with a row of every kind, beside another one."""
    make(ledger)
    make(ledger, "t-2")
    lease = LeaseRow("l-1", "t-1", "g-t-1-1", "database/creds/x", None, NOW, Verdict.LIVE, None)
    check = CheckRow(1, ok=True, evidence=NoToken(), task_id="t-1", subject="l-1")
    change(ledger, Change("issuing", state=State.ISSUING, rows=(grant(), lease, check, operation())))
    for table in ("events", "revisions"):
        for (name,) in as_is(place, f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table}'"):
            as_is(place, f"DROP TRIGGER {name}")
    return ledger


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_column_that_was_edited_is_a_corrupt_record(held: Ledger, database: Database, place: Path, edit: str) -> None:
    whole = file_of(held, "t-2")
    as_is(place, f"{edit} WHERE task_id = 't-1'")
    with pytest.raises(CorruptRecord, match="the ledger's record of task t-1 cannot be read"):
        held.record("t-1")
    assert file_of(held, "t-2") == whole
    # what the kill switch ends is known all the same
    assert held.task_ids({State.ISSUING}) == ["t-1"]
    # the check of the whole ledger goes on as well
    assert look(database).broken.keys() <= {"t-1"}
