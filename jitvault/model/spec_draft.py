"""The first spec for a template: what `jitvault spec new` prints.

A draft takes from the template what the template knows, and has a placeholder (`<agent>`) where a person has to write
something. `jitvault.model.spec_file` refuses a placeholder by name.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from jitvault.formats.fields import API_VERSION, Duration, EntityName, Identifier, Level, Strict, Text500
from jitvault.formats.time_window import format_duration
from jitvault.model.spec import Tools
from jitvault.model.spec_file import LONGEST_PREFIX, SUFFIX_LENGTH, Prefix
from jitvault.model.template import AccessTemplate

# so that a terminal of 80 columns folds no line of it
WIDTH = 79
_MOST_CHOICES = 8
# no text of a template or a spec has it
_NO_BREAK = "\u00a0"
# a plain scalar that no reader of YAML takes for anything but text, and that needs no escape
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._@-]*")
_NOT_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


class DraftOptions(Strict):
    """What the caller said already, by the names of the options."""

    id: Identifier | None = Field(default=None, alias="--id")
    generate_name: Prefix | None = Field(default=None, alias="--generate-name")
    agent: EntityName | None = Field(default=None, alias="--agent")
    owner: EntityName | None = Field(default=None, alias="--owner")
    intent: Text500 | None = Field(default=None, alias="--intent")
    criticality: Level | None = Field(default=None, alias="--criticality")
    window: Duration | None = Field(default=None, alias="--for")
    deliver: Literal["requester", "agent"] | None = Field(default=None, alias="--deliver")
    tools: Tools = Field(default=(), alias="--tool")


@dataclass(frozen=True, slots=True)
class Draft:
    """A spec for one template, as plain JSON data and as YAML with comments."""

    template: AccessTemplate
    data: dict[str, Any]

    def as_yaml(self) -> str:
        """Return the data as YAML, in which comments say what each value means."""
        return "".join(f"{line}\n" for line in _lines(self.template, self.data))


def draft(template: AccessTemplate, options: DraftOptions, choices: Mapping[str, str]) -> Draft:
    """Return a spec that asks for `template`.

    `choices` are those that the caller made, each one of the template's. A parameter with one choice has that; what
    only a person knows stays a placeholder.
    """
    body = template.spec
    if options.id is not None:
        metadata = {"id": options.id}
    else:
        metadata = {"generateName": options.generate_name or f"{template.name[: LONGEST_PREFIX - 1]}-"}
    with_ = {
        name: choices.get(name) or (parameter.choices[0] if len(parameter.choices) == 1 else f"<{name}>")
        for name, parameter in sorted(body.parameters.items())
    }
    return Draft(
        template,
        {
            "apiVersion": API_VERSION,
            "kind": "Task",
            "metadata": metadata,
            "spec": {
                "agent": options.agent or "<agent>",
                "owner": options.owner or template.metadata.owner,
                "intent": options.intent or "<intent>",
                "criticality": options.criticality or body.tier,
                **({"tools": list(options.tools)} if options.tools else {}),
                "access": [{"template": template.name, **({"with": with_} if with_ else {})}],
                "window": {"for": format_duration(options.window or body.ttl)},
                "deliver": options.deliver or "agent",
            },
        },
    )


def yaml_text(value: str) -> str:
    """Return a line of text as a YAML scalar.

    It is plain if no reader takes that for anything but text. The text has only characters that a spec allows.
    """
    if _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)


def _lines(template: AccessTemplate, data: Mapping[str, Any]) -> Iterator[str]:
    body = data["spec"]
    (access,) = body["access"]
    yield from _comment(f"Access by template {template.name}. {template.metadata.description}")
    yield f"apiVersion: {data['apiVersion']}"
    yield f"kind: {data['kind']}"
    yield from _name(data["metadata"])
    yield "spec:"
    yield from _comment("the Vault entity that uses the access", 2)
    yield f"  agent: {_scalar(body['agent'])}"
    yield from _comment("the Vault entity that answers for the data; the template's owner, unless you name another", 2)
    yield f"  owner: {_scalar(body['owner'])}"
    yield from _comment("what the agent will do and why, in one paragraph that approvers read", 2)
    yield "  intent: >-"
    yield from _wrapped(body["intent"], "    ")
    yield from _comment(f"how much harm the task could do: low, medium, high or critical; {_risk(template)}", 2)
    yield f"  criticality: {body['criticality']}"
    yield from _comment(
        "the programs that the agent will run, which approvers read; `jitvault exec`, the SDK and the MCP server run "
        "no other. Without this line any program can have the access.",
        2,
    )
    example = "psql" if template.spec.engine == "database" else "curl"
    yield f"  tools: [{', '.join(map(yaml_text, body['tools']))}]" if "tools" in body else f"  # tools: [{example}]"
    yield "  access:"
    yield f"    - template: {yaml_text(access['template'])}"
    if "with" in access:
        yield "      with:"
    for name, value in access.get("with", {}).items():
        yield from _comment(_offered(template, name), 8)
        yield f"        {yaml_text(name)}: {_scalar(value)}"
    yield "  window:"
    yield from _comment(f"how long, counted from the issue; at most {format_duration(template.spec.max_window)}", 4)
    yield f"    for: {body['window']['for']}"
    yield from _comment(
        "the task ends when its token does nothing for so long. `jitvault exec` keeps it busy, and asks for 15s by "
        "itself. Leave it out for anything else.",
        4,
    )
    yield "    # heartbeat: 15s"
    yield from _comment("whose inbox gets the wrapping token: agent, or requester, who runs `jitvault grant`", 2)
    yield f"  deliver: {body['deliver']}"


def _name(metadata: Mapping[str, str]) -> Iterator[str]:
    yield "metadata:"
    if "id" in metadata:
        yield from _comment("the task's id; --id names another task", 2)
        yield f"  id: {yaml_text(metadata['id'])}"
        return
    yield from _comment(
        f"each submission is a task of its own, called this and {SUFFIX_LENGTH} random letters and digits; for one "
        "task write `id: NAME` instead",
        2,
    )
    yield f"  generateName: {yaml_text(metadata['generateName'])}"


def _risk(template: AccessTemplate) -> str:
    return f"the template's own tier is {template.spec.tier}"


def _offered(template: AccessTemplate, parameter: str) -> str:
    """Return the choices of a parameter in words."""
    choices = template.spec.parameters[parameter].choices
    more = len(choices) - _MOST_CHOICES
    also = f" or {more} more, which `jitvault templates show {template.name}` shows" if more > 0 else ""
    return f"one of {', '.join(choices[:_MOST_CHOICES])}{also}"


def _scalar(value: str) -> str:
    """Return a value or a placeholder, which looks better without quotes."""
    return value if re.fullmatch(r"<[a-z][a-z0-9_]{0,31}>", value) else yaml_text(value)


def _comment(text: str, indent: int = 0) -> list[str]:
    """Return `text` as lines of a comment. A command in it is not broken."""
    start = f"{' ' * indent}# "
    parts = text.split("`")
    parts[1::2] = [command.replace(" ", _NO_BREAK) for command in parts[1::2]]
    return [line.replace(_NO_BREAK, " ") for line in _wrapped("`".join(parts), start)]


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False, break_on_hyphens=False
    )
