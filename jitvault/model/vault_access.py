"""What a task token may do in Vault: ACL policies, and roles by cap.

A policy's name is the hash of its text, so the policy that an approver saw by name cannot become another one.
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
WORKER_RIGHTS_MEND = (
    "The policy jitvault-worker in Vault is older than this version, was edited, or is not on the worker's token: an "
    "administrator runs `jitvault init`, which shows and mends the difference, or corrects the worker's login."
)
OPERATOR_POLICY = "jitvault-operator"
REVOCATION_BEGUN = -1
"""The `num_uses` of a token whose revocation has begun; Vault does not accept such a token any more."""
CAPS = {"15m": timedelta(minutes=15), "1h": timedelta(hours=1), "8h": timedelta(hours=8)}

Capability = Literal["read", "update"]

# What can be pinned in a policy. Vault reads a `*` at either end of a value as a wildcard, HCL a quote as its end.
DATA_KEY = r"[a-z][a-z0-9_]{0,63}"
DATA_VALUE = r"[A-Za-z0-9._@:/,-]{1,256}"


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """One ACL policy of a task token.

    It covers exactly one path, what may be sent to that path, and the token's own two endpoints.
    """

    name: str
    text: str
    sha256: str


def access_policy(path: str, capability: Capability = "read", data: Mapping[str, str] | None = None) -> AccessPolicy:
    """Return the policy for reading `path`, or for sending exactly `data`.

    A task token that has it may do nothing else.

    Raises InvalidInput for data with a read, and for data that could mean something else in a policy.
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
        raise InvalidInput(f"{path} is read, and a read sends no data: spec.data has to be empty")
    return '  capabilities = ["read"]\n'


def _pinned(path: str, data: Mapping[str, str]) -> str:
    """Return the body of the stanza, with each parameter pinned.

    Each has its one value, all are required, and no other parameter is allowed.
    """
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
    """One request for a credential: a read of `path`, or a write of `data`.

    `template` is the template that allows the request.
    """

    template: str
    path: str
    capability: Capability = "read"
    data: Mapping[str, str] = field(default_factory=dict)

    def as_word(self) -> str:
        """Return the text for a task token's metadata.

        It is `template=path`, followed by `?key=value&…` for a write.
        """
        sent = f"?{urlencode(sorted(self.data.items()))}" if self.capability == "update" else ""
        return f"{self.template}={self.path}{sent}"

    @classmethod
    def of_word(cls, word: str) -> Fetch:
        """Parse what `as_word` wrote."""
        template, _, rest = word.partition("=")
        path, sends, sent = rest.partition("?")
        return cls(template, path, "update" if sends else "read", dict(parse_qsl(sent, keep_blank_values=True)))


def data_by_path(fetches: Iterable[Fetch]) -> dict[str, dict[str, str]]:
    """Return the data to send, by path; paths that are read are left out."""
    return {fetch.path: dict(fetch.data) for fetch in fetches if fetch.capability == "update"}


def role_name(cap: str, network: str | None) -> str:
    """Return the name of the token role of a cap and a network.

    A cap is `15m`, `1h` or `8h`; the network is a named one.
    """
    return f"{ROLE_PREFIX}{cap}" + (f"-{network}" if network else "")


def cap_of(role: str) -> timedelta:
    """Return the longest life of a token of the role.

    `role` is a name made by `role_name`.
    """
    return CAPS[role.removeprefix(ROLE_PREFIX).partition("-")[0]]


def last_end(role: str, made_at: datetime | None) -> datetime | None:
    """Return the latest end of a token of the role, however it is renewed.

    The result is None if the creation time is unknown, or if the role is not one of jitvault's: a ledger row that
    was edited is no bound.
    """
    cap = CAPS.get(role.removeprefix(ROLE_PREFIX).partition("-")[0])
    return made_at + cap if made_at and cap else None


def smallest_cap(window: timedelta) -> str:
    """Return the smallest cap that covers `window`.

    Raises InvalidInput if none does.
    """
    for cap, length in CAPS.items():
        if window <= length:
            return cap
    raise InvalidInput(f"expected a window of at most {max(CAPS.values())}")
