"""How an agent's login is set up in Vault, by its kind. Pure.

Each agent has one entity and one role. The role accepts exactly one subject and gives batch tokens of a minute or two:
they carry the entity's policies, cannot be renewed, and leave nothing behind that would have to be revoked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import Any, Literal

from jitvault.errors import InvalidInput

Kind = Literal["spiffe", "kubernetes", "github", "cert", "approle"]
Method = Literal["jwt", "cert", "approle"]
KINDS: tuple[Kind, ...] = ("spiffe", "kubernetes", "github", "cert", "approle")
AUDIENCE = "vault"
SHORTEST_S, LONGEST_S = 60, 120
_METHODS: Mapping[Kind, Method] = {
    "spiffe": "jwt",
    "kubernetes": "jwt",
    "github": "jwt",
    "cert": "cert",
    "approle": "approle",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,4}")
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]{1,255}){1,16}")
_KUBERNETES = re.compile(r"([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})")
_GITHUB = re.compile(r"([A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}):([A-Za-z0-9._ -]{1,255})")
# a common name that would be a pattern in the role is none here
_COMMON_NAME = re.compile(r"[A-Za-z0-9._ @-]{1,64}")


@dataclass(frozen=True, slots=True)
class AgentLogin:
    """One way for an agent to prove who it is.

    `subject` is what the auth method calls the agent: the `sub` of its JWT, or the common name of its certificate. It
    is empty for an AppRole, whose role id Vault makes. `authority` is the PEM of the CA that issues the certificate.
    """

    kind: Kind
    mount: str
    subject: str = ""
    audience: str = ""
    authority: str = ""
    cidrs: tuple[str, ...] = ()
    ttl_s: int = LONGEST_S

    @property
    def method(self) -> Method:
        """The type of the auth method."""
        return _METHODS[self.kind]

    def role_path(self, name: str) -> str:
        """Return the path of the agent's role."""
        return f"{roles_path(self.method, self.mount)}/{name}"

    def role(self) -> dict[str, Any]:
        """Return the agent's role as it is written."""
        token: dict[str, Any] = {
            "token_type": "batch",
            "token_ttl": self.ttl_s,
            "token_max_ttl": self.ttl_s,
            "token_policies": [],
            "token_no_default_policy": True,
            "token_bound_cidrs": list(self.cidrs),
        }
        if self.method == "cert":
            return token | {"certificate": self.authority, "allowed_common_names": [self.subject]}
        if self.method == "approle":
            return token | {
                "bind_secret_id": True,
                "secret_id_bound_cidrs": list(self.cidrs),
                "secret_id_num_uses": 0,
                "secret_id_ttl": 90 * 86400,
            }
        return token | {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_subject": self.subject,
            "bound_audiences": [self.audience],
            # without these a JWT is accepted for two and a half minutes after its end
            "expiration_leeway": -1,
            "not_before_leeway": -1,
            "clock_skew_leeway": -1,
        }

    def environment(self, name: str, role_id: str) -> dict[str, str]:
        """Return what is set on the agent's host, by variable.

        A value in capitals is for the reader to fill in.
        """
        way = "spiffe" if self.kind == "spiffe" else self.method
        found: dict[str, str] = {"JITVAULT_AGENT_LOGIN": way}
        if self.mount != ("jwt" if way == "spiffe" else way):
            found["JITVAULT_AGENT_LOGIN_MOUNT"] = self.mount
        if self.method == "approle":
            return found | {"JITVAULT_AGENT_ROLE_ID": role_id, "JITVAULT_AGENT_SECRET_ID_FILE": "FILE"}
        found["JITVAULT_AGENT_LOGIN_ROLE"] = name
        if self.kind == "spiffe":
            return found | {"JITVAULT_AGENT_LOGIN_AUDIENCE": self.audience, "SPIFFE_ENDPOINT_SOCKET": "unix://PATH"}
        if self.method == "cert":
            return found | {"VAULT_CLIENT_CERT": "FILE", "VAULT_CLIENT_KEY": "FILE"}
        return found | {"JITVAULT_AGENT_JWT_FILE": "FILE"}


def roles_path(method: Method, mount: str) -> str:
    """Return the path below which an auth method keeps its roles."""
    return f"auth/{mount}/{'certs' if method == 'cert' else 'role'}"


