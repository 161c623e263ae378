"""What administrators do: provision Vault."""

from __future__ import annotations

from typing import Annotated

import typer

from jitvault.cli.options import Debug, Json


def init(
    plan: Annotated[bool, typer.Option("--plan", help="Show the difference and change nothing.")] = False,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", metavar="NAME=CIDR,…", help="A named network that tasks can be bound to."),
    ] = None,
    worker_approle: Annotated[
        bool, typer.Option("--worker-approle", help="Make an AppRole jitvault-worker for the worker to log in by.")
    ] = False,
    worker_cidr: Annotated[
        list[str] | None,
        typer.Option("--worker-cidr", metavar="CIDR", help="With it: where the worker may log in and act from."),
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Provision Vault: mounts, policies, token roles, groups, signing keys, limits. Shows the difference first.

    Names the templates that nothing is granted by until their check passes.
    """
    from jitvault import resources as shipped
    from jitvault.cli import session
    from jitvault.cli.views import tables as listings
    from jitvault.errors import UsageError
    from jitvault.formats.product import with_command
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
    told = (*found.missing, *unchecked(vault, wiring.templates, wiring.engines))
    missing = [with_command(line, wiring.vault_command) for line in told]
    listings.provisioned(found, missing, applied=not plan, as_json=json_)


def _networks(given: list[str]) -> dict[str, list[str]]:
    from jitvault.errors import UsageError

    found: dict[str, list[str]] = {}
    for item in given:
        name, separator, cidrs = item.partition("=")
        if not separator or not name or name in found:
            raise UsageError(f"--network {item!r}: expected NAME=CIDR,CIDR with each name once")
        found[name] = cidrs.split(",")
    return found
