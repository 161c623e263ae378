"""Notify people outside of what waits for them and what happened.

This never holds up a task.

Each notice is sent at least once to every messenger, and its id identifies repeated ones. A notice that was not
delivered is sent again later, by whichever process runs then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING

from jitvault.context import Clock
from jitvault.errors import CorruptRecord, JitvaultError
from jitvault.formats.rfc3339 import rfc3339
from jitvault.lifecycle.record.history import last_decision
from jitvault.lifecycle.requests.freeze_documents import freeze_last_read
from jitvault.lifecycle.requests.freezes import signed_freeze, tripwire_freeze
from jitvault.model.notice import Notice, next_pause
from jitvault.model.revision import Revision
from jitvault.model.revision_content import RevisionContent
from jitvault.notices.interface import Messenger

if TYPE_CHECKING:
    from jitvault.ledger.ledger import Ledger

# how many are sent before the due ones are read again, so that a severe notice does not wait for more of the others
_AT_ONCE = 5
_MOST = 50


class Notifier:
    """Sends one ledger's due notices; usable from any thread."""

    def __init__(self, ledger: Ledger, clock: Clock, messengers: Sequence[Messenger], timeout: timedelta) -> None:
        self._ledger, self._clock, self._messengers = ledger, clock, messengers
        self._timeout_s = timeout.total_seconds()
        self._since, self._begun = clock.agreed(), False

    def tell(
        self, refused: Callable[[str], None] = lambda _: None, *, stopped: Callable[[], bool] = lambda: False
    ) -> int:
        """Send the notices that are due now; return how many were delivered.

        `refused` is called with the reason where one was not. Raises LedgerUnavailable.
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
            # no other process sends it meanwhile, even if this process dies on it
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
        """Send the due notices, for `seconds` at most; the rest stays due."""
        if not self._messengers:
            return
        over = Event()
        # a messenger that hangs does so in this thread: neither the command nor its exit waits for it
        thread = Thread(target=self._quietly, args=(over,), daemon=True)
        thread.start()
        thread.join(seconds)
        over.set()

    def _quietly(self, over: Event) -> None:
        try:
            self.tell(stopped=over.is_set)
        except JitvaultError:
            # the command has printed its own result already; the notice stays due
            return

    def _body(self, notice: Notice) -> dict[str, object]:
        """Return the notice's JSON: what happened to which task, and for whom.

        Nothing in it is a secret.
        """
        told: dict[str, object] = {
            "id": notice.id,
            "event": notice.kind.value,
            "at": rfc3339(notice.at),
            "installation": self._ledger.installation(),
            "task_id": notice.task_id,
            **notice.body,
        }
        # a notice about a task whose rows cannot be read is sent without the task's parties
        with suppress(CorruptRecord):
            return {**told, **self._parties(notice.task_id)}
        return told

    def _parties(self, task_id: str | None) -> dict[str, object]:
        record = self._ledger.record(task_id) if task_id else None
        if record is None:
            return {}
        content = Revision.of(record.revision.body).content
        parties = {part: getattr(content, part).name for part in ("requester", "agent", "owner")}
        notify = list(last_decision(record).policy.obligations.notify)
        return {**parties, "risk": content.risk, "notify": notify, "frozen": self._freeze(content)}

    def _freeze(self, content: RevisionContent) -> dict[str, object] | None:
        """Return the freeze that covers the task.

        It is not granted until that is lifted, though somebody approves it.
        """
        if tripped := tripwire_freeze(self._ledger):
            return tripped[0]
        statement = freeze_last_read(self._ledger, content)
        return signed_freeze(statement) if statement else None
