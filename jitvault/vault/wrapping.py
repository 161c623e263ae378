"""Wrapping tokens, from the side of whoever unwraps them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from jitvault.errors import VaultRejected, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.vault.client import Vault


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A task token as its agent receives it. `expires_at` is computed from the answer's arrival."""

    token: Secret
    policies: tuple[str, ...]
    meta: dict[str, str]
    expires_at: datetime


class Wrapping:
    """`sys/wrapping`, with no identity but the wrapping token itself."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def creation_path(self, token: Secret) -> str | None:
        """Where the wrapped answer came from, or None when the wrapping token is not valid any more."""
        try:
            answer = self._vault.write("sys/wrapping/lookup", {"token": token.reveal()})
        except VaultRejected:
            return None
        return str(answer["data"]["creation_path"])

    def unwrap(self, token: Secret) -> Unwrapped | None:
        """The task token, or None when somebody unwrapped it first or its time is over."""
        answer = self._taken_out(token)
        return _unwrapped(answer) if answer is not None else None

    def unwrap_data(self, token: Secret) -> dict[str, Any] | None:
        """The fields of a wrapped answer that is no token, or None as above."""
        answer = self._taken_out(token)
        return None if answer is None else answer.get("data") or {}

    def _taken_out(self, token: Secret) -> dict[str, Any] | None:
        try:
            return self._vault.with_token(token).write("sys/wrapping/unwrap")
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
