"""Output about agents and their logins."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from jitvault.cli.views import output
from jitvault.cli.views.listing import Column, print_listing
from jitvault.provision.agents import Agent


def print_agents(found: Sequence[Agent], *, as_json: bool) -> None:
    names = (agent.name for agent in found)
    if output.print_for_scripts({"agents": found}, *names, as_json=as_json):
        return
    console = output.console()
    if not found:
        console.print("No agent is registered.")
        return
    columns = [Column("agent"), Column("login"), Column("mount", spare=1), Column("subject"), Column("problems")]
    rows = [
        [agent.name, agent.kind or "not ours", agent.mount, agent.subject, "; ".join(agent.problems)] for agent in found
    ]
    print_listing(console, columns, rows)


def print_added(agent: Agent, command: str, *, as_json: bool) -> None:
    """Print what was registered, and what to set on the agent's host.

    `command` is the server's program, with which a secret id is made.
    """
    if output.print_for_scripts(agent, agent.name, as_json=as_json):
        return
    console = output.console()
    console.print(f"{agent.name} is registered")
    output.print_facts(console, _facts(agent))
    console.print("Set on its host, beside VAULT_ADDR:")
    # to be copied: no line is folded
    output.text("".join(f"  export {n}={shlex.quote(value)}\n" for n, value in agent.environment.items()), out=None)
    if agent.kind == "approle":
        console.print("Its secret id, which Vault shows once; write it to that file, mode 0600:")
        output.text(f"  {command} write -f -field=secret_id auth/{agent.mount}/role/{agent.name}/secret-id\n", out=None)


def print_removed(agent: Agent, *, as_json: bool) -> None:
    if output.print_for_scripts(agent, agent.name, as_json=as_json):
        return
    console = output.console()
    console.print(f"{agent.name} is removed, with its login and its entity. The worker ends what it holds.")


def _facts(agent: Agent) -> dict[str, str]:
    facts = {"entity": agent.entity, "login": f"{agent.kind} at auth/{agent.mount}/", "subject": agent.subject}
    facts["from"] = ", ".join(agent.cidrs) or "any address"
    if agent.problems:
        facts["problems"] = "; ".join(agent.problems)
    return facts
