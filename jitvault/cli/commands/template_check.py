"""`jitvault templates check`: an administrator sees, once, that what a template gives can be taken back."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jitvault.cli.options import Debug, Json

if TYPE_CHECKING:
    from jitvault.model.template import AccessTemplate
    from jitvault.wiring import Wiring

_BY_HAND = "Nothing takes that back by itself: end it by hand, at the target too. Then mend what is shown."
_BY_ITSELF = (
    "A certificate whose key is kept nowhere expires by itself. A lease that is named is to be revoked by hand: "
    "`bao lease revoke`. Then mend what is shown: others would go on trusting the certificate of a task."
)


def templates_check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")],
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="Only the paths of this choice; may be given again."),
    ] = None,
    patience: Annotated[
        str,
        typer.Option(
            "--patience",
            metavar="DURATION",
            help="How long to wait at most until servers refuse a revoked certificate.",
        ),
    ] = "10m",
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Issue a credential, use it, revoke it while it is used, and see that it is dead. Nothing is granted before."""
    from jitvault.cli import session
    from jitvault.cli.views import tables as listings
    from jitvault.errors import InvalidInput, NotConfirmed, UsageError
    from jitvault.formats.time_window import parse_duration
    from jitvault.model.verifiers import SHOWN
    from jitvault.provision.template_check.record import check_template
    from jitvault.provision.template_check.trial import Waiting

    try:
        waiting = Waiting(parse_duration(patience), _Progress())
    except InvalidInput as error:
        raise UsageError(f"--patience: {error}") from None
    wiring = session.open_session()
    template = found(wiring, name)
    chosen = _chosen(template, with_ or [])
    token = wiring.settings.admin
    if token is None:
        raise UsageError("a check needs an administrator's token in JITVAULT_ADMIN_TOKEN or VAULT_TOKEN")
    outcomes = []
    for outcome in check_template(wiring.vault(token), wiring.engines, template, chosen, waiting):
        outcomes.append(outcome)
        if not json_:
            listings.outcome(outcome)
    if json_:
        listings.outcomes(name, outcomes)
    left = [what for outcome in outcomes for what in outcome.left_behind]
    if left:
        raise NotConfirmed(
            f"the check of template {name} failed and LEFT BEHIND: {', '.join(left)}",
            hint=_BY_ITSELF if template.spec.engine == SHOWN else _BY_HAND,
        )
    if failed := [outcome.path for outcome in outcomes if not outcome.passed]:
        raise NotConfirmed(
            f"the check of template {name} failed for {', '.join(failed)}: no task is granted by it",
            hint="Mend what is shown and run the check again. What it had made is revoked.",
        )


class _Progress:
    """What is waited for, on a terminal: one line on stderr that is written over, and taken away in the end."""

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, said: str) -> None:
        if sys.stderr.isatty() and (said or self._shown):
            # a line that is folded could not be written over
            cut = said[: shutil.get_terminal_size().columns - 1]
            typer.echo(f"\r{cut}\x1b[K", nl=False, err=True)
            self._shown = bool(said)


def found(wiring: Wiring, name: str) -> AccessTemplate:
    """The template `name`. Raises NotFound."""
    from jitvault.errors import NotFound

    template = wiring.templates.get(name)
    if template is None:
        raise NotFound(f"there is no template {name!r:.80}", hint="`jitvault templates list` shows them.")
    return template


def documents(wiring: Wiring, names: list[str]) -> Mapping[str, Mapping[str, Any] | None] | None:
    """The records of the checks of templates, or None where the caller has no token or may not see them.

    Templates can be looked at without Vault, so one that does not answer is no failure here.
    """
    from jitvault.errors import JitvaultError
    from jitvault.provision.template_check.record import recorded

    token = wiring.settings.person or wiring.settings.admin
    if token is None:
        return None
    try:
        vault = wiring.vault(token)
        return {name: recorded(vault, name) for name in names}
    except JitvaultError:
        return None


def _chosen(template: AccessTemplate, given: list[str]) -> list[dict[str, str]]:
    """The combinations that have all the choices in `given`. Raises UsageError, InvalidInput."""
    from jitvault.errors import UsageError
    from jitvault.formats.strict_yaml import shown

    wanted: dict[str, str] = {}
    for item in given:
        name, separator, value = item.partition("=")
        if not separator or name in wanted:
            raise UsageError(f"--with {shown(item)}: expected NAME=VALUE with each name once")
        wanted[name] = value
    chosen = [choices for choices in template.all_choices() if wanted.items() <= choices.items()]
    if not chosen:
        offered = "; ".join(f"{n}: {', '.join(p.choices[:8])}" for n, p in sorted(template.spec.parameters.items()))
        raise UsageError(
            f"template {template.name} has no such choice: {shown(', '.join(given))}",
            hint=f"Its choices are {offered or 'none'}.",
        )
    return chosen
