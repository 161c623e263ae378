"""The spec of a task that a model asks for. Pure.

The model chooses a template, its parameters, a reason, programs and a time. Everything else is the template's, so that
it can make nothing look harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from jitvault.agent.execution.allowed_program import spellings
from jitvault.errors import InvalidInput, NotFound
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.time_window import format_duration
from jitvault.mcp.arguments import RequestAccess
from jitvault.model.spec_draft import DraftOptions, draft
from jitvault.model.template import AccessTemplate

_HINT = "Nothing was asked for. `list_access` says what there is."


def spec_data(
    templates: Mapping[str, AccessTemplate], asked: RequestAccess, *, agent: str, task: str, tools: Sequence[str]
) -> dict[str, Any]:
    """Return the spec as plain JSON data.

    `tools` are the programs that the server may run, none for any. Raises NotFound for an unknown template,
    InvalidInput for what it does not allow.
    """
    template = templates.get(asked.template)
    if template is None:
        known = ", ".join(sorted(templates)) or "none"
        raise NotFound(
            f"there is no template {asked.template}{nearest(asked.template, templates)}; the templates are: {known}",
            hint=_HINT,
        )
    template.resolve(asked.parameters)
    unknown = [tool for tool in asked.tools if tools and {*tools}.isdisjoint(spellings(tool))]
    if unknown:
        raise InvalidInput(
            f"this server does not run {', '.join(unknown)}; it runs {', '.join(tools)}",
            hint="Whoever set it up named its tools with --tool. Nothing was asked for.",
        )
    window = None if asked.minutes is None else timedelta(minutes=asked.minutes)
    if window is not None and window > template.spec.max_window:
        raise InvalidInput(
            f"template {template.name} is for {format_duration(template.spec.max_window)} at most",
            hint="Ask for less, and for more time with `extend` later. Nothing was asked for.",
        )
    options = DraftOptions.model_validate({"--id": task, "--agent": agent, "--intent": asked.reason, "--for": None})
    if window is not None:
        options = options.model_copy(update={"window": window})
    data = draft(template, options, asked.parameters).data
    data["spec"]["tools"] = sorted(set(asked.tools))
    return data


def offered(template: AccessTemplate, tools: Sequence[str]) -> dict[str, Any]:
    """Return what a model has to know of a template to ask for it.

    What its owner wrote is marked, as another person's words are in a terminal.
    """
    body = template.spec
    facts: dict[str, Any] = {
        "template": template.name,
        "owner_says": f"| {template.metadata.description}",
        "risk": body.tier,
        "parameters": {name: list(parameter.choices) for name, parameter in sorted(body.parameters.items())},
        "minutes": int(body.ttl.total_seconds() // 60),
        "minutes_at_most": int(body.max_window.total_seconds() // 60),
    }
    return {**facts, "tools": list(tools)} if tools else facts
