"""Strictly parse YAML or JSON bytes into plain data.

This is the only way in for a spec or a template. YAML 1.1 guesses: `no` is false, `1:30` is ninety, an alias can
blow a page up to gigabytes. What an approver signs must mean one thing, so this reader takes the scanner, parser and
composer of PyYAML and nothing of its guessing: a mapping of JSON types, each scalar resolved by JSON's own grammar,
everything else refused with its place. JSON is read by this loader as well, as YAML's subset.

PyYAML composes the document into nodes, and this reader walks over them. No object of the document is ever
constructed by tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, cast

import yaml

from jitvault.errors import InvalidInput

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
# Beyond 2^53 a JSON reader with doubles rounds, and the signed bytes would mean two numbers.
MAX_NUMBER = 2**53
MAX_SHOWN = 80

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


def read_document(data: bytes, *, source: str) -> Document:
    """Return the mapping that `data` holds, with the line of every field.

    The data are YAML or JSON in UTF-8, at most 64 KiB. Values are dict, list, str, int, float, bool or None; keys
    are str. Raises InvalidInput, which names `source`, the line and the column where they are known, and what was
    expected.
    """
    text = _decoded(data, source)
    try:
        root = _Loader(text, source).only_document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _clipped(error.problem or "it ends too early")
        _refuse(source, f"expected valid YAML or JSON: {problem}", mark)
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML passes an escape such as "\UFFFFFFFF" to chr() unchecked and has no mark for it.
        _refuse(source, "expected valid YAML or JSON: an escape sequence names no character")
    walk = _Walk(source)
    return Document(source, walk.mapping(root, ()), walk.lines)


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
    """PyYAML's composer of nodes, with JSON's scalars instead of YAML 1.1's.

    Anchors, tags and directives are refused here, since nodes do not show them. So is deep nesting: the composer
    recurses, and would exhaust the stack.
    """

    # The stubs declare it as a variable of the instance; PyYAML reads it from the class.
    yaml_implicit_resolvers = {  # noqa: RUF012
        "t": [(_BOOL, re.compile(r"true\Z"))],
        "f": [(_BOOL, re.compile(r"false\Z"))],
        "n": [(_NULL, re.compile(r"null\Z"))],
        **dict.fromkeys("-0123456789", _NUMBER_RULES),
    }

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self._source = source
        self._depth = 0

    def scan_to_next_token(self) -> None:
        """Accept tabs between brackets, as JSON does.

        PyYAML takes no tab between tokens.
        """
        super().scan_to_next_token()
        while self.flow_level and self.peek() == "\t":
            self.forward()
            super().scan_to_next_token()

    def only_document(self) -> yaml.MappingNode:
        """Return the root of the only document, a mapping.

        Raises InvalidInput and yaml.YAMLError.
        """
        self.check_node()  # goes past the start of the stream
        start = self._next_event()
        if not isinstance(start, yaml.DocumentStartEvent):
            self._refuse(start, "the document is empty; expected a mapping")
        if start.version or start.tags:
            self._refuse(start, "expected no % directive")
        root = self.get_node()
        if self.check_node():
            self._refuse(self._next_event(), "expected one document, found a second")
        return cast("yaml.MappingNode", root)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node, unless its event shows that it is refused.

        What is refused here is what only a node's event shows.
        """
        event = self._next_event()
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:  # an alias has it, too
            self._refuse(event, "expected no anchor (&) or alias (*); write the value out, or in quotes")
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            tag = shown(event.tag)
            self._refuse(event, f"expected no tag, got {tag}; put text that begins with ! in quotes")
        if parent is None and not isinstance(event, yaml.MappingStartEvent):
            self._refuse(event, "expected a mapping (`name: value`) at the top")
        if isinstance(event, yaml.CollectionStartEvent):
            if isinstance(parent, yaml.MappingNode) and index is None:
                self._refuse(event, "expected text as a key")
            if self._depth == MAX_DEPTH:
                self._refuse(event, f"expected at most {MAX_DEPTH} levels of nesting")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _next_event(self) -> yaml.Event:
        """Return the event that the composer will take next."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        return event

    def _refuse(self, event: yaml.Event, message: str) -> NoReturn:
        _refuse(self._source, message, event.start_mark)


@dataclass
class _Walk:
    """One pass over the nodes of a document, which gives its data and lines."""

    source: str
    lines: dict[Path, int] = field(default_factory=dict)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        self.lines.setdefault(path, _line(node))
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            here = (*path, key)
            if key in found:
                self._refuse(key_node, f"duplicate key {shown(key)}; it was first given on line {self.lines[here]}")
            self.lines[here] = _line(key_node)
            found[key] = self._value(value_node, here)
        return found

    def _value(self, node: yaml.Node, path: Path) -> object:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path)
        return self._scalar(node)

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        found: list[Any] = []
        for each in node.value:
            here = (*path, len(found))
            self.lines[here] = _line(each)
            found.append(self._value(each, here))
        return found

    def _key(self, node: yaml.Node) -> str:
        key = self._scalar(node)
        if not isinstance(key, str):
            self._refuse(node, f"expected text as a key, got {shown(key)}; put it in quotes")
        if key == "<<" and _is_plain(node):
            self._refuse(node, "expected no merge key `<<`; write the fields out")
        return key

    def _scalar(self, node: yaml.Node) -> str | int | float | bool | None:
        if _is_plain(node) and not node.value:
            # YAML 1.1 reads null here. Neither null nor "" is certainly what was meant.
            self._refuse(node, "a value is missing; write null, or quotes for empty text")
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return bool(node.value == "true")
        if node.tag in (_INT, _FLOAT):
            return self._number(node, whole=node.tag == _INT)
        return self._text(node)

    def _number(self, node: yaml.Node, *, whole: bool) -> int | float:
        text: str = node.value
        # As a float first: float() takes any number of digits, where int() stops at some thousands.
        if abs(float(text)) > MAX_NUMBER or (whole and abs(int(text)) > MAX_NUMBER):
            self._refuse(node, f"expected a number of at most 2^53, got {_clipped(text)}; put text in quotes")
        return int(text) if whole else float(text)

    def _text(self, node: yaml.Node) -> str:
        text: str = node.value
        try:
            # JSON escapes a character beyond U+FFFF as two surrogates; PyYAML leaves them apart.
            joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._refuse(node, "expected text, found half of a surrogate pair")
        if found := _FORBIDDEN.search(joined):
            self._refuse(node, f"expected text without control characters, found U+{ord(found[0]):04X}")
        return joined

    def _refuse(self, node: yaml.Node, message: str) -> NoReturn:
        _refuse(self.source, message, node.start_mark)


def _is_plain(node: yaml.Node) -> bool:
    """Return whether a scalar is neither quoted nor a block."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _decoded(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        _refuse(source, f"expected at most {MAX_BYTES} bytes, got more")
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


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _clipped(text: str, limit: int = MAX_SHOWN) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _refuse(source: str, message: str, mark: _Mark | None = None) -> NoReturn:
    where = place(source) if mark is None else place(source, mark.line + 1, mark.column + 1)
    raise InvalidInput(f"{where}: {message}") from None
