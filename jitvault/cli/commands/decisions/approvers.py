"""`jitvault approvers`: an administrator registers who may approve."""

from __future__ import annotations

from typing import Annotated

import typer

from jitvault.cli import session
from jitvault.cli.views import approvers as views
from jitvault.policy.decision import APPROVERS
from jitvault.provision import approvers
from jitvault.vault.client import Vault

Who = Annotated[str, typer.Argument(metavar="ENTITY", help="The Vault entity's name or id.")]


def add(
    who: Who,
    person: Annotated[str, typer.Option(metavar="WHO", help="The person, for example by their mail address.")],
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="A group of approvers, jitvault-approvers by default. May be repeated."),
    ] = None,
) -> None:
    """Register an approver with their groups and their signing key.

    One person is one Vault entity. A person who is registered with another entity is refused: make their second login
    an alias of the entity that they have. Run the command again to set other groups.

    Example: jitvault approvers add alice --person alice@example.org
    """
    found = approvers.register(_vault(), who, person=person, groups=group or [APPROVERS])
    views.print_approver("registered", found)


def remove(
    who: Annotated[str, typer.Argument(metavar="ENTITY|PERSON", help="The approver to remove.")],
) -> None:
    """Remove an approver's registration.

    Their earlier approvals no longer count, even when they are registered again.

    Example: jitvault approvers remove alice@example.org
    """
    views.print_approver("removed", approvers.remove(_vault(), who))


def list_() -> None:
    """List the registered approvers with their groups.

    The list also shows what keeps one of them from approving.

    Example: jitvault approvers list -o json
    """
    views.print_approvers(approvers.listed(_vault()))


def _vault() -> Vault:
    return session.administrator(session.open_session(), "approvers")
