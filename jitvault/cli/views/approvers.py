"""Output about the registrations of approvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from jitvault.cli.views import output
from jitvault.cli.views.output import to_json

if TYPE_CHECKING:
    from jitvault.provision.approvers import Approver


def print_approvers(found: Sequence[Approver], *, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({"approvers": [approver.as_json() for approver in found]}))
        return
    table = output.new_table("person", "entity", "groups", "since (UTC)", "problems")
    for approver in found:
        name = approver.name or approver.entity
        groups = "\n".join(approver.groups)
        problems = "\n".join(approver.problems)
        table.add_row(approver.person, name, groups, f"{approver.since:%Y-%m-%d %H:%M:%S}", problems)
    output.console().print(table if found else "No approver is registered.")


def print_approver(done: str, approver: Approver, *, as_json: bool) -> None:
    """Print what was done to one registration; `done` is a past participle."""
    if as_json:
        typer.echo(to_json(approver.as_json()))
        return
    console = output.console()
    console.print(f"{approver.person} is {done}")
    facts = {"entity": f"{approver.name or 'gone'} ({approver.entity})", "groups": ", ".join(approver.groups)}
    if approver.problems:
        facts["problems"] = ", ".join(approver.problems)
    output.print_facts(console, facts)
