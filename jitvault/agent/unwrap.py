"""Take a task token out of its wrapping, and read with it. This runs beside the agent.

Before anything is unwrapped, Vault is asked where the wrapping token came from: one that was made elsewhere
is not jitvault's, and unwrapping it would hand the agent a credential that nobody watches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from jitvault.errors import InvalidInput, NotFound, SecurityFinding, VaultBusy
from jitvault.formats.secret import Secret
from jitvault.model.vault_access import ROLE_PREFIX, Fetch
from jitvault.vault.client import Vault
from jitvault.vault.wrapping import Wrapping

_BUSY_PATIENCE_S = 20.0
CREATION_PATH = f"auth/token/create/{ROLE_PREFIX}"


@dataclass(frozen=True, slots=True)
class TaskToken:
    """What the agent holds for one task. `reads` are the requests that give it its credentials."""

    task_id: str
    token: Secret
    expires_at: datetime
    reads: tuple[Fetch, ...]


def wrapping_token(given: str) -> Secret:
    """The wrapping token in what was given: the token itself, or the JSON that `grant` printed."""
    text = given.strip()
    if not text.startswith("{"):
        if not text or any(c.isspace() for c in text) or len(text) > 4096:
            raise InvalidInput("this is neither a wrapping token nor grant's JSON")
        return Secret(text)
    try:
        wrapping = msgspec.json.decode(text.encode())["wrapping"]
        return Secret(str(wrapping[0]["token"]))
    except (msgspec.MsgspecError, KeyError, TypeError, IndexError, UnicodeEncodeError):
        raise InvalidInput(
            "this JSON holds no wrapping token: it is not grant's, or the token was given out before"
        ) from None


def unwrap(vault: Vault, token: Secret) -> TaskToken:
    """The task token inside `token`. Raises SecurityFinding for a token that jitvault did not make, NotFound
    for one that is spent or over.
    """
    wrapping = Wrapping(vault)
    made_at = wrapping.creation_path(token)
    if made_at is None:
        raise _spent()
    if not made_at.startswith(CREATION_PATH):
        raise SecurityFinding(
            f"this wrapping token was made at {made_at}, not by jitvault: it was not unwrapped",
            hint="Somebody may have replaced it. Tell whoever gave it to you.",
        )
    inside = wrapping.unwrap(token)
    if inside is None:
        raise _spent()
    return TaskToken(
        task_id=inside.meta.get("jitvault_task", ""),
        token=inside.token,
        expires_at=inside.expires_at,
        reads=tuple(Fetch.of_word(word) for word in inside.meta.get("jitvault_reads", "").split()),
    )


def read_all(vault: Vault, held: TaskToken) -> Sequence[dict[str, Any]]:
    """Ask for every credential that the task may have, with its own token: `{template, path, lease_id, fields}` each.

    Raises NotFound where the engine has no such role, and what Vault's refusals raise.
    """
    own = vault.with_token(held.token)
    found = []
    for fetch in held.reads:
        answer = _patiently(own, fetch)
        if answer is None:
            raise NotFound(
                f"Vault has nothing at {fetch.path}", hint="The engine's role is missing: tell the operator."
            )
        found.append(
            {
                "template": fetch.template,
                "path": fetch.path,
                "lease_id": answer.get("lease_id") or "",
                "fields": answer["data"],
            }
        )
    return found


def _patiently(own: Vault, fetch: Fetch) -> dict[str, Any] | None:
    """Ask once more for as long as the path's limit keeps this address out: the token is lost if we give up.

    Others may have the same address. Raises VaultBusy where it goes on for too long.
    """
    patience = time.monotonic() + _BUSY_PATIENCE_S
    while True:
        try:
            return own.read(fetch.path) if fetch.capability == "read" else own.write(fetch.path, fetch.data)
        except VaultBusy:
            if time.monotonic() > patience:
                raise


def _spent() -> NotFound:
    return NotFound(
        "this wrapping token is not valid: its time is over, or somebody unwrapped it",
        hint="If it was not you, tell the operator at once: the task has to be ended with `jitvault revoke`.",
    )
