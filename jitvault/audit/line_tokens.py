"""The tokens that a line names besides the caller's, as the HMACs that the line shows."""

from __future__ import annotations

from jitvault.audit.entry import Auth, Entry, Response
from jitvault.audit.entry_facts import (
    OWN_ACTS,
    REVOKE_BY_TOKEN,
    has_failed,
    is_spent,
    is_task_token,
    is_unwrap,
    sent_token,
    text_of,
)
from jitvault.audit.observation import Kind


def named_token(entry: Entry, kind: Kind) -> str:
    """Return the HMAC of the token that a line is about.

    This is for lines without an accessor of ours.
    """
    if is_spent(entry):
        return sent_token(entry)
    if kind in (Kind.UNWRAPPED, Kind.UNWRAP_REFUSED, Kind.REWRAPPED) or is_unwrap(entry):
        # a caller that unwraps for another one names the wrapping token in the body
        return text_of((entry.request.data or {}).get("token")) or sent_token(entry)
    if kind is Kind.RENEWED or entry.request.path in REVOKE_BY_TOKEN:
        return text_of((entry.request.data or {}).get("token"))
    return sent_token(entry) if kind in (Kind.CUBBYHOLE_READ, Kind.REFUSED) else ""


def derived_token(entry: Entry, kind: Kind) -> str:
    """Return the HMAC of a derived token, or "".

    The token belongs to a task's token from this line on.
    """
    response = entry.response or Response()
    if entry.type == "request":
        return stored_form(entry, kind)
    if kind is Kind.UNWRAPPED:
        return response.auth.client_token if response.auth else ""
    wrapped = kind in (Kind.TOKEN_CREATED, Kind.REWRAPPED, Kind.USED) and not has_failed(entry)
    return response.wrap_info.token if response.wrap_info and wrapped else ""


def stored_form(entry: Entry, kind: Kind) -> str:
    """Return the HMAC of a task token in HashiCorp Vault's stored form.

    The result is empty if both forms are equal. Later lines can name the token in the stored form alone: a use
    after its end, and a revocation that names it in the body.
    """
    auth = entry.auth or Auth()
    own = kind in (Kind.USED, Kind.DENIED) or entry.request.path in OWN_ACTS
    kept = entry.request.client_token
    return kept if own and auth.client_token and kept != auth.client_token and is_task_token(auth) else ""
