"""`jitvault approvers`: an administrator says who may approve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.options import Debug, Json

if TYPE_CHECKING:
    from jitvault.vault.client import Vault

approvers_app = typer.Typer(help="Who may approve: one person is one Vault entity.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="ENTITY", help="The Vault entity's name or id.")]


@approvers_app.command("add")
def add(
    who: Who,
    person: Annotated[
        str, typer.Option("--person", metavar="WHO", help="The human being, such as the address of their mail.")
    ],
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="GROUP", help="A group of approvers (jitvault-approvers); may be given again."),
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Register an approver, with their groups and their signing key. Run again, it sets the groups.

    A person who has an entity is refused: a second login is an alias of the same one.
    """
    from jitvault.cli.views import tables as listings
    from jitvault.policy.decision import APPROVERS
    from jitvault.provision import approvers

    found = approvers.register(_vault(), who, person=person, groups=group or [APPROVERS])
    listings.approver("registered", found, as_json=json_)


@approvers_app.command("remove")
def remove(
    who: Annotated[str, typer.Argument(metavar="ENTITY|PERSON", help="Whom to remove.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Take a registration back. What they approved counts no more, also when they are added again."""
    from jitvault.cli.views import tables as listings
    from jitvault.provision import approvers

    listings.approver("removed", approvers.remove(_vault(), who), as_json=json_)


@approvers_app.command("list")
def list_(json_: Json = False, debug: Debug = False) -> None:
    """Show who is registered, for which groups, and what keeps somebody from approving."""
    from jitvault.cli.views import tables as listings
    from jitvault.provision import approvers

    listings.approvers(approvers.listed(_vault()), as_json=json_)


def _vault() -> Vault:
    from jitvault.cli import session
    from jitvault.errors import UsageError

    wiring = session.open_session()
    token = wiring.settings.admin
    if token is None:
        raise UsageError("approvers needs an administrator's token in JITVAULT_ADMIN_TOKEN or VAULT_TOKEN")
    return wiring.vault(token)
