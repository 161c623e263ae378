from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jitvault.errors import InvalidInput
from jitvault.formats.strict_yaml import MAX_BYTES, MAX_SHOWN, place, read_document, shown

# Pieces that YAML gives a meaning to: arbitrary text alone hardly ever gets past the first character.
PIECES = st.sampled_from(
    [
        *"abc:-?[]{},#&*!|>'\"%@`~0123.+ \n\t\r\\",
        ": ",
        "- ",
        "? ",
        "\n  ",
        "\n---\n",
        "\n...\n",
        "%YAML 1.1\n",
        "%TAG ! x:\n",
        "!!str ",
        "!<x> ",
        "&a ",
        "*a",
        "<<: ",
        '"\\',
        "\\x0",
        "\\ud83d",
        "\\UFFFFFFFF",
        "true",
        "null",
        "1e999",
        "é",
        "\ufeff",
        "\u2028",
        "\x85",
        "\U0001f600",
        "|2\n",
        ">-\n",
    ]
)
CHARACTERS = st.characters(
    codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029\ufffe\uffff"
)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15)
TEXT = st.text(CHARACTERS | st.sampled_from("\t\n"), max_size=20)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
JSON_DOCUMENTS = st.dictionaries(TEXT, JSON_VALUES, max_size=5)


def parse_document(data: bytes, *, source: str) -> dict[str, Any]:
    return read_document(data, source=source).data


def refusal(data: bytes | str) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_document(data.encode() if isinstance(data, str) else data, source="spec.yaml")
    assert str(caught.value).startswith("spec.yaml:")
    return str(caught.value)


def reads(text: str) -> dict[str, Any]:
    return parse_document(text.encode(), source="spec.yaml")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "no",
            "yes",
            "on",
            "off",
            "True",
            "FALSE",
            "Null",
            "~",
            "1:30",
            "0123",
            "-012",
            "0x1f",
            "0o17",
            "1_000",
        ),
        *(
            ".inf",
            "-.inf",
            ".nan",
            "2024-01-01",
            "2024-01-01T00:00:00Z",
            "+5",
            "1.",
            ".5",
            "1e",
            "0b1",
            "=",
            "15m",
        ),
    ],
)
def test_what_yaml_guesses_at_is_text(text: str) -> None:
    assert reads(f"value: {text}") == {"value": text}
    assert reads(f"{text}: value") == {text: "value"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("0", 0),
        ("-7", -7),
        ("15", 15),
        ("1.5", 1.5),
        ("-0.25e2", -25.0),
        ("1e3", 1000.0),
        (str(2**53), 2**53),
        (str(-(2**53)), -(2**53)),
    ],
)
def test_json_scalars_resolve(text: str, value: object) -> None:
    found = reads(f"value: {text}")["value"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ['"true"', "'5'", "|-\n  5", ">-\n  null"])
