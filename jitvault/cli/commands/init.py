"""`jitvault init`: an administrator provisions Vault."""

from __future__ import annotations

from typing import Annotated

import typer

from jitvault.cli.options import Debug, Json


def init(
    plan: Annotated[bool, typer.Option("--plan", help="Show the changes and make none.")] = False,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network", metavar="NAME=CIDR,…", help="A named network that tasks can be bound to. May be repeated."
        ),
    ] = None,
    worker_approle: Annotated[
        bool, typer.Option("--worker-approle", help="Create the AppRole jitvault-worker, by which the worker logs in.")
    ] = False,
    worker_cidr: Annotated[
        list[str] | None,
        typer.Option(
            "--worker-cidr", metavar="CIDR", help="With --worker-approle: where the worker may log in and act from."
        ),
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Provision Vault's mounts, policies, roles, groups, keys and limits.

    The roles are token roles. The command prints each change, and names the templates that grant nothing until their
    check has passed. Run it again after a change of templates or settings.

    Example: jitvault init --plan --network office=10.1.0.0/16
    """
    from jitvault import shipped_files as shipped
    from jitvault.cli import session
    from jitvault.cli.views import tables as listings
    from jitvault.errors import UsageError
    from jitvault.formats.server_product import with_commands
    from jitvault.provision import init as provision
    from jitvault.provision.template_check.record import unchecked
    from jitvault.provision.worker_login import worker_login

    if worker_cidr and not worker_approle:
        raise UsageError("--worker-cidr goes with --worker-approle")
    wiring = session.open_session()
    token = wiring.settings.admin
    if token is None:
        raise UsageError("init needs an administrator's token in JITVAULT_ADMIN_TOKEN or VAULT_TOKEN")
    login = worker_login(tuple(worker_cidr or ())) if worker_approle else None
    want = provision.Want(
        wiring.templates,
        wiring.engines,
        shipped.vault_policies(),
        _networks(network or []),
        worker_login=login,
        tasks_per_second=wiring.settings.tasks_per_second,
    )
    vault = wiring.vault(token)
    found = provision.plan(vault, want)
    if not plan:
        provision.apply(vault, found)
    notes = (*found.missing, *unchecked(vault, wiring.templates, wiring.engines))
    commands = wiring.commands()
    missing = [with_commands(line, commands) for line in notes]
    listings.print_provisioning(found, missing, applied=not plan, as_json=json_)


def _networks(given: list[str]) -> dict[str, list[str]]:
    from jitvault.errors import UsageError

    found: dict[str, list[str]] = {}
    for item in given:
        name, separator, cidrs = item.partition("=")
        if not separator or not name or name in found:
            raise UsageError(f"--network {item!r}: expected NAME=CIDR,CIDR with each name once")
        found[name] = cidrs.split(",")
    return found
