"""`jitvault init`: an administrator provisions Vault."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from jitvault import shipped_files as shipped
from jitvault.cli import session
from jitvault.cli.commands.installation.templates import warn_of_placeholder
from jitvault.cli.options import Yes
from jitvault.cli.views import provisioning as view
from jitvault.cli.views.provisioning import Actor
from jitvault.errors import UsageError, WrongState
from jitvault.formats.server_product import with_commands
from jitvault.provision import init as provision
from jitvault.provision.init import Plan, Want
from jitvault.provision.template_check.record import unchecked
from jitvault.provision.worker_login import worker_login
from jitvault.vault.client import Vault
from jitvault.vault.identity import Identity
from jitvault.vault.tokens import Tokens
from jitvault.wiring import Wiring

Plans = Annotated[bool, typer.Option("--plan", help="Show the changes and make none.")]
Network = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="NAME=CIDR,…",
        help="A named network that tasks can be bound to, new or with other CIDRs. All others stay. May be repeated.",
    ),
]
RemovedNetwork = Annotated[
    list[str] | None,
    typer.Option(
        "--remove-network",
        metavar="NAME",
        help="Remove this network and its token roles, if no live task uses them. May be repeated.",
    ),
]
WorkerAppRole = Annotated[
    bool, typer.Option("--worker-approle", help="Create the AppRole jitvault-worker, by which the worker logs in.")
]
WorkerCidr = Annotated[
    list[str] | None,
    typer.Option(
        "--worker-cidr", metavar="CIDR", help="With --worker-approle: where the worker may log in and act from."
    ),
]


def init(
    plan: Plans = False,
    network: Network = None,
    remove_network: RemovedNetwork = None,
    worker_approle: WorkerAppRole = False,
    worker_cidr: WorkerCidr = None,
    yes: Yes = False,
) -> None:
    """Provision Vault's mounts, policies, roles, groups, keys and limits.

    The roles are token roles. The command shows whose identity acts and each change, and asks before it makes them;
    without a terminal it needs --yes. It also names the templates that grant nothing until their check has passed. Run
    it again after a change of templates or settings: named networks are kept in Vault.

    Example: jitvault init --plan --network office=10.1.0.0/16
    """
    if worker_cidr and not worker_approle:
        raise UsageError("--worker-cidr goes with --worker-approle")
    wiring = session.open_session()
    want = _want(wiring, network, remove_network, worker_cidr or () if worker_approle else None)
    vault = session.administrator(wiring, "init")
    actor = _actor(wiring, vault)
    with session.allowed(f"provision it as {actor.name}", _who_may(wiring)):
        found = provision.plan(vault, want)
    asks = bool(found.changes) and not plan and not yes
    if found.changes and not plan:
        provision.check_not_in_use(found)
        if asks:
            view.print_question(found, actor)
            _ask(vault, want, found)
        provision.apply(vault, found)
    notes = (*found.missing, *unchecked(vault, wiring.templates, wiring.engines))
    commands = wiring.commands()
    missing = [with_commands(line, commands) for line in notes]
    view.print_provisioning(found, missing, actor, applied=not plan, is_shown=asks)
    for template in wiring.templates.values():
        warn_of_placeholder(template)


def _want(
    wiring: Wiring,
    networks: Sequence[str] | None,
    removed_networks: Sequence[str] | None,
    worker_cidrs: Sequence[str] | None,
) -> Want:
    """Return what to provision Vault for.

    `worker_cidrs` is None where no AppRole is wanted.
    """
    return Want(
        wiring.templates,
        wiring.engines,
        shipped.vault_policies(),
        _networks(networks or ()),
        removed_networks=tuple(removed_networks or ()),
        worker_login=None if worker_cidrs is None else worker_login(tuple(worker_cidrs)),
        tasks_per_second=wiring.settings.tasks_per_second,
    )


def _who_may(wiring: Wiring) -> str:
    """Return who can provision Vault, as the end of "Only … can"."""
    if wiring.settings.vault_namespace is None:
        return "an administrator"
    return "a token of the root namespace, to which audit devices, audited headers and quotas belong,"


def _actor(wiring: Wiring, vault: Vault) -> Actor:
    """Return whose identity acts, by the token itself."""
    settings = wiring.settings
    me = Tokens(vault).lookup_self()
    entity = Identity(vault).by_id(me.entity_id) if me.entity_id else None
    own = "VAULT_TOKEN" if settings.vault_token else "the token of `bao login`"
    return Actor(
        name=me.display_name,
        entity=entity.name if entity else None,
        entity_id=me.entity_id or None,
        policies=me.policies,
        source="JITVAULT_ADMIN_TOKEN" if settings.admin_token else own,
        vault=settings.vault_addr,
        namespace=settings.vault_namespace,
    )


def _ask(vault: Vault, want: Want, shown: Plan) -> None:
    """Ask whether to make the changes that were shown.

    Raises UsageError without a yes, and where there is no terminal to ask on; WrongState where Vault was changed since.
    """
    count = f"{len(shown.changes)} change{'' if len(shown.changes) == 1 else 's'}"
    if not sys.stdin.isatty():
        raise UsageError(
            f"nothing was changed: there is no terminal on which to ask about {count}",
            hint="Look at them with --plan. --yes makes them without a question.",
        )
    session.ask(f"Make {count} in Vault?", done="nothing was changed")
    # the answer may have taken minutes
    if provision.plan(vault, want) != shown:
        raise WrongState(
            "nothing was changed: Vault, or what live tasks use of it, changed while the question was open",
            hint="Run `jitvault init` again and look at the changes.",
        )


def _networks(given: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in given:
        name, separator, cidrs = item.partition("=")
        if not separator or not name or name in found:
            raise UsageError(f"--network {item!r}: expected NAME=CIDR,CIDR with each name once")
        found[name] = cidrs.split(",")
    return found
