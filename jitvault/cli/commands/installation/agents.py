"""`jitvault agents`: an administrator registers agents with their logins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jitvault.cli import session
from jitvault.cli.options import Json
from jitvault.cli.quiet import note
from jitvault.cli.views import agents as views
from jitvault.errors import InvalidInput, UsageError
from jitvault.formats.time_window import parse_duration
from jitvault.provision import agents
from jitvault.provision.agent_login import AgentLogin, Kind, agent_login
from jitvault.vault.client import Vault

_WAY = "How it proves who it is"
_ROLE = "Its role in Vault"
_MAX_CA = 1_000_000

Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name: its entity and its role have it, too.")]


def add(
    name: Name,
    spiffe_id: Annotated[
        str | None,
        typer.Option(metavar="SPIFFE-ID", help="By a JWT-SVID with this SPIFFE id.", rich_help_panel=_WAY),
    ] = None,
    kubernetes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE/SERVICEACCOUNT",
            help="By the JWT of this Kubernetes service account.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    github: Annotated[
        str | None,
        typer.Option(
            metavar="ORG/REPO:ENVIRONMENT",
            help="By the JWT of a GitHub Actions job in this environment.",
            rich_help_panel=_WAY,
        ),
    ] = None,
    cert_cn: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="By a TLS certificate with this common name.", rich_help_panel=_WAY),
    ] = None,
    approle: Annotated[
        bool, typer.Option("--approle", help="By a role id and a secret id.", rich_help_panel=_WAY)
    ] = False,
    mount: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The auth method: jwt, cert or approle by default.", rich_help_panel=_ROLE),
    ] = None,
    audience: Annotated[
        str, typer.Option(metavar="AUDIENCE", help="The only audience of its JWT.", rich_help_panel=_ROLE)
    ] = "vault",
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="The CA of its certificate, PEM.", rich_help_panel=_ROLE),
    ] = None,
    cidr: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="A network that it logs in from. May be repeated.", rich_help_panel=_ROLE),
    ] = None,
    ttl: Annotated[
        str,
        typer.Option(metavar="TTL", help="How long a token of its login lives: 60s to 2m.", rich_help_panel=_ROLE),
    ] = "2m",
    json_: Json = False,
) -> None:
    """Register an agent with its login, its signing key and its group.

    It gets an entity and a role of its own. The role accepts this one identity, and gives tokens that live for two
    minutes, cannot be renewed, and leave nothing to revoke: the agent logs in again by itself. Run the command again
    to change the login; without --cidr its networks stay.

    Example: jitvault agents add churn-bot --spiffe-id spiffe://example.org/agents/churn
    """
    ways: dict[Kind, str | None] = {
        "spiffe": spiffe_id,
        "kubernetes": kubernetes,
        "github": github,
        "cert": cert_cn,
        "approle": "" if approle else None,
    }
    given = [(kind, value) for kind, value in ways.items() if value is not None]
    if len(given) != 1:
        raise UsageError(
            "expected exactly one of --spiffe-id, --kubernetes, --github, --cert-cn and --approle",
            hint="An agent proves in one way who it is.",
        )
    kind, value = given[0]
    wiring = session.open_session()
    vault = session.administrator(wiring, "agents")
    kept = () if cidr else agents.bound_networks(vault, name)
    login: AgentLogin = agent_login(
        kind,
        value,
        mount=mount,
        audience=audience,
        authority=_authority(ca),
        cidrs=kept or tuple(cidr or ()),
        ttl_s=int(parse_duration(ttl).total_seconds()),
    )
    views.print_added(agents.add(vault, name, login), wiring.vault_command, as_json=json_)
    if kept:
        # a binding that got lost would be noticed by nobody
        note(f"{name} logs in from {', '.join(kept)} alone, as before. --cidr 0.0.0.0/0 --cidr ::/0 lifts that.")


def remove(name: Name, json_: Json = False) -> None:
    """Remove an agent with its login and its entity.

    The worker ends what it holds. Its tokens are refused from now on.

    Example: jitvault agents remove churn-bot
    """
    views.print_removed(agents.remove(_vault(), name), as_json=json_)


def list_(json_: Json = False) -> None:
    """List the agents with their logins.

    The list also shows what keeps one of them from acting, and what lets somebody else act for it.

    Example: jitvault agents list -o json
    """
    views.print_agents(agents.listed(_vault()), as_json=json_)


def _authority(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        with path.open() as file:
            found = file.read(_MAX_CA)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--ca {path} cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from None
    if "-----BEGIN CERTIFICATE-----" not in found:
        raise InvalidInput(f"--ca {path} has no certificate in PEM", hint="Name the file of the CA, in PEM.")
    return found


def _vault() -> Vault:
    return session.administrator(session.open_session(), "agents")
