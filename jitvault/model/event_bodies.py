"""What each kind of event in a task's chain says: one Struct for each, written and read here alone.

A field without a default is in every body. One with a default is left out where it has that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TypeVar, cast

import msgspec
from msgspec import Struct, field

from jitvault.errors import CorruptRecord, JitvaultError
from jitvault.formats.conversion import converter
from jitvault.formats.shorten import one_line
from jitvault.model.event_chain import Event
from jitvault.model.evidence import Evidence, Missing
from jitvault.model.extension import Extension
from jitvault.model.kinds import EventKind
from jitvault.model.revision_content import Party
from jitvault.model.signed_document import SignedByPerson
from jitvault.model.states import EndReason, State
from jitvault.policy.decision import Decision, Requirement

# -- parts of bodies ------------------------------------------------------------------------------------------


class _Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a body, all of whose fields are always there."""


class RowDigests(_Part, frozen=True):
    """The digests of the rows that an event writes, by table and key.

    `columns` is the version of the columns that are digested.
    """

    columns: int
    digests: dict[str, dict[str, str]]


class Refusal(_Part, frozen=True):
    """A decision that does not count, and why; `withdrawn` is set if its author withdrew it."""

    entity: str
    name: str
    why: str
    withdrawn: bool


class StatedError(_Part, frozen=True):
    """Why a request was refused, for its author."""

    exit_code: int
    message: str
    hint: str | None

    @classmethod
    def of(cls, error: JitvaultError) -> StatedError:
        return cls(exit_code=error.exit_code, message=str(error), hint=error.hint)


class RevisionDecision(_Part, frozen=True):
    """What was decided about a revision, by policy and by the approvers whose decisions count.

    `signed` is what those approvers signed, `agent_groups` are those of the agent's groups that the policies name, and
    `votes` is the digest of the rows of the approvers' decisions.
    """

    policy: Decision
    approved_by: tuple[str, ...]
    denied_by: str | None
    signed: tuple[SignedByPerson, ...]
    missing: tuple[Requirement, ...]
    refused: tuple[Refusal, ...]
    agent_groups: tuple[str, ...]
    votes: str


class RecoveredGrant(_Part, frozen=True):
    """A token that a recovery found, and the audit line that names it."""

    grant: str
    accessor: str
    line: str


class PublishedEnd(_Part, frozen=True, omit_defaults=True):
    """The event and state that a published copy names.

    `refused_request` is the last request for a grant that was refused.
    """

    seq: int
    head: str
    state: State
    refused_request: str | None = None


# -- bodies ---------------------------------------------------------------------------------------------------


class LedgerPart(Struct, frozen=True, kw_only=True):
    """What the ledger adds to each event: the task's state after it, and digests of the rows it writes.

    `ops` are the operations that the event intends, by their ids, with what each is about.
    """

    state: str = ""
    rows: RowDigests | None = None
    ops: dict[str, str] = {}


