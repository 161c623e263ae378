"""What `jitvault dev` prints: the roles, the first commands, the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitvault.cli.views import timeline
from jitvault.formats.shorten import one_line
from jitvault.model.event_bodies import Decided, Observed, RevisionDecision, decode
from jitvault.model.kinds import EventKind
from jitvault.model.states import State

# each is said by another event as well, or repeats every minute and changes nothing
_NOT_TOLD = frozenset(
    {
        EventKind.ATTEMPT_SETTLED,
        EventKind.CREATE_TOKEN_INTENDED,
        EventKind.FORCE_INTENDED,
        EventKind.JUDGED,
        EventKind.LISTED,
        EventKind.LISTING_INTENDED,
        EventKind.QUEUED,
        EventKind.QUEUE_INTENDED,
        EventKind.REVOKE_INTENDED,
        EventKind.SEEN_ALIVE,
        EventKind.WRAPPINGS_ENDED,
        EventKind.WRAPPINGS_INTENDED,
    }
)
_WORDS = {
    EventKind.TOKEN_CREATED: "token created, in a wrapping that works once",
    EventKind.DELIVERED: "issued: the wrapping is delivered",
    EventKind.UNWRAPPED: "active: the token was unwrapped",
    EventKind.CONFIRMED: "confirmed: every credential passed its checks",
    EventKind.SEALED: "sealed: the receipt is signed",
}


def event_words(kind: str, at: str, body: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    """Return what happened in a few words, None for what need not be told.

    `names` has the names of entities by their ids. Raises CorruptRecord.
    """
    if kind in _NOT_TOLD:
        return None
    if kind in _WORDS:
        return _WORDS[EventKind(kind)]
    said = decode(kind, body)
    if isinstance(said, Observed):
        paths = dict.fromkeys(lease.rpartition("/")[0] for lease in said.leases)
        return f"credential read: {', '.join(paths)}" if paths else None
    if isinstance(said, Decided) and (decided := _decided(said.state, said.decision, names)):
        return f"{kind}: {decided}"
    ((_, words),) = timeline.rows([{"event": kind, "at": at, "body": body}])
    return words


def _decided(state: str, decision: RevisionDecision, names: Mapping[str, str]) -> str:
    """Return who decided, and of which groups an approval is missing.

    Empty where policy alone decided.
    """
    if decision.denied_by:
        return f"denied by {names.get(decision.denied_by, decision.denied_by)}"
    approved = ", ".join(names.get(entity, entity) for entity in decision.approved_by)
    if state != State.PENDING_APPROVAL:
        return f"{state} by {approved}" if approved else ""
    # a line is short, and every group is one of jitvault's
    missing = ", ".join(f"{needed.count} of {needed.group.removeprefix('jitvault-')}" for needed in decision.missing)
    parts = [f"approved by {approved}" if approved else "", f"waits for {missing}" if missing else ""]
    return ", ".join(filter(None, parts))


def event_line(at: str, subject: str, words: str, width: int) -> str:
    """Return one line of at most `width` columns.

    It has the time (RFC 3339, UTC), whose event it is, and what happened.
    """
    line = one_line(f"{at[11:19]}  {subject:<16}  {words}")
    return line if len(line) <= width else f"{line[: width - 1]}…"


def first_commands(be_operator: Sequence[str], be_agent: Sequence[str], *, has_example: bool) -> list[str]:
    """Return the first commands of a second terminal.

    `be_operator` and `be_agent` make the shell the operator's, and the agent's. The example goes to the agent's inbox.
    """
    commands = [*be_operator, "jitvault templates list"]
    if not has_example:
        return commands
    return [*commands, 'jitvault grant "$JITVAULT_EXAMPLE_SPEC"', *be_agent, "jitvault unwrap read-orders --read"]


ROLE_WORDS = {
    "operator": "asks for access, ends it, freezes, unfreezes",
    "agent": "takes what was granted: unwrap, complete",
    "approver-1": "approves and denies (jitvault-approvers)",
    "approver-2": "the same, also for jitvault-security",
    "auditor": "reads the ledger: list, status, report, findings",
    "worker": "the worker's own identity: sweep, audit accept, findings close",
    "admin": "Vault's root: init, approvers, templates check, tidy",
}
"""What each role of the sandbox is for."""
