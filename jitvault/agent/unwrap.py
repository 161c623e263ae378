"""Unwrap a task token and read with it. This code runs beside the agent.

Before anything is unwrapped, Vault is asked which path created the wrapping token. One that was created elsewhere is
not jitvault's, and unwrapping it would give the agent a credential that no task tracks.
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
from jitvault.model.token_limits import TokenLimits
from jitvault.model.vault_access import ROLE_PREFIX, Fetch
from jitvault.vault.client import Vault
from jitvault.vault.wrapping import Wrapping

_BUSY_PATIENCE_S = 20.0
CREATION_PATH = f"auth/token/create/{ROLE_PREFIX}"
_NOT_YOURS = (
    "If somebody opened it, your refused unwrap shows that: the task ends as intercepted, and all that was read with "
    "its token is revoked. As the agent, stop and tell the operator. As the operator, see in `jitvault status TASK` "
    "who was first; then `jitvault findings close --agent NAME --reason WHY`, and submit a task with another id."
)


@dataclass(frozen=True, slots=True)
class TaskToken:
    """The token of one task.

    `reads` are the requests that give its credentials. `limits` is None for a token of an older worker, which does
    not say them.
    """

    task_id: str
    token: Secret
    expires_at: datetime
    reads: tuple[Fetch, ...]
    limits: TokenLimits | None = None


def wrapping_token(given: str) -> Secret:
    """Return the wrapping token that was given.

    It is the text itself, or in the JSON that `grant` printed. Raises InvalidInput.
    """
    text = given.strip()
    if not text.startswith("{"):
        if not text or any(c.isspace() for c in text) or len(text) > 4096:
            raise InvalidInput("this is neither a wrapping token nor the JSON output of `jitvault grant`")
        return Secret(text)
    try:
        wrapping = msgspec.json.decode(text.encode())["wrapping"]
        return Secret(str(wrapping[0]["token"]))
    except (msgspec.MsgspecError, KeyError, TypeError, IndexError, UnicodeEncodeError):
        raise InvalidInput(
            "this JSON holds no wrapping token: it is not the output of `jitvault grant`, or the token was taken before"
        ) from None


def unwrap(vault: Vault, token: Secret) -> TaskToken:
    """Return the task token inside the wrapping token `token`.

    Raises SecurityFinding for a wrapping token that jitvault did not create, NotFound for one that was used or has
    expired.
    """
    wrapping = Wrapping(vault)
    creation_path = wrapping.creation_path(token)
    if creation_path is None:
        raise _not_valid()
    if not creation_path.startswith(CREATION_PATH):
        raise SecurityFinding(
            f"this wrapping token was made at {creation_path}, not by jitvault: it was not unwrapped",
            hint="It may have been replaced. Tell the person who gave it to you.",
        )
    inside = wrapping.unwrap(token)
    if inside is None:
        raise _not_valid()
    return TaskToken(
        task_id=inside.meta.get("jitvault_task", ""),
        token=inside.token,
        expires_at=inside.expires_at,
        reads=tuple(Fetch.of_word(word) for word in inside.meta.get("jitvault_reads", "").split()),
        limits=TokenLimits.of_word(inside.meta.get("jitvault_limits", "")),
    )


def read_all(vault: Vault, held: TaskToken) -> Sequence[dict[str, Any]]:
    """Read every credential that the task may have, with the task's token.

    Returns `{template, path, lease_id, fields}` for each. Raises NotFound where the engine has no such role, and what
    Vault's refusals raise.
    """
    own = vault.with_token(held.token)
    found = []
    for fetch in held.reads:
        answer = _read_when_allowed(own, fetch)
        if answer is None:
            raise NotFound(
                f"Vault has nothing at {fetch.path}", hint="Tell the operator that the engine's role is missing."
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


def _read_when_allowed(own: Vault, fetch: Fetch) -> dict[str, Any] | None:
    """Read a credential; try again while the path's rate limit refuses.

    Giving up at once would lose the task token, and other tasks may use the limit from the same address. Raises
    VaultBusy after _BUSY_PATIENCE_S.
    """
    patience = time.monotonic() + _BUSY_PATIENCE_S
    while True:
        try:
            return own.read(fetch.path) if fetch.capability == "read" else own.write(fetch.path, fetch.data)
        except VaultBusy:
            if time.monotonic() > patience:
                raise


def _not_valid() -> NotFound:
    return NotFound(
        "this wrapping token cannot be opened: it has expired, or somebody opened it before you",
        hint=_NOT_YOURS,
    )
