"""What is counted before more is granted: leases that are held or may still be, and open findings."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from builders import NOW, as_is, change, file_of, revision, task
from ledgers import LedgerPlace

from jitvault.audit.tripwires.trip import FREEZING, OF_AGENT
from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import AccessRow, Change, Closing
from jitvault.model.states import State
from jitvault.policy.question import HeldLeases

DAY = timedelta(days=1)
HELD = {State.ISSUING, State.ISSUED, State.ACTIVE, State.ENDING}
TRIPPED = "unwrap_refused"


def enter(ledger: Ledger, task_id: str, *, agent: str = "e-agent", owner: str = "e-owner", **budgets: int) -> None:
    """A task that asks for so many leases by each of the templates."""
    rows = [AccessRow(task_id, 1, name, agent, owner, budget) for name, budget in budgets.items()]
    ledger.create(replace(task(task_id), agent=agent), Change("submitted", rows=(revision(task_id), *rows)), at=NOW)


def put(place: LedgerPlace, task_id: str, state: State) -> None:
    as_is(place, "UPDATE tasks SET state = ? WHERE task_id = ?", state.value, task_id)


def load(ledger: Ledger, *, besides: str = "new", agent: str = "e-agent", owner: str = "e-owner") -> HeldLeases:
    return ledger.load(agent, owner, ["pg"], besides=besides, since=NOW - DAY)["pg"]


@pytest.mark.parametrize("state", State)
def test_a_task_counts_with_its_budget_while_it_may_hold_something(
    ledger: Ledger, place: LedgerPlace, state: State
) -> None:
    enter(ledger, "t-1", pg=5)
    put(place, "t-1", state)
    assert load(ledger) == (HeldLeases(5, 5, 5) if state in HELD else HeldLeases())


def test_it_is_counted_by_agent_by_owner_and_by_template(ledger: Ledger, place: LedgerPlace) -> None:
    enter(ledger, "t-1", pg=5, pki=2)
    enter(ledger, "t-2", agent="e-other", pg=30)
    enter(ledger, "t-3", owner="e-another", pki=400)
    for name in ("t-1", "t-2", "t-3"):
        put(place, name, State.ACTIVE)
    assert load(ledger) == HeldLeases(agent_leases=407, owner_leases=37, template_leases=35)
    both = ledger.load("e-other", "e-another", ["pg", "pki", "none"], besides="new", since=NOW)
    assert both == {"pg": HeldLeases(30, 400, 35), "pki": HeldLeases(30, 400, 402), "none": HeldLeases(30, 400, 0)}


def test_the_task_that_is_asked_about_does_not_count_against_itself(ledger: Ledger, place: LedgerPlace) -> None:
    enter(ledger, "t-1", pg=5)
    put(place, "t-1", State.ISSUING)
    assert load(ledger, besides="t-1") == HeldLeases()


def test_only_the_current_revision_counts(ledger: Ledger, place: LedgerPlace) -> None:
    enter(ledger, "t-1", pg=5)
    second = replace(revision(), revision=2)
    rows = (second, AccessRow("t-1", 2, "pg", "e-agent", "e-owner", 7))
    change(ledger, Change("revised", fields={"revision": 2}, rows=rows))
    put(place, "t-1", State.ACTIVE)
    assert load(ledger) == HeldLeases(7, 7, 7)


@pytest.mark.parametrize("rule", sorted(OF_AGENT))
def test_a_tripwire_of_the_agents_task_is_an_open_finding(ledger: Ledger, rule: str) -> None:
    enter(ledger, "t-1")
    ledger.finding("t-1", rule, "it happened", NOW)
    assert load(ledger).findings == 1
    assert load(ledger, besides="t-1").findings == 1, "also when it was the same task"
    assert load(ledger, agent="e-other").findings == 0


@pytest.mark.parametrize(
    "rule",
    [
        *sorted(FREEZING),
        "renewed_by_others",
        "forged_document",
        "not_entitled",
        "ledger_edited",
        "unaccounted_lease",
        "ghost",
    ],
)
def test_what_others_do_or_a_listing_shows_shuts_no_agent_out(ledger: Ledger, rule: str) -> None:
    enter(ledger, "t-1")
    ledger.finding("t-1", rule, "it happened", NOW)
    ledger.finding(None, rule, "it happened", NOW)
    assert load(ledger).findings == 0


def test_a_finding_counts_for_a_day(ledger: Ledger) -> None:
    enter(ledger, "t-1")
    ledger.finding("t-1", TRIPPED, "just in time", NOW - DAY + timedelta(seconds=1))
    ledger.finding("t-1", TRIPPED, "over", NOW - DAY)
    assert load(ledger).findings == 1


def test_findings_of_one_cause_are_closed_together_by_their_rules(ledger: Ledger) -> None:
    enter(ledger, "t-1")
    for n, rule in enumerate(["unknown_token", "unknown_token", "unknown_publication", "wrong_clock"]):
        ledger.finding(None, rule, f"line {n}", NOW)
    ledger.finding("t-1", "unknown_token", "line 9", NOW)
    closing = Closing(name="olga", entity=None, why="a backup was restored", at=NOW)
    assert ledger.close_findings_by_rule(["unknown_token", "unknown_publication"], closing) == 4
    assert [found.rule for found in ledger.findings(closed=False)] == ["wrong_clock"]
    assert ledger.close_findings_by_rule(["unknown_token"], closing) == 0


def test_a_finding_that_was_closed_counts_no_more_and_stays(ledger: Ledger, place: LedgerPlace) -> None:
    enter(ledger, "t-1")
    enter(ledger, "t-2", agent="e-other")
    for name in ("t-1", "t-2"):
        ledger.finding(name, TRIPPED, "it happened", NOW)
    ledger.finding("t-1", "forged_document", "somebody else's", NOW)
    assert ledger.close_findings("e-agent", Closing("ines", "e-ines", "looked into", NOW)) == 1
    assert ledger.close_findings("e-agent", Closing("omar", "e-omar", "again", NOW)) == 0
    assert (load(ledger).findings, load(ledger, agent="e-other").findings) == (0, 1)
    assert len(file_of(ledger).findings) == 2
    # it is told again by whoever reads the same lines, and is still the same
    ledger.finding("t-1", TRIPPED, "it happened", NOW)
    assert load(ledger).findings == 0
    ledger.finding("t-1", TRIPPED, "it happened another time", NOW)
    assert load(ledger).findings == 1
    closed = as_is(place, "SELECT closed_why, closed_by, closed_by_entity FROM findings WHERE closed_at IS NOT NULL")
    assert closed == [("looked into", "ines", "e-ines")]
