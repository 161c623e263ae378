"""A body of each kind of event, as the ledger has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import fields

from jitvault.model.event_bodies import BODIES, EventBody, decode

_ERROR = {"exit_code": 4, "message": "too long", "hint": "Ask for less."}
_REFUSAL = {"entity": "e-2", "name": "ines", "why": "withdrew", "withdrawn": True}
_NEEDED = {"group": "jitvault-approvers", "count": 1}
_OBLIGATIONS: dict[str, Any] = {
    **{"approvals": [_NEEDED], "max_ttl_s": 900, "max_window_s": None, "confirm": "target"},
    **{"notify": ["security"], "owner_may_approve": []},
}
_MISSING = {"kind": "missing", "lack": "reopened", "about": "a lease"}
_EXTENSION = {
    **{"apiVersion": "jitvault.dev/v1", "kind": "Extension", "installation": "i", "task": "t-1", "revision": 1},
    **{"revision_digest": "sha256:1", "by": {"entity": "e-1", "name": "operator"}, "reason": "more rows"},
    **{"since": "2030-01-31T09:00:00Z", "seconds": 300, "until": "2030-01-31T09:05:00Z", "window_s": 1200},
}
_ENVELOPE = {
    **{"payload": "e30=", "payloadType": "application/vnd.jitvault+json"},
    "signatures": [{"keyid": "jitvault-signer-e-1:v1", "sig": "c2ln"}],
}
_SIGNED = {"by": "e-1", "name": "operator", "note": "enough", "signed": _ENVELOPE}
_POLICY: dict[str, Any] = {
    **{"permitted": True, "obligations": _OBLIGATIONS, "rules": ["operators-ask"], "policy_digest": "sha256:p"},
    "reasons": ["low risk"],
}
_DECISION: dict[str, Any] = {
    **{"policy": _POLICY, "approved_by": ["e-2"], "denied_by": None, "missing": [_NEEDED], "refused": [_REFUSAL]},
    **{"agent_groups": ["jitvault-agents"], "votes": "sha256:v", "signed": [_ENVELOPE]},
}
_REVISED: dict[str, Any] = {"decision": _DECISION, "revision": 1, "digest": "sha256:1", "request": _ENVELOPE}
_ASKED: dict[str, Any] = {"request": "n-1", "extension": _EXTENSION}
_ANSWERED: dict[str, Any] = {**_ASKED, "decision": _POLICY, "approved_by": [{"entity": "e-2", "name": "ines"}]}
_PUBLISHED = {"seq": 3, "head": "h", "state": "approved", "refused_request": "n-1"}
_FAILED = {"op": "o-1", "answer": "refused", "grant": "g-1"}
_NOTE = {"note": "a late lease"}
_ENDING: dict[str, Any] = {
    **_SIGNED,
    **{"reason": "operator", "scope": "everything", "rule": "r", "line": "ab", "wrap_ttl_s": 60},
    **{"deadline": "2030-01-31T09:00:00Z", "beat_by": "2030-01-31T09:00:00Z", "refused": [_REFUSAL]},
}
_RECOVERED: dict[str, Any] = {
    **{"from": _PUBLISHED, "revision": 1, "digest": "sha256:1", "verified_by": ["e-1"], "leases": ["l-1"]},
    **{"grants": [{"grant": "g-1", "accessor": "hmac", "line": "ab"}], "sealed_head": None, "decision": _DECISION},
    **{"reason": "operator", "note": "lost", "request": _ENVELOPE, "ends_at": "2030-01-31T09:00:00Z"},
}
WHOLE: Mapping[str, dict[str, Any]] = {
    "attempt_settled": {"grant": "g-1", "verdict": "expired", "canary": 7},
    "cancelled": _SIGNED,
    "confirmed": {"checks": [["l-1", 6, True]], "quiet": _MISSING},
    "create_token_abandoned": _FAILED,
    "create_token_intended": {},
    "create_token_unknown": _FAILED,
    "decided": {"decision": _DECISION},
    "deliver_abandoned": _FAILED,
    "deliver_unknown": _FAILED,
    "delivered": {"grant": "g-1", "to": "e-1", "expires_at": None, "ends_at": "2030-01-31T09:00:00Z"},
    "ending": _ENDING,
    "extended": {**_ANSWERED, "replaces": None, "signed_request": _ENVELOPE, "signed": [_ENVELOPE]},
    "extension_cancelled": {**_ASKED, "error": _ERROR, "cancels": "n-0"},
    "extension_pending": {**_ANSWERED, "replaces": False, "missing": [_NEEDED], "open_to": [], "refused": []},
    "extension_refused": {**_ASKED, "error": _ERROR},
    "force_intended": _SIGNED,
    "forced": {},
    "grant_refused": {"request": "n-1", "error": _ERROR},
    "handed_on": {"to": "t-2"},
    "judged": {"canary": 7, "quiet": _MISSING},
    "lapsed": _NOTE,
    "late_lease": _NOTE,
    "listed": {"answer": "accounted", "suspects": [], "drift": None},
    "listing_intended": {"why": _MISSING},
    "never_created": {"op": "o-1", "canary": 7, "ended": ["l-1"]},
    "noted": _SIGNED,
    "observed": {"lines": ["ab"], "leases": ["l-1"]},
    "queue_intended": {},
    "queued": {},
    "recovered": _RECOVERED,
    "renew_intended": {"until": "2030-01-31T08:10:00Z", "renewals": ["ab"]},
    "revised": _REVISED,
    "revoke_intended": {},
    "revoked": {"verdicts": {"l-1": "acknowledged"}},
    "seal_put_off": _NOTE,
    "sealed": {"head": "h", "listed_prefixes": ["database/creds/x"]},
    "seen_alive": {"verdicts": {}},
    "submitted": {**_REVISED, "recovered_from": _PUBLISHED},
    "token_created": {"grant": "g-1", "op": "o-1", "accessor": "hmac", "line": "ab"},
    "unproven": _NOTE,
    "unverified": {**_SIGNED, "head": "h"},
    "unwrapped": {},
    "wrappings_ended": {"ended": 1, "of": 2},
    "wrappings_intended": {},
}
"""Every field of each kind, except what the ledger adds."""


def example(kind: str, *, decided: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The fields that a body of this kind always has, and `changes`; `decided` changes its decision."""
    required = [each.encode_name for each in fields(BODIES[kind]) if each.required]
    found = {name: WHOLE[kind][name] for name in required}
    if decided is not None:
        found["decision"] = {**found["decision"], **decided}
    return {**found, **changes}


def body(kind: str, *, decided: Mapping[str, Any] | None = None, **changes: Any) -> EventBody:
    """The same, as a worker writes it."""
    return decode(kind, example(kind, decided=decided, **changes))
