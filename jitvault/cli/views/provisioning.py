"""Show the output of `jitvault init`.

It says whose identity acts, what changes, and what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from jitvault.cli.views import output
from jitvault.provision.init import Plan

_SIGNS = {"create": ("+", "green"), "update": ("~", "green"), "delete": ("-", "red")}


@dataclass(frozen=True, slots=True)
class Actor:
    """The identity that provisions Vault.

    `name` is the token's display name, `entity` and `entity_id` are None for a token of no entity, such as a root
    token. `source` says where the token was taken from, `vault` is the server's address.
    """

    name: str
    entity: str | None
    entity_id: str | None
    policies: tuple[str, ...]
    source: str
    vault: str
    namespace: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "entity": self.entity,
            "entity_id": self.entity_id,
            "policies": list(self.policies),
            "source": self.source,
        }

    def __str__(self) -> str:
        entity = f"entity {self.entity or self.entity_id}" if self.entity_id else "no entity"
        where = f"{self.vault}, namespace {self.namespace}" if self.namespace else self.vault
        return f"{self.name} ({entity}; policies {', '.join(self.policies)}; token from {self.source}) at {where}"


def print_question(plan: Plan, actor: Actor) -> None:
    """Print to stderr the identity and the changes to be asked about."""
    console = output.console(stderr=True)
    _print_actor(console, actor)
    _print_changes(console, plan)


def print_provisioning(plan: Plan, missing: Sequence[str], actor: Actor, *, applied: bool, is_shown: bool) -> None:
    """Print a plan's changes, and what is missing that `init` does not make.

    `is_shown` says that the changes were printed with the question.
    """
    steps = [{"action": s.action, "kind": s.kind, "name": s.name, "detail": list(s.detail)} for s in plan.steps]
    body = {"applied": applied, "by": actor.as_json(), "steps": steps, "missing": list(missing)}
    if output.print_for_program({**body, "in_use": list(plan.in_use)}):
        return
    console = output.console()
    if not is_shown:
        _print_actor(console, actor)
        _print_changes(console, plan)
    kept = len(plan.steps) - len(plan.changes)
    changes = f"{len(plan.changes)} change{'' if len(plan.changes) == 1 else 's'}"
    console.print(f"{changes} {'made' if applied else 'to make'}, {kept} as they should be")
    for line in plan.in_use:
        text = output.indented(f"in use by live tasks, so `init` changes nothing: {line}", console.width, first="")
        console.print(text, style="red", soft_wrap=True)
    for note in missing:
        console.print(
            output.indented(f"note: {note}", console.width, first="", keep_commands=True),
            style="yellow",
            soft_wrap=True,
        )


def _print_actor(console: Console, actor: Actor) -> None:
    console.print(output.indented(f"Acting as {actor}", console.width, first=""), soft_wrap=True)


def _print_changes(console: Console, plan: Plan) -> None:
    for step in plan.changes:
        sign, colour = _SIGNS[step.action]
        console.print(f"{sign} {step.kind} {step.name}", style=colour, soft_wrap=True)
        for line in step.detail:
            # a policy's own lines are never folded, so that they can be compared and copied
            console.print(f"    {line}", soft_wrap=True)
