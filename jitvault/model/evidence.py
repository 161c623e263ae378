"""What a check of a proof rests on, or what it lacks: values that programs read.

Words for people are made of them in `jitvault.lifecycle.record.check_words`, which nothing that decides may import.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

MOST_TEXT = 1000
"""The most characters that are kept of a text of others, such as the answer of a target."""

MOST_SIGNED = 16 * 1024
"""The most bytes that are kept of what an issuer signed; an OCSP response or a certificate has some 1,000."""

Time = Annotated[datetime, Meta(tz=True)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0)]


class Line(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="line"):
    """An audit line, by the SHA-256 of its bytes with the line feed.

    `source` is the label of the stream that had it. `request_id`, `operation` (what jitvault calls such a line), `path`
    and `at` are the line's own.
    """

    sha256: Digest
    source: str
    request_id: str
    operation: str
    path: str
    at: Time


class Expiry(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="expiry"):
    """No line, but Vault's time at which the TTL was over."""

    at: Time


class Interval(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="interval"):
    """A time, by Vault's clock, in which no act can have faked an end."""

    begin: Time
    end: Time


class Contiguous(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="contiguous"):
    """Bytes of a source that were read without a gap, from one matching canary to another."""

    source: str
    begin: Count
    end: Count


class Closed(StrEnum):
    """How a gap in the stream was closed for one credential."""

    ENDED_BEFORE = "ended_before"
    REVOKED_ITSELF = "revoked_itself"
    TARGET_REFUSES = "target_refuses"
    FOUND_REVOKED = "found_revoked"
    SEEN_ALIVE = "seen_alive"


class Gap(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gap"):
    """A gap in the stream, the line of the listing after it, and how it was closed.

    `line` is that of the look-up after the gap, where one closed it.
    """

    listing: Digest
    closed: Closed
    line: Digest | None = None


class TargetAnswer(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="target_answer"):
    """What a target said, in the words of its engine, about the credential of this name."""

    engine: str
    question: str
    answer: Text


class SignedForm(StrEnum):
    """What the bytes are that a certificate's issuer signed, in DER."""

    OCSP = "ocsp"
    CERTIFICATE = "certificate"


class SignedAnswer(TargetAnswer, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="signed_answer"):
    """The same about a certificate, with what its issuer signed and the answer was read from.

    That is the OCSP response which calls it revoked, or the certificate itself, which has expired. `der` is None for
    more than `MOST_SIGNED` bytes: then `sha256` alone says which they were, and nobody can read the answer again.
    """

    form: SignedForm
    sha256: Digest
    der: bytes | None


class ReadKind(StrEnum):
    """Why no line shows which credential a read gave."""

    WRAPPED = "wrapped"
    UNANSWERED = "unanswered"
    IN_GAP = "in_gap"


class Read(Struct, frozen=True, forbid_unknown_fields=True):
    """A read whose lease no line shows; a read that only a gap may hide has no time and no line."""

    how: ReadKind
    path: str
    at: Time | None = None
    line: Digest | None = None


class Lack(StrEnum):
    """What a check that does not hold lacks."""

    ISSUE_LINE = "issue_line"
    REVOCATION_LINE = "revocation_line"
    GONE_LINE = "gone_line"
    LIVE_LINE = "live_line"
    INTERVAL = "interval"
    HAZARD = "hazard"
    CANARY_BEFORE = "canary_before"
    CANARY_AFTER = "canary_after"
    INTERRUPTED = "interrupted"
    NOT_SEEN_ALIVE = "not_seen_alive"
    NOT_PROBED = "not_probed"
    TARGET_SILENT = "target_silent"
    LEASE_UNPROVEN = "lease_unproven"
    PENDING = "pending"
    READ_ELSEWHERE = "read_elsewhere"
    UNLEASED = "unleased"
    GAP = "gap"
    HIDDEN_LEASE = "hidden_lease"
    UNANSWERED = "unanswered"
    READ_NOT_ASKED = "read_not_asked"
    READ_OPEN = "read_open"
    READ_RENAMED = "read_renamed"
    CANARY_SINCE = "canary_since"
    QUIET_SECOND = "quiet_second"
    OPEN_BELOW = "open_below"
    GOING_ROUND = "going_round"
    REOPENED = "reopened"


class Missing(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="missing", kw_only=True
):
    """What is missing, and whether `for_good`: then nothing makes up for it.

    - `about` is a path, an id or a text of others, and `name` a credential at its target;
    - `at` and `line` are those of the act that stands in the way, `read` is the read that is not accounted for;
    - `count` is how many there are;
    - `elided` says that a listing was made whose line shows only how much was listed.
    """

    lack: Lack
    for_good: bool = False
    about: str = ""
    name: str = ""
    at: Time | None = None
    line: Digest | None = None
    read: Read | None = None
    count: Count | None = None
    elided: bool = False


class Quiet(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="quiet"):
    """For how long nothing happened up to a matching canary, and what a listing settled before."""

    ms: Count
    listed: Missing | None = None


class NoToken(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="no_token"):
    """No token was ever created."""


Evidence = Line | Expiry | Interval | Contiguous | Gap | TargetAnswer | SignedAnswer | Quiet | NoToken | Missing
