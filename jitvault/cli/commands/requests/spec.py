"""`jitvault spec`: begin a task spec, and check one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jitvault.cli import session
from jitvault.cli.commands.installation.templates import found, named_values
from jitvault.cli.options import Out, SpecFile, TaskId, template_names
from jitvault.cli.quiet import note
from jitvault.cli.requests.spec_file import read_spec
from jitvault.cli.views import output
from jitvault.cli.views.spec_check import print_spec_check
from jitvault.errors import InvalidInput, UsageError
from jitvault.formats.fields import field_name, validated
from jitvault.formats.strict_yaml import Document
from jitvault.formats.time_window import format_duration
from jitvault.model.spec_draft import DraftOptions, draft
from jitvault.model.spec_file import placeholders
from jitvault.model.template import AccessTemplate
from jitvault.model.vault_access import Fetch


class SpecFormat(StrEnum):
    """How a new spec is printed."""

    YAML = "yaml"
    JSON = "json"


_SOURCE = "spec new"
_LEVELS = ("low", "medium", "high", "critical")
_DELIVERIES = ("agent", "requester")


def _completing(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Return what completes one of `names` in a shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def spec_new(
    template: Annotated[
        str,
        typer.Argument(metavar="TEMPLATE", help="The access template to ask for.", autocompletion=template_names),
    ],
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="The Vault entity that uses the access.")] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The Vault entity that answers for the data; by default the template's owner.",
        ),
    ] = None,
    intent: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the agent will do and why, in words that approvers read."),
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="A choice of the template. May be repeated."),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="DURATION", help="How long, from the issue, such as 15m; by default the template's ttl."
        ),
    ] = None,
    criticality: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            autocompletion=_completing(_LEVELS),
            help="How much harm the task could do: low, medium, high or critical; by default the template's tier.",
        ),
    ] = None,
    deliver: Annotated[
        str | None,
        typer.Option(
            metavar="WHOM",
            autocompletion=_completing(_DELIVERIES),
            help="Whose inbox gets the wrapping token: agent, the default, or requester.",
        ),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A program that the agent will run; any without it. Approvers read it. May be repeated.",
        ),
    ] = None,
    task_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The task's id. Without it each submission gets one of its own."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--generate-name", metavar="PREFIX", help="How those ids begin; by default with the template's name."
        ),
    ] = None,
    out: Out = None,
    format_: SpecFormat = SpecFormat.YAML,
) -> None:
    """Print a task spec for a template, to be completed and granted.

    Comments say what each value means. What the template does not know, and no option says, is a placeholder,
    which `jitvault spec check` refuses by name. The command needs the templates alone. On an agent's host
    they are read from Vault; elsewhere it needs neither Vault nor a token.

    Example: jitvault spec new postgres-readonly --agent research-agent --out task.yaml
    """
    given = {
        "--id": task_id,
        "--generate-name": prefix,
        "--agent": agent,
        "--owner": owner,
        "--intent": intent,
        "--criticality": criticality,
        "--for": window,
        "--deliver": deliver,
        "--tool": tool or [],
    }
    options = _checked(given)
    wiring = session.open_session()
    chosen = found(wiring, template)
    _check_window(chosen, options)
    made = draft(chosen, options, _choices(chosen, with_ or []))
    with output.new_file(out) as file:
        shown = output.to_json(made.data) + "\n" if format_ == SpecFormat.JSON else made.as_yaml()
        output.text(shown, out=file)
    if format_ == SpecFormat.YAML:
        is_agents = wiring.settings.agent_login is not None
        command = f"exec {{}}{_mapping(chosen)} -- CMD" if is_agents else "grant {}"
        _say_next([field_name(path) for path, _ in placeholders(made.data)], out, command)


def _mapping(template: AccessTemplate) -> str:
    """Return options of `jitvault exec` that give a program the access."""
    match template.spec.engine:
        case "database":
            return " --preset postgres"
        case "pki":
            return f" --file CERTIFICATE={template.name}.certificate --file KEY={template.name}.private_key"
        case _:
            return ""


def _checked(given: Mapping[str, object]) -> DraftOptions:
    """Return the options as the spec takes them. Raises UsageError."""
    if given["--id"] is not None and given["--generate-name"] is not None:
        raise UsageError("--id and --generate-name exclude each other", hint="Use one of them.")
    try:
        return validated(DraftOptions, Document(_SOURCE, dict(given)))
    except InvalidInput as error:
        lines = (line.removeprefix(f"{_SOURCE}: ") for line in str(error).splitlines())
        raise UsageError("\n".join(lines), hint="See `jitvault spec new --help`.") from None


def _check_window(template: AccessTemplate, options: DraftOptions) -> None:
    """Refuse a window that the template does not allow. Raises UsageError."""
    longest = template.spec.max_window
    shortest = timedelta(seconds=10)
    if options.window is not None and not shortest <= options.window <= longest:
        raise UsageError(
            f"--for: template {template.name} takes {format_duration(shortest)} to {format_duration(longest)}, "
            f"got {format_duration(options.window)}",
            hint=f"`jitvault templates show {template.name}` shows what it allows.",
        )


def _choices(template: AccessTemplate, given: Sequence[str]) -> dict[str, str]:
    """Return the choices of a template in `NAME=VALUE` texts.

    Raises UsageError for what the template does not have.
    """
    chosen = named_values(given)
    # what was not chosen is open, and no choice of it is wrong
    complete = {name: parameter.choices[0] for name, parameter in template.spec.parameters.items()}
    try:
        template.resolve({**complete, **chosen})
    except InvalidInput as error:
        hint = f"`jitvault templates show {template.name}` shows its choices."
        raise UsageError(f"--with: {error}", hint=hint) from None
    return chosen


def _say_next(left: Sequence[str], out: Path | None, command: str) -> None:
    """Say on stderr what is to be filled in, or which `command` is next."""
    file = shlex.quote(str(out)) if out else "SPEC"
    if left:
        note(f"Fill in {' and '.join(left)}. Then run `jitvault spec check {file}`.")
    elif out:
        note(f"Next: `jitvault {command.format(file)}`")


def spec_check(
    spec: SpecFile,
    task_id: TaskId = None,
) -> None:
    """Check a task spec and its templates.

    The command does not ask Vault, so it does not know whether agent and owner exist. It shows which Vault paths the
    task would read.

    Example: jitvault spec check task.yaml
    """
    wiring = session.open_session()
    read = read_spec(wiring, spec, task_id)
    fetches = []
    for entry in read.spec.spec.access:
        template = wiring.templates[entry.template]
        fetches.append(Fetch(entry.template, template.resolve(entry.with_), data=template.spec.fill_data(entry.with_)))
    print_spec_check(read.name, read.canonical(), fetches)
