"""Commands that need no Vault of your own.

They check specs, show templates and run the sandbox.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.options import Debug, Json

if TYPE_CHECKING:
    from jitvault.errors import InvalidInput
    from jitvault.formats.strict_yaml import Document
    from jitvault.model.spec import AccessEntry, TaskSpec
    from jitvault.wiring import Wiring

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

spec_app = typer.Typer(help="Check task specs.", no_args_is_help=True)
templates_app = typer.Typer(help="List, show and check access templates.", no_args_is_help=True)


@spec_app.command("check")
def spec_check(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A task spec, YAML or JSON.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Check a task spec and its templates.

    The command does not ask Vault, so it does not know whether agent and owner exist. It shows which Vault paths the
    task would read.

    Example: jitvault spec check task.yaml
    """
    from jitvault.cli import session
    from jitvault.cli.views import tables as listings
    from jitvault.model.vault_access import Fetch

    wiring = session.open_session()
    read = load_spec(wiring, spec)
    fetches = []
    for entry in read.spec.access:
        template = wiring.templates[entry.template]
        fetches.append(Fetch(entry.template, template.resolve(entry.with_), data=template.spec.fill_data(entry.with_)))
    listings.print_spec_check(read.canonical(), fetches, as_json=json_)


def load_spec(wiring: Wiring, path: Path) -> TaskSpec:
    """Return the spec in a file, checked.

    It is checked against its schema, the templates and the clock. Raises InvalidInput.
    """
    from datetime import timedelta

    from jitvault.errors import InvalidInput
    from jitvault.formats.did_you_mean import nearest
    from jitvault.formats.fields import validated
    from jitvault.formats.strict_yaml import place, read_document
    from jitvault.model.spec import TaskSpec
    from jitvault.model.vault_access import CAPS

    source = place(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(64 * 1024 + 1)
    except FileNotFoundError:
        raise missing_file(path) from None
    except OSError as error:
        raise InvalidInput(
            f"{source} cannot be read: {error.strerror}", hint="Name a file that you can read."
        ) from None
    document = read_document(data, source=str(path))
    read = validated(TaskSpec, document)
    longest = max(CAPS.values())
    for entry in read.spec.access:
        n = _entry_number(document, entry)
        source = place(str(path), document.line_of(("spec", "access", n)))
        template = wiring.templates.get(entry.template)
        if template is None:
            known = ", ".join(sorted(wiring.templates)) or "none"
            raise InvalidInput(
                f"{source}: spec.access[{n}].template: unknown template {entry.template}"
                f"{nearest(entry.template, wiring.templates)}; the templates are: {known}",
                hint=f"These are the templates in {place(str(wiring.settings.templates))}. JITVAULT_TEMPLATES names "
                "another directory; the worker needs the template as well. Nothing was written.",
            )
        try:
            template.resolve(entry.with_)
        except InvalidInput as error:
            raise InvalidInput(f"{source}: spec.access[{n}].with: {error}") from None
        longest = min(longest, template.spec.max_window)
    problems = read.window.problems(wiring.clock.agreed(), longest)
    least = timedelta(seconds=10)
    if not problems and read.window.for_ is not None and read.window.for_ < least:
        problems = ["window.for: expected at least 10s, so that the agent can unwrap and work"]
    if problems:
        field = problems[0].partition(":")[0]
        raise InvalidInput(
            f"{place(str(path), document.line_of(('spec', *field.split('.'))))}: spec.{problems[0]}",
        )
    return read


def _entry_number(document: Document, entry: AccessEntry) -> int:
    """Return which entry of the file's list it is.

    A valid spec has them sorted.
    """
    written = document.data["spec"]["access"]
    return next(
        n
        for n, each in enumerate(written)
        if (each["template"], each.get("with") or {}) == (entry.template, dict(entry.with_))
    )


def missing_file(path: Path) -> InvalidInput:
    """Return the error for a file that does not exist.

    It says which file beside it was most likely meant.
    """
    from jitvault.errors import InvalidInput
    from jitvault.formats.did_you_mean import nearest
    from jitvault.formats.strict_yaml import place

    beside: list[str] = []
    with suppress(OSError):
        beside = [each.name for each in path.parent.iterdir() if each.suffix in (".yaml", ".yml", ".json")]
    meant = nearest(path.name, sorted(filter(str.isprintable, beside)), likeness=0.8)
    return InvalidInput(
        f"there is no file {place(str(path))}{meant}",
        hint="Name a file that exists. Nothing was written.",
    )


@templates_app.command("list")
def templates_list(json_: Json = False, debug: Debug = False) -> None:
    """List the access templates.

    The list shows which have passed their check, where the caller may see that.

    Example: jitvault templates list
    """
    from jitvault.cli import session
    from jitvault.cli.commands import template_check as check
    from jitvault.cli.views import tables as listings
    from jitvault.documents.template_check import as_recorded

    wiring = session.open_session()
    templates = wiring.templates
    seen = check.documents(wiring, sorted(templates))
    states = {name: as_recorded(seen[name], t) for name, t in templates.items()} if seen is not None else None
    listings.print_templates([t.canonical() for _, t in sorted(templates.items())], states, as_json=json_)


@templates_app.command("show")
def templates_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show one access template and the Vault paths that it can grant.

    The result of its check is shown where the caller may see it.

    Example: jitvault templates show postgres-readonly
    """
    from jitvault.cli import session
    from jitvault.cli.commands import template_check as check
    from jitvault.cli.views import tables as listings
    from jitvault.documents.template_check import as_recorded, remarks_of

    wiring = session.open_session()
    template = check.found(wiring, name)
    seen = check.documents(wiring, [name])
    state = as_recorded(seen[name], template) if seen is not None else None
    notes = remarks_of(seen[name]) if seen is not None and state == "passed" else ()
    paths = [template.resolve(choices) for choices in template.all_choices()]
    connections = [template.spec.fill_connection(choices) for choices in template.all_choices()]
    where = list(dict.fromkeys(each.in_words() for each in connections if each is not None))
    listings.print_template(template.canonical(), paths, state, notes, connections=where, as_json=json_)


def demo(
    server: Server = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Run one task from its request to its seal on real servers.

    The demo starts a real Vault and a real PostgreSQL, and stops and removes them at the end.

    Example: jitvault demo
    """
    from jitvault.cli.commands.demo import run

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
    from jitvault.cli.commands.dev import Wish, foreground

    foreground(Wish(server, templates, policies, env_file, env_dir))
