"""What a task token may do, as Vault sees it: content-addressed ACL policies and token roles by cap.

A policy's name is the hash of its text, so a policy that an approver saw by name cannot become another.
On renewal only a role's cap counts, and CIDRs exist only on roles (docs/vault-facts.md, "Tokens and wrapping"), so
there is one role for each cap and each network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from jitvault.errors import InvalidInput
from jitvault.formats.canonical_json import sha256_hex

ACCESS_POLICY = "jitvault-access-"
ROLE_PREFIX = "jitvault-"
WORKER_POLICY = "jitvault-worker"
CAPS = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "8h": timedelta(hours=8)}

Capability = Literal["read", "update"]

# What can be pinned. Vault takes a `*` at either end of a value for a wildcard, HCL a quote for its end.
DATA_KEY = r"[a-z][a-z0-9_]{0,63}"
DATA_VALUE = r"[A-Za-z0-9._@:/,-]{1,256}"


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """One ACL policy: exactly one path, what may be sent to it, and the token's own two endpoints."""

    name: str
    text: str
    sha256: str


def access_policy(path: str, capability: Capability = "read", data: Mapping[str, str] | None = None) -> AccessPolicy:
    """The policy that lets a task token read the Vault path `path`, or send exactly `data` to it, and nothing else.

    Raises InvalidInput for data that is to be read with, or that could mean something else in a policy.
    """
    rules = _pinned(path, data or {}) if capability == "update" else _read_only(path, data or {})
    text = (
        f'path "{path}" {{\n{rules}}}\n\n'
        'path "auth/token/lookup-self" {\n  capabilities = ["read"]\n}\n\n'
        'path "auth/token/revoke-self" {\n  capabilities = ["update"]\n}\n'
    )
    sha256 = sha256_hex(text.encode())
    return AccessPolicy(ACCESS_POLICY + sha256[:16], text, sha256)


def _read_only(path: str, data: Mapping[str, str]) -> str:
    if data:
        raise InvalidInput(f"{path} is read, and with a read nothing can be sent: spec.data has to be empty")
    return '  capabilities = ["read"]\n'


def _pinned(path: str, data: Mapping[str, str]) -> str:
    """The stanza's inside: each parameter with its one value, all of them required, no other allowed."""
    for key, value in data.items():
        if not re.fullmatch(DATA_KEY, key) or not re.fullmatch(DATA_VALUE, value):
            raise InvalidInput(f"{path}: {key!r:.80} = {value!r:.80} cannot be pinned in an access policy")
    if not data:
        # an empty list of allowed parameters would allow all of them
        return '  capabilities      = ["update"]\n  denied_parameters = { "*" = [] }\n'
    required = ", ".join(f'"{key}"' for key in sorted(data))
    allowed = ", ".join(f'"{key}" = ["{data[key]}"]' for key in sorted(data))
    return (
        '  capabilities        = ["update"]\n'
        f"  required_parameters = [{required}]\n"
        f"  allowed_parameters  = {{ {allowed} }}\n"
    )


@dataclass(frozen=True, slots=True)
class Fetch:
    """One request that gives a credential: a read of `path`, or `data` sent to it. `template` is what allows it."""

    template: str
    path: str
    capability: Capability = "read"
    data: Mapping[str, str] = field(default_factory=dict)

    def as_word(self) -> str:
        """In one word, as a task token's metadata have it: `template=path`, with `?key=value&…` where it is sent."""
        sent = f"?{urlencode(sorted(self.data.items()))}" if self.capability == "update" else ""
        return f"{self.template}={self.path}{sent}"

    @classmethod
    def of_word(cls, word: str) -> Fetch:
        """What `as_word` made."""
        template, _, rest = word.partition("=")
        path, sends, sent = rest.partition("?")
        return cls(template, path, "update" if sends else "read", dict(parse_qsl(sent, keep_blank_values=True)))


def sent(fetches: Iterable[Fetch]) -> dict[str, dict[str, str]]:
    """What has to be sent, by the path that it is sent to; nothing of what is read."""
    return {fetch.path: dict(fetch.data) for fetch in fetches if fetch.capability == "update"}


def role_name(cap: str, network: str | None) -> str:
    """The token role of a cap (`15m`, `1h`, `8h`) and a named network."""
    return f"{ROLE_PREFIX}{cap}" + (f"-{network}" if network else "")


def cap_of(role: str) -> timedelta:
    """The longest life of a token of a role that `role_name` names."""
    return CAPS[role.removeprefix(ROLE_PREFIX).partition("-")[0]]


def last_end(role: str, made_at: datetime | None) -> datetime | None:
    """The latest end of a token of the role, however often it is renewed.

    None where nobody knows when it was made, or where the role is none of ours: a row that was edited is no bound.
    """
    cap = CAPS.get(role.removeprefix(ROLE_PREFIX).partition("-")[0])
    return made_at + cap if made_at and cap else None


def smallest_cap(window: timedelta) -> str:
    """The smallest cap that covers `window`. Raises InvalidInput when none does."""
    for cap, length in CAPS.items():
        if window <= length:
            return cap
    raise InvalidInput(f"expected a window of at most {max(CAPS.values())}")
