"""Unwrap wrapping tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jitvault.errors import VaultRejected, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.vault.client import Vault


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A task token as its agent receives it.

    `expires_at` is computed from when the answer arrived.
    """

    token: Secret
    policies: tuple[str, ...]
    meta: dict[str, str]
    expires_at: datetime


class Wrapping:
    """`sys/wrapping`, with the wrapping token as the only identity."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def creation_path(self, token: Secret) -> str | None:
        """Return the path whose answer was wrapped.

        None when the wrapping token is not valid any more.
        """
        try:
            found = self._vault.ask("sys/wrapping/lookup", {"token": token.reveal()})
        except VaultRejected:
            return None
        return str(found["creation_path"])

    def unwrap(self, token: Secret) -> Unwrapped | None:
        """Return the task token inside.

        None when the wrapping token was used already or has expired.
        """
        answer = self._unwrap_once(token)
        return _unwrapped(answer) if answer is not None else None

    def unwrap_data(self, token: Secret) -> dict[str, Any] | None:
        """Return the fields of a wrapped answer that is no token.

        None when the wrapping token was used already or has expired.
        """
        answer = self._unwrap_once(token)
        return None if answer is None else answer.get("data") or {}

    def _unwrap_once(self, token: Secret) -> dict[str, Any] | None:
        try:
            # to Vault a second unwrap is theft
            return self._vault.with_token(token).write("sys/wrapping/unwrap", once=True)
        except VaultRejected:
            return None


def _unwrapped(answer: dict[str, Any]) -> Unwrapped:
    auth = answer.get("auth")
    if not auth:
        raise VaultUnavailable("the wrapped answer holds no token", hint="It was not made by jitvault.")
    return Unwrapped(
        token=Secret(auth["client_token"]),
        policies=tuple(auth.get("policies") or ()),
        meta=auth.get("metadata") or {},
        expires_at=datetime.now(UTC) + timedelta(seconds=int(auth.get("lease_duration") or 0)),
    )
