"""`jitvault mcp`: a server that lends a model the access of a task."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Annotated, NoReturn

import typer
from pydantic import SecretStr

from jitvault.agent.execution.allowed_program import find_tool
from jitvault.cli import session
from jitvault.cli.lookups.own_identity import own_name
from jitvault.cli.options import duration
from jitvault.cli.quiet import note
from jitvault.cli.views.output import warn
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, UsageError
from jitvault.mcp.calls import Known, Setup
from jitvault.settings import Settings
from jitvault.wiring import Wiring


def mcp(
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name of the agent's Vault entity; by default that of your login."),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A program that a model may ask to run; any without it. May be repeated."),
    ] = None,
    wait: Annotated[
        float, duration("--wait", "How long a request waits for approvals.", shown="30m", most=86_400)
    ] = 1800.0,
) -> None:
    """Serve a model by MCP on standard input and output.

    An MCP client starts this command. The model asks for access, runs programs that have it, and gives it back; it
    never gets a secret. When the client ends, or this command is killed, the programs are killed and all access is
    given back. It needs jitvault's extra `mcp`, which docs/mcp.md installs.

    Example: jitvault mcp --tool psql
    """
    try:
        from jitvault.mcp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise UsageError(
            "jitvault mcp needs the package `mcp`",
            hint="Install jitvault with its extra `mcp`: docs/mcp.md says how.",
        ) from None

    try:
        settings = session.open_session().settings
        _check_has_login(settings)
    except JitvaultError as error:
        warn(f"warning: nothing can be asked for: {error}. {error.hint}")
        # few people read what a server said that has ended; a tool's answer is shown to the user
        serve(Setup(partial(_raise, error), tuple(tool or ()), wait), ())
    _warn_of_missing(tool or ())
    if sys.stdin.isatty():
        note("An MCP client starts this command and writes to it. Ctrl-C ends it.")
    serve(Setup(lambda tasks: _known(settings, agent, tasks), tuple(tool or ()), wait), _own_secrets(settings))


def _raise(error: JitvaultError, _: Sequence[str]) -> NoReturn:
    # each call raises it, and a traceback grows
    raise error.with_traceback(None)


def _warn_of_missing(tools: Sequence[str]) -> None:
    """Warn on stderr of programs that are not there.

    They may be installed later, so the server starts all the same.
    """
    for name in tools:
        if find_tool(name) is None:
            warn(f"warning: --tool {name!r:.80}: there is no such program in PATH; a model cannot run it")


def _known(settings: Settings, name: str | None, tasks: Sequence[str]) -> Known:
    """Return who the agent is, what it may ask for, and when the tasks end.

    Vault alone may know that, for which a login is made, and revoked again: the agent is the entity of the login, and
    templates and tasks are published. Raises UsageError, InvalidInput, and what a login raises.
    """
    with closing(Wiring(settings)) as wiring:
        me = own_name(wiring)
        agent = name or me or settings.agent_login_role or wiring.person.me.meta.get("role_name")
        if agent is None:
            raise UsageError(
                "it is not known who the agent is",
                hint="Name its Vault entity with --agent, or set JITVAULT_AGENT_LOGIN_ROLE.",
            )
        found = (session.published(wiring, task) for task in tasks)
        ends = {each.task_id: each.ends_at for each in found if isinstance(each, PublishedTask) and each.ends_at}
        return Known(agent, dict(wiring.templates), _warning(agent, me), ends)


def _warning(agent: str, me: str) -> str:
    """Return that the login is another agent's, "" where it is not."""
    if me.casefold() in ("", agent.casefold()):
        return ""
    return (
        f"this server asks for {agent} and its login is that of {me}: the access would go to the inbox of {agent}, so "
        "nothing is asked for. Whoever set it up corrects --agent"
    )


def _check_has_login(settings: Settings) -> None:
    """Raise UsageError without a login.

    It says which variables set one: a client that starts this command passes few of its own.
    """
    if settings.agent_login is None and settings.person is None:
        raise UsageError(
            "it is not known who the agent is: no login is set",
            hint="Set VAULT_ADDR, JITVAULT_AGENT_LOGIN and what that login needs, such as JITVAULT_AGENT_LOGIN_ROLE. "
            "MCP clients pass few variables to a server: name them in `env` of the client's configuration "
            "(docs/mcp.md).",
        )


def _own_secrets(settings: Settings) -> list[tuple[str, str, str]]:
    """Return what this process logs in with: what it is, and the secret."""
    found = [(name, value.get_secret_value()) for name, value in settings if isinstance(value, SecretStr)]
    if settings.person is not None:
        found.append(("token", settings.person.reveal()))
    return [("agent", name.replace("_", "-"), value) for name, value in found]
