"""`jitvault agents`: an administrator registers agents with their logins."""

from __future__ import annotations

import sys
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

_way = partial(typer.Option, rich_help_panel="How it proves who it is")
_role = partial(typer.Option, rich_help_panel="Its role in Vault")
_MAX_FILE = 1_000_000
_NAME = "{name}"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name: its entity and its role have it, too.")]


def add(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="The agents' names: entity and role of each have it, too."),
    ] = None,
    names_file: Annotated[
        Path | None,
        typer.Option("--names", metavar="FILE", help="A file with more names, one a line; - for standard input."),
    ] = None,
    spiffe_id: Annotated[str | None, _way(metavar="SPIFFE-ID", help="By a JWT-SVID with this SPIFFE id.")] = None,
    kubernetes: Annotated[
        str | None, _way(metavar="NAMESPACE/SERVICEACCOUNT", help="By the JWT of this Kubernetes service account.")
    ] = None,
    github: Annotated[
        str | None, _way(metavar="ORG/REPO:ENVIRONMENT", help="By the JWT of a GitHub Actions job in this environment.")
    ] = None,
    cert_cn: Annotated[str | None, _way(metavar="NAME", help="By a TLS certificate with this common name.")] = None,
    approle: Annotated[bool, _way("--approle", help="By a role id and a secret id.")] = False,
    mount: Annotated[
        str | None, _role(metavar="PATH", help="The auth method: jwt, cert or approle by default.")
    ] = None,
    audience: Annotated[str, _role(metavar="AUDIENCE", help="The only audience of its JWT.")] = "vault",
    ca: Annotated[Path | None, _role("--ca", metavar="FILE", help="The CA of its certificate, PEM.")] = None,
    cidr: Annotated[
        list[str] | None, _role(metavar="CIDR", help="A network that it logs in from. May be repeated.")
    ] = None,
    ttl: Annotated[str, _role(metavar="TTL", help="How long a token of its login lives: 60s to 2m.")] = "2m",
) -> None:
    """Register agents with their logins, their signing keys and their group.

    Each gets an entity and a role of its own. The role accepts this one identity, and gives tokens that live for two
    minutes, cannot be renewed, and leave nothing to revoke: the agent logs in again by itself. Run the command again
    to change a login; without --cidr its networks stay.

    Of several agents each needs an identity of its own: {name} stands for the agent's name in --spiffe-id,
    --kubernetes, --github and --cert-cn. One that cannot be registered does not stop the others.

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
    wanted = [*(names or ()), *_names_in(names_file)]
    if not wanted:
        raise UsageError("expected at least one NAME, or --names FILE with one", hint="`--names -` reads them.")
    is_many = names_file is not None or len(wanted) > 1
    if is_many and kind != "approle" and _NAME not in value:
        raise UsageError(
            f"the agents would be one: {value} is the same for each",
            hint=f"Write {_NAME} where the agent's name belongs, such as spiffe://example.org/agents/{_NAME}",
        )
    authority = _authority(ca)
    logins: dict[str, AgentLogin] = {
        name: agent_login(
            kind,
            value.replace(_NAME, name),
            mount=mount,
            audience=audience,
            authority=authority,
            cidrs=tuple(cidr or ()),
            ttl_s=int(parse_duration(ttl).total_seconds()),
        )
        for name in wanted
    }
    wiring = session.open_session()
    registered = add_agents(session.administrator(wiring, "agents"), logins, keeps_networks=not cidr)
    if not is_many and registered.failed:
        raise registered.failed[wanted[0]]
    print_added = views.print_all_added if is_many else views.print_added
    print_added(registered, wiring.vault_command)
    for agent in [] if cidr else registered.agents:
        if agent.cidrs:
            # a binding that got lost would be noticed by nobody
            kept = ", ".join(agent.cidrs)
            note(f"{agent.name} logs in from {kept} alone, as before. --cidr 0.0.0.0/0 --cidr ::/0 lifts that.")
    if registered.failed:
        first = next(iter(registered.failed.values()))
        raise error_of(
            first.exit_code, f"{len(registered.failed)} of {len(logins)} agents are not registered", first.hint
        )


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