def test_quoted_scalars_and_blocks_are_text(text: str) -> None:
    assert isinstance(reads(f"value: {text}")["value"], str)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("value: 9007199254740993", "spec.yaml:1:8: expected a number of at most 2^53"),
        ("value: -9007199254740993", "2^53"),
        ("value: 1e400", "2^53"),
        ("value: " + "9" * 5000, "2^53"),
        ("a: 1\nb: 2\na: 3", "spec.yaml:3:1: duplicate key 'a'; it was first given on line 1"),
        ('{"x": {"a": 1, "\\u0061": 2}}', "duplicate key 'a'"),
        ("x:\n  - {b: 1, b: 2}", "spec.yaml:2:12: duplicate key 'b'"),
        ("1: a", "spec.yaml:1:1: expected text as a key, got 1"),
        ("true: a", "expected text as a key, got true"),
        ("null: a", "expected text as a key, got null"),
        ("? [a]\n: b", "expected text as a key"),
        ("? {a: 1}\n: b", "expected text as a key"),
        ("a: &x 1", "spec.yaml:1:4: expected no anchor"),
        ("a: &x {b: 1}", "expected no anchor"),
        ("&x a: 1", "expected no anchor"),
        ("a: *x", "spec.yaml:1:4: expected no anchor (&) or alias"),
        ("*x : a", "expected no anchor (&) or alias"),
        ("a: !!str b", "expected no tag"),
        ("a: !foo {b: 1}", "expected no tag, got '!foo'"),
        ("a: ! b", "expected no tag"),
        ("!!map {a: 1}", "expected no tag"),
        ("!!str a: 1", "expected no tag"),
        ("<<: {a: 1}", "expected no merge key"),
        ("a: 1\n---\nb: 2", "spec.yaml:2:1: expected one document"),
        ("%YAML 1.2\n---\na: 1", "expected no % directive"),
        ("%TAG ! tag:example.org,2000:\n---\na: 1", "expected no % directive"),
        ("", "the document is empty"),
        ("# only a comment\n", "the document is empty"),
        ("---\n", "expected a mapping"),
        ("[1]", "expected a mapping"),
        ("text", "expected a mapping"),
        ("null", "expected a mapping"),
        ("a:", "spec.yaml:1:3: a value is missing"),
        ("{a}", "a value is missing"),
        ("a: b: c", "spec.yaml:1:5: expected valid YAML or JSON"),
        ("a:\n\t- b", "spec.yaml:2:1: expected valid YAML or JSON"),
        ('a: "\\UFFFFFFFF"', "expected valid YAML or JSON"),
        ('a: "\\U00110000"', "expected valid YAML or JSON"),
        ('a: "\\ud83d"', "half of a surrogate pair"),
        ('a: "\\u001b[31m"', "spec.yaml:1:4: expected text without control characters, found U+001B"),
        ('a: "\\0"', "found U+0000"),
        ("a: \x1b[31m", "spec.yaml:1:4: expected text without control characters, found U+001B"),
        ("a: 1\r\nb: \x07", "spec.yaml:2:4: expected text without control characters"),
        ("a: \u2028", "found U+2028"),
        ("a: \x85b", "found U+0085"),
        (b"a: 1\nb: \xff", "spec.yaml:2:4: expected UTF-8 text"),
        ("a: 1".encode("utf-16"), "expected UTF-8 text"),
        (b"a" * (MAX_BYTES + 1), "expected at most 65536 bytes, got more"),
        ("a: " + "[" * 5000, "expected at most 20 levels"),
        ("- " * 30 + "a", "expected a mapping"),
        ("a:\n " + "- " * 3000 + "a", "expected at most 20 levels"),
        ("{a: " * 3000, "expected at most 20 levels"),
        ("? " * 3000, "expected text as a key"),
    ],
)
def test_refusals_name_the_place_and_what_was_expected(data: bytes | str, expected: str) -> None:
    assert expected in refusal(data)


def test_a_document_may_be_of_the_greatest_size_and_depth() -> None:
    padding = b"#" * (MAX_BYTES - len(b"a: 1\n"))
    assert parse_document(b"a: 1\n" + padding, source="x") == {"a": 1}
    assert reads("a: " + "[" * 19 + "]" * 19)
    refusal("a: " + "[" * 20 + "]" * 20)


def test_a_byte_order_mark_and_document_markers_are_harmless() -> None:
    assert parse_document(b"\xef\xbb\xbf---\na: 1\n...\n", source="x") == {"a": 1}


@given(document=JSON_DOCUMENTS, indent=st.sampled_from([None, 2, "\t"]), ascii_only=st.booleans())
def test_json_reads_as_json(document: dict[str, Any], indent: int | str | None, ascii_only: bool) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    assert reads(text) == json.loads(text)


