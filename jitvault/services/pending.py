"""What waits for a worker, by what the stream showed and by what lies in Vault."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from jitvault.domain.intake import Wanted, is_stale, wanted
from jitvault.domain.observation import Place
from jitvault.services.context import Worker

# one source may be behind another by so much: its lines are older than what was seen already
_BEHIND = timedelta(minutes=1)


class Word:
    """What people have written since somebody looked last, whichever process read the lines."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        # what was written before is found by listing
        self._newest = worker.now()
        # thousands may write in a minute, and whoever asks does so with each batch of lines
        self._seen: dict[str, Place] = {}

    def new(self) -> list[Wanted]:
        """What was not given before, in the order of Vault's time."""
        found = self._worker.ledger.written(since=self._newest - _BEHIND, after=self._seen)
        for one in found:
            self._newest = max(self._newest, one.at)
            place, known = one.place, self._seen.get(one.place.source)
            if known is None or (known.epoch, known.offset) < (place.epoch, place.offset):
                self._seen[place.source] = place
        return [replace(ask, since=one.claim) for one in found if (ask := wanted(one.path))]


def requested(worker: Worker, *, ungranted: bool) -> dict[str, str | None]:
    """Every request that no task was made of, with who asks, and with `ungranted` every task that may still be granted.

    What was refused is settled, and what is too old begins nothing.
    """
    found: dict[str, str | None] = dict.fromkeys(worker.ledger.ungranted() if ungranted else ())
    for author in sorted(name.rstrip("/") for name in worker.documents.names("requests/")):
        for name in worker.documents.names(f"requests/{author}/"):
            task_id = name.rstrip("/")
            ask = wanted(f"requests/{author}/{task_id}/submit")
            if ask is None or task_id in found or worker.ledger.task(task_id) is not None:
                continue
            said = worker.documents.get(f"tasks/{task_id}") or {}
            if said.get("state") != "refused" and not _begins_nothing(worker, author, task_id):
                found[task_id] = author
    return found


def _begins_nothing(worker: Worker, author: str, task_id: str) -> bool:
    """Whether a request is too old. Beside a restored ledger there may be thousands: they are not even refused."""
    stored = worker.documents.read(f"requests/{author}/{task_id}/submit")
    return stored is None or is_stale(stored.written_at, worker.now())
