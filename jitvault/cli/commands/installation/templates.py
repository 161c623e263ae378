"""Commands that need no Vault of your own.

They show templates and run the sandbox.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jitvault.cli.options import Debug, Json, template_names

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="PATH",
        envvar="JITVAULT_SANDBOX_SERVER",
        show_envvar=False,
        help="The program of an OpenBao (bao) or a HashiCorp Vault (vault) to run, or a container image with one, "
        "instead of the sandbox's own OpenBao. It can also be set in JITVAULT_SANDBOX_SERVER.",
    ),
]

_AS_RECORDED = (
    "`passed` is what the last check recorded. Whether the engine's role or connection has changed since, an "
    "administrator sees."
)
templates_app = typer.Typer(help="List, show and check access templates.", no_args_is_help=True)


@templates_app.command("list")
def templates_list(json_: Json = False, debug: Debug = False) -> None:
    """List the access templates.

    The list shows which have passed their check, where the caller may see that. An administrator sees as well whether
    the engine has changed since.

    Example: jitvault templates list
    """
    from jitvault.cli import session
    from jitvault.cli.commands.installation import template_check as check
    from jitvault.cli.folding import wrapped
    from jitvault.cli.quiet import note
    from jitvault.cli.views.templates import print_templates

    wiring = session.open_session()
    templates = wiring.templates
    states, compared = check.states(wiring, templates)
    print_templates([t.canonical() for _, t in sorted(templates.items())], states, as_json=json_)
    if states is not None and "passed" in states.values() and not compared and not json_:
        note(wrapped(_AS_RECORDED, sys.stderr))


@templates_app.command("show")
def templates_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.", autocompletion=template_names)],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show one access template and the Vault paths that it can grant.

    The result of its check is shown where the caller may see it.

    Example: jitvault templates show postgres-readonly
    """
    from jitvault.cli import session
    from jitvault.cli.commands.installation import template_check as check
    from jitvault.cli.views.templates import print_template
    from jitvault.documents.template_check import remarks_of

    wiring = session.open_session()
    template = check.found(wiring, name)
    seen = check.documents(wiring, [name])
    states, _ = check.states(wiring, {name: template})
    state = states[name] if states is not None else None
    notes = remarks_of(seen[name]) if seen is not None and state == "passed" else ()
    paths = [template.resolve(choices) for choices in template.all_choices()]
    connections = [template.spec.fill_connection(choices) for choices in template.all_choices()]
    where = list(dict.fromkeys(each.in_words() for each in connections if each is not None))
    print_template(template.canonical(), paths, state, notes, connections=where, as_json=json_)


def demo(
    server: Server = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Run one task from its request to its seal on real servers.

    The demo starts a real Vault and a real PostgreSQL, and stops and removes them at the end.

    Example: jitvault demo
    """
    from jitvault.cli.commands.sandbox.demo import run

    run(server, as_json=json_)


def dev(
    env_dir: Annotated[
        Path | None,
        typer.Option(
            "--env-dir",
            metavar="DIR",
            help="Write a file for each role into this new directory: operator.env, agent.env, approver-1.env, "
            "approver-2.env, auditor.env, worker.env and admin.env. A shell that sources one is that role alone.",
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file",
            metavar="PATH",
            help="Write one file with everybody's tokens, for scripts: who sources it can act as anybody. It is "
            "complete once it exists.",
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            "--templates",
            metavar="DIR",
            help="The access templates to provision and check, instead of the shipped ones. JITVAULT_TEMPLATES is for "
            "other Vaults and is ignored.",
        ),
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(
            "--policies",
            metavar="DIR",
            help="The Cedar policies of the sandbox's worker, instead of the shipped ones. JITVAULT_POLICIES is for "
            "other Vaults and is ignored.",
        ),
    ] = None,
    server: Server = None,
    debug: Debug = False,
) -> None:
    """Run a provisioned sandbox in the foreground until Ctrl-C.

    The command prints where everything is, the roles and the first commands, and then a line for each event. Its worker
    reads templates and policies when it starts, and again when you edit them.

    Example: jitvault dev --env-dir dev
    """
    from jitvault.cli.commands.sandbox.dev import Wish, foreground

    foreground(Wish(server, templates, policies, env_file, env_dir))
