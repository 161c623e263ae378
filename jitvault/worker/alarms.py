"""Tell the log and the metrics what somebody has to know at night.

Findings and freezes are recorded in the ledger by whoever meets them: a line that was read, a command, another worker.
So they are looked for there, and each worker of an installation tells all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from jitvault.ledger.ledger import Ledger
from jitvault.ledger.model import StoredFinding
from jitvault.lifecycle.requests.freezes import freezes_last_seen
from jitvault.model.finding import OF_DOCUMENTS, describe_finding
from jitvault.model.scope import Scope
from jitvault.worker.health import Health
from jitvault.worker.logs import Log

_SETTLED_S = 60.0
"""After that no finding appears with a lower number than one that was seen: a transaction is shorter."""
_LIST = "`jitvault findings list` shows the open findings, `jitvault findings close` closes what was looked into."


class Alarms:
    """Knows which findings and freezes were told."""

    def __init__(self, ledger: Ledger, health: Health, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._health = health
        self._log = log
        self._clock = clock
        # every finding up to this number was told, or is older than this worker
        self._settled: int | None = None
        # the numbers above that were told, and when
        self._told: dict[int, float] = {}
        self._frozen: dict[str, dict[str, Any]] = {}

    def look(self) -> None:
        """Tell what is new since the last look."""
        self._findings()
        self._freezes()

    def _findings(self) -> None:
        """Log each new finding; of those before this worker only their number."""
        still_open = self._ledger.open_findings()
        self._health.set("findings_open", still_open)
        if self._settled is None:
            self._settled = self._ledger.newest_finding()
            if still_open:
                self._log.warning("findings are open", findings=still_open, hint=_LIST)
            return
        now = self._clock()
        for found in self._ledger.findings_after(self._settled):
            if found.id not in self._told:
                self._told[found.id] = now
                self._tell(found)
        # two workers' findings can be committed in another order than that of their numbers
        self._settled = max((n for n, at in self._told.items() if now - at >= _SETTLED_S), default=self._settled)
        self._told = {n: at for n, at in self._told.items() if n > self._settled}

    def _tell(self, found: StoredFinding) -> None:
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
    # an operator's without its time: to sign a freeze again does not lift it
    return f"{freeze['kind']} {_scope(freeze)} {freeze['by'] or freeze['at']}"


def _scope(freeze: Mapping[str, Any]) -> str:
    return str(Scope(**freeze["scope"]))


def _of_freeze(freeze: Mapping[str, Any]) -> dict[str, str]:
    return {"scope": _scope(freeze), "why": str(freeze["reason"])}
