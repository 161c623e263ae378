"""What becomes of a request for a grant: granted, refused, or queued."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from jitvault.cli import session
from jitvault.documents.paths import request_path
from jitvault.documents.published_task import PublishedTask
from jitvault.documents.signed import payload_of
from jitvault.formats.canonical_json import digest_of
from jitvault.model.grant_refusal import QUEUE_LIFE
from jitvault.model.spec import TaskSpec
from jitvault.model.states import State
from jitvault.wiring import Wiring


@dataclass(frozen=True, slots=True)
class GrantAsked:
    """A request for a grant that the caller has just signed.

    `nonce` names it, and `queued_until` says until when it waits, if it is queued.
    """

    nonce: str
    queued_until: datetime | None

    def is_refused(self, document: PublishedTask) -> bool:
        return document.refused_request == self.nonce

    def is_open(self, document: PublishedTask) -> bool:
        """Return whether the request was neither granted nor refused."""
        may_be_granted = document.state in (State.PENDING_APPROVAL, State.APPROVED)
        return may_be_granted and not self.is_refused(document)

    def check_not_refused(self, document: PublishedTask) -> None:
        """Raise the error by which a worker refused the request.

        A task that is denied says so itself.
        """
        refusal = document.refused_grant
        if refusal is not None and self.is_refused(document) and document.state is not State.DENIED:
            raise session.refused(refusal.error)


def queue_end(wiring: Wiring, spec: TaskSpec, *, queue: bool) -> datetime | None:
    """Return until when the request for the grant waits, or None.

    None is for a request that does not wait. One that waits already goes on waiting until its own time, so that asking
    again does not end it.
    """
    now = wiring.clock.agreed().replace(microsecond=0)
    if queue:
        return min(now + QUEUE_LIFE, spec.window.until or now + QUEUE_LIFE).astimezone(UTC)
    stored = wiring.person.documents.get(request_path(wiring.person.entity, spec.id, "grant"))
    former = payload_of(stored) if stored else {}
    if former.get("queued_until") is None or former.get("spec_digest") != digest_of(spec.canonical()):
        return None
    until = datetime.fromisoformat(former["queued_until"])
    return until if until > now else None
