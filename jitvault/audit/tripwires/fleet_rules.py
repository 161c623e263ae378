"""The tripwires on the worker: what audit lines must not show of it.

Each rule is one function; `FLEET_RULES` names them all. Each of these rules freezes everything, since the worker itself
cannot be trusted then:

- `unknown_token`: a token was created through our roles without an intent of ours, other than its intent says, or not
  by our worker;
- `unknown_renewal`: the worker's token renewed something without an intent of ours;
- `unknown_publication`: the worker's token wrote or removed what the worker alone writes (a task's published document,
  the templates, an inbox) without an intent of ours, or another document than the intent says;
- `unknown_signature`: the worker's token signed with the key of receipts without an intent of ours, or something else
  than the intent says;
- `unwrap_by_worker`: something was unwrapped from the worker's address.

The worker's token is one that our worker logged in with, or any other one with its policy. The lines are Vault's,
and the times are by Vault's clock. Shapes: docs/vault-facts.md, "Audit entries".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jitvault.audit.create_intent import Intent, mismatch
from jitvault.audit.observation import PLAIN, Kind, Observation
from jitvault.audit.tripwires.trip import (
    Hit,
    Rule,
    TripwireHit,
    done,
    in_order,
    origin,
    path_of,
    trips,
)
from jitvault.documents.paths import OF_WORKER
from jitvault.formats.networks import is_one_of, is_within


def of_fleet(
    lines: Sequence[Observation],
    *,
    sessions: frozenset[str],
    intents: Mapping[str, Intent],
    renewals: Mapping[str, str],
    publications: Mapping[str, str],
    signatures: Mapping[str, str],
    used_again: frozenset[str],
    worker_addresses: frozenset[str],
    shared: Sequence[str],
) -> list[TripwireHit]:
    """Return every hit of a rule that freezes everything, by time.

    There is at most one hit of a rule for a request. `sessions` are the accessor HMACs of the worker's own tokens.
    By operation id, `intents` are what the worker meant to create, `renewals` what it meant to renew,
    `publications` the path that it meant to write or to remove, and `signatures` the HMAC of what it meant to sign.
    `used_again` are the ids of more than one act, and `shared` the CIDRs that the worker's hosts share with agents.
    """
    meant = (intents, renewals, publications, signatures, used_again)
    fleet = _Fleet(in_order(lines), sessions, *meant, worker_addresses, tuple(shared))
    return trips((rule, hit) for rule, judge in FLEET_RULES for hit in judge(fleet))


@dataclass(frozen=True, slots=True)
class _Fleet:
    lines: Sequence[Observation]
    sessions: frozenset[str]
    intents: Mapping[str, Intent]
    renewals: Mapping[str, str]
    publications: Mapping[str, str]
    signatures: Mapping[str, str]
    used_again: frozenset[str]
    worker_addresses: frozenset[str]
    shared: tuple[str, ...]

    def is_workers(self, o: Observation) -> bool:
        """Return whether the worker's identity acted.

        That is a session of ours, or another login that has the worker's policy.
        """
        return o.actor in self.sessions or "worker" in o.detail


_NO_INTENT = "without an intent in the ledger"


def _unknown_token(fleet: _Fleet) -> Iterator[Hit]:
    for o in fleet.lines:
        if o.kind is not Kind.TOKEN_CREATED or not done(o):
            continue
        if reason := _unintended_reason(fleet, o):
            yield o, f"A token was created at {path_of(o)} from {origin(o)}, {reason}."


def _unintended_reason(fleet: _Fleet, o: Observation) -> str:
    """Return why a token's creation was not intended, or "".

    The reason is the end of a sentence. The result is "" if the worker intended it.
    """
    if o.actor not in fleet.sessions and _is_shown_as_ours(fleet, o):
        return (
            "which is how a second audit device shows it that writes into the same log: each device needs a file "
            "of its own"
        )
    if o.actor not in fleet.sessions:
        return "and not by a session of the worker"
    intent = fleet.intents.get(o.op)
    if intent is None:
        return _NO_INTENT
    if o.op in fleet.used_again:
        return "under an intent for which another token was created"
    return mismatch(intent, o)


def _is_shown_as_ours(fleet: _Fleet, o: Observation) -> bool:
    """Return whether the request's other line names a worker's session.

    Vault makes the ids of requests.
    """
    same = (other for other in fleet.lines if other.request_id and other.request_id == o.request_id)
    return any(other.kind is o.kind and other.actor in fleet.sessions for other in same)


def _unknown_renewal(fleet: _Fleet) -> Iterator[Hit]:
    for o in fleet.lines:
        if o.kind is not Kind.RENEWED or not done(o) or not fleet.is_workers(o):
            continue
        if not _is_intended(o, fleet.renewals.get(o.op)) or o.op in fleet.used_again:
            yield o, f"The worker's token renewed at {path_of(o)} from {origin(o)} {_NO_INTENT}."


def _is_intended(o: Observation, subject: str | None) -> bool:
    """Return whether a renewal is the one whose intent names `subject`.

    `subject` is the accessor's HMAC, or the lease id.
    """
    if subject is None:
        return False
    # the answer to a lease's renewal has the lease id, unless Vault returned no lease: then there is only its HMAC
    unknown = not subject or (o.path.startswith("sys/") and "/" not in o.subject)
    return unknown or o.subject == subject


def _unknown_publication(fleet: _Fleet) -> Iterator[Hit]:
    for o in fleet.lines:
        if not is_publication(o) or not done(o) or not fleet.is_workers(o):
            continue
        if o.path != fleet.publications.get(o.op) or o.op in fleet.used_again:
            yield o, f"The worker's token wrote or removed {path_of(o)} from {origin(o)} {_NO_INTENT}."


def is_publication(o: Observation) -> bool:
    """Return whether a line is about what the worker alone writes."""
    return o.kind is Kind.OWN and o.subject.startswith(OF_WORKER)


def _unknown_signature(fleet: _Fleet) -> Iterator[Hit]:
    """Hit for a signature without its intent.

    The same content signed twice under one intent is no hit: an Ed25519 signature has nothing random, so it is the
    same receipt.
    """
    for o in fleet.lines:
        if not is_signature(o) or not done(o) or not fleet.is_workers(o):
            continue
        meant = fleet.signatures.get(o.op)
        if meant is None:
            yield o, f"The worker's token signed at {path_of(o)} from {origin(o)} {_NO_INTENT}."
        elif o.detail["signed"] not in (PLAIN, meant):
            yield o, f"The worker's token signed at {path_of(o)} from {origin(o)} something other than its intent says."


def is_signature(o: Observation) -> bool:
    """Return whether a line is about a signature with the worker's own key."""
    return o.kind is Kind.OWN and "signed" in o.detail


