"""Strict fields for the models of spec and template, and their errors.

Each field type has its rule, its words and its JSON Schema together, so that the parser, the
message and the published schema cannot drift apart.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.annotated_handlers import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from jitvault.errors import InvalidInput
from jitvault.formats.did_you_mean import nearest
from jitvault.formats.shorten import MOST_MARKS, is_mark, marks_so_far
from jitvault.formats.strict_yaml import Document, Path, place, shown
from jitvault.formats.time_window import (
    DURATION_PATTERN,
    INSTANT_PATTERN,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
)

API_VERSION = "jitvault.dev/v1"
MAX_PROBLEMS = 10

# Unicode does not call these format characters (category Cf), yet a reader does not see them: fillers, joiners,
# variation selectors, the block of tags and two non-characters. Text can be hidden in them, or made to look like
# other text.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\ufffe\uffff"
    "\U000e0000-\U000e0fff]"
)
# Controls, format characters (bidi overrides, zero-width), surrogates, private use, line and
# paragraph separators. Unassigned characters are allowed: which those are changes with Python's version.
_UNREADABLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}

# runs of blanks, and blanks other than the plain space
_BLANKS = re.compile("  +|[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")

M = TypeVar("M", bound="Strict")
T = TypeVar("T")


class Strict(BaseModel):
    """The base of all models.

    They have no unknown field, coerce nothing and do not change after reading.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    def canonical(self) -> dict[str, Any]:
        """Return plain JSON data, equal for documents that mean the same; digests cover it.

        Defaults are written out, absent optional fields are left out, and names and lists whose order means nothing are
        sorted. `900s` is written as `15m`, and every instant in UTC. Reading this data gives an equal document.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def problem(message: str, *, complete: bool = False) -> PydanticCustomError:
    """Return the error that a validator raises.

    `message` says what was expected. Unless the message is `complete`, the report adds what was there instead.
    """
    return PydanticCustomError("complete" if complete else "expected", "{message}", {"message": message})


@dataclass(frozen=True, slots=True)
class Name:
    """Text that matches all of `pattern`; `expected` describes that in words."""

    pattern: str
    expected: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise problem(f"expected {self.expected}")
        return text


@dataclass(frozen=True, slots=True)
class Prose:
    """One paragraph of 1 to `limit` characters, all of them visible.

    An approver decides by this text. A bidi override shows it in another order than it has, a
    zero-width or filler character hides a difference, a control character drives the terminal that it is
    printed on, and a run of blanks moves what follows to where a line of jitvault's own would begin: each
    would let somebody sign what they did not read. So there is one plain space between words, and no other
    kind of space. A letter can have only few marks, since a heap of them reaches into other lines.
    """

    limit: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "minLength": 1, "maxLength": self.limit}

    def _checked(self, text: str) -> str:
        if not 1 <= len(text) <= self.limit or text != text.strip():
            raise problem(f"expected 1 to {self.limit} characters without space at either end (in YAML, fold with >-)")
        if blank := _BLANKS.search(text):
            found = f"{_blank_name(blank[0])} after {blank.start()} characters"
            raise problem(f"expected words with one space between them, found {found}", complete=True)
        if max(marks_so_far(text)) > MOST_MARKS or is_mark(text[0]):
            raise problem(f"expected letters with at most {MOST_MARKS} marks each, found more", complete=True)
        for character in text:
            if unicodedata.category(character) in _UNREADABLE or _INVISIBLE.match(character):
                raise problem(
                    f"expected one paragraph that a reader sees as it is, found U+{ord(character):04X}",
                    complete=True,
                )
        return text


def _blank_name(blank: str) -> str:
    return f"{len(blank)} spaces" if len(blank) > 1 else f"U+{ord(blank):04X}"


def sorted_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sort `names`, since the order means nothing; refuse duplicates."""
    refuse_twice(names)
    return tuple(sorted(names))


def refuse_twice(items: Iterable[str]) -> None:
    """Raise a problem if one of `items` is there twice."""
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise problem(f"expected each entry once, found {shown(item)} twice", complete=True)
        seen.add(item)


def _reading(read: Callable[[str], T], kind: str) -> Callable[[object], T]:
    def validator(value: object) -> T:
        if not isinstance(value, str):
            raise problem(f"expected {kind} as text")
        try:
            return read(value)
        except InvalidInput as error:
            raise problem(str(error), complete=True) from None

    return validator


