"""What one audit entry says by itself.

That is who acted, which tokens it names, whether Vault refused the act, and whether the act failed.
"""

from __future__ import annotations

import re

from jitvault.audit.audit_form import is_hashed
from jitvault.audit.entry import Auth, Entry, Request, Response
from jitvault.audit.hazard_paths import READING
from jitvault.audit.observation import Kind
from jitvault.documents.paths import OF_WORKER, vault_path
from jitvault.model.vault_access import ACCESS_POLICY, WORKER_POLICY

# All parts of an engine of KV version 2 by which a document is written, or taken away.
_PARTS = ("data", "metadata", "delete", "undelete", "destroy")
OF_WORKER_PATHS = tuple(vault_path(part, begins) for part in _PARTS for begins in OF_WORKER)
SIGNATURES = "jitvault-transit/sign/jitvault-receipts"
# An error that consists of refusals alone: an error that an engine passes on may mention permissions, too. Blanks are
# matched in one place only, so that a long run of them is read once.
_DENIED = re.compile(r"(\d+ errors? occurred:)?(\s*(\*\s*)?(permission denied|invalid token))+\s*")
OWN_ACTS = ("auth/token/revoke-self", "auth/token/renew-self")
_SELF = ("auth/token/renew-self", "auth/token/lookup-self")
_BY_TOKEN = ("auth/token/renew", "auth/token/lookup")
_BY_ACCESSOR = ("auth/token/renew-accessor", "auth/token/lookup-accessor")
REVOKE_BY_TOKEN = ("auth/token/revoke", "auth/token/revoke-orphan")
# The policy of every wrapping token; Vault lets no other token have it.
WRAPPING_POLICY = "response-wrapping"


def operation_of(request: Request) -> str:
    """Return the operation id that the request has, empty for none. Anyone may write one there."""
    found = (request.headers or {}).get("x-jitvault-op") or [""]
    return found[0][:64]


def is_spent(entry: Entry) -> bool:
    """Return whether a request that it may not make used up a wrapping token.

    Vault refuses that request, and the wrapping token is used up.
    """
    return entry.auth is not None and WRAPPING_POLICY in (entry.auth.policies or ()) and is_refused(entry)


def has_hashed_accessor(auth: Auth | None) -> bool:
    """Return whether the device shows accessors as HMACs.

    A device that shows them in plain links no line to a token of ours, so its canaries do not count.
    """
    return auth is None or not auth.accessor or is_hashed(auth.accessor)


def is_task_token(auth: Auth | None) -> bool:
    """Return whether a token holds an access policy of jitvault's.

    Only tokens that were created through jitvault's roles do.
    """
    return any(p.startswith(ACCESS_POLICY) for p in (auth.policies or ())) if auth else False


def is_signature(request: Request) -> bool:
    return request.path.startswith(SIGNATURES) and request.operation not in READING


def is_publication(entry: Entry) -> bool:
    """Return whether the worker wrote or took away what it alone writes.

    Others may: an entity empties its own inbox, and an administrator may do anything.
    """
    request = entry.request
    return request.path.startswith(OF_WORKER_PATHS) and request.operation not in READING and is_workers(entry)


def is_refused(entry: Entry) -> bool:
    """Return whether Vault itself refused, so that nothing was done."""
    return bool(_DENIED.fullmatch(entry.error))


def is_open_to_all(entry: Entry) -> bool:
    """Return whether Vault allowed the request without any policy.

    Vault does so for paths that need no token, and gives no lease at such a path (docs/vault-facts.md, "Wrapped
    answers"). A line that does not say by which policy a request was allowed, nor that it was, shows nothing of the
    kind.
    """
    said = entry.auth.policy_results if entry.auth else None
    return said is not None and said.allowed and not said.granting_policies


def is_about_itself(entry: Entry) -> bool:
    """Return whether a task's token looked up or renewed itself.

    Of a request that names a token in its body, both are HMACs of one form: that of the header's token and that of
    the named one.
    """
    path, auth = entry.request.path, entry.auth
    if auth is None or not is_task_token(auth):
        return False
    data = entry.request.data or {}
    if path in _BY_TOKEN:
        return is_hashed(entry.request.client_token) and data.get("token") == entry.request.client_token
    if path in _BY_ACCESSOR:
        return is_hashed(auth.accessor) and data.get("accessor") == auth.accessor
    return path in _SELF


def has_failed(entry: Entry) -> bool:
    """Return whether the line shows that the act was not done.

    It shows an error, or a mere acceptance (202).
    """
    data = (entry.response.data if entry.response else None) or {}
    return bool(entry.error) or "error" in data or data.get("http_status_code") == 202


def error_of(entry: Entry) -> str:
    data = (entry.response.data if entry.response else None) or {}
    return text_of(data.get("error")) or entry.error


def is_workers(entry: Entry) -> bool:
    """Return whether the caller's token holds the worker's policy.

    Vault itself states the policies.
    """
    return entry.auth is not None and WORKER_POLICY in (entry.auth.policies or ())


def sent_token(entry: Entry) -> str:
    """Return the HMAC of the header's token, in the form that Vault issued.

    `auth.client_token` has that form on both servers, also if the header has a JWT with the wrapping token in it.
    For a token that Vault does not know there is only `request.client_token`.
    """
    return (entry.auth.client_token if entry.auth else "") or entry.request.client_token


def is_unwrap(entry: Entry) -> bool:
    return entry.request.path.startswith("sys/wrapping/")


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


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
