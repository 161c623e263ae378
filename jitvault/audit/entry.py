"""One line of the audit log, with the keys that are used.

Shapes: docs/vault-facts.md, "Audit entries".
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

TARGET_NAMES = ("username", "serial_number")
"""The response keys with the target's name of a credential, shown in plain where `init` tuned the mount."""


class PolicyResults(msgspec.Struct, frozen=True):
    allowed: bool = False
    granting_policies: list[Any] | None = None


class Auth(msgspec.Struct, frozen=True):
    accessor: str = ""
    client_token: str = ""
    policies: list[str] | None = None
    metadata: dict[str, Any] | None = None
    entity_id: str = ""
    token_ttl: int = 0
    policy_results: PolicyResults | None = None


class Namespace(msgspec.Struct, frozen=True):
    id: str = ""
    path: str = ""


class Request(msgspec.Struct, frozen=True):
    id: str = ""
    operation: str = ""
    path: str = ""
    client_token: str = ""
    data: dict[str, Any] | None = None
    headers: dict[str, list[str]] | None = None
    remote_address: str = ""
    namespace: Namespace | None = None
    wrap_ttl: int = 0


class WrapInfo(msgspec.Struct, frozen=True):
    token: str = ""
    wrapped_accessor: str = ""


class SecretInfo(msgspec.Struct, frozen=True):
    lease_id: str = ""


class Response(msgspec.Struct, frozen=True):
    auth: Auth | None = None
    data: dict[str, Any] | None = None
    wrap_info: WrapInfo | None = None
    secret: SecretInfo | None = None
    warnings: list[str] | None = None


class Entry(msgspec.Struct, frozen=True):
    """One audit line, with the keys that are used; other keys are ignored."""

    time: Annotated[datetime, msgspec.Meta(tz=True)]
    type: str
    auth: Auth | None = None
    request: Request = msgspec.field(default_factory=Request)
    response: Response | None = None
    error: str = ""
