"""Read the audit line of an own act right after its answer.

Vault writes an act's line before it answers. A file has it then, and what the line shows needs no further request: the
HMACs of a token and of its wrapping. A stream that is shipped may have it later.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from jitvault.audit.observation import Kind, Observation
from jitvault.audit.source import Position, Source
from jitvault.context import WorkerContext
from jitvault.errors import AuditUntrusted
from jitvault.stream.looking import look_to_end
from jitvault.stream.reading import is_counting

_HMAC = "hmac-"


class OwnLines:
    """Where lines of acts that are sent from now on appear in the sources whose lines count."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self.begun = worker.facts.now()
        """When they were sent at the earliest, by the clock of facts."""
        self._from: list[tuple[Source, Position]] = []
        readings = worker.ledger.readings()
        with suppress(AuditUntrusted):
            for source in worker.sources.present():
                reading = readings.get(source.name)
                if reading is not None and is_counting(source, reading):
                    self._from.append((source, source.end()))

    def creation(self, op: str) -> Observation | None:
        """Return the line by which Vault says that it created the token of this operation.

        Its subject is the HMAC of the token's accessor, its alias that of the wrapping token. The result is None where
        it is not there yet. As with a canary, this process looks through the lines up to it: what the creation rests on
        was as a fact says unless one of them shows a change.
        """
        found: list[Observation] = []
        with suppress(AuditUntrusted):
            for source, position in self._from:
                for batch in source.read(position, only=op):
                    found += batch.observations
        line = creation_among(found, op)
        if line is not None:
            with suppress(AuditUntrusted):
                look_to_end(self._worker)
            if self._worker.facts.has_read(line.line):
                self._worker.facts.reached(self.begun, ingested=False)
        return line


def creation_among(lines: Iterable[Observation], op: str) -> Observation | None:
    """Return the one line by which Vault says that a worker created a token under this operation.

    The result is None where several say so, and where the device does not show HMACs.
    """
    found = [line for line in lines if _is_creation(line, op)]
    return found[0] if len(found) == 1 else None


def _is_creation(line: Observation, op: str) -> bool:
    is_done = line.kind is Kind.TOKEN_CREATED and line.closing and not line.failed
    by_worker = line.op == op and line.detail.get("worker") is True
    return is_done and by_worker and line.subject.startswith(_HMAC) and line.alias.startswith(_HMAC)
