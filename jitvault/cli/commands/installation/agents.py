"""`jitvault agents`: an administrator registers agents with their logins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from jitvault.cli import session
from jitvault.cli.quiet import note
from jitvault.cli.views import agents as views
from jitvault.errors import InvalidInput, UsageError, error_of
from jitvault.formats.time_window import parse_duration
from jitvault.provision import agents
from jitvault.provision.agent_login import AgentLogin, Kind, agent_login
from jitvault.provision.agent_registration import add as add_agents
from jitvault.vault.client import Vault

_way_option = partial(typer.Option, rich_help_panel="How it proves who it is")
_role_option = partial(typer.Option, rich_help_panel="Its role in Vault")
_MAX_FILE = 1_000_000
_NAME = "{name}"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name: its entity and its role have it, too.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME...", help="The agents' names: entity and role of each have it, too."),
]
NamesFile = Annotated[
    Path | None,
    typer.Option("--names", metavar="FILE", help="A file with more names, one a line; - for standard input."),
]
SpiffeId = Annotated[str | None, _way_option(metavar="SPIFFE-ID", help="By a JWT-SVID with this SPIFFE id.")]
Kubernetes = Annotated[
    str | None,
    _way_option(metavar="NAMESPACE/SERVICEACCOUNT", help="By the JWT of this Kubernetes service account."),
]
Github = Annotated[
    str | None,
    _way_option(metavar="ORG/REPO:ENVIRONMENT", help="By the JWT of a GitHub Actions job in this environment."),
]
CertCn = Annotated[str | None, _way_option(metavar="NAME", help="By a TLS certificate with this common name.")]
AppRole = Annotated[bool, _way_option("--approle", help="By a role id and a secret id.")]
Mount = Annotated[str | None, _role_option(metavar="PATH", help="The auth method: jwt, cert or approle by default.")]
Audience = Annotated[str, _role_option(metavar="AUDIENCE", help="The only audience of its JWT.")]
Ca = Annotated[Path | None, _role_option("--ca", metavar="FILE", help="The CA of its certificate, PEM.")]
Cidrs = Annotated[
    list[str] | None, _role_option(metavar="CIDR", help="A network that it logs in from. May be repeated.")
]
Ttl = Annotated[str, _role_option(metavar="TTL", help="How long a token of its login lives: 60s to 2m.")]


def add(
    names: Names = None,
    names_file: NamesFile = None,
    spiffe_id: SpiffeId = None,
    kubernetes: Kubernetes = None,
    github: Github = None,
    cert_cn: CertCn = None,
    approle: AppRole = False,
    mount: Mount = None,
    audience: Audience = "vault",
    ca: Ca = None,
    cidr: Cidrs = None,
    ttl: Ttl = "2m",
) -> None:
    """Register agents with their logins, their signing keys and their group.

    Each gets an entity and a role of its own. The role accepts this one identity, and gives tokens that live for two
    minutes, cannot be renewed, and leave nothing to revoke: the agent logs in again by itself. Run the command again
    to change a login; without --cidr its networks stay.

    Of several agents each needs an identity of its own: {name} stands for the agent's name in --spiffe-id,
    --kubernetes, --github and --cert-cn. One that cannot be registered does not stop the others.

    Example: jitvault agents add churn-bot --spiffe-id spiffe://example.org/agents/churn
    """
    ways: dict[Kind, str | None] = {"spiffe": spiffe_id, "kubernetes": kubernetes, "github": github, "cert": cert_cn}
    kind, value = _way(ways, approle=approle)
    wanted = [*(names or ()), *_names_in(names_file)]
    if not wanted:
        raise UsageError("expected at least one NAME, or --names FILE with one", hint="`--names -` reads them.")
    is_many = names_file is not None or len(wanted) > 1
    if is_many and kind != "approle" and _NAME not in value:
        raise UsageError(
            f"the agents would be one: {value} is the same for each",
            hint=f"Write {_NAME} where the agent's name belongs, such as spiffe://example.org/agents/{_NAME}",
        )
    role = _Role(mount, audience, _authority(ca), tuple(cidr or ()), int(parse_duration(ttl).total_seconds()))
    logins = {name: role.login(kind, value.replace(_NAME, name)) for name in wanted}
    _register(logins, is_many=is_many, keeps_networks=not cidr)


def remove(name: Name) -> None:
    """Remove an agent with its login and its entity.

    The worker ends what it holds. Its tokens are refused from now on.

    Example: jitvault agents remove churn-bot
    """
    views.print_removed(agents.remove(_vault(), name))


def list_() -> None:
    """List the agents with their logins.

    The list also shows what keeps one of them from acting, and what lets somebody else act for it.

    Example: jitvault agents list -o json
    """
    views.print_agents(agents.listed(_vault()))


@dataclass(frozen=True, slots=True)
class _Role:
    """What the agents' roles have in common."""

    mount: str | None
    audience: str
    authority: str
    cidrs: tuple[str, ...]
    ttl_s: int

    def login(self, kind: Kind, value: str) -> AgentLogin:
        return agent_login(
            kind,
            value,
            mount=self.mount,
            audience=self.audience,
            authority=self.authority,
            cidrs=self.cidrs,
            ttl_s=self.ttl_s,
        )


