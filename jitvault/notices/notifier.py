"""Tell people outside what waits for them and what happened, beside a task's story and never in its way.

Each notice is told at least once to every messenger; its id says which one it is. What nobody takes is told again
later, by whichever process is there then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING

from jitvault.context import Clock
from jitvault.errors import CORRUPT_RECORD_ERRORS, JitvaultError
from jitvault.lifecycle.record.receipt import last_decision
from jitvault.model.notice import Notice, next_pause
from jitvault.model.revision import Revision
from jitvault.notices.interface import Messenger

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

# so many are sent before it is looked again what is due: what is severe does not wait for more of the others
_AT_ONCE = 5
_MOST = 50


class Notifier:
    """Brings what is due to the messengers. Of one ledger, for any thread."""

    def __init__(self, ledger: Ledger, clock: Clock, messengers: Sequence[Messenger], timeout: timedelta) -> None:
        self._ledger, self._clock, self._messengers = ledger, clock, messengers
        self._timeout_s = timeout.total_seconds()
        self._since, self._begun = clock.agreed(), False

    def tell(
        self, refused: Callable[[str], None] = lambda _: None, *, stopped: Callable[[], bool] = lambda: False
    ) -> int:
        """Tell everything that is due now; gives how many notices arrived. `refused` hears why one did not.

        Raises LedgerUnavailable.
        """
        if not self._messengers:
            return 0
        if not self._begun:
            self._ledger.begin_notices(self._since)
            self._begun = True
        arrived = 0
        for _ in range(_MOST // _AT_ONCE):
            due = self._ledger.due_notices(self._clock.agreed(), _AT_ONCE)
            arrived += self._tell(due, refused, stopped)
            if len(due) < _AT_ONCE or stopped():
                break
        return arrived

    def _tell(self, due: Sequence[Notice], refused: Callable[[str], None], stopped: Callable[[], bool]) -> int:
        arrived = 0
        for notice in due:
            if stopped():
                break
            # nobody else tells it while it is on its way, also when this process dies on that
            busy = timedelta(seconds=self._timeout_s * len(self._messengers))
            until = self._clock.agreed() + busy + next_pause(notice.tries)
            if not self._ledger.take_notice(notice, until):
                continue
            body = json.dumps(self._body(notice), sort_keys=True).encode()
            whys = [why for each in self._messengers if (why := each.send(notice.id, body, self._timeout_s))]
            if whys:
                self._ledger.postpone_notice(notice, self._clock.agreed() + next_pause(notice.tries))
                refused("; ".join(whys))
                continue
            self._ledger.mark_delivered(notice, self._clock.agreed())
            arrived += 1
        return arrived

    def tell_for(self, seconds: float) -> None:
        """Tell what is due, and wait for that no longer than `seconds`; what is left over is due again."""
        if not self._messengers:
            return
        over = Event()
        # a messenger that hangs hangs in the thread: neither the command nor its exit waits for it
        thread = Thread(target=self._quietly, args=(over,), daemon=True)
        thread.start()
        thread.join(seconds)
        over.set()

    def _quietly(self, over: Event) -> None:
        try:
            self.tell(stopped=over.is_set)
        except JitvaultError:
            # the command has said what it had to say; the notice stays due
            return

    def _body(self, notice: Notice) -> dict[str, object]:
        """The JSON that is told: what happened, to which task, and who shall hear of it. Nothing in it is a secret."""
        told: dict[str, object] = {
            "id": notice.id,
            "event": notice.kind.value,
            "at": notice.at.isoformat(),
            "installation": self._ledger.installation(),
            "task_id": notice.task_id,
            **notice.body,
        }
        # what happened to a task whose rows nobody can read is told all the same
        with suppress(*CORRUPT_RECORD_ERRORS):
            return {**told, **self._parties(notice.task_id)}
        return told

    def _parties(self, task_id: str | None) -> dict[str, object]:
        file = self._ledger.file(task_id) if task_id else None
        if file is None:
            return {}
        content = Revision.of(file.revision.body).content
        obligations = last_decision(file).get("obligations") or {}
        parties = {part: content[part]["name"] for part in ("requester", "agent", "owner")}
        return {**parties, "risk": content["risk"], "notify": list(obligations.get("notify", ()))}