class EventBody(LedgerPart, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every event says, with a `note` for people: why it happened. Some kinds say nothing else."""

    note: str = ""


class Signed(EventBody, frozen=True, kw_only=True):
    """What an entity signed about a task's end.

    The name is the one at that time: a later reader cannot ask for it. `signed` is None where the signature does not
    hold any more.
    """

    by: str
    name: str
    signed: SignedByPerson | None = None


class Decided(EventBody, frozen=True, kw_only=True):
    decision: RevisionDecision


class Revised(Decided, frozen=True, kw_only=True):
    """`request` is what the requester signed."""

    revision: int
    digest: str
    request: SignedByPerson


class Submitted(Revised, frozen=True, kw_only=True):
    """`recovered_from` is what was published about a task that the ledger lost, and admits anew."""

    recovered_from: PublishedEnd | None = None


class EndCause(EventBody, frozen=True, kw_only=True):
    """Why a task ends. `by` and `name` say who asked for it, `signed` what they signed, if anybody did."""

    reason: EndReason
    by: str = ""
    name: str = ""
    signed: SignedByPerson | None = None
    scope: str = ""
    rule: str = ""
    line: str = ""
    deadline: datetime | None = None
    beat_by: datetime | None = None
    wrap_ttl_s: int | None = None
    refused: tuple[Refusal, ...] | None = None


class Recovered(EventBody, frozen=True, kw_only=True):
    """What a lost record was rebuilt from.

    `request` is the signed request if it resolves to the revision, and `decision` is the one about the revision, where
    the ledger had none.
    """

    from_: PublishedEnd = field(name="from")
    revision: int
    digest: str
    verified_by: tuple[str, ...]
    grants: tuple[RecoveredGrant, ...]
    leases: tuple[str, ...]
    sealed_head: str | None
    request: SignedByPerson | None = None
    decision: RevisionDecision | None = None
    reason: EndReason | None = None
    ends_at: datetime | None = None


class Unanswered(EventBody, frozen=True, kw_only=True):
    """An operation that failed, or whose answer is not known."""

    op: str
    answer: str | None
    grant: str | None = None


class TokenCreated(EventBody, frozen=True, kw_only=True):
    """A token, by the HMAC of its accessor; `line` is the audit line, where that alone names it."""

    grant: str
    op: str | None
    accessor: str | None
    line: str = ""


class NeverCreated(EventBody, frozen=True, kw_only=True):
    op: str
    canary: int
    ended: tuple[str, ...]


class Delivered(EventBody, frozen=True, kw_only=True):
    grant: str
    to: str
    expires_at: str | None
    ends_at: str


class AttemptSettled(EventBody, frozen=True, kw_only=True):
    grant: str
    verdict: str
    canary: int


class GrantRefused(EventBody, frozen=True, kw_only=True):
    request: str
    error: StatedError


class HandedOn(EventBody, frozen=True, kw_only=True):
    to: str


class Observed(EventBody, frozen=True, kw_only=True):
    lines: tuple[str, ...]
    leases: tuple[str, ...]


class AboutExtension(EventBody, frozen=True, kw_only=True):
    request: str
    extension: Extension


class ExtensionRefused(AboutExtension, frozen=True, kw_only=True):
    error: StatedError


class ExtensionCancelled(ExtensionRefused, frozen=True, kw_only=True):
    cancels: str


class ExtensionDecided(AboutExtension, frozen=True, kw_only=True):
    decision: Decision
    approved_by: tuple[Party, ...]


class ExtensionPending(ExtensionDecided, frozen=True, kw_only=True):
    replaces: bool
    missing: tuple[Requirement, ...]
    open_to: tuple[str, ...]
    refused: tuple[Refusal, ...]


class Extended(ExtensionDecided, frozen=True, kw_only=True):
    """More time that was granted, with the request and the approvals as they were signed.

    `replaces` is the grant whose token the extension replaces, if any.
    """

    replaces: str | None
    signed_request: SignedByPerson
    signed: tuple[SignedByPerson, ...]


class RenewIntended(EventBody, frozen=True, kw_only=True):
    """The latest time until which renewals can let the token live, committed before they are sent.

    One event covers several renewals, and another one the last, as its answer says. `renewals` are the audit lines of
    the renewals before, by their SHA-256.
    """

    until: datetime
    renewals: tuple[str, ...] = ()


class VerdictsGiven(EventBody, frozen=True, kw_only=True):
    """Verdicts by lease or token, as Vault's answers give them."""

    verdicts: dict[str, str]


class ListingIntended(EventBody, frozen=True, kw_only=True):
    why: Missing


class Listed(EventBody, frozen=True, kw_only=True):
    answer: str
    suspects: tuple[str, ...]
    drift: str | None


class WrappingsEnded(EventBody, frozen=True, kw_only=True):
    ended: int
    of: int


class Judged(EventBody, frozen=True, kw_only=True):
    """What a judgement of an unproven task went by."""

    canary: int | None = None
    quiet: Evidence | None = None


class Confirmed(EventBody, frozen=True, kw_only=True):
    """The outcome of each check, as lease or token, number, and whether it holds.

    `quiet` is check 7's evidence. `renewals` are the audit lines of renewals that no event named before.
    """

    checks: tuple[tuple[str, int, bool], ...]
    quiet: Evidence | None
    renewals: tuple[str, ...] = ()


class Sealed(EventBody, frozen=True, kw_only=True):
    head: str
    listed_prefixes: tuple[str, ...]


class Forced(Signed, frozen=True, kw_only=True):
    """What an operator signed to close a task without proof."""


class Unverified(Forced, frozen=True, kw_only=True):
    head: str


NOTHING = EventBody()
TOKEN_EXPIRED = EndCause(reason=EndReason.EXPIRED, note="its token was over before it was renewed")

BODIES: Mapping[str, type[EventBody]] = {
    **dict.fromkeys(EventKind, EventBody),
    EventKind.ATTEMPT_SETTLED: AttemptSettled,
    EventKind.CANCELLED: Signed,
    EventKind.CONFIRMED: Confirmed,
    EventKind.CREATE_TOKEN_ABANDONED: Unanswered,
    EventKind.CREATE_TOKEN_UNKNOWN: Unanswered,
    EventKind.DECIDED: Decided,
    EventKind.DELIVERED: Delivered,
    EventKind.DELIVER_ABANDONED: Unanswered,
    EventKind.DELIVER_UNKNOWN: Unanswered,
    EventKind.ENDING: EndCause,
    EventKind.EXTENDED: Extended,
    EventKind.EXTENSION_CANCELLED: ExtensionCancelled,
    EventKind.EXTENSION_PENDING: ExtensionPending,
    EventKind.EXTENSION_REFUSED: ExtensionRefused,
    EventKind.FORCE_INTENDED: Forced,
    EventKind.GRANT_REFUSED: GrantRefused,
    EventKind.HANDED_ON: HandedOn,
    EventKind.JUDGED: Judged,
    EventKind.LISTED: Listed,
    EventKind.LISTING_INTENDED: ListingIntended,
    EventKind.NEVER_CREATED: NeverCreated,
    EventKind.NOTED: Signed,
    EventKind.OBSERVED: Observed,
    EventKind.RECOVERED: Recovered,
    EventKind.RENEW_INTENDED: RenewIntended,
    EventKind.REVISED: Revised,
    EventKind.REVOKED: VerdictsGiven,
    EventKind.SEALED: Sealed,
    EventKind.SEEN_ALIVE: VerdictsGiven,
    EventKind.SUBMITTED: Submitted,
    EventKind.TOKEN_CREATED: TokenCreated,
    EventKind.UNVERIFIED: Unverified,
    EventKind.WRAPPINGS_ENDED: WrappingsEnded,
}
_CONVERTERS = {kind: converter(body) for kind, body in BODIES.items()}
_ledger_part = converter(LedgerPart)
B = TypeVar("B", bound=EventBody)
P = TypeVar("P", bound=LedgerPart)


def decode(kind: str, body: object) -> EventBody:
    """Return what an event of this kind says.

    Raises CorruptRecord, with the place, where a field is unknown, missing or of another type.
    """
    convert = _CONVERTERS.get(kind)
    if convert is None:
        raise CorruptRecord(f"there are no events of the kind {one_line(str(kind))!r:.60}")
    return _converted(convert, kind, body)


def ledger_part(event: Event) -> LedgerPart:
    """Return what the ledger added to an event of whatever kind. Raises CorruptRecord."""
    return _converted(_ledger_part, event.kind, event.body)


def _converted(convert: Callable[[object], P], kind: str, body: object) -> P:
    try:
        return convert(body)
    except (msgspec.ValidationError, RecursionError) as error:
        raise CorruptRecord(f"the body of an event ({one_line(str(kind)):.60}): {one_line(str(error)):.200}") from None


def kinds_of(body: type[EventBody]) -> list[str]:
    """Return the kinds of the events whose body is a `body`."""
    return [kind for kind, each in BODIES.items() if issubclass(each, body)]


def said(events: Iterable[Event], kind: type[B]) -> Iterator[tuple[Event, B]]:
    """Yield each event whose body is a `kind`, with its body. Raises CorruptRecord."""
    for event in events:
        if issubclass(BODIES.get(event.kind, object), kind):
            yield event, cast("B", decode(event.kind, event.body))
