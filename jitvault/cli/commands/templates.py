"""What needs no Vault of one's own: checking specs, looking at templates, and the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jitvault.cli.options import Debug, Json

if TYPE_CHECKING:
    from jitvault.model.spec import TaskSpec
    from jitvault.wiring import Wiring

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="PATH",
        envvar="JITVAULT_SANDBOX_SERVER",
        show_envvar=False,
        help="The program of an OpenBao (bao) or a HashiCorp Vault (vault) to run, or a container image that has one, "
        "instead of the OpenBao that comes with the sandbox; also in JITVAULT_SANDBOX_SERVER.",
    ),
]

spec_app = typer.Typer(help="Task specs.", no_args_is_help=True)
templates_app = typer.Typer(help="Access templates.", no_args_is_help=True)


@spec_app.command("check")
def spec_check(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A task spec, YAML or JSON.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Check a spec and its templates without asking Vault."""
    from jitvault.cli import session
    from jitvault.cli.views import tables as listings
    from jitvault.model.vault_access import Fetch

    wiring = session.open_session()
    read = load_spec(wiring, spec)
    fetches = []
    for entry in read.spec.access:
        template = wiring.templates[entry.template]
        fetches.append(Fetch(entry.template, template.resolve(entry.with_), data=template.spec.fill_data(entry.with_)))
    listings.checked(read.canonical(), fetches, as_json=json_)


def load_spec(wiring: Wiring, path: Path) -> TaskSpec:
    """The spec in a file, checked against its schema, the templates and the clock. Raises InvalidInput."""
    from datetime import timedelta

    from jitvault.errors import InvalidInput
    from jitvault.formats.strict_yaml import place
    from jitvault.model.spec import parse_spec
    from jitvault.model.vault_access import CAPS

    source = place(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(64 * 1024 + 1)
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror}") from None
    read = parse_spec(data, str(path))
    longest = max(CAPS.values())
    for n, entry in enumerate(read.spec.access):
        template = wiring.templates.get(entry.template)
        if template is None:
            known = ", ".join(sorted(wiring.templates)) or "none"
            raise InvalidInput(
                f"{source}: spec.access[{n}].template: unknown template {entry.template}; the templates are: {known}"
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
        raise InvalidInput(f"{source}: spec.{problems[0]}")
    return read


@templates_app.command("list")
def templates_list(json_: Json = False, debug: Debug = False) -> None:
    """List the access templates, and which passed their check where the caller may see it."""
    from jitvault.cli import session
    from jitvault.cli.commands import template_check as check
    from jitvault.cli.views import tables as listings
    from jitvault.documents.template_check import as_recorded

    wiring = session.open_session()
    templates = wiring.templates
    seen = check.documents(wiring, sorted(templates))
    states = {name: as_recorded(seen[name], t) for name, t in templates.items()} if seen is not None else None
    listings.templates([t.canonical() for _, t in sorted(templates.items())], states, as_json=json_)


@templates_app.command("show")
def templates_show(
    name: Annotated[str, typer.Argument(help="The template's name.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show one access template, the Vault paths that it can give, and its check where the caller may see it."""
    from jitvault.cli import session
    from jitvault.cli.commands import template_check as check
    from jitvault.cli.views import tables as listings
    from jitvault.documents.template_check import as_recorded, remarks_of

    wiring = session.open_session()
    template = check.found(wiring, name)
    seen = check.documents(wiring, [name])
    state = as_recorded(seen[name], template) if seen is not None else None
    told = remarks_of(seen[name]) if seen is not None and state == "passed" else ()
    paths = [template.resolve(choices) for choices in template.all_choices()]
    listings.template(template.canonical(), paths, state, told, as_json=json_)


def demo(
    server: Server = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Tell the whole story on a real Vault and a real PostgreSQL, started for it and gone afterwards."""
    from jitvault.cli.commands.demo import run

    run(server, as_json=json_)


def dev(
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file",
            metavar="PATH",
            help="Write what a second terminal sources; complete once it exists.",
        ),
    ] = None,
    server: Server = None,
    debug: Debug = False,
) -> None:
    """Run the sandbox in the foreground, everything provisioned, until Ctrl-C."""
    from jitvault.cli.commands.dev import foreground

    foreground(env_file, server)
