"""Output about the registrations of approvers."""

from __future__ import annotations

from collections.abc import Sequence

from jitvault.cli.views import output
from jitvault.cli.views.listing import Column, print_listing
from jitvault.provision.approvers import Approver


def print_approvers(found: Sequence[Approver]) -> None:
    ids = (approver.entity for approver in found)
    if output.print_for_scripts({"approvers": found}, *ids):
        return
    console = output.console()
    if not found:
        console.print("No approver is registered.")
        return
    columns = [Column("person"), Column("entity"), Column("since", spare=1), Column("groups"), Column("problems")]
    table = []
    for approver in found:
        name = approver.name or approver.entity
        since = f"{approver.since:%Y-%m-%dT%H:%M:%SZ}"
        table.append([approver.person, name, since, ", ".join(approver.groups), "; ".join(approver.problems)])
    print_listing(console, columns, table)


def print_approver(done: str, approver: Approver) -> None:
    """Print what was done to one registration; `done` is a past participle."""
    if output.print_for_scripts(approver, approver.entity):
        return
    console = output.console()
    console.print(f"{approver.person} is {done}")
    facts = {
        "entity": f"{approver.name or 'gone'} ({approver.entity})",
        "groups": ", ".join(approver.groups),
        "problems": ", ".join(approver.problems),
    }
    output.print_facts(console, facts)
