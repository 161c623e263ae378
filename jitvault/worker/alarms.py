"""Tell the log and the metrics what somebody has to know at night.

Findings and freezes are recorded in the ledger by whoever meets them: a line that was read, a command, another worker.
So they are looked for there, and each worker of an installation tells all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import StoredFinding
from jitvault.lifecycle.requests.freezes import freezes_last_seen
from jitvault.model.finding import OF_DOCUMENTS, describe_finding
from jitvault.model.scope import Scope
from jitvault.worker.health import Health
from jitvault.worker.logs import Log

_LIST = "`jitvault findings list` shows the open findings, `jitvault findings close` closes what was looked into."


class Alarms:
    """Knows which findings and freezes were told."""

    def __init__(self, ledger: Ledger, health: Health, log: Log) -> None:
        self._ledger = ledger
        self._health = health
        self._log = log
        self._last: int | None = None
        self._frozen: dict[str, dict[str, Any]] = {}

    def look(self) -> None:
        """Tell what is new since the last look."""
        self._findings()
        self._freezes()

    def _findings(self) -> None:
        """Log each new finding; of those before this worker only their number."""
        still_open = self._ledger.open_findings()
        self._health.set("findings_open", still_open)
        if self._last is None:
            self._last = self._ledger.newest_finding()
            if still_open:
                self._log.warning("findings are open", findings=still_open, hint=_LIST)
            return
        for found in self._ledger.findings_after(self._last):
            self._last = found.id
            self._health.count("findings", rule=found.rule)
            # anybody can write a document of which a finding comes; nobody need get up for it
            tell = self._log.warning if found.rule in OF_DOCUMENTS else self._log.error
            tell("finding", **_facts_of(found))

    def _freezes(self) -> None:
        """Log each freeze that begins or ends."""
        now = {_key(freeze): freeze for freeze in freezes_last_seen(self._ledger)}
        for key, freeze in now.items():
            if key not in self._frozen:
                self._health.count("freezes", kind=freeze["kind"])
                # what an operator or a recovery freezes, somebody is awake for
                tell = self._log.error if freeze["kind"] == "tripwire" else self._log.warning
                tell("frozen", by=freeze["by"] or freeze["kind"], **_of_freeze(freeze))
        for key, freeze in self._frozen.items():
            if key not in now:
                self._log.info("a freeze was lifted", **_of_freeze(freeze))
        self._frozen = now
        self._health.set("frozen", len(now))
        self._health.frozen = [f"{_scope(freeze)}: {freeze['reason']}" for freeze in now.values()]


def _facts_of(found: StoredFinding) -> dict[str, object]:
    message = describe_finding({"message": found.message, "more": found.more})
    facts = {"rule": found.rule, "message": message, "task": found.task_id, "finding": found.id, "line": found.line}
    return {name: value for name, value in facts.items() if value is not None}


def _key(freeze: Mapping[str, Any]) -> str:
    return f"{freeze['kind']} {_scope(freeze)} {freeze['at']}"


def _scope(freeze: Mapping[str, Any]) -> str:
    return str(Scope(**freeze["scope"]))


def _of_freeze(freeze: Mapping[str, Any]) -> dict[str, str]:
    return {"scope": _scope(freeze), "why": str(freeze["reason"])}
