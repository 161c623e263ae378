"""Output about agents and their logins."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from jitvault.cli.quiet import note
from jitvault.cli.views import output
from jitvault.cli.views.listing import Column, print_listing
from jitvault.provision.agent_registration import Registered
from jitvault.provision.agents import Agent

_COLUMNS = (Column("agent"), Column("login"), Column("mount", spare=1), Column("subject"), Column("problems"))


def print_agents(found: Sequence[Agent]) -> None:
    names = (agent.name for agent in found)
    if output.print_for_scripts({"agents": found}, *names):
        return
    console = output.console()
    if not found:
        console.print("No agent is registered.")
        return
    print_listing(console, _COLUMNS, [_row(agent) for agent in found])


def print_added(registered: Registered, command: str) -> None:
    """Print the one agent that was registered, and what to set on its host.

    `command` is the server's program, with which a secret id is made.
    """
    agent = registered.agents[0]
    if output.print_for_scripts(agent, agent.name):
        return
    console = output.console()
    console.print(f"{agent.name} is registered")
    facts = {
        "entity": agent.entity,
        "login": f"{agent.kind} at auth/{agent.mount}/",
        "subject": agent.subject,
        "from": ", ".join(agent.cidrs) or "any address",
        "problems": "; ".join(agent.problems),
    }
    output.print_facts(console, facts)
    console.print("Set on its host, beside VAULT_ADDR:")
    # to be copied: no line is folded
    output.text("".join(f"  export {n}={shlex.quote(value)}\n" for n, value in agent.environment.items()), out=None)
    if agent.kind == "approle":
        console.print("Its secret id, which Vault shows once; write it to that file, mode 0600:")
        output.text(f"  {command} write -f -field=secret_id auth/{agent.mount}/role/{agent.name}/secret-id\n", out=None)


def print_all_added(registered: Registered, command: str) -> None:
    """Print one table of the agents, with why some are not registered."""
    agents, failed = registered.agents, registered.failed
    refused = [{"name": name, "error": str(error), "hint": error.hint} for name, error in failed.items()]
    shown = {"agents": agents, "failed": refused}
    if output.print_for_scripts(shown, *(agent.name for agent in agents)):
        return
    missing = [[name, "", "", "", f"not registered: {error}"] for name, error in failed.items()]
    print_listing(output.console(), _COLUMNS, [*map(_row, agents), *missing])
    if any(agent.kind == "approle" for agent in agents):
        note(f"A secret id, once for each: {command} write -f -field=secret_id auth/MOUNT/role/AGENT/secret-id")
    if agents:
        note("What to set on each agent's host: run the command again with -o json.")


def print_removed(agent: Agent) -> None:
    if output.print_for_scripts(agent, agent.name):
        return
    console = output.console()
    console.print(f"{agent.name} is removed, with its login and its entity. The worker ends what it holds.")


def _row(agent: Agent) -> list[str]:
    return [agent.name, agent.kind or "not ours", agent.mount, agent.subject, "; ".join(agent.problems)]
