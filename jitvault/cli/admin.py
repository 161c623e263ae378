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
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Provision Vault: mounts, policies, token roles, groups and signing keys. Shows the difference first.

    Names the templates that nothing is granted by until their check passes.
    """
    from jitvault import shipped
    from jitvault.cli import listings, session
    from jitvault.errors import UsageError
    from jitvault.provision import init as provision
    from jitvault.provision.template_check import unchecked

    wiring = session.wired()
    token = wiring.settings.admin
    if token is None:
        raise UsageError("init needs an administrator's token in JITVAULT_ADMIN_TOKEN or VAULT_TOKEN")
    want = provision.Want(wiring.templates, wiring.engines, shipped.vault_policies(), _networks(network or []))
    vault = wiring.vault(token)
    found = provision.plan(vault, want)
    if not plan:
        provision.apply(vault, found)
    missing = [*found.missing, *unchecked(vault, wiring.templates, wiring.engines)]
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
