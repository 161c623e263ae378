"""What an event says has one type for each kind: nothing is read that no worker wrote, and no body by its keys."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from event_examples import WHOLE, example
from event_strategies import bodies, places
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

import jitvault
from jitvault.errors import CorruptRecord
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.formats.conversion import as_json
from jitvault.model.event_bodies import BODIES, EventBody, Observed, decode, ledger_part, said
from jitvault.model.event_chain import GENESIS, link
from jitvault.model.kinds import EventKind

PACKAGE = Path(jitvault.__file__).parent
REFERENCE = PACKAGE.parent / "docs" / "reference.md"
ROWS = {"columns": 1, "digests": {"grant": {"g-1": "ab"}}}
OTHER_BODIES = {
    "ledger/documents/index.py": "a document's row has a body of its own",
    "ledger/task_queries.py": "SQL reads a field of the stored body",
    "lifecycle/requests/freeze_documents.py": "a document's row has a body of its own",
}
"""What is called `body` there is no event's."""


def read(kind: str, body: Any) -> Any:
    return json.loads(json.dumps(as_json(decode(kind, body))))


def test_each_kind_of_event_has_a_type() -> None:
    assert set(BODIES) == set(EventKind) == set(WHOLE)


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_a_body_is_written_as_it_was_read(kind: str) -> None:
    for body in (
        WHOLE[kind],
        example(kind),
        {**WHOLE[kind], "note": "so", "ops": {"o-1": "l-1"}, "state": "ending", "rows": ROWS},
    ):
        assert read(kind, body) == body


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_a_missing_and_an_unknown_field_of_a_body_are_refused_by_name(kind: str) -> None:
    body = example(kind)
    for name in body:
        with pytest.raises(CorruptRecord, match=f"missing required field `{name}`"):
            decode(kind, {key: value for key, value in body.items() if key != name})
    with pytest.raises(CorruptRecord, match="unknown field `more`"):
        decode(kind, {**body, "more": 1})


@given(st.data())
def test_every_body_is_read_from_its_stored_bytes_as_it_was_written(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(BODIES)))
    body = decode(kind, data.draw(bodies(kind)))
    stored = canonical_bytes(as_json(body))
    assert decode(kind, json.loads(stored)) == body
    assert canonical_bytes(as_json(decode(kind, json.loads(stored)))) == stored


@given(st.data())
def test_a_field_more_or_less_anywhere_in_a_body_is_refused_with_its_place(data: st.DataObject) -> None:
    """Who can write rows of the ledger can write a body of any form."""
    kind = data.draw(st.sampled_from(sorted(BODIES)))
    body = data.draw(bodies(kind))
    where, content, required = data.draw(st.sampled_from(places(kind, body)))
    name = data.draw(st.sampled_from([*required, "more"]))
    if name == "more":
        content[name] = 1
    else:
        del content[name]
    with pytest.raises(CorruptRecord) as refused:
        decode(kind, body)
    assert f"field `{name}`" in str(refused.value)
    assert not where or f" - at `${where}`" in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        ("observed", example("observed", leases=["l-1", 5]), r"\$\.leases\[1\]"),
        ("submitted", example("submitted", decided={"policy": {}}), r"\$\.decision\.policy"),
        ("extended", example("extended", extension={**WHOLE["extended"]["extension"], "by": {}}), r"\$\.extension\.by"),
        ("ending", example("ending", reason="boredom"), r"\$\.reason"),
        ("queued", {"rows": {"columns": "one"}}, r"\$\.rows"),
        ("queued", ["state"], "Expected `object`"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(kind: str, body: Any, place: str) -> None:
    with pytest.raises(CorruptRecord, match=place):
        decode(kind, body)


def test_an_event_of_an_unknown_kind_is_refused_and_what_the_ledger_added_is_read() -> None:
    event = link("t-1", 1, GENESIS, "forged\n", "2030-01-31T09:00:00Z", {"x": 1, "state": "ending", "rows": ROWS})
    with pytest.raises(CorruptRecord, match=r"'forged\\\\n'"):
        decode(event.kind, event.body)
    assert list(said([event], Observed)) == []
    added = ledger_part(event)
    assert added.state == "ending" and added.rows is not None and added.rows.digests == ROWS["digests"]


def test_a_field_name_that_was_edited_is_shown_on_one_line() -> None:
    with pytest.raises(CorruptRecord) as refused:
        decode("queued", {"a\x1b[2J\n": 1})
    assert str(refused.value).isprintable()


def test_nothing_reads_the_body_of_an_event_by_its_keys() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "verification"):
            # the verifier has its own reading of the chain
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            by_key = isinstance(node, ast.Subscript) and node.value
            got = isinstance(node, ast.Attribute) and node.attr in ("get", "items", "keys") and node.value
            for of in (by_key, got):
                if isinstance(of, ast.Attribute) and of.attr == "body":
                    found.add(str(path.relative_to(PACKAGE)))
    assert found == set(OTHER_BODIES)


def test_the_reference_names_every_field_of_every_body() -> None:
    section = REFERENCE.read_text().partition("### What an event says\n")[2].partition("\n### ")[0]
    rows = [row.split("|") for row in section.splitlines() if row.startswith("| `")]
    described = {kind: _named(row[2]) for row in rows for kind in _named(row[1])}
    common = {each.encode_name for each in fields(EventBody)}
    for kind, body in BODIES.items():
        own = {each.encode_name + "?" * (not each.required) for each in fields(body)} - {f"{name}?" for name in common}
        assert described.pop(kind, set()) == own, kind
    assert not described


def _named(cell: str) -> set[str]:
    """The fields or kinds in a cell, each with its `?`; a remark in brackets names none."""
    return {quoted.partition(":")[0] for quoted in re.findall("`([^`]+)`", re.sub(r"\([^()]*\)", "", cell))}
