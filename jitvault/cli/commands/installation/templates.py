"""`jitvault templates`: list, show and check access templates.

A check proves that the credentials that a template grants can be revoked.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer

from jitvault.cli import session
from jitvault.cli.folding import wrapped
from jitvault.cli.options import Template, duration
from jitvault.cli.quiet import is_for_program, is_quiet, note
from jitvault.cli.views.output import warn
from jitvault.cli.views.templates import print_outcome, print_outcomes, print_template, print_templates
from jitvault.documents.template_check import as_recorded, read_record, remarks_of, why_not
from jitvault.errors import (
    JitvaultError,
    NotConfirmed,
    NotFound,
    UsageError,
    VaultRefused,
    VaultRejected,
    VaultUnavailable,
)
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.strict_yaml import shown
from jitvault.model.template import AccessTemplate
from jitvault.model.verifiers import SHOWN
from jitvault.provision.template_check.record import check_template, recorded
from jitvault.provision.template_check.trial import Waiting, basis_of
from jitvault.wiring import Wiring

_AS_RECORDED = (
    "`passed` is what the last check recorded. Whether the engine's role or connection has changed since, an "
    "administrator sees."
)


_BY_HAND = (
    "jitvault does not revoke this later: revoke it by hand, at the target too; the commands are shown. Then repair "
    "what is shown."
)
_BY_ITSELF = (
    "A certificate whose key was not kept expires by itself. Revoke a lease that is named by hand; "
    "the commands are shown. Then repair what is shown: servers would still accept the certificate of a task."
)


def templates_list() -> None:
    """List the access templates.

    The list shows which have passed their check, where the caller may see that. An administrator sees as well whether
    the engine has changed since.

    Example: jitvault templates list
    """
    wiring = session.open_session()
    templates = wiring.templates
    states, compared = _states(wiring, templates)
    print_templates([t.canonical() for _, t in sorted(templates.items())], states)
    if states is not None and "passed" in states.values() and not compared and not is_for_program():
        note(wrapped(_AS_RECORDED, sys.stderr))


def templates_show(
    name: Template,
) -> None:
    """Show one access template and the Vault paths that it can grant.

    The result of its check is shown where the caller may see it.

    Example: jitvault templates show postgres-readonly
    """
    wiring = session.open_session()
    template = found(wiring, name)
    seen = _records(wiring, [name])
    states, _ = _states(wiring, {name: template})
    state = states[name] if states is not None else None
    notes = remarks_of(seen[name]) if seen is not None and state == "passed" else ()
    paths = [template.resolve(choices) for choices in template.all_choices()]
    connections = [template.spec.fill_connection(choices) for choices in template.all_choices()]
    where = list(dict.fromkeys(each.in_words() for each in connections if each is not None))
    print_template(template.canonical(), paths, state, notes, connections=where)


def templates_check(
    name: Template,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="Check only the paths of this choice. May be repeated."),
    ] = None,
    patience: Annotated[
        float,
        duration(
            "--patience",
            "How long to wait until servers refuse a revoked certificate.",
            shown="10m",
            least=1,
            most=30 * 86_400,
        ),
    ] = 600.0,
) -> None:
    """Check that a template's credentials can be revoked.

    With an administrator's token the command issues a credential, uses it, revokes it while it is in use, and checks
    that it no longer works. Unless the template is exempt, no task is granted by it before its check has passed.

    Example: jitvault templates check postgres-readonly --with database=app
    """
    waiting = Waiting(timedelta(seconds=patience), _Progress())
    wiring = session.open_session()
    template = found(wiring, name)
    chosen = _chosen(template, with_ or [])
    vault = session.administrator(wiring, "templates check")
    outcomes = []
    with session.allowed("check a template", "an administrator"):
        for outcome in check_template(vault, wiring.engines, template, chosen, waiting):
            outcomes.append(outcome)
            if not is_for_program():
                print_outcome(outcome, wiring.vault_command)
    print_outcomes(name, outcomes)
    warn_of_placeholder(template)
    left_behind = [what for outcome in outcomes for what in outcome.left_behind]
    if left_behind:
        raise NotConfirmed(
            f"the check of template {name} failed and LEFT BEHIND: {', '.join(map(str, left_behind))}",
            hint=_BY_ITSELF if template.spec.engine == SHOWN else _BY_HAND,
        )
    if failed := [outcome.path for outcome in outcomes if not outcome.passed]:
        raise NotConfirmed(
            f"the check of template {name} failed for {', '.join(failed)}: no task is granted by it",
            hint="Repair what is shown and run the check again. The credentials that it issued are revoked.",
        )


class _Progress:
    """Shows on a terminal what the check waits for.

    It is one line on stderr that is overwritten, and cleared at the end.
    """

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty() and not is_quiet() and (text or self._shown):
            # a line that the terminal wraps could not be overwritten
            cut = text[: shutil.get_terminal_size().columns - 1]
            typer.echo(f"\r{cut}\x1b[K", nl=False, err=True)
            self._shown = bool(text)


def warn_of_placeholder(template: AccessTemplate) -> None:
    """Say where a template sends agents to a host that there is not."""
    host = template.spec.placeholder_host()
    if host is not None:
        warn(
            f"warning: template {template.name} sends agents to {host}, a name for examples: write your server's "
            "address into its `connection`. No check proves it."
        )


def found(wiring: Wiring, name: str) -> AccessTemplate:
    """Return the template `name`. Raises NotFound."""
    template = wiring.templates.get(name)
    if template is None:
        raise NotFound(
            f"there is no template {name!r:.80}{nearest(name, wiring.templates)}",
            hint="`jitvault templates list` shows all templates.",
        )
    return template


def _records(wiring: Wiring, names: list[str]) -> Mapping[str, Mapping[str, Any] | None] | None:
    """Return the records of templates' checks by name.

    None where the caller has no token or may not read the records. Templates can be shown without Vault, so a Vault
    that does not answer is no failure here.
    """
    token = wiring.person_token or wiring.settings.admin
    if token is None:
        return None
    try:
        vault = wiring.vault(token)
        return {name: recorded(vault, name) for name in names}
    except JitvaultError:
        return None


def _states(wiring: Wiring, templates: Mapping[str, AccessTemplate]) -> tuple[dict[str, str] | None, bool]:
    """Return the states of the templates' checks.

    The second value says whether engines were compared.

    An administrator sees whether a role, a connection or a probe has changed since a check passed: then the check is
    `needed`. For others the record alone decides. None where the caller may not see the records.
    """
    seen = _records(wiring, sorted(templates))
    if seen is None:
        return None, False
    found = {name: as_recorded(seen[name], template) for name, template in templates.items()}
    for name in [name for name, state in found.items() if state == "passed"]:
        holds = _still_holds(wiring, templates[name], seen[name])
        if holds is None:
            return found, False
        if not holds:
            found[name] = "needed"
    return found, True


def _still_holds(wiring: Wiring, template: AccessTemplate, document: Mapping[str, Any] | None) -> bool | None:
    """Return whether a passed check rests on what Vault has now.

    None where the caller may not see that, or Vault does not answer.
    """
    record = read_record(document)
    token = wiring.settings.admin
    if record is None or token is None:
        return None
    vault = wiring.vault(token)
    engine = wiring.engines[template.spec.engine]
    try:
        for choices in template.all_choices():
            path = template.resolve(choices)
            basis = basis_of(vault, engine, template, path)
            own = {"installation": record.installation, "template": template.name}
            if why_not(document, **own, path=path, basis=basis):
                return False
    except VaultRejected:
        return False
    except (VaultRefused, VaultUnavailable):
        return None
    except JitvaultError:
        # the role is gone, or gives more than the template says
        return False
    return True


def named_values(given: Iterable[str]) -> dict[str, str]:
    """Return the values of `--with NAME=VALUE` by their names. Raises UsageError."""
    found: dict[str, str] = {}
    for item in given:
        name, separator, value = item.partition("=")
        if not separator or name in found:
            raise UsageError(f"--with {shown(item)}: expected NAME=VALUE with each name once")
        found[name] = value
    return found


def _chosen(template: AccessTemplate, given: list[str]) -> list[dict[str, str]]:
    """Return the combinations of choices that contain all those in `given`.

    Raises UsageError, InvalidInput.
    """
    wanted = named_values(given)
    chosen = [choices for choices in template.all_choices() if wanted.items() <= choices.items()]
    if not chosen:
        offered = "; ".join(f"{n}: {', '.join(p.choices[:8])}" for n, p in sorted(template.spec.parameters.items()))
        raise UsageError(
            f"template {template.name} has no such choice: {shown(', '.join(given))}",
            hint=f"Its choices are {offered or 'none'}.",
        )
    return chosen