def agent_login(
    kind: Kind,
    value: str,
    *,
    mount: str | None = None,
    audience: str = AUDIENCE,
    authority: str = "",
    cidrs: tuple[str, ...] = (),
    ttl_s: int = LONGEST_S,
) -> AgentLogin:
    """Return the login of an agent that is known by `value`.

    The values are as the options of `agents add` write them.     Raises InvalidInput for what the kind does not know.
    """
    if not SHORTEST_S <= ttl_s <= LONGEST_S:
        raise InvalidInput(f"--ttl: expected {SHORTEST_S}s to {LONGEST_S}s", hint=_LIFE)
    place = (mount or _METHODS[kind]).strip("/")
    if not _MOUNT.fullmatch(place):
        raise InvalidInput(f"--mount {place!r:.80}: expected the path of an auth method", hint=_OPTION)
    if _METHODS[kind] == "jwt" and not audience:
        raise InvalidInput("--audience: expected one audience", hint=_OPTION)
    if kind == "cert" and not authority:
        raise InvalidInput("--cert-cn needs --ca FILE, the CA that issues the agent's certificate", hint=_OPTION)
    try:
        networks = tuple(sorted({str(ip_network(cidr)) for cidr in cidrs}))
    except ValueError as error:
        raise InvalidInput(f"--cidr: {error}; expected a CIDR such as 10.0.0.5/32", hint=_OPTION) from None
    return AgentLogin(
        kind=kind,
        mount=place,
        subject=_subject(kind, value),
        audience=audience if _METHODS[kind] == "jwt" else "",
        authority=authority,
        cidrs=networks,
        ttl_s=ttl_s,
    )


def check_name(name: str) -> None:
    """Raise InvalidInput for a name that no agent can have."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"agent {name!r:.80}: expected a name of 1 to 63 of a-z 0-9 -", hint=_OPTION)


def _subject(kind: Kind, value: str) -> str:
    """Return what the auth method calls the agent. Raises InvalidInput."""
    match kind:
        case "spiffe":
            if _SPIFFE.fullmatch(value):
                return value
            expected = "a SPIFFE id such as spiffe://example.org/agents/churn"
        case "kubernetes":
            if found := _KUBERNETES.fullmatch(value):
                return f"system:serviceaccount:{found[1]}:{found[2]}"
            expected = "NAMESPACE/SERVICEACCOUNT"
        case "github":
            if found := _GITHUB.fullmatch(value):
                return f"repo:{found[1]}:environment:{found[2]}"
            expected = "ORG/REPO:ENVIRONMENT"
        case "cert":
            if _COMMON_NAME.fullmatch(value):
                return value
            expected = "a common name of A-Z a-z 0-9 . _ @ - and spaces"
        case "approle":
            return ""
    option = {"cert": "cert-cn", "spiffe": "spiffe-id"}.get(kind, kind)
    raise InvalidInput(f"--{option} {value!r:.200}: expected {expected}", hint=_OPTION)


def impostors(login: AgentLogin, own: str, roles: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield why another role could give somebody else this agent's entity.

    It is a role of the same auth method: Vault finds an entity by the name of its alias alone, whichever role was used.
    `roles` are the method's roles by name, and `own` is the agent's.
    """
    for name, role in sorted(roles.items()):
        if name == own:
            continue
        if login.method == "jwt" and role.get("user_claim") != "sub":
            yield (
                f"the role {name} names entities by the claim {role.get('user_claim')}: who can choose that claim can "
                "become this agent"
            )
        elif login.method == "jwt" and _is_same(str(role.get("bound_subject") or login.subject), login.subject):
            yield f"the role {name} accepts a JWT of {login.subject}, or of a subject that differs in case alone"
        if login.method == "cert" and _admits(role, login):
            yield f"the role {name} trusts another CA, which can issue a certificate with the name {login.subject}"


def _admits(role: Mapping[str, Any], login: AgentLogin) -> bool:
    """Return whether another CA's certificate with the agent's name fits."""
    allowed = role.get("allowed_common_names") or []
    if str(role.get("certificate") or "").strip() == login.authority.strip():
        # one CA issues one name to one holder; the same name in another case may be somebody else's
        return any(_is_same(str(each), login.subject) and str(each) != login.subject for each in allowed)
    return not allowed or any(fnmatchcase(login.subject.lower(), str(pattern).lower()) for pattern in allowed)


def _is_same(one: str, other: str) -> bool:
    """Return whether Vault takes two names of aliases for one.

    It does not heed their case.
    """
    return one.lower() == other.lower()


_OPTION = "`jitvault agents add --help` shows what it takes."
_LIFE = "An agent logs in again by itself. A short life is what ends its own login when it is removed."
