"""Unwrap a task token and read with it. This code runs beside the agent.

Before anything is unwrapped, Vault is asked which path created the wrapping token. One that was created elsewhere is
not jitvault's, and unwrapping it would give the agent a credential that no task tracks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jitvault.agent.credential import Credential
from jitvault.agent.system_authorities import with_authorities
from jitvault.errors import InvalidInput, NotFound, SecurityFinding, VaultBusy
from jitvault.formats.secret import Secret
from jitvault.formats.time_window import parse_duration
from jitvault.formats.token_pattern import is_wrapping
from jitvault.model.connection import CredentialUse, uses_of_word
from jitvault.model.token_limits import TokenLimits
from jitvault.model.vault_access import ROLE_PREFIX, Fetch
from jitvault.vault.client import Vault
from jitvault.vault.wrapping import Wrapping

_BUSY_PATIENCE_S = 20.0
_WHICH = (
    "Use the file that `jitvault grant SPEC --out FILE` wrote, or, where the spec says `deliver: agent`, the id of the "
    "task: `jitvault unwrap TASK`. Nothing was unwrapped."
)
CREATION_PATH = f"auth/token/create/{ROLE_PREFIX}"
_NOT_YOURS = (
    "If somebody opened it, your refused unwrap shows that: the task ends as intercepted, and all that was read with "
    "its token is revoked. As the agent, stop and tell the operator. As the operator, see in `jitvault status TASK` "
    "who was first; then have whoever has the worker's identity run `jitvault findings close --agent NAME --reason "
    "WHY`, and submit a task with another id."
)


@dataclass(frozen=True, slots=True)
class TaskToken:
    """The token of one task.

    `reads` are the requests that give its credentials. `expires_at` is its end if nobody renews it, `ends_at` the
    deadline that the task had when the token was issued.
    `grant_id` is the grant that the token is of. `heartbeat` is how long the token may do nothing before its task ends.
    """

    task_id: str
    token: Secret
    expires_at: datetime
    reads: tuple[Fetch, ...]
    limits: TokenLimits | None = None
    ends_at: datetime | None = None
    uses: tuple[CredentialUse, ...] = ()
    grant_id: str = ""
    heartbeat: timedelta | None = None

    def use_of(self, fetch: Fetch) -> CredentialUse:
        """Return where the credential of a request is used."""
        found = (use for use in self.uses if (use.template, use.path) == (fetch.template, fetch.path))
        return next(found, CredentialUse(template=fetch.template, path=fetch.path))


def wrapping_token(given: str) -> Secret:
    """Return the wrapping token that was given.

    It is the text itself, or in the JSON that `grant` printed. Raises InvalidInput.
    """
    text = given.strip()
    if not text.startswith("{"):
        if not is_wrapping(text):
            raise InvalidInput("this is neither a wrapping token nor the JSON output of `jitvault grant`", hint=_WHICH)
        return Secret(text)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        # the error's own text has nothing of the document
        first = given.index(text[0])
        line = given.count("\n", 0, first) + error.lineno
        raise InvalidInput(f"this is no JSON: line {line}, column {error.colno}: {error.msg}", hint=_WHICH) from None
    except RecursionError:
        raise InvalidInput("this JSON is nested too deeply", hint=_WHICH) from None
    try:
        return Secret(str(document["wrapping"][0]["token"]))
    except (KeyError, TypeError, IndexError):
        raise InvalidInput(
            "this JSON holds no wrapping token: it is not the output of `jitvault grant`, or the token was taken "
            "before",
            hint=_WHICH,
        ) from None


def unwrap(vault: Vault, token: Secret) -> TaskToken:
    """Return the task token inside the wrapping token `token`.

    Raises SecurityFinding for a wrapping token that jitvault did not create, NotFound for one that was used or has
    expired.
    """
    wrapping = Wrapping(vault)
    creation_path = wrapping.creation_path(token)
    if creation_path is None:
        # A failed look-up does not name the wrapping in the audit stream. A refused unwrap does, and so shows jitvault
        # that the token was unwrapped before.
        wrapping.unwrap(token)
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
        ends_at=_instant(inside.meta.get("jitvault_ends_at", "")),
        uses=uses_of_word(inside.meta.get("jitvault_uses", "")),
        grant_id=inside.meta.get("jitvault_grant", ""),
        heartbeat=_duration(inside.meta.get("jitvault_heartbeat", "")),
    )


def _instant(word: str) -> datetime | None:
    """Return the instant that a worker wrote, None for any other text."""
    try:
        found = datetime.fromisoformat(word)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else None


def _duration(word: str) -> timedelta | None:
    """Return the duration that a worker wrote, None for any other text."""
    try:
        return parse_duration(word)
    except InvalidInput:
        return None


def read_all(vault: Vault, held: TaskToken) -> Iterator[Credential]:
    """Read every credential that the task may have, with the task's token.

    They are read one by one as they are taken, so that the caller knows how many there were where a read fails. Raises
    NotFound where the engine has no such role, and what Vault's refusals raise.
    """
    own = vault.with_token(held.token)
    for fetch in held.reads:
        answer = _read_when_allowed(own, fetch)
        if answer is None:
            raise NotFound(
                f"Vault has nothing at {fetch.path}", hint="Tell the operator that the engine's role is missing."
            )
        ends = datetime.now(UTC) + timedelta(seconds=int(answer.get("lease_duration") or 0))
        yield Credential(
            use=with_authorities(held.use_of(fetch)),
            lease_id=answer.get("lease_id") or "",
            fields=answer["data"],
            # with the token its leases end; a credential without a lease ends with nothing else
            expires_at=min(ends, held.expires_at) if answer.get("lease_duration") else held.expires_at,
        )


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
