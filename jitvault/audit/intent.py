"""What a task token was to be, as it was committed before Vault was asked, held against the line that shows it made.

Whoever has the worker's token and reads the ledger knows every operation id. An id is leave to make one token, the one
that the intent describes, while nobody knows what became of the intent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jitvault.audit.observation import Observation
from jitvault.formats.shorten import shorten

LIFE = timedelta(minutes=15)
"""How long after its commit an intent can show in the stream. A worker sends at once, and Vault ends a request after
90 s unless it is configured otherwise; the rest is for clocks that differ."""
_CREATE = "auth/token/create/"
# the worker says what it is for; nothing in Vault goes by it
_FREE = "meta"
_MOST, _LONGEST = 64, 96


@dataclass(frozen=True, slots=True)
class Intent:
    """A create that was committed.

    `words` gives for each policy, and for the TTL, its HMAC of the audit device; None where the ledger does not have
    them. `accessor` is the HMAC of the accessor that Vault answered with, None while that is not known. `given_up` says
    that Vault made no token for it, as far as anybody knows. `sent_at` is None where the ledger was rebuilt.
    """

    role: str
    wrap_ttl_s: int
    words: Mapping[str, Mapping[str, str]] | None
    accessor: str | None
    given_up: bool
    sent_at: datetime | None


def ttl_word(ttl_s: int) -> str:
    """Return a TTL as the worker sends it."""
    return f"{ttl_s}s"


def words_of(stored: object) -> Mapping[str, Mapping[str, str]] | None:
    """Return `Intent.words` as the ledger has them; None where somebody wrote something else there."""
    if not isinstance(stored, dict):
        return None
    parts = (stored.get("policies"), stored.get("ttl"))
    return stored if all(isinstance(part, dict) for part in parts) else None


def asked(data: Mapping[str, Any], wrap_ttl_s: int) -> dict[str, Any]:
    """Return what a create's request asked for, as its line shows it: for an observation's detail.

    Strings are HMACs on both servers unless the mount was tuned to show them. `also` names what the worker never sends.
    """
    policies = data.get("policies")
    listed = policies if isinstance(policies, list) else [policies]
    if len(listed) > _MOST:
        listed = [f"{len(listed)} of them"]
    return {
        "policies": [shorten(str(policy), _LONGEST) for policy in listed],
        "ttl": shorten(str(data.get("ttl")), _LONGEST),
        "wrap_ttl_s": wrap_ttl_s,
        "also": sorted(shorten(key, _LONGEST) for key in data.keys() - {"policies", "ttl", _FREE})[:_MOST],
    }


def mismatch(intent: Intent, line: Observation) -> str:
    """Return what about a token that was made is not as its intent says, as the end of a sentence; "" where all is."""
    if intent.accessor is not None and intent.accessor != line.subject:
        return "with the operation id of another token"
    if intent.accessor is None and intent.given_up:
        return "whose intent was given up"
    if intent.sent_at is not None and abs(line.at - intent.sent_at) > LIFE:
        return "long before or after its intent"
    if line.path != _CREATE + intent.role:
        return f"whose intent names the role {intent.role}"
    if intent.words is None or "asked" not in line.detail:
        return ""
    return _other_terms(line.detail["asked"], intent.words, intent.wrap_ttl_s)


def _other_terms(shown: Mapping[str, Any], words: Mapping[str, Mapping[str, str]], wrap_ttl_s: int) -> str:
    """Return how the terms of a request differ from the intent's."""
    meant = words["policies"]
    # a value is shown in plain where the mount was tuned so
    plain = {hashed: word for word, hashed in meant.items()} | {word: word for word in meant}
    if sorted(plain.get(policy, "") for policy in shown["policies"]) != sorted(meant):
        return "with other policies than its intent names"
    ttl = words["ttl"]
    if shown["ttl"] not in {*ttl, *ttl.values()}:
        return "with another TTL than its intent names"
    if shown["wrap_ttl_s"] != wrap_ttl_s:
        return "in a wrapping that lives longer or shorter than its intent says"
    return f"with {', '.join(shown['also'])}, which its intent does not have" if shown["also"] else ""
