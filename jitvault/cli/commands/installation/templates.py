"""`jitvault templates`: list and show access templates, which needs no Vault of your own."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jitvault.cli import session
from jitvault.cli.commands.installation import template_check as check
from jitvault.cli.folding import wrapped
from jitvault.cli.options import Json, template_names
from jitvault.cli.quiet import note
from jitvault.cli.views.templates import print_template, print_templates
from jitvault.documents.template_check import remarks_of

_AS_RECORDED = (
    "`passed` is what the last check recorded. Whether the engine's role or connection has changed since, an "
    "administrator sees."
)


def templates_list(json_: Json = False) -> None:
    """List the access templates.

    The list shows which have passed their check, where the caller may see that. An administrator sees as well whether
    the engine has changed since.

    Example: jitvault templates list
    """
    wiring = session.open_session()
    templates = wiring.templates
    states, compared = check.states(wiring, templates)
    print_templates([t.canonical() for _, t in sorted(templates.items())], states, as_json=json_)
    if states is not None and "passed" in states.values() and not compared and not json_:
        note(wrapped(_AS_RECORDED, sys.stderr))


def templates_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.", autocompletion=template_names)],
    json_: Json = False,
) -> None:
    """Show one access template and the Vault paths that it can grant.

    The result of its check is shown where the caller may see it.

    Example: jitvault templates show postgres-readonly
    """
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