Identifier = Annotated[
    str,
    Name(
        r"^(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62}$",
        "1 to 63 of a-z 0-9 . _ - beginning with a letter or digit, without `..`",
    ),
]
EntityName = Annotated[
    str,
    Name(
        r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$",
        "the name of a Vault entity: 1 to 63 of A-Z a-z 0-9 . _ @ - beginning with a letter or digit, without `..`",
    ),
]
TemplateName = Annotated[
    str, Name(r"^[a-z0-9][a-z0-9-]{0,62}$", "1 to 63 of a-z 0-9 - beginning with a letter or digit")
]
ShortName = Annotated[str, Name(r"^[a-z0-9-]{1,32}$", "1 to 32 of a-z 0-9 -")]
ParameterName = Annotated[
    str, Name(r"^[a-z][a-z0-9_]{0,31}$", "a parameter's name: 1 to 32 of a-z 0-9 _ beginning with a letter")
]
# A list of what is allowed, not of what is forbidden: the value gets into a Vault path and into the text of a
# policy, where `%`, `?`, `#`, `"`, `{{` and look-alike letters do harm as well as `/`, `*` and `+`.
ParameterValue = Annotated[
    str,
    Name(
        r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._@:-]{0,127}$",
        "1 to 128 of A-Z a-z 0-9 . _ @ : - beginning with a letter, digit or _, without `..` "
        "(it becomes part of a Vault path: no space, /, *, +)",
    ),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_reading(parse_duration, "a duration such as 15m or 1h30m")),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "minLength": 2, "pattern": DURATION_PATTERN, "examples": ["15m", "1h30m"]}),
]
Instant = Annotated[
    datetime,
    BeforeValidator(_reading(parse_instant, "a date and time such as 2030-01-31T09:00:00Z")),
    PlainSerializer(format_instant, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": INSTANT_PATTERN}),
]
Text500 = Annotated[str, Prose(500)]
Level = Literal["low", "medium", "high", "critical"]
SortedNames = AfterValidator(sorted_names)
SortedKeys = AfterValidator(lambda named: dict(sorted(named.items())))


def validated(model: type[M], document: Document) -> M:
    """Return `document` as a `model`.

    Raises one InvalidInput that lists the first ten problems, each with source, line, field and what was expected.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        found = _without_repeats(error.errors(include_url=False))
    lines = [_report_line(model, document, each) for each in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        lines.append(f"+{len(found) - MAX_PROBLEMS} more")
    raise InvalidInput("\n".join(lines))


def problem_line(document: Document, path: Path, message: str) -> str:
    """Return a problem as one line: source, line and field, and the message."""
    return f"{place(document.source, document.line_of(path))}: {field_name(path)}: {message}"


def _without_repeats(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    # Pydantic counts only the valid entries of a list: one wrong entry is also reported as a short list.
    below = {error["loc"][:end] for error in errors for end in range(len(error["loc"]))}
    return [error for error in errors if error["type"] != "too_short" or error["loc"] not in below]


def _report_line(model: type[BaseModel], document: Document, error: ErrorDetails) -> str:
    # A wrong key of a mapping is reported by pydantic below the key, as the step "[key]".
    path: Path = tuple(step for step in error["loc"] if step != "[key]")
    return problem_line(document, path, _expectation(model, error, path))


def field_name(path: Path) -> str:
    """Return the path of a field as `spec.access[0].with.database`."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            text = step if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", step) else shown(step, 40)
            name += f".{text}" if name else text
    return name or "the document"


_EXPECTATIONS = {
    "literal_error": "expected {expected}",
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "mapping_type": "expected a mapping",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "too_long": "expected {max_length} or fewer entries",
    "too_short": "expected {min_length} or more entries",
    "greater_than_equal": "expected {ge} or more",
    "less_than_equal": "expected {le} or less",
    "expected": "{message}",
    "complete": "{message}",
}


def _expectation(model: type[BaseModel], error: ErrorDetails, path: Path) -> str:
    kind = error["type"]
    value = error["input"]
    if kind == "missing":
        return "a value is required"
    if kind == "extra_forbidden":
        known = _known_fields(model, path[:-1])
        return f"unknown field{nearest(str(path[-1]), known)}; expected one of {', '.join(known)}"
    message = _EXPECTATIONS.get(kind, error["msg"].lower()).format(**error.get("ctx", {}))
    if kind == "complete":
        return message
    if kind in ("too_long", "too_short"):
        return f"{message}, got {len(value)}"
    if kind == "literal_error" and isinstance(value, str):
        allowed = re.findall(r"'([^']+)'", message)
        return f"{message}, got {shown(value)}{nearest(value, allowed)}"
    unquoted = " (put text in quotes)" if kind == "string_type" and isinstance(value, int | float) else ""
    return f"{message}, got {shown(value)}{unquoted}"


def _known_fields(model: type[BaseModel], path: Path) -> list[str]:
    here = model
    for step in path:
        for name, info in here.model_fields.items():
            if step == (info.alias or name):
                here = _model_in(info.annotation) or here
                break
    return [info.alias or name for name, info in here.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
