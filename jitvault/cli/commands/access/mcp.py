"""`jitvault mcp`: a server that lends a model the access of a task."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.options import Debug, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jitvault.errors import UsageError
    from jitvault.mcp.calls import Known
    from jitvault.settings import Settings


def mcp(
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The name of your Vault entity; by default the role of your login, as `agents add` sets it up.",
        ),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            "--tool", metavar="NAME", help="A program that a model may ask to run; any without it. May be repeated."
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            metavar="DURATION",
            parser=seconds(most=86_400),
            show_default="30m",
            help="How long a request waits for approvals.",
        ),
    ] = 1800.0,
    debug: Debug = False,
) -> None:
    """Serve a model by MCP on standard input and output.

    An MCP client starts this command. The model asks for access, runs programs that have it, and gives it back; it
    never gets a secret. When the client ends, or this command is killed, the programs are killed and all access is
    given back. It needs jitvault's extra `mcp`, which docs/mcp.md installs.

    Example: jitvault mcp --tool psql
    """
    from jitvault.cli import session
    from jitvault.cli.quiet import note
    from jitvault.errors import UsageError

    try:
        from jitvault.mcp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise UsageError(
            "jitvault mcp needs the package `mcp`",
            hint="Install jitvault with its extra `mcp`: docs/mcp.md says how.",
        ) from None
    from jitvault.mcp.calls import Setup

    settings = session.open_session().settings
    name = agent or settings.agent_login_role
    if name is None and settings.agent_login is None:
        raise _unknown_agent(settings)
    _warn_of_missing(tool or ())
    if sys.stdin.isatty():
        note("An MCP client starts this command and writes to it. Ctrl-C ends it.")
    serve(Setup(lambda: _known(settings, name), tuple(tool or ()), wait), _own_secrets(settings))


def _warn_of_missing(tools: Sequence[str]) -> None:
    """Warn on stderr of programs that are not there.

    They may be installed later, so the server starts all the same.
    """
    import shutil

    from jitvault.cli.views import output

    for name in tools:
        if shutil.which(name) is None:
            output.warn(f"warning: --tool {name!r:.80}: there is no such program in PATH; a model cannot run it")


def _known(settings: Settings, name: str | None) -> Known:
    """Return who the agent is and which templates there are now.

    Both may be known to Vault alone, for which a login is made, and revoked again: the agent is the entity of the
    login, and the templates are published. Raises UsageError, InvalidInput, and what a login raises.
    """
    from contextlib import closing

    from jitvault.cli.commands.lookups.own_identity import own_name
    from jitvault.mcp.calls import Known
    from jitvault.wiring import Wiring

    with closing(Wiring(settings)) as wiring:
        me = own_name(wiring)
        agent = name or me or wiring.person.me.meta.get("role_name")
        if agent is None:
            raise _unknown_agent(settings)
        return Known(agent, dict(wiring.templates), _warning(agent, me))


def _warning(agent: str, me: str) -> str:
    """Return that the login is another agent's, "" where it is not."""
    if me in ("", agent):
        return ""
    return (
        f"this server asks for {agent} and its login is that of {me}: the access would go to the inbox of {agent}, so "
        "nothing is asked for. Whoever set it up corrects --agent"
    )


def _unknown_agent(settings: Settings) -> UsageError:
    """Return the error for an agent whose name is not known.

    Without a login it says which variables set one: a client that starts this command passes few of its own.
    """
    from jitvault.errors import UsageError

    if settings.agent_login is not None or settings.person is not None:
        return UsageError(
            "it is not known who the agent is",
            hint="Name your Vault entity with --agent, or set JITVAULT_AGENT_LOGIN_ROLE.",
        )
    return UsageError(
        "it is not known who the agent is: no login is set",
        hint="Set VAULT_ADDR, JITVAULT_AGENT_LOGIN and what that login needs, such as JITVAULT_AGENT_LOGIN_ROLE. MCP "
        "clients pass few variables to a server: name them in `env` of the client's configuration (docs/mcp.md).",
    )


def _own_secrets(settings: Settings) -> list[tuple[str, str, str]]:
    """Return what this process logs in with: what it is, and the secret."""
    from pydantic import SecretStr

    found = [(name, value.get_secret_value()) for name, value in settings if isinstance(value, SecretStr)]
    if settings.person is not None:
        found.append(("token", settings.person.reveal()))
    return [("agent", name.replace("_", "-"), value) for name, value in found]
