"""The kinds of events in a task's chain and of operations on Vault.

Every ledger stores these words: a value here is in rows and inside hashed events of old ledgers, so a value never
changes and never gets another meaning. The names of the members are free.
"""

from __future__ import annotations

from enum import StrEnum


class OperationKind(StrEnum):
    """What one audited request to Vault is meant to do."""

    CREATE_TOKEN = "create_token"  # noqa: S105 - not a password
    DELIVER = "deliver"
    FORCE_LEASE = "force_lease"
    LIST_LEASES = "list_leases"
    LOOKUP_LEASE = "lookup_lease"
    LOOKUP_TOKEN = "lookup_token"  # noqa: S105 - not a password
    LOOKUP_UNTRACKED = "lookup_orphan"
    PUBLISH = "publish"
    QUEUE_LEASE = "queue_lease"
    REMOVE_PUBLISHED = "remove_published"
    RENEW_LEASE = "renew_lease"
    RENEW_TOKEN = "renew_token"  # noqa: S105 - not a password
    REVOKE_LEASE = "revoke_lease"
    REVOKE_ROLE = "revoke_role"
    REVOKE_TOKEN = "revoke_token"  # noqa: S105 - not a password
    REVOKE_UNTRACKED = "revoke_orphan"
    REVOKE_WRAPPING = "revoke_wrapping"
    SIGN = "sign"


class LookupAnswer(StrEnum):
    """What Vault answered to the look-up of a credential."""

    GONE = "gone"
    LIVE = "live"

    @classmethod
    def of(cls, answer: str | None) -> LookupAnswer | None:
        """Return a recorded answer; None where an error came instead, or nothing."""
        return cls(answer) if answer in set(cls) else None


class EventKind(StrEnum):
    """What one event in a task's chain says happened."""

    ATTEMPT_SETTLED = "attempt_settled"
    CANCELLED = "cancelled"
    CONFIRMED = "confirmed"
    CREATE_TOKEN_ABANDONED = "create_token_abandoned"  # noqa: S105 - not a password
    CREATE_TOKEN_INTENDED = "create_token_intended"  # noqa: S105 - not a password
    CREATE_TOKEN_UNKNOWN = "create_token_unknown"  # noqa: S105 - not a password
    DECIDED = "decided"
    DELIVERED = "delivered"
    DELIVER_ABANDONED = "deliver_abandoned"
    DELIVER_UNKNOWN = "deliver_unknown"
    ENDING = "ending"
    EXTENDED = "extended"
    EXTENSION_CANCELLED = "extension_cancelled"
    EXTENSION_PENDING = "extension_pending"
    EXTENSION_REFUSED = "extension_refused"
    FORCED = "forced"
    FORCE_INTENDED = "force_intended"
    GRANT_REFUSED = "grant_refused"
    HANDED_ON = "handed_on"
    JUDGED = "judged"
    LAPSED = "lapsed"
    LATE_LEASE = "late_lease"
    LISTED = "listed"
    LISTING_INTENDED = "listing_intended"
    NEVER_CREATED = "never_created"
    NOTED = "noted"
    OBSERVED = "observed"
    QUEUED = "queued"
    QUEUE_INTENDED = "queue_intended"
    RECOVERED = "recovered"
    RENEW_INTENDED = "renew_intended"
    REVISED = "revised"
    REVOKED = "revoked"
    REVOKE_INTENDED = "revoke_intended"
    SEALED = "sealed"
    SEAL_PUT_OFF = "seal_put_off"
    SEEN_ALIVE = "seen_alive"
    SUBMITTED = "submitted"
    TOKEN_CREATED = "token_created"  # noqa: S105 - not a password
    UNPROVEN = "unproven"
    UNVERIFIED = "unverified"
    UNWRAPPED = "unwrapped"
    WRAPPINGS_ENDED = "wrappings_ended"
    WRAPPINGS_INTENDED = "wrappings_intended"

    @classmethod
    def of(cls, operation: OperationKind, came_to: str) -> EventKind:
        """Return the event of an operation.

        The operation is `intended`, `unknown` or `abandoned`.
        """
        return cls(f"{operation}_{came_to}")
