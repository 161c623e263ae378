"""A file may leave the id open; what becomes of it is a spec like any other, and says nothing of how it was named."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_spec import SPEC, SPECS

from jitvault.errors import InvalidInput
from jitvault.formats.canonical_json import digest_of
from jitvault.model.spec import TaskSpec, parse_spec
from jitvault.model.spec_file import (
    LONGEST_PREFIX,
    SUFFIX_ALPHABET,
    SUFFIX_LENGTH,
    generated_id,
    parse_task_file,
    placeholders,
)

PREFIXES = st.from_regex(rf"[a-z0-9](?:[a-z0-9_-]|\.(?!\.)){{0,{LONGEST_PREFIX - 1}}}", fullmatch=True)
SUFFIXES = st.text(SUFFIX_ALPHABET, min_size=SUFFIX_LENGTH, max_size=SUFFIX_LENGTH)


def document(metadata: dict[str, Any], **body: Any) -> bytes:
    """SPEC as JSON with other metadata, and with fields of its body replaced."""
    return json.dumps({**SPEC, "metadata": metadata, "spec": {**SPEC["spec"], **body}}).encode()


def refusal(data: bytes, **given_id: bool) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_task_file(data, "task.yaml", **given_id)
    return caught.value


@given(spec=SPECS, prefix=PREFIXES, suffix=SUFFIXES)
def test_a_made_id_is_an_id_and_the_spec_is_the_one_with_that_id_written_down(
    spec: dict[str, Any], prefix: str, suffix: str
) -> None:
    made = generated_id(prefix, suffix)
    assert made.startswith(prefix) and len(made) == len(prefix) + SUFFIX_LENGTH
    labels = {name: value for name, value in spec["metadata"].items() if name == "labels"}
    left_open = {**spec, "metadata": {"generateName": prefix, **labels}}
    written = {**spec, "metadata": {"id": made, **labels}}
    named = parse_task_file(json.dumps(left_open).encode(), "x").named(made)
    assert named == parse_spec(json.dumps(written).encode())
    assert digest_of(named.canonical()) == digest_of(TaskSpec.from_data(written, "x").canonical())


def test_a_file_with_an_id_is_read_as_it_was() -> None:
    file = parse_task_file(json.dumps(SPEC).encode(), "x")
    assert file.metadata.id == "read-orders" and file.metadata.generate_name is None
    assert file.named("read-orders").canonical() == SPEC


def test_what_is_signed_cannot_leave_the_id_open() -> None:
    for metadata in ({"generateName": "a-"}, {"id": "a", "generateName": "a-"}):
        with pytest.raises(InvalidInput, match=r"metadata\.generateName: unknown field"):
            TaskSpec.from_data({**SPEC, "metadata": metadata}, "the request")


@pytest.mark.parametrize(
    ("metadata", "said", "hint"),
    [
        (
            {"id": "a", "generateName": "a-"},
            "metadata.generateName: expected id or generateName, found both",
            "--id ID",
        ),
        ({}, "metadata.id: a value is required", "`generateName: PREFIX-`"),
        ({"id": None, "generateName": None}, "metadata.id: a value is required", "--id ID"),
    ],
)
def test_a_file_names_its_task_once_unless_the_id_is_given(metadata: dict[str, Any], said: str, hint: str) -> None:
    error = refusal(document(metadata))
    assert f"task.yaml:1: {said}" in str(error) and hint in error.hint
    assert parse_task_file(document(metadata), "x", has_id=True).named("given").id == "given"


@pytest.mark.parametrize(
    "prefix", ["", "A-", "-a", ".a", "a..b", "a/b", "a b", "ä-", "a\n", "x" * (LONGEST_PREFIX + 1), 5, True]
)
@pytest.mark.parametrize("has_id", [False, True])
def test_a_wrong_prefix_is_refused_even_where_the_id_is_given(prefix: object, has_id: bool) -> None:
    assert "metadata.generateName: expected" in str(refusal(document({"generateName": prefix}), has_id=has_id))


def test_a_prefix_that_is_too_long_is_told_how_long_it_may_be() -> None:
    error = refusal(document({"generateName": "x" * (LONGEST_PREFIX + 1)}))
    assert "expected 1 to 55 of a-z 0-9 . _ -" in str(error) and "the id has 8 more" in str(error)


def test_each_placeholder_is_named_with_what_is_expected() -> None:
    access = [{"template": "t", "with": {"database": "<database>", "schema": "app"}}]
    error = refusal(document({"id": "a"}, agent="<agent>", intent="<intent>", access=access))
    agent, intent, choice = str(error).splitlines()
    assert agent.startswith("task.yaml:1: spec.agent: <agent> is a placeholder: expected the name of the Vault entity")
    assert intent.startswith("task.yaml:1: spec.intent: <intent> is a placeholder: expected what the agent will do")
    assert choice.startswith("task.yaml:1: spec.access[0].with.database: <database> is a placeholder: expected one of")
    assert "`jitvault spec new`" in error.hint


@pytest.mark.parametrize("intent", ["<b>", "Say <intent>.", "< intent >", "<owner>"])
def test_other_text_in_brackets_is_no_placeholder(intent: str) -> None:
    assert parse_task_file(document({"id": "a"}, intent=intent), "x").spec.intent == intent


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["<agent>", "<intent>", "<a>", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "access", "with", "agent", "intent", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), JSON))
def test_any_data_has_placeholders_or_none_and_each_is_where_it_is_said_to_be(data: dict[str, Any]) -> None:
    for path, word in placeholders(copy.deepcopy(data)):
        value: Any = data
        for step in path:
            value = value[step]
        assert value == f"<{word}>" and path[-1] == word