@st.composite
def nearly_json(draw: st.DrawFn) -> str:
    """An object on one line, mostly with something in it that JSON or this reader does not take."""
    text = json.dumps(draw(JSON_DOCUMENTS), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
    at = draw(st.integers(0, len(text)))
    strange = st.sampled_from(
        ['"\\u0000"', '"\\ud83d"', "9007199254740993", "1e16", "NaN", "-Infinity", '"<<":1,', "01"]
    )
    return text[:at] + draw(st.just("") | PIECES | strange) + text[at + draw(st.integers(0, 2)) :]


@given(text=nearly_json())
@example('{"a":1,"a":2}')
@example('{"a":' * 20 + "1" + "}" * 20)
@example('{"a":' * 21 + "1" + "}" * 21)
@example('{"a":' + "[" * 100_000)
@example('{"a":' + "9" * 5000 + "}")
@example('{"' + "\\u00e9" * 200 + '":1}')
@example('{"' + "a" * 81 + '":1}')
@example('{"a":1}{"b":2}')
@example("{}\t")
def test_what_is_json_means_what_it_means_in_json_or_is_refused(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=no_json)
    except (ValueError, RecursionError):
        return
    try:
        found = parse_document(text.encode("utf-8", "surrogatepass"), source="x")
    except InvalidInput:
        return
    assert repr(found) == repr(expected)


def no_json(name: str) -> None:
    raise ValueError(name)


def test_a_document_on_one_line_has_one_line() -> None:
    assert read_document(b'{"a":{"b":[1,2]}}', source="x").line_of(("a", "b", 1)) == 1


def test_a_quoted_merge_key_is_text() -> None:
    assert reads("'<<': a") == {"<<": "a"}


def test_json_escapes() -> None:
    text = '{"a":"\\u00e9\\ud83d\\ude00\\/\\"\\\\\\n\\t",\t"b" :\t[1,\t2\t]\t}'
    assert reads(text) == {"a": 'é😀/"\\\n\t', "b": [1, 2]}


@settings(max_examples=300)
@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_arbitrary_bytes_read_or_are_refused(data: bytes) -> None:
    try:
        assert isinstance(parse_document(data, source="x"), dict)
    except InvalidInput as error:
        assert str(error).isprintable()


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join))
@example('{"a": "\\UFFFFFFFF"}')
@example("%YAML 1.99999\n--- a")
def test_hostile_yaml_reads_or_is_refused(text: str) -> None:
    try:
        assert isinstance(parse_document(("a: " + text).encode(), source="x"), dict)
        assert isinstance(parse_document(text.encode(), source="x"), dict)
    except InvalidInput as error:
        assert str(error).isprintable()


def test_lines_of_fields() -> None:
    document = read_document(b"# note\na:\n  b: 1\n  c:\n    - x\n    - y: 2\n", source="x")
    assert document.lines[("a",)] == 2
    assert document.lines[("a", "b")] == 3
    assert document.lines[("a", "c", 0)] == 5
    assert document.lines[("a", "c", 1, "y")] == 6
    assert document.line_of(("a", "c", 1, "missing", "deeper")) == 6
    assert document.line_of(("nowhere",)) == 2


@given(st.text(max_size=400) | st.integers() | st.none() | st.booleans())
def test_shown_is_printable_and_short(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) <= MAX_SHOWN


def test_shown_uses_the_words_of_the_document() -> None:
    assert [shown(value) for value in (True, None, "a\x1b", {}, [], 5)] == [
        "true",
        "null",
        "'a\\x1b'",
        "a mapping",
        "a list",
        "5",
    ]


def test_a_hostile_file_name_is_escaped() -> None:
    assert place("a\x1b[31m.yaml", 3) == "'a\\x1b[31m.yaml':3"


def test_a_hostile_tag_or_key_is_escaped_and_clipped() -> None:
    message = refusal('"' + "k" * 500 + '": 1\n"' + "k" * 500 + '": 2')
    assert len(message) < 200
    assert refusal("a: !" + "x" * 500 + " b").count("x") <= 80