def _way(ways: Mapping[Kind, str | None], *, approle: bool) -> tuple[Kind, str]:
    """Return the one way in which an agent proves who it is, and the identity that was given for it."""
    given = [(kind, value) for kind, value in ways.items() if value is not None]
    if approle:
        given.append(("approle", ""))
    if len(given) != 1:
        raise UsageError(
            "expected exactly one of --spiffe-id, --kubernetes, --github, --cert-cn and --approle",
            hint="An agent proves in one way who it is.",
        )
    return given[0]


def _register(logins: Mapping[str, AgentLogin], *, is_many: bool, keeps_networks: bool) -> None:
    """Register the agents and print them. Raises the error of the first one that cannot be registered."""
    wiring = session.open_session()
    registered = add_agents(session.administrator(wiring, "agents"), logins, keeps_networks=keeps_networks)
    failed = list(registered.failed.values())
    if failed and not is_many:
        raise failed[0]
    print_added = views.print_all_added if is_many else views.print_added
    print_added(registered, wiring.vault_command)
    for agent in registered.agents if keeps_networks else ():
        if agent.cidrs:
            # a binding that got lost would be noticed by nobody
            kept = ", ".join(agent.cidrs)
            note(f"{agent.name} logs in from {kept} alone, as before. --cidr 0.0.0.0/0 --cidr ::/0 lifts that.")
    if failed:
        count = f"{len(failed)} of {len(logins)} agents are not registered"
        raise error_of(failed[0].exit_code, count, failed[0].hint)


def _names_in(path: Path | None) -> list[str]:
    """Return the names in a file, or in standard input for `-`."""
    return [line.strip() for line in _text_of("--names", path).splitlines() if line.strip()]


def _authority(path: Path | None) -> str:
    found = _text_of("--ca", path)
    if path is not None and "-----BEGIN CERTIFICATE-----" not in found:
        raise InvalidInput(f"--ca {path} has no certificate in PEM", hint="Name the file of the CA, in PEM.")
    return found


def _text_of(option: str, path: Path | None) -> str:
    """Return what is in the file of an option.

    For `-` that is standard input; where the option was not given, it is nothing.
    """
    if path is None:
        return ""
    try:
        if str(path) == "-":
            return sys.stdin.read(_MAX_FILE)
        with path.open() as file:
            return file.read(_MAX_FILE)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise InvalidInput(f"{option} {path} cannot be read: {why}") from None


def _vault() -> Vault:
    return session.administrator(session.open_session(), "agents")
