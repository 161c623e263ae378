"""What a worker's log and metrics tell of findings and freezes, whoever recorded them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from builders import NOW, make
from sqlalchemy import insert
from test_record import steal

from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import Closing
from jitvault.ledger.storage import schema
from jitvault.worker.alarms import Alarms
from jitvault.worker.health import Health, metrics
from jitvault.worker.supervisor import Supervisor


class Told:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **values: object) -> None:
        self.lines.append(("info", event, values))

    def warning(self, event: str, **values: object) -> None:
        self.lines.append(("warning", event, values))

    def error(self, event: str, **values: object) -> None:
        self.lines.append(("error", event, values))

    def take(self) -> list[tuple[str, str]]:
        taken = [(level, event) for level, event, _ in self.lines]
        self.lines.clear()
        return taken


def of(ledger: Ledger) -> tuple[Alarms, Health, Told]:
    health, told = Health(Supervisor(), why_not_trusted=None, lacking=()), Told()
    return Alarms(ledger, health, told), health, told


def test_each_finding_is_an_event_at_its_level_once_and_is_counted(ledger: Ledger) -> None:
    make(ledger)
    ledger.finding("t-1", "denied", "before", NOW)
    alarms, health, told = of(ledger)
    alarms.look()
    assert told.take() == [("warning", "findings are open")]
    ledger.finding("t-1", "after_end", "its token was used", NOW, line="l", request_id="r")
    ledger.finding("t-1", "forged_document", "a document", NOW, author="e-1")
    alarms.look()
    (level, event, first), second = told.lines
    assert (level, event, second[:2]) == ("error", "finding", ("warning", "finding"))
    assert {"rule": "after_end", "message": "its token was used", "task": "t-1", "line": "l"}.items() <= first.items()
    told.take()
    alarms.look()
    assert told.take() == []
    assert 'jitvault_worker_findings_total{rule="after_end"} 1\n' in metrics({"": health.state()})
    assert "jitvault_worker_findings_open 3\n" in metrics({"": health.state()})
    ledger.close_findings("e-agent", Closing("ines", "e-ines", "looked into", NOW))
    alarms.look()
    assert "jitvault_worker_findings_open 3\n" not in metrics({"": health.state()})


def test_a_finding_that_is_committed_after_one_with_a_higher_number_is_told(ledger: Ledger) -> None:
    def insert_as(number: int) -> None:
        row = {"id": number, "rule": f"rule-{number}", "message": "m", "at": NOW}
        ledger._db.write(lambda connection: connection.execute(insert(schema.findings).values(row)))

    now = [0.0]
    health, told = Health(Supervisor()), Told()
    alarms = Alarms(ledger, health, told, lambda: now[0])
    alarms.look()
    for number in (8, 5):
        insert_as(number)
        alarms.look()
    assert [values["finding"] for _, _, values in told.lines] == [8, 5]
    now[0] = 1000.0
    alarms.look()
    assert (alarms._settled, alarms._told) == (8, {})


def test_a_freeze_is_an_event_and_named_by_a_worker_that_stays_ready(ledger: Ledger) -> None:
    alarms, health, told = of(ledger)
    alarms.look()
    steal(ledger, 1)
    alarms.look()
    assert told.take() == [("error", "finding"), ("error", "frozen")]
    assert health.unready() == [] and [text[:11] for text in health.frozen] == ["everything:"]
    assert "jitvault_worker_frozen 1\n" in metrics({"": health.state()})
    alarms.look()
    assert told.take() == []
    ledger.lift_freezes("an exercise", NOW)
    ledger.begin_recovery(NOW + timedelta(seconds=1))
    alarms.look()
    assert told.take() == [("warning", "frozen"), ("info", "a freeze was lifted")]
    assert "rebuilt" in health.frozen[0]
    assert 'jitvault_worker_freezes_total{kind="tripwire"} 1\n' in metrics({"": health.state()})
