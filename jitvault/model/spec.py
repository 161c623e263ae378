"""The task spec: what an operator requests.

A spec names the agent and says for how long and why the access is needed. A spec is parsed once, strictly, and is
kept in its canonical form from then on. Equal requests give equal bytes, however their keys were ordered, their
durations spelt or their files formatted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from jitvault.errors import InvalidInput
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.fields import (
    Duration,
    EntityName,
    Identifier,
    Instant,
    Level,
    Name,
    ParameterName,
    ParameterValue,
    Prose,
    ShortName,
    SortedKeys,
    SortedNames,
    Strict,
    TemplateName,
    Text500,
    problem,
    validated,
)
from jitvault.formats.strict_yaml import MAX_BYTES, Document, read_document
from jitvault.formats.time_window import Window

ToolName = Annotated[
    str,
    Name(
        r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$",
        "a tool's name: 1 to 63 of A-Z a-z 0-9 . _ : - beginning with a letter or digit, without `..`",
    ),
]
LabelValue = Annotated[str, Prose(63)]
Labels = Annotated[
    Mapping[Identifier, LabelValue],
    Field(max_length=16, json_schema_extra={"additionalProperties": False}),
    SortedKeys,
]


Tools = Annotated[
    tuple[ToolName, ...],
    Field(strict=False, max_length=32, json_schema_extra={"uniqueItems": True}),
    SortedNames,
]


class AccessEntry(Strict):
    """One access that the task needs: a template and its parameters' choices."""

    template: TemplateName = Field(description="The name of the access template.")
    with_: Annotated[
        Mapping[ParameterName, ParameterValue],
        Field(max_length=16, json_schema_extra={"additionalProperties": False}),
        SortedKeys,
    ] = Field(
        default_factory=dict,
        alias="with",
        description="The choice for each parameter of the template: name to text.",
    )
    reason: Text500 | None = Field(default=None, description="Why the task needs it, in the operator's words.")

    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Return what identifies an access: template and choices.

        It also gives the sort order.
        """
        return self.template, tuple(sorted(self.with_.items()))


def _sorted_access(entries: tuple[AccessEntry, ...]) -> tuple[AccessEntry, ...]:
    """Sort by template and choices, and refuse duplicates.

    The order of the entries means nothing.
    """
    seen: dict[Any, int] = {}
    for number, entry in enumerate(entries):
        first = seen.setdefault(entry.key(), number)
        if first != number:
            raise problem(
                f"expected each access once, entries {first} and {number} both ask for {entry.template} "
                "with the same choices",
                complete=True,
            )
    return tuple(sorted(entries, key=AccessEntry.key))


class WindowFields(Strict):
    """When access may be held: exactly one of `for` and `until`.

    How long a credential lives without a renewal.
    """

    for_: Duration | None = Field(
        default=None,
        alias="for",
        description="How long, counted from the issue: whole d, h, m, s; at most 30d.",
    )
    until: Instant | None = Field(default=None, description="The end: RFC 3339 with Z or an offset, in whole seconds.")
    not_before: Instant | None = Field(
        default=None, description="Nothing is issued earlier: RFC 3339 with Z or an offset, in whole seconds."
    )
    ttl: Duration | None = Field(
        default=None,
        description="How long a credential lives unless it is renewed, at least 10s; by criticality if absent.",
    )
    heartbeat: Duration | None = Field(
        default=None, description="The task ends when its token, once unwrapped, does nothing for so long."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        try:
            self.value()
        except InvalidInput as error:
            raise problem(str(error), complete=True) from None
        return self

    def value(self) -> Window:
        """Return the fields as a `Window`, for calculations."""
        return Window(for_=self.for_, until=self.until, not_before=self.not_before)


class TaskMetadata(Strict):
    """What the task is called."""

    id: Identifier = Field(description="The task's id, unique in this installation.")
    labels: Labels = Field(default_factory=dict, description="Free names and values, at most 16, for reports.")


class TaskBody(Strict):
    """What is asked for."""

    agent: EntityName = Field(description="The Vault entity that uses the access.")
    owner: EntityName = Field(description="The Vault entity that answers for the data.")
    intent: Text500 = Field(description="What the agent will do and why, in one paragraph that approvers read.")
    criticality: Level = Field(description="How much harm the task could do; raises the templates' tier.")
    tools: Tools = Field(
        default=(), description="The names of the tools that the agent will use; policy may look at them."
    )
    access: Annotated[
        tuple[AccessEntry, ...],
        Field(strict=False, min_length=1, max_length=16),
        AfterValidator(_sorted_access),
    ] = Field(description="What the task needs, 1 to 16 entries, each access once.")
    window: WindowFields = Field(description="When the access may be held.")
    network: ShortName | None = Field(
        default=None, description="The provisioned network from which the task's token works; any if absent."
    )
    parent: Identifier | None = Field(
        default=None, description="The task that hands a part of its access on to this one, which ends with it."
    )
    deliver: Literal["requester", "agent"] = Field(
        default="requester", description="Whose inbox gets the wrapping token."
    )


class TaskSpec(Strict):
    """A request for access that lives as long as one task."""

    api_version: Literal["jitvault.dev/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["Task"] = Field(description="What this document is.")
    metadata: TaskMetadata = Field(description="The task's id and labels.")
    spec: TaskBody = Field(description="Who asks for which access, why and for how long.")

    @classmethod
    def from_data(cls, data: dict[str, Any], source: str) -> TaskSpec:
        """Return the spec that a document in Vault holds, as JSON data.

        Raises InvalidInput, as `parse_spec` does of the same data in a file.
        """
        try:
            size = len(canonical_bytes(data))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{source}: expected JSON data") from error
        if size > MAX_BYTES:
            raise InvalidInput(f"{source}: expected at most {MAX_BYTES} bytes of JSON")
        return validated(cls, Document(source, data))

    @property
    def id(self) -> str:
        """The task's id."""
        return self.metadata.id

    @property
    def window(self) -> Window:
        """When the access may be held."""
        return self.spec.window.value()


def parse_spec(data: bytes, source: str = "spec") -> TaskSpec:
    """Return the task spec in `data` (YAML or JSON).

    Raises InvalidInput, which names `source`, line and field. Whatever depends on the time, on templates or on
    what is provisioned is not checked here.
    """
    return validated(TaskSpec, read_document(data, source=source))
