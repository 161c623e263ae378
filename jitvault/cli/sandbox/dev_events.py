"""Follow what happens in a sandbox, by its ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jitvault.cli.views.dev import event_line, event_words
from jitvault.errors import CorruptRecord, LedgerUnavailable
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.ledger import Ledger


class EventFeed:
    """The events of all tasks and the findings, each told once.

    `names` has the names of entities by their ids.
    """

    def __init__(self, ledger: Ledger, names: Mapping[str, str]) -> None:
        self._ledger = ledger
        self._names = names
        self._told: dict[str, int] = {}
        self._findings_told: set[int] = set()

    def lines(self, width: int) -> Iterator[str]:
        """Yield a line for each event since the last call.

        A line has at most `width` columns. Where the ledger cannot be read at this moment, the next call tells it.
        """
        try:
            yield from self._events(width)
            yield from self._findings(width)
        except (CorruptRecord, LedgerUnavailable):
            return

    def _events(self, width: int) -> Iterator[str]:
        for task in self._ledger.tasks():
            told = self._told.get(task.task_id, 0)
            if task.seq <= told:
                continue
            try:
                record = self._ledger.record(task.task_id)
            except CorruptRecord as error:
                self._told[task.task_id] = task.seq
                yield event_line(f"{' ' * 11}--:--:--", task.task_id, str(error), width)
                continue
            for event in record.events if record else ():
                if event.seq <= told:
                    continue
                self._told[task.task_id] = event.seq
                words = event_words(event.kind, event.at, event.body, self._names)
                if words is not None:
                    yield event_line(event.at, task.task_id, words, width)

    def _findings(self, width: int) -> Iterator[str]:
        for finding in self._ledger.findings(closed=True):
            if finding.id not in self._findings_told:
                self._findings_told.add(finding.id)
                at = rfc3339(finding.at)
                words = f"FINDING {finding.id}: {finding.message}"
                yield event_line(at, finding.task_id or "every task", words, width)