_SHARED = "JITVAULT_SHARED_HOSTS"
_UNWRAPS = frozenset({Kind.UNWRAPPED, Kind.CUBBYHOLE_READ, Kind.REWRAPPED})


def _unwrap_by_worker(fleet: _Fleet) -> Iterator[Hit]:
    for o in fleet.lines:
        # a lease names a wrapping only if it was unwrapped
        unwrap = o.kind in _UNWRAPS or (o.kind is Kind.LEASE_ISSUED and o.token)
        own = is_one_of(o.remote, fleet.worker_addresses) and not is_within(o.remote, fleet.shared)
        if unwrap and own and done(o):
            seen = f"Something was unwrapped at {path_of(o)} from {origin(o)}, an address of the worker."
            yield o, f"{seen} If agents run there, too, it belongs in {_SHARED} of every worker."


FLEET_RULES: tuple[tuple[Rule, Callable[[_Fleet], Iterator[Hit]]], ...] = (
    (Rule.UNKNOWN_TOKEN, _unknown_token),
    (Rule.UNKNOWN_RENEWAL, _unknown_renewal),
    (Rule.UNKNOWN_PUBLICATION, _unknown_publication),
    (Rule.UNKNOWN_SIGNATURE, _unknown_signature),
    (Rule.UNWRAP_BY_WORKER, _unwrap_by_worker),
)
