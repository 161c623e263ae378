"""The intent to create a task token, compared with the line about it.

The intent was committed to the ledger before Vault was asked. A holder of the worker's token who reads the ledger
knows every operation id. An id allows the creation of one token, the one that the intent describes, and only while
nobody knows what became of the intent.
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
90 s unless it is configured otherwise; the rest is for clocks that differ.
"""
_CREATE = "auth/token/create/"
# The worker chooses what the metadata are for; nothing in Vault depends on them.
_FREE = "meta"
_MOST = 64
_LONGEST = 96


@dataclass(frozen=True, slots=True)
class Intent:
    """A committed intent to create a task token.

    `words` maps each policy, and the TTL, to its HMAC by the audit device; None if the ledger does not have them.
    `accessor` is the HMAC of the accessor that Vault answered with, None while that is unknown. `given_up` says
    that Vault created no token for the intent, as far as the ledger knows. `sent_at` is None if the ledger was
    rebuilt.
    """

    role: str
    wrap_ttl_s: int
    words: Mapping[str, Mapping[str, str]] | None
    accessor: str | None
    given_up: bool
    sent_at: datetime | None


def ttl_word(ttl_s: int) -> str:
    """Return a TTL in the form in which the worker sends it."""
    return f"{ttl_s}s"


def words_of(stored: object) -> Mapping[str, Mapping[str, str]] | None:
    """Return the stored `Intent.words`; None if the row holds anything else."""
    if not isinstance(stored, dict):
        return None
    parts = (stored.get("policies"), stored.get("ttl"))
    return stored if all(isinstance(part, dict) for part in parts) else None


def asked(data: Mapping[str, Any], wrap_ttl_s: int) -> dict[str, Any]:
    """Return what a create requested, for the detail of an observation.

    Strings are HMACs on both servers unless the mount was tuned to show them. `also` lists the keys that the worker
    never sends.
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
    """Return how a created token differs from its intent, or "".

    The difference is given as the end of a sentence. The result is "" if nothing differs.
    """
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
    # values are shown in plain if the mount was tuned so
    plain = {hashed: word for word, hashed in meant.items()} | {word: word for word in meant}
    if sorted(plain.get(policy, "") for policy in shown["policies"]) != sorted(meant):
        return "with other policies than its intent names"
    ttl = words["ttl"]
    if shown["ttl"] not in {*ttl, *ttl.values()}:
        return "with another TTL than its intent names"
    if shown["wrap_ttl_s"] != wrap_ttl_s:
        return "in a wrapping that lives longer or shorter than its intent says"
    return f"with {', '.join(shown['also'])}, which its intent does not have" if shown["also"] else ""
