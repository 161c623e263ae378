"""The access template: one kind of access, written once, used often.

An operator writes a template. It says which Vault path issues the credential, which choices a task has, how
risky the access is and how its end is proven. It can only name paths under its own mount: the parameters are
closed lists, and every path that they can form is checked when the template is read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sized
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from jitvault.errors import InvalidInput
from jitvault.formats.canonical_json import canonical_bytes, sha256_hex
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.fields import (
    Duration,
    EntityName,
    Identifier,
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
from jitvault.formats.strict_yaml import place, read_document, shown
from jitvault.formats.time_window import format_duration
from jitvault.model.connection import Connection, ConnectionFacts
from jitvault.model.vault_access import DATA_KEY, DATA_VALUE
from jitvault.model.verifiers import MAX_VERIFIERS, SHOWN, Server

MAX_CHOICES = 256
MAX_WINDOW = timedelta(hours=8)
ACCEPTED_AFTER_END = (timedelta(seconds=10), MAX_WINDOW)
WRAP_TTLS = (timedelta(seconds=5), timedelta(minutes=10))
# The inner token's TTL starts at its creation (docs/vault-facts.md, tokens and wrapping): an agent that
# unwraps at the last moment still needs time to use what it gets.
WORK_AFTER_UNWRAP = timedelta(seconds=5)
# Vault's own paths, and jitvault's: access to them would decide who may do what.
RESERVED = frozenset({"sys", "auth", "identity", "cubbyhole", "jitvault", "jitvault-inbox", "jitvault-transit"})
# Below a path part of this name PKI answers every token, whatever its policies, or needs none. In a mount with such a
# name, such a request could not be told from a change of the engine (`audit/classify.py`).
OPEN_TO_ALL = frozenset({"acme", "cert", "issuer", "ocsp", "unified-ocsp"})

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
_SEGMENT = r"(?:[A-Za-z0-9._@:-]|\{[a-z][a-z0-9_]{0,31}\})+"
_NOT_RESERVED = rf"(?!(?:{'|'.join(sorted(RESERVED))})(?:/|$))"

Mount = Annotated[
    str,
    Name(
        rf"^{_NOT_RESERVED}(?=.{{1,128}}$)[a-z0-9][a-z0-9_-]*(?:/[a-z0-9][a-z0-9_-]*)*$",
        "the mount of a secrets engine: a-z 0-9 _ - with inner slashes only, "
        "not sys, auth, identity, cubbyhole, jitvault, jitvault-inbox or jitvault-transit",
    ),
]
PathPattern = Annotated[
    str,
    Name(
        rf"^{_NOT_RESERVED}(?!.*\.\.)(?=.{{1,256}}$){_SEGMENT}(?:/{_SEGMENT})*$",
        "a path below the mount: A-Z a-z 0-9 . _ @ : - and {parameter}, with inner slashes only, "
        "without `..`, not beginning with sys, auth, identity, cubbyhole, jitvault, jitvault-inbox or "
        "jitvault-transit",
    ),
]
DataKey = Annotated[
    str, Name(rf"^{DATA_KEY}$", "the name of a request's parameter: 1 to 64 of a-z 0-9 _ beginning with a letter")
]
DataPattern = Annotated[
    str,
    Name(
        r"^(?=.{1,256}$)(?:[A-Za-z0-9._@:/,-]|\{[a-z][a-z0-9_]{0,31}\})+$",
        "1 to 256 of A-Z a-z 0-9 . _ @ : / , - and {parameter}: it is pinned in an access policy, where a * would "
        "mean anything",
    ),
]


def _is_empty(found: Sized) -> bool:
    return not found


def _between(least: timedelta, most: timedelta) -> AfterValidator:
    def check(duration: timedelta) -> timedelta:
        if not least <= duration <= most:
            raise problem(
                f"expected {format_duration(least)} to {format_duration(most)}, got {format_duration(duration)}",
                complete=True,
            )
        return duration

    return AfterValidator(check)


class Parameter(Strict):
    """The values that one parameter can take."""

    choices: Annotated[
        tuple[ParameterValue, ...],
        Field(strict=False, min_length=1, max_length=MAX_CHOICES, json_schema_extra={"uniqueItems": True}),
        SortedNames,
    ] = Field(description="All the values that a task may choose, each once.")


class TemplateMetadata(Strict):
    """What the template is called, and who answers for it."""

    name: TemplateName = Field(description="The name that task specs use.")
    description: Text500 = Field(description="What this access allows, in one paragraph that approvers read.")
    owner: EntityName = Field(description="The Vault entity that answers for this template.")


class TemplateBody(Strict):
    """Where the credential comes from and how it ends."""

    engine: ShortName = Field(description="The secrets engine that jitvault knows how to end, such as database.")
    mount: Mount = Field(description="Where that engine is mounted in Vault.")
    path: PathPattern = Field(description="The path below the mount, with {parameter} for what a task chooses.")
    parameters: Annotated[
        Mapping[ParameterName, Parameter],
        Field(max_length=16, json_schema_extra={"additionalProperties": False}),
        SortedKeys,
    ] = Field(default_factory=dict, description="What a task chooses; every one is used in the path or in the data.")
    data: Annotated[
        Mapping[DataKey, DataPattern],
        Field(max_length=16, json_schema_extra={"additionalProperties": False}),
        SortedKeys,
    ] = Field(
        default_factory=dict,
        exclude_if=_is_empty,
        description="What the agent sends to the path, all of it and nothing else, with {parameter} as in the path; "
        "for engines that are written to.",
    )
    tier: Level = Field(description="How risky this access is, whatever the task.")
    data_domains: Annotated[
        tuple[Identifier, ...],
        Field(strict=False, max_length=16, json_schema_extra={"uniqueItems": True}),
        SortedNames,
    ] = Field(default=(), description="The domains of the data it reaches; policy may look at them.")
    ttl: Duration = Field(description="How long a credential lives unless it is renewed.")
    max_window: Duration = Field(description="The longest window that a task may ask for, at most 8h.")
    wrap_ttl: Annotated[Duration, _between(*WRAP_TTLS)] = Field(
        description="How long the wrapping token waits for the agent, 5s to 10m."
    )
    accepted_after_end: Annotated[Duration, _between(*ACCEPTED_AFTER_END)] | None = Field(
        default=None,
        description="How long after its end others may go on accepting a credential, by an answer that they saved or "
        "in a session that is open, 10s to 8h; required for engine pki, and for no other.",
    )
    lease_budget: int = Field(
        ge=1, le=1000, description="How many leases one task may hold; one more is a security finding."
    )
    confirm: Literal["audit", "target"] = Field(
        description="What an end rests on: target (the probe asks), or audit (Vault's word; the target is not asked)."
    )
    probe: ShortName | None = Field(
        default=None, description="The probe that asks the target; required when confirm is target."
    )
    confirm_why: Annotated[str, Prose(200)] | None = Field(
        default=None,
        description="Why the target is not asked, in one line that approvers read; required when confirm is audit.",
    )
    verifiers: Annotated[
        tuple[Server, ...],
        Field(strict=False, max_length=MAX_VERIFIERS, json_schema_extra={"uniqueItems": True}),
        SortedNames,
    ] = Field(
        default=(),
        exclude_if=_is_empty,
        description="TLS servers, as host:port, that its check shows a certificate; for engine pki.",
    )
    connection: Connection | None = Field(
        default=None,
        description="Where the agent uses the credential: approvers read it, the agent gets it.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if message := self._inconsistency():
            raise problem(message, complete=True)
        return self

    def _inconsistency(self) -> str | None:
        if self.confirm == "target" and self.probe is None:
            return "expected a probe, because confirm is target"
        if self.confirm == "target" and self.confirm_why is not None:
            return "expected no confirm_why, because confirm is target"
        if self.confirm == "audit" and self.confirm_why is None:
            return "expected confirm_why, because confirm is audit: say why the target is not asked"
        if self.ttl < self.wrap_ttl + WORK_AFTER_UNWRAP:
            return (
                f"expected ttl of at least wrap_ttl + {format_duration(WORK_AFTER_UNWRAP)}, "
                f"got {format_duration(self.ttl)}: the credential ages while it waits to be unwrapped"
            )
        if self.max_window < self.ttl:
            return f"expected max_window of at least ttl, got {format_duration(self.max_window)}"
        if self.max_window > MAX_WINDOW:
            return f"expected max_window of at most {format_duration(MAX_WINDOW)}"
        if self.verifiers and (self.engine != SHOWN or self.confirm != "target"):
            return f"expected no verifiers: a check shows them certificates (engine {SHOWN}, confirm target) alone"
        if self.connection is not None and (wrong := self.connection.mismatch(self.engine)):
            return wrong
        return self._wrong_parameters() or self._wrong_paths()

    def _wrong_parameters(self) -> str | None:
        texts = (self.path, *self.data.values())
        used = {name for text in texts for name in _PLACEHOLDER.findall(text)}
        declared = set(self.parameters)
        if missing := sorted(used - declared):
            return f"expected a parameter for each placeholder of the path; {', '.join(missing)} has none"
        connected = self.connection.texts() if self.connection else ()
        if missing := sorted({name for text in connected for name in _PLACEHOLDER.findall(text)} - declared):
            return f"expected a parameter for each placeholder of the connection; {', '.join(missing)} has none"
        if unused := sorted(declared - used):
            return f"expected each parameter in the path; {', '.join(unused)} is not used"
        total = 1
        for parameter in self.parameters.values():
            total *= len(parameter.choices)
        if total > MAX_CHOICES:
            # Each combination is one ACL policy in Vault.
            return f"expected at most {MAX_CHOICES} combinations of choices, got {total}"
        return None

    def _wrong_paths(self) -> str | None:
        if named := sorted(OPEN_TO_ALL & {*self.mount.split("/")}):
            return f"expected a mount without a part that is called {named[0]}"
        # Two harmless parts can form `..` together, or a choice can be the whole first segment.
        for with_ in self.combinations():
            path = self.fill(with_)
            facts = self.fill_connection(with_)
            if facts is not None and (wrong := facts.problem()):
                return f"expected another connection; some choices give one whose {wrong}"
            if ".." in path or path.split("/")[0] in RESERVED:
                return f"expected no `..` and no path of Vault's own; some choices give {shown(path)}"
            for key, value in self.fill_data(with_).items():
                if not re.fullmatch(DATA_VALUE, value):
                    return f"expected at most 256 characters in data.{key}; some choices give {shown(value)}"
        return None

    def fill(self, with_: Mapping[str, str]) -> str:
        """Return the path below the mount.

        `with_` has a choice for every parameter.
        """
        return _PLACEHOLDER.sub(lambda match: with_[match[1]], self.path)

    def fill_connection(self, with_: Mapping[str, str]) -> ConnectionFacts | None:
        """Return where the credential is used, if the template says it."""
        if self.connection is None:
            return None
        return self.connection.filled(lambda text: _PLACEHOLDER.sub(lambda match: with_[match[1]], text))

    def placeholder_host(self) -> str | None:
        """Return a host of its connection that nobody can have, or None."""
        connections = (self.fill_connection(with_) for with_ in self.combinations())
        return next((facts.host for facts in connections if facts is not None and facts.is_placeholder), None)

    def fill_data(self, with_: Mapping[str, str]) -> dict[str, str]:
        """Return the data to send; `with_` has a choice for every parameter."""
        return {key: _PLACEHOLDER.sub(lambda match: with_[match[1]], value) for key, value in sorted(self.data.items())}

    def combinations(self) -> Iterator[dict[str, str]]:
        """Yield every combination of choices, in order."""
        names = sorted(self.parameters)
        for values in itertools.product(*(self.parameters[name].choices for name in names)):
            yield dict(zip(names, values, strict=True))


class AccessTemplate(Strict):
    """One kind of access that tasks can ask for."""

    api_version: Literal["jitvault.dev/v1"] = Field(alias="apiVersion", description="The version of this format.")
    kind: Literal["AccessTemplate"] = Field(description="What this document is.")
    metadata: TemplateMetadata = Field(description="The template's name, description and owner.")
    spec: TemplateBody = Field(description="The Vault path, its choices, its risk, its bounds and its proof.")

    @property
    def name(self) -> str:
        """The name that task specs use."""
        return self.metadata.name

    def resolve(self, with_: Mapping[str, str]) -> str:
        """Return the Vault path, mount included, that these choices give.

        Raises InvalidInput for a parameter that is missing or unknown, and for a value that is not among
        its choices; the message names what was expected.
        """
        declared = self.spec.parameters
        names = ", ".join(sorted(declared)) or "no parameter"
        for name in with_:
            if name not in declared:
                raise InvalidInput(
                    f"template {self.name}: unknown parameter {shown(name)}{nearest(name, declared)}; expected {names}"
                )
        for name, parameter in sorted(declared.items()):
            if name not in with_:
                raise InvalidInput(f"template {self.name}: parameter {name} is missing; expected {names}")
            if with_[name] not in parameter.choices:
                raise InvalidInput(
                    f"template {self.name}: parameter {name}: expected {_listed(parameter.choices)}, "
                    f"got {shown(with_[name])}{nearest(with_[name], parameter.choices)}"
                )
        return f"{self.spec.mount}/{self.spec.fill(with_)}"

    def all_choices(self) -> Iterator[dict[str, str]]:
        """Yield every combination of choices, in order; `{}` without parameters."""
        return self.spec.combinations()

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the canonical form's RFC 8785 bytes."""
        return sha256_hex(canonical_bytes(self.canonical()))


@lru_cache(maxsize=256)
def parse_template(data: bytes, source: str = "template") -> AccessTemplate:
    """Return the template in `data` (YAML or JSON).

    Raises InvalidInput, which names `source`, line and field. Results are cached by bytes, since callers that check
    whether a template has changed parse it often.
    """
    return validated(AccessTemplate, read_document(data, source=source))


def load_templates(files: Mapping[str, bytes]) -> dict[str, AccessTemplate]:
    """Return the templates in `files` (file name to bytes), by name.

    Raises InvalidInput for the first file that is wrong, and for two templates with one name.
    """
    found: dict[str, AccessTemplate] = {}
    origin: dict[str, str] = {}
    for source, data in sorted(files.items()):
        template = parse_template(data, source)
        if template.name in found:
            raise InvalidInput(
                f"{place(source)}: metadata.name: the name is not unique: "
                f"{template.name} is already in {place(origin[template.name])}"
            )
        found[template.name] = template
        origin[template.name] = source
    return found


def _listed(choices: tuple[str, ...], most: int = 8) -> str:
    more = f" or {len(choices) - most} others" if len(choices) > most else ""
    return f"one of {', '.join(choices[:most])}{more}"
