"""OpenBao's audit lines in the form in which HashiCorp Vault writes them, as far as jitvault could tell them apart.

What differs was measured on Vault 1.14.9 (docs/vault-facts.md, "Audit entries"), and `tests/unit/audit/recorded` has
the lines of both servers for the same requests. From Vault 1.17 on keys are in alphabetical order, and since 1.18 an
empty `auth` is left out: both are done here as well.
"""

from __future__ import annotations

import hmac
import json
import secrets
from typing import Any

_VERSION = "v1.14.9+builtin.vault"
_BY_KEPT_TOKEN = ("auth/token/lookup", "auth/token/renew", "auth/token/revoke", "auth/token/revoke-orphan")
_HASHED_TIMES = ("created_time", "creation_time")


class VaultsForm:
    """Rewrites lines; the key of its own makes of each token's HMAC that of the form in which Vault keeps the token."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def __call__(self, raw: bytes) -> bytes:
        """One line of an audit file, with its end."""
        entry = json.loads(raw)
        self._rewrite(entry)
        kept = {key: value for key, value in entry.items() if value != {}}
        return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    def _rewrite(self, entry: dict[str, Any]) -> None:
        request, auth = entry["request"], entry.get("auth") or {}
        response = entry.get("response") or {}
        self._request(request, auth)
        if "response-wrapping" in (auth.get("policies") or ()):
            auth.pop("display_name", None)
        if response.get("data"):
            response["data"] = self._answered(response["data"])
            if request["path"] == "sys/leases/lookup":
                response["data"].pop("path", None)
                response["data"].pop("revoke_error", None)
        for part, name in ((request, "mount_running_version"), (response, "mount_running_plugin_version")):
            if name in part:
                part[name] = _VERSION

    def _request(self, request: dict[str, Any], auth: dict[str, Any]) -> None:
        """The token in the header is shown in the form that is kept, and so is one that a token's own paths name."""
        sent = request.get("client_token")
        if sent and not _has_one_form(sent, auth):
            request["client_token"] = self._hashed(sent)
        if request.get("data"):
            request["data"] = self._asked(request["data"])
            if request["path"] in _BY_KEPT_TOKEN and request["data"].get("token"):
                request["data"]["token"] = self._hashed(request["data"]["token"])

    def _asked(self, value: Any) -> Any:
        """Numbers of a request are hashed as strings are."""
        if isinstance(value, dict):
            return {key: self._asked(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._asked(one) for one in value]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return self._hashed(json.dumps(value)) if is_number else value

    def _answered(self, value: Any) -> Any:
        """Some times of an answer are hashed."""
        if not isinstance(value, dict):
            return value
        return {
            key: self._hashed(one) if key in _HASHED_TIMES and isinstance(one, str) else self._answered(one)
            for key, one in value.items()
        }

    def _hashed(self, text: str) -> str:
        return "hmac-sha256:" + hmac.digest(self._key, text.encode(), "sha256").hex()


def _has_one_form(token: str, auth: dict[str, Any]) -> bool:
    """Whether Vault keeps what was sent as it gave it out: root and batch tokens, and a wrapping token in a JWT."""
    is_jwt = bool(auth.get("client_token")) and auth["client_token"] != token
    return is_jwt or auth.get("token_type") == "batch" or "root" in (auth.get("policies") or ())
