"""What a worker asks the ledger for: what people wrote, and what may still be granted."""

from __future__ import annotations

from datetime import timedelta

from builders import NOW, change, make, read, seen

from jitvault.domain.lifecycle import State
from jitvault.domain.observation import Kind
from jitvault.ledger.ledger import SqlLedger
from jitvault.ports.ledger import Change

SECOND = timedelta(seconds=1)


def test_what_people_wrote_is_given_by_vaults_time_from_any_source(ledger: SqlLedger) -> None:
    late = seen(1, Kind.WRITTEN, "requests/e-1/t-1/submit", at=NOW + 2 * SECOND)
    early = seen(2, Kind.WRITTEN, "decisions/e-2/t-1", at=NOW)
    read(ledger, [late, seen(3, Kind.OWN, at=NOW)])
    read(ledger, [early], source="node-2")
    assert [(one.path, one.at) for one in ledger.written(since=NOW)] == [
        ("decisions/e-2/t-1", NOW),
        ("requests/e-1/t-1/submit", NOW + 2 * SECOND),
    ]
    assert [one.line for one in ledger.written(since=NOW + SECOND)] == [late.line]


def test_what_may_still_be_granted_is_what_waits_and_what_an_issue_did_not_finish(ledger: SqlLedger) -> None:
    for name, state in [("t-a", State.APPROVED), ("t-p", State.PENDING_APPROVAL), ("t-d", State.DENIED)]:
        make(ledger, name, state=state)
    for name, states in {"t-i": [State.ISSUING], "t-h": [State.ISSUING, State.ISSUED], "t-l": [State.LAPSED]}.items():
        make(ledger, name)
        for state in states:
            change(ledger, Change("moved", state=state), name)
    assert sorted(ledger.ungranted()) == ["t-a", "t-i", "t-p"]
