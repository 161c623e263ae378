"""The details that an observation keeps of its audit entry."""

from __future__ import annotations

import re
from typing import Any

from jitvault.audit.audit_form import is_elided
from jitvault.audit.create_intent import asked
from jitvault.audit.entry import TARGET_NAMES, Entry, Response
from jitvault.audit.entry_facts import (
    is_about_itself,
    is_open_to_all,
    is_publication,
    is_refused,
    is_signature,
    is_spent,
    is_workers,
    text_of,
)
from jitvault.audit.hazard_paths import enables_device
from jitvault.audit.observation import PLAIN, Kind
from jitvault.formats.shorten import shorten
from jitvault.model.vault_access import REVOCATION_BEGUN

# An engine's framework answers this before any code of the engine runs. Some paths take every token or none, and their
# subpaths can look like a change of the engine.
_UNSUPPORTED = re.compile(r"(\d+ errors? occurred:)?(\s*(\*\s*)?unsupported (path|operation))+\s*")
_WARNING = 200


def detail_of(entry: Entry, kind: Kind) -> dict[str, Any]:
    """Return the details of an entry, by name. The ledger stores them as JSON.

    Texts that a client can choose are shortened.
    """
    response = entry.response or Response()
    detail: dict[str, Any] = {}
    named = [key for key in TARGET_NAMES if key in (response.data or {})]
    if kind is Kind.LEASE_ISSUED and named:
        # plain because `init` tuned the mount so; a probe looks for this name
        detail["target_name"] = shorten(text_of((response.data or {})[named[0]]), 255)
    if kind is Kind.USED and (entry.request.wrap_ttl or response.wrap_info):
        # a TTL below one second is 0 in the request line, and the answer is wrapped nevertheless
        detail["wrapped"] = True
    if kind is Kind.USED and is_open_to_all(entry):
        detail["open_to_all"] = True
    if kind is Kind.RENEWED and type(seconds := (entry.request.data or {}).get("increment")) is int:
        # plain only if it is a number, and only on OpenBao: the longest that the renewed token can live
        detail["increment_s"] = seconds
    if kind is Kind.RENEWED and response.auth and response.auth.token_ttl > 0:
        # the TTL that was really given; plain on both servers
        detail["ttl_s"] = response.auth.token_ttl
    if kind is Kind.TOKEN_LOOKUP and (response.data or {}).get("num_uses") == REVOCATION_BEGUN:
        # plain, because it is a number
        detail["revocation_begun"] = True
    detail |= _refusal_detail(entry)
    if kind is Kind.HAZARD:
        detail |= _hazard_exemption(entry)
    if response.warnings:
        detail["warnings"] = [_beginning(text_of(w)) for w in response.warnings[:3]]
    if entry.auth and entry.auth.entity_id:
        detail["entity"] = shorten(entry.auth.entity_id, 80)
    detail |= _signature_detail(entry, kind)
    detail |= _listing_detail(entry, kind)
    detail |= _worker_mark(entry, kind)
    if kind is Kind.TOKEN_CREATED:
        detail["asked"] = asked(entry.request.data or {}, entry.request.wrap_ttl)
    return detail


def _refusal_detail(entry: Entry) -> dict[str, Any]:
    """Return whether Vault denied the request, and what it was about.

    It can be about the caller's own token, or have used a wrapping up.
    """
    if not is_refused(entry):
        return {}
    said = {"denied": True, "itself": is_about_itself(entry), "spent": is_spent(entry)}
    return {name: True for name, holds in said.items() if holds}


def _hazard_exemption(entry: Entry) -> dict[str, Any]:
    """Return what exempts an act from the hazards.

    `jitvault.lifecycle.confirmation.hazards` reads these details.
    """
    said = {"unsupported": _UNSUPPORTED.fullmatch(entry.error) is not None, "enables": enables_device(entry.request)}
    return {name: True for name, holds in said.items() if holds}


def _signature_detail(entry: Entry, kind: Kind) -> dict[str, Any]:
    """Return the HMAC of what the worker's key signed, if anything."""
    if kind is not Kind.OWN or entry.type != "response" or not is_signature(entry.request):
        return {}
    signed = text_of((entry.request.data or {}).get("input"))
    if signed and not signed.startswith("hmac-"):
        # the mount was tuned to show the input in plain, so there is nothing to compare with an HMAC
        signed = PLAIN
    return {"signed": signed[:96], **_recovery_detail(entry)}


def _worker_mark(entry: Entry, kind: Kind) -> dict[str, Any]:
    """Return whether the worker's policy allowed the act.

    A thief of the worker's login credentials has a token of their own, with that policy.
    """
    if kind in (Kind.CANARY, Kind.TOKEN_CREATED):
        return _recovery_detail(entry)
    return {"worker": True} if is_publication(entry) or (kind is Kind.RENEWED and is_workers(entry)) else {}


def _listing_detail(entry: Entry, kind: Kind) -> dict[str, Any]:
    """Return whether our own listing's line does not show what was listed."""
    elided = kind is Kind.OWN and entry.request.operation == "list" and entry.type == "response"
    return {"elided": True} if elided and is_elided(entry.response.data if entry.response else None) else {}


def _recovery_detail(entry: Entry) -> dict[str, Any]:
    """Return what shows a rebuilt ledger that the line is the worker's.

    That is Vault's own statement of the policies, and the HMACs of the ids that the worker puts into a task token's
    metadata.
    """
    if not is_workers(entry):
        return {}
    meta = (entry.request.data or {}).get("meta")
    named = meta if isinstance(meta, dict) else {}
    ids = {name: shorten(text_of(named.get(f"jitvault_{name}")), 128) for name in ("task", "grant")}
    return {"worker": True, **{name: value for name, value in ids.items() if value}}


def _beginning(text: str) -> str:
    return text if len(text) <= _WARNING else text[: _WARNING - 1] + "…"
