"""What an event says has one type for each kind: nothing is read that no worker wrote, and no body by its keys."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from event_examples import WHOLE, example

import jitvault
from jitvault.errors import CorruptRecord
from jitvault.model.event_bodies import BODIES, Observed, decode, encode, ledger_part, said
from jitvault.model.event_chain import GENESIS, link
from jitvault.model.kinds import EventKind

PACKAGE = Path(jitvault.__file__).parent
ROWS = {"columns": 1, "digests": {"grant": {"g-1": "ab"}}}
OTHER_BODIES = {
    "ledger/documents/index.py": "a document's row has a body of its own",
    "ledger/task_queries.py": "SQL reads a field of the stored body",
    "lifecycle/requests/freeze_documents.py": "a document's row has a body of its own",
}
"""What is called `body` there is no event's."""


def read(kind: str, body: Any) -> Any:
    return json.loads(json.dumps(encode(decode(kind, body))))


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


@pytest.mark.parametrize(
    ("kind", "body", "place"),
    [
        ("observed", example("observed", leases=["l-1", 5]), r"\$\.leases\[1\]"),
        ("submitted", example("submitted", decided={"policy": {}}), r"\$\.decision\.policy"),
        ("extended", example("extended", extension={**WHOLE["extended"]["extension"], "by": {}}), r"\$\.extension\.by"),
        ("ending", example("ending", reason="boredom"), r"\$\.reason"),
        ("kept", {"rows": {"columns": "one"}}, r"\$\.rows"),
        ("kept", ["state"], "Expected `object`"),
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
        decode("kept", {"a\x1b[2J\n": 1})
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
