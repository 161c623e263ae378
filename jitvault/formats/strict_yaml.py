"""Strictly parse YAML or JSON bytes into plain data.

This is the only way in for a spec or a template. YAML 1.1 guesses: `no` is false, `1:30` is ninety, an alias can
blow a page up to gigabytes. What an approver signs must mean one thing, so this reader takes the scanner and parser
of PyYAML and nothing of its guessing: a mapping of JSON types, each scalar resolved by JSON's own grammar,
everything else refused with its place. JSON is read by this loader as well, as YAML's subset.

The reader consumes events and builds values itself, so nesting is bounded before it can exhaust the
stack and no object of the document is ever constructed by tag.

Documents in Vault are JSON on one line, and are read often. If the json module and every rule here accept such a
text, the json module's result is used, thirty times as fast; otherwise this reader finds out why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import yaml

from jitvault.errors import InvalidInput

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
# Beyond 2^53 a JSON reader with doubles rounds, and the signed bytes would mean two numbers.
MAX_NUMBER = 2**53
MAX_SHOWN = 80
# PyYAML takes a key of at most 1024 characters as it is written, and a character can take twelve of those as an escape.
_LONGEST_KEY = 80
_MAX_DIGITS = 20

Path = tuple[str | int, ...]


class _Mark(Protocol):
    """A place in the text as PyYAML gives it, counted from 0."""

    line: int
    column: int


# Besides the C0 and C1 controls and surrogates: U+2028 and U+2029, which some readers take for a line
# break and others do not, and the non-characters that XML and YAML exclude as well.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BREAK = re.compile("\r\n|\r|\n")

_BOOL, _NULL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "null", "int", "float"))
_NUMBER_RULES = [
    (_INT, re.compile(r"-?(?:0|[1-9][0-9]*)\Z")),
    (_FLOAT, re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")),
]


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, with the line (from 1) of each path in it."""

    source: str
    data: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict, repr=False)

    def line_of(self, path: Path) -> int | None:
        """Return the line of `path`, or of its nearest parent, or None.

        The result is None if even that is unknown.
        """
        for end in range(len(path), -1, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return line
        return None


def parse_document(data: bytes, *, source: str) -> dict[str, Any]:
    """Return the mapping that `data` holds.

    The data are YAML or JSON in UTF-8, at most 64 KiB. Values are dict, list, str, int, float, bool or None; keys
    are str. Raises InvalidInput, which names `source`, the line and the column where they are known, and what was
    expected.
    """
    return read_document(data, source=source).data


def read_document(data: bytes, *, source: str) -> Document:
    """Return what `parse_document` does, with the line of every field.

    Raises InvalidInput.
    """
    text = _decoded(data, source)
    if (quick := _plain_json(text)) is not None:
        return Document(source, quick, {(): 1})
    try:
        loader = _Loader(text)
        return _Reading(source, loader).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _clipped(error.problem or "it ends too early")
        _refuse(source, f"expected valid YAML or JSON: {problem}", mark)
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML passes an escape such as "\UFFFFFFFF" to chr() unchecked and has no mark for it.
        _refuse(source, "expected valid YAML or JSON: an escape sequence names no character")


def place(source: str, line: int | None = None, column: int | None = None) -> str:
    """Return `source:line:column`, as far as known.

    The text is safe to print on a terminal.
    """
    name = source if source.isprintable() else ascii(source)
    return ":".join([name, *(str(number) for number in (line, column) if number is not None)])


def shown(value: object, limit: int = MAX_SHOWN) -> str:
    """Return `value` for a message, escaped and clipped.

    It may hold terminal control sequences.
    """
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _clipped(repr(value[:limit] if isinstance(value, str) and len(value) > limit else value), limit)


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with JSON's scalars instead of YAML 1.1's."""

    # The stubs declare it as a variable of the instance; PyYAML reads it from the class.
    yaml_implicit_resolvers = {  # noqa: RUF012
        "t": [(_BOOL, re.compile(r"true\Z"))],
        "f": [(_BOOL, re.compile(r"false\Z"))],
        "n": [(_NULL, re.compile(r"null\Z"))],
        **dict.fromkeys("-0123456789", _NUMBER_RULES),
    }

    def scan_to_next_token(self) -> None:
        """Accept tabs between brackets, as JSON does.

        PyYAML takes no tab between tokens.
        """
        super().scan_to_next_token()
        while self.flow_level and self.peek() == "\t":
            self.forward()
            super().scan_to_next_token()

    def take(self) -> yaml.Event:
        """Return the next event of the stream."""
        event: yaml.Event = self.get_event()  # type: ignore[no-untyped-call]
        return event

    def tag_of(self, event: yaml.ScalarEvent) -> str:
        """Return the tag that a scalar resolves to."""
        tag: str = self.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        return tag


@dataclass
class _Reading:
    """One pass over the events of one document."""

    source: str
    loader: _Loader
    lines: dict[Path, int] = field(default_factory=dict)

    def document(self) -> Document:
        self.loader.take()  # the start of the stream
        start = self.loader.take()
        if not isinstance(start, yaml.DocumentStartEvent):
            self._refuse(start, "the document is empty; expected a mapping")
        if start.version or start.tags:
            self._refuse(start, "expected no % directive")
        first = self._node()
        if not isinstance(first, yaml.MappingStartEvent):
            self._refuse(first, "expected a mapping (`name: value`) at the top")
        data = self._mapping(first, (), 1)
        self.loader.take()  # the end of the document
        after = self.loader.take()
        if not isinstance(after, yaml.StreamEndEvent):
            self._refuse(after, "expected one document, found a second")
        return Document(self.source, data, self.lines)

    def _node(self) -> yaml.Event:
        """Return the next event: an end, or a node without anchor, alias and tag."""
        event = self.loader.take()
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:  # an alias has it, too
            self._refuse(event, "expected no anchor (&) or alias (*); write the value out, or in quotes")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            tag = shown(event.tag)
            self._refuse(event, f"expected no tag, got {tag}; put text that begins with ! in quotes")
        return event

    def _value(self, event: yaml.Event, path: Path, depth: int) -> object:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if depth > MAX_DEPTH:
            self._refuse(event, f"expected at most {MAX_DEPTH} levels of nesting")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, path, depth)
        return self._sequence(path, depth)

    def _mapping(self, start: yaml.Event, path: Path, depth: int) -> dict[str, Any]:
        self.lines.setdefault(path, _line(start))
        found: dict[str, Any] = {}
        while not isinstance(event := self._node(), yaml.MappingEndEvent):
            key = self._key(event)
            here = (*path, key)
            if key in found:
                self._refuse(event, f"duplicate key {shown(key)}; it was first given on line {self.lines[here]}")
            self.lines[here] = _line(event)
            found[key] = self._value(self._node(), here, depth + 1)
        return found

    def _sequence(self, path: Path, depth: int) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := self._node(), yaml.SequenceEndEvent):
            here = (*path, len(found))
            self.lines[here] = _line(event)
            found.append(self._value(event, here, depth + 1))
        return found

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "expected text as a key")
        key = self._scalar(event)
        if not isinstance(key, str):
            self._refuse(event, f"expected text as a key, got {shown(key)}; put it in quotes")
        if key == "<<" and event.implicit[0]:
            self._refuse(event, "expected no merge key `<<`; write the fields out")
        return key

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:
            return self._text(event)  # quoted, or a block
        if not text:
            # YAML 1.1 reads null here. Neither null nor "" is certainly what was meant.
            self._refuse(event, "a value is missing; write null, or quotes for empty text")
        tag = self.loader.tag_of(event)
        if tag == _NULL:
            return None
        if tag == _BOOL:
            return text == "true"
        if tag in (_INT, _FLOAT):
            return self._number(event, whole=tag == _INT)
        return self._text(event)

    def _number(self, event: yaml.ScalarEvent, *, whole: bool) -> int | float:
        text: str = event.value
        # As a float first: float() takes any number of digits, where int() stops at some thousands.
        if abs(float(text)) > MAX_NUMBER or (whole and abs(int(text)) > MAX_NUMBER):
            self._refuse(event, f"expected a number of at most 2^53, got {_clipped(text)}; put text in quotes")
        return int(text) if whole else float(text)

    def _text(self, event: yaml.ScalarEvent) -> str:
        text: str = event.value
        try:
            # JSON escapes a character beyond U+FFFF as two surrogates; PyYAML leaves them apart.
            joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._refuse(event, "expected text, found half of a surrogate pair")
        if found := _FORBIDDEN.search(joined):
            self._refuse(event, f"expected text without control characters, found U+{ord(found[0]):04X}")
        return joined

    def _refuse(self, event: yaml.Event, message: str) -> NoReturn:
        _refuse(self.source, message, event.start_mark)


class _NotPlain(Exception):
    """The json module reads this text, but a rule may be against it."""


_BROKEN = frozenset("\n\r\t")


def _plain_json(text: str) -> dict[str, Any] | None:
    """Return the object of a one-line JSON text, or None.

    None means that this reader has to parse the text.
    """
    # A tab is blank in JSON everywhere, and in YAML in some places.
    if not text.startswith("{") or not _BROKEN.isdisjoint(text):
        return None
    try:
        found: dict[str, Any] = _JSON.decode(text)
        _check_plain(found, 1)
    except (ValueError, RecursionError, _NotPlain):
        return None
    return found


def _check_plain(value: Any, depth: int) -> None:
    plain = True
    match value:
        case str():
            plain = not _FORBIDDEN.search(value)
        case int() | float():
            plain = abs(value) <= MAX_NUMBER
        case dict() | list() if depth > MAX_DEPTH:
            plain = False
        case dict():
            plain = all(len(key) <= _LONGEST_KEY and not _FORBIDDEN.search(key) for key in value)
    if not plain:
        raise _NotPlain
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_plain(each, depth + 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotPlain
    return found


def _integer(digits: str) -> int:
    # int() is slow on thousands of digits, and such a number is refused anyway
    if len(digits) > _MAX_DIGITS:
        raise _NotPlain
    return int(digits)


def _no_number(_name: str) -> NoReturn:
    raise _NotPlain


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_number)


def _decoded(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        _refuse(source, f"expected at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise InvalidInput(f"{_position(source, before)}: expected UTF-8 text") from None
    # Some editors put a byte order mark first. It says nothing in UTF-8; PyYAML's scanner skips it.
    if found := _FORBIDDEN.search(text):
        raise InvalidInput(
            f"{_position(source, text[: found.start()])}: "
            f"expected text without control characters, found U+{ord(found[0]):04X}"
        )
    return text


def _position(source: str, before: str) -> str:
    rows = _BREAK.split(before)
    return place(source, len(rows), len(rows[-1]) + 1)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _clipped(text: str, limit: int = MAX_SHOWN) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _refuse(source: str, message: str, mark: _Mark | None = None) -> NoReturn:
    where = place(source) if mark is None else place(source, mark.line + 1, mark.column + 1)
    raise InvalidInput(f"{where}: {message}") from None
