from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from terminals import PILED

from jitvault.errors import InvalidInput
from jitvault.formats.strict_yaml import MAX_BYTES
from jitvault.model.spec import TaskSpec, parse_spec
from jitvault.model.spec_file import parse_task_file

EXAMPLES = sorted((Path(__file__).parents[3] / "docs" / "examples").glob("*.yaml"))

SPEC: dict[str, Any] = {
    "apiVersion": "jitvault.dev/v1",
    "kind": "Task",
    "metadata": {"id": "read-orders", "labels": {"team": "analytics"}},
    "spec": {
        "agent": "research-agent",
        "owner": "data-owner",
        "intent": "Count the orders of last week.",
        "criticality": "low",
        "tools": ["psql"],
        "access": [{"template": "postgres-readonly", "with": {"database": "app"}, "reason": "They are there."}],
        "window": {"for": "15m"},
        "network": "office",
        "deliver": "agent",
    },
}
IDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
PROSE = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P"], exclude_characters="\u115f\u1160\u3164\uffa0"),
    min_size=1,
    max_size=30,
)
NAMES = st.lists(IDS, max_size=4, unique=True)
ACCESS = st.lists(
    st.fixed_dictionaries(
        {"template": st.sampled_from(["a", "b", "c-1"])},
        optional={
            "with": st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["app", "no", "1"]), max_size=2),
            "reason": PROSE,
        },
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda entry: (entry["template"], tuple(sorted(entry.get("with", {}).items()))),
)
WINDOWS = st.one_of(
    st.builds(lambda count: {"for": f"{count}s"}, st.integers(1, 100_000)),
    st.builds(
        lambda year, hours: {
            "until": f"{year}-05-01T12:00:00+{hours:02}:00",
            "not_before": f"{year}-05-01T00:00:00Z",
        },
        st.integers(2030, 2040),
        st.integers(0, 14),
    ),
)
SPECS = st.fixed_dictionaries(
    {
        "apiVersion": st.just("jitvault.dev/v1"),
        "kind": st.just("Task"),
        "metadata": st.fixed_dictionaries({"id": IDS}, optional={"labels": st.dictionaries(IDS, PROSE, max_size=3)}),
        "spec": st.fixed_dictionaries(
            {
                "agent": IDS,
                "owner": IDS,
                "intent": PROSE,
                "criticality": st.sampled_from(["low", "medium", "high", "critical"]),
                "access": ACCESS,
                "window": WINDOWS,
            },
            optional={
                "tools": NAMES,
                "network": st.just("office"),
                "deliver": st.sampled_from(["requester", "agent"]),
            },
        ),
    }
)


def changed(path: str, value: object) -> bytes:
    """SPEC as JSON with the field at `path` set, or removed for `...`."""
    document = copy.deepcopy(SPEC)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    here: Any = document
    for step in parents:
        here = here[step]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return json.dumps(document).encode()


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_spec(data, "spec.yaml")
    return str(caught.value)


def shuffled(value: Any, draw: Any) -> Any:
    """`value` with the keys of every mapping in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


def test_a_spec_reads() -> None:
    spec = parse_spec(json.dumps(SPEC).encode(), "spec.json")
    assert spec.id == "read-orders"
    assert spec.spec.access[0].with_ == {"database": "app"}
    assert spec.window.for_ == timedelta(minutes=15)
    assert spec.canonical() == SPEC


def test_defaults_are_written_out_and_absent_fields_left_out() -> None:
    document = copy.deepcopy(SPEC)
    del document["metadata"]["labels"], document["spec"]["tools"], document["spec"]["network"]
    del (
        document["spec"]["deliver"],
        document["spec"]["access"][0]["reason"],
        document["spec"]["access"][0]["with"],
    )
    found = parse_spec(json.dumps(document).encode()).canonical()
    assert found["metadata"]["labels"] == {}
    assert found["spec"]["tools"] == []
    assert found["spec"]["deliver"] == "requester"
    assert found["spec"]["access"] == [{"template": "postgres-readonly", "with": {}}]
    assert "network" not in found["spec"]


def test_null_is_the_same_as_absent() -> None:
    assert parse_spec(changed("spec/network", None)) == parse_spec(changed("spec/network", ...))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_read(path: Path) -> None:
    file = parse_task_file(path.read_bytes(), path.name)
    assert path.stem in (file.metadata.id, (file.metadata.generate_name or "").rstrip("-"))
    spec = file.named(path.stem)
    assert parse_spec(rfc8785.dumps(spec.canonical())) == spec


def test_the_examples_are_there() -> None:
    assert [path.stem for path in EXAMPLES] == ["be-orders", "count-orders", "fix-orders", "read-orders"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("apiVersion", "jitvault.dev/v2", "apiVersion: expected 'jitvault.dev/v1', got 'jitvault.dev/v2'"),
        ("kind", "AccessTemplate", "kind: expected 'Task'"),
        ("surprise", 1, "surprise: unknown field; expected one of apiVersion, kind, metadata, spec"),
        ("spec/agnt", "x", "spec.agnt: unknown field (did you mean agent?); expected one of agent, owner, intent,"),
        (
            "spec/access/0/why",
            "x",
            "spec.access[0].why: unknown field; expected one of template, with, reason",
        ),
        (
            "spec/window/for_",
            "15m",
            "for_: unknown field (did you mean for?); expected one of for, until, not_before, ttl, heartbeat",
        ),
        ("spec/access/0/with_", {}, "spec.access[0].with_: unknown field"),
        ("api_version", "jitvault.dev/v1", "api_version: unknown field"),
        ("spec/parent", "a/b", "spec.parent: expected 1 to 63 of a-z"),
        ("spec/heartbeat", {"every": "1m"}, "spec.heartbeat: unknown field"),
        ("spec/window/heartbeat", 60, "spec.window.heartbeat: expected a duration"),
        ("spec/window/ttl", "0s", "spec.window.ttl: expected a duration of more than zero"),
        ("spec/agent", ..., "spec.agent: a value is required"),
        ("spec/owner", ..., "spec.owner: a value is required"),
        ("spec/window", ..., "spec.window: a value is required"),
        ("spec/criticality", ..., "spec.criticality: a value is required"),
        (
            "spec/criticality",
            "no",
            "spec.criticality: expected 'low', 'medium', 'high' or 'critical', got 'no'",
        ),
        ("spec/criticality", False, "spec.criticality: expected 'low'"),
        ("spec/deliver", "me", "spec.deliver: expected 'requester' or 'agent'"),
        ("metadata/id", 5, "metadata.id: expected text, got 5 (put text in quotes)"),
        ("spec/agent", True, "spec.agent: expected text, got true (put text in quotes)"),
        ("spec/intent", None, "spec.intent: expected text, got null"),
        ("spec/access", [], "spec.access: expected 1 or more entries, got 0"),
        ("spec/access", {}, "spec.access: expected a list, got a mapping"),
        ("spec/access", "postgres-readonly", "spec.access: expected a list"),
        ("spec/access/0", "postgres-readonly", "spec.access[0]: expected a mapping"),
        ("spec/access/0/with", ["app"], "spec.access[0].with: expected a mapping"),
        ("spec/access/0/with/database", 1, "spec.access[0].with.database: expected text, got 1"),
        ("spec/access/0/with/Data Base", "app", "expected a parameter's name"),
        (
            "spec/access",
            [{"template": f"t{n}"} for n in range(17)],
            "spec.access: expected 16 or fewer entries, got 17",
        ),
        ("spec/access/0/template", "Postgres", "spec.access[0].template: expected 1 to 63 of a-z 0-9 -"),
        ("spec/tools", ["psql", "psql"], "spec.tools: expected each entry once, found 'psql' twice"),
        ("spec/tools", [f"t{n}" for n in range(33)], "spec.tools: expected 32 or fewer entries, got 33"),
        ("spec/tools", ["a b"], "spec.tools[0]: expected a tool's name"),
        ("spec/network", "Office", "spec.network: expected 1 to 32 of a-z 0-9 -, got 'Office'"),
        ("spec/window", {}, "spec.window: expected exactly one of for and until"),
        ("spec/window/until", "2030-01-01T00:00:00Z", "spec.window: expected exactly one of for and until"),
        (
            "spec/window/for",
            900,
            "spec.window.for: expected a duration such as 15m or 1h30m as text, got 900",
        ),
        ("spec/window/for", "500ms", "spec.window.for: expected whole days, hours, minutes or seconds"),
        ("spec/window/for", "0s", "spec.window.for: expected a duration of more than zero"),
        ("spec/window/for", "-5m", "spec.window.for: expected whole days"),
        (
            "spec/window/not_before",
            "2030-01-01T00:00:00",
            "spec.window.not_before: expected a date and time with Z",
        ),
        (
            "metadata/labels",
            {f"l{n}": "x" for n in range(17)},
            "metadata.labels: expected 16 or fewer entries, got 17",
        ),
        ("metadata/labels", {"Team": "x"}, "metadata.labels.Team: expected 1 to 63 of a-z"),
        ("metadata/labels", {"team": "x" * 64}, "metadata.labels.team: expected 1 to 63 characters"),
        ("metadata/labels", {"team": 1}, "metadata.labels.team: expected text, got 1"),
    ],
)
def test_refusals_name_the_field_and_what_was_expected(path: str, value: object, expected: str) -> None:
    message = refusal(changed(path, value))
    assert message.startswith("spec.yaml:1: ")
    assert expected in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("wrong", ["", "A", "-a", ".a", "a..b", "a/b", "a*", "a+", "a b", "a\n", "é", "a" * 64])
@pytest.mark.parametrize("path", ["metadata/id", "spec/agent", "spec/owner"])
def test_names_that_reach_a_path(path: str, wrong: str) -> None:
    if wrong == "A" and path != "metadata/id":
        assert parse_spec(changed(path, wrong))  # entity names may have capitals
        return
    assert f"{path.replace('/', '.')}: expected" in refusal(changed(path, wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "",
            "..",
            "a..b",
            "a/b",
            "*",
            "a+",
            "a b",
            "a\t",
            "a\n",
            "{{identity.entity.id}}",
            "a%2f",
            "a?b",
            "a#b",
        ),
        *('a"b', "a\\b", "\u202ea", "ａ", "a\u200b", ".", "-a", "a" * 129, "app\u0000"),  # noqa: RUF001
    ],
)
def test_choices_that_reach_a_vault_path(wrong: str) -> None:
    assert "expected" in refusal(changed("spec/access/0/with/database", wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "\u202e",
            "\u2066",
            "\u200b",
            "\u200d",
            "\u200f",
            "\ufeff",
            "\u00ad",
            "\u2060",
            "\u3164",
            "\u115f",
            "\ufe0f",
        ),
        *("\U000e0041", "\U000e0100", "\ue000", "\u2800", "\u180e", "\u061c", "\t", "\n", "\r"),
    ],
)
@pytest.mark.parametrize("path", ["spec/intent", "spec/access/0/reason", "metadata/labels/team"])
def test_text_hides_nothing_from_an_approver(path: str, wrong: str) -> None:
    message = refusal(changed(path, f"Read{wrong} the orders."))
    assert "that a reader sees as it is" in message
    assert f"U+{ord(wrong):04X}" in message
    assert message.isprintable()


@pytest.mark.parametrize("wrong", ["\ufffe", "\uffff"])
def test_a_stored_text_has_no_character_that_a_file_cannot_have(wrong: str) -> None:
    document = changed("spec/intent", f"Read{wrong} the orders.")
    assert "found U+FFF" in refusal(document)
    with pytest.raises(InvalidInput, match=r"that a reader sees as it is, found U\+FFF"):
        TaskSpec.from_data(json.loads(document), "spec")


@pytest.mark.parametrize(
    ("blanks", "named"),
    [("  ", "2 spaces"), (" " * 60, "60 spaces")]
    + [(c, f"U+{ord(c):04X}") for c in "\u00a0\u2003\u200a\u202f\u3000\u1680\u205f"],
)
def test_blanks_move_no_words_to_where_a_line_of_ours_would_begin(blanks: str, named: str) -> None:
    message = refusal(changed("spec/intent", f"Count.{blanks}Risk low: criticality low, tier low."))
    assert f"spec.intent: expected words with one space between them, found {named} after 6 characters" in message


@pytest.mark.parametrize("text", ["a" + "\u0301" * 5, "\u0301a", "Count" + "\u20dd" * 9 + " it", PILED])
def test_marks_reach_into_no_other_line(text: str) -> None:
    assert "at most 4 marks" in refusal(changed("spec/intent", text))
    assert parse_spec(changed("spec/intent", "a\u0301\u0323 tie\u0302\u0301ng Vie\u0323\u0302t"))


def test_text_has_bounds() -> None:
    assert parse_spec(changed("spec/intent", "ä" * 500))
    for wrong in ("", " ", "a" * 501, " a", "a ", "a\n"):
        assert "spec.intent: expected 1 to 500 characters" in refusal(changed("spec/intent", wrong))


def test_the_same_access_twice_is_refused_also_with_another_reason() -> None:
    twice = [
        {"template": "t", "with": {"a": "1", "b": "2"}, "reason": "one"},
        {"template": "t", "with": {"b": "2", "a": "1"}, "reason": "two"},
    ]
    assert "spec.access: expected each access once, entries 0 and 1 both ask for t" in refusal(
        changed("spec/access", twice)
    )
    assert parse_spec(changed("spec/access", [twice[0], {"template": "t", "with": {"a": "1", "b": "3"}}]))


def test_problems_come_with_their_line_and_all_at_once() -> None:
    (example,) = (path for path in EXAMPLES if path.stem == "read-orders")
    text = example.read_text().replace("criticality: low", "criticality: no").replace("for: 15m", "for: 15")
    lines = text.splitlines()
    first = 1 + next(n for n, line in enumerate(lines) if "criticality" in line)
    second = 1 + next(n for n, line in enumerate(lines) if "for: 15" in line)
    found = refusal(text.encode()).splitlines()
    assert [line.split(": ")[:2] for line in found] == [
        [f"spec.yaml:{first}", "spec.criticality"],
        [f"spec.yaml:{second}", "spec.window.for"],
    ]


def test_at_most_ten_problems_are_told() -> None:
    found = refusal(changed("spec/tools", ["a b"] * 32)).splitlines()
    assert len(found) == 11
    assert found[-1] == "+22 more"


def test_hostile_keys_and_values_are_escaped_and_clipped() -> None:
    key = "\u202e" * 5 + "k" * 300
    message = refusal(changed(f"spec/{key}", "x"))
    assert message.isprintable()
    assert message.count("k") < 60
    message = refusal(changed("metadata/id", "\u202e" + "v" * 300))
    assert message.isprintable()
    assert message.count("v") <= 80


def test_a_spec_does_not_change_after_reading() -> None:
    spec = parse_spec(json.dumps(SPEC).encode())
    with pytest.raises(ValidationError):
        spec.spec.agent = "other"  # type: ignore[misc]


@given(SPECS)
def test_canonical_form_reads_back(document: dict[str, Any]) -> None:
    spec = parse_spec(json.dumps(document).encode())
    data = rfc8785.dumps(spec.canonical())
    assert parse_spec(data) == spec
    assert rfc8785.dumps(parse_spec(data).canonical()) == data


@given(SPECS, st.data())
def test_canonical_bytes_ignore_order_and_format(document: dict[str, Any], data: st.DataObject) -> None:
    other = shuffled(document, data.draw)
    for name in ("access", "tools"):
        if name in other["spec"]:
            other["spec"][name] = data.draw(st.permutations(other["spec"][name]))
    formats = [
        json.dumps(other),
        json.dumps(other, indent="\t", ensure_ascii=False),
        yaml.safe_dump(other, allow_unicode=True, sort_keys=False, default_style='"'),
    ]
    expected = rfc8785.dumps(parse_spec(json.dumps(document).encode()).canonical())
    for text in formats:
        assert rfc8785.dumps(parse_spec(text.encode()).canonical()) == expected


@pytest.mark.parametrize("spelling", ["5400s", "90m", "1h30m", "0d1h1800s", "01h30m0s"])
def test_canonical_bytes_ignore_how_a_duration_is_spelt(spelling: str) -> None:
    assert parse_spec(changed("spec/window/for", spelling)).canonical()["spec"]["window"] == {"for": "1h30m"}


def test_canonical_bytes_ignore_the_offset_of_an_instant() -> None:
    window = {"until": "2030-01-31T10:00:00+01:00", "not_before": "2030-01-31T00:00:00-08:00"}
    assert parse_spec(changed("spec/window", window)).canonical()["spec"]["window"] == {
        "until": "2030-01-31T09:00:00Z",
        "not_before": "2030-01-31T08:00:00Z",
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/agent", "other"),
        ("spec/owner", "other"),
        ("spec/intent", "Something else."),
        ("spec/criticality", "high"),
        ("spec/tools", []),
        ("spec/access/0/template", "other"),
        ("spec/access/0/with/database", "other"),
        ("spec/access/0/reason", ...),
        ("spec/window/for", "16m"),
        ("spec/window/not_before", "2030-01-01T00:00:00Z"),
        ("spec/network", ...),
        ("spec/deliver", ...),
        ("metadata/id", "other"),
        ("metadata/labels", {}),
    ],
)
def test_canonical_bytes_tell_every_field(path: str, value: object) -> None:
    assert parse_spec(changed(path, value)).canonical() != parse_spec(json.dumps(SPEC).encode()).canonical()


def test_a_stored_spec_is_as_small_as_a_file() -> None:
    labels = {f"label-{n}": "x" for n in range(MAX_BYTES // 8)}
    with pytest.raises(InvalidInput, match="expected at most 65536 bytes"):
        TaskSpec.from_data({**SPEC, "metadata": {"id": "a", "labels": labels}}, "spec")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda s: st.lists(s) | st.dictionaries(st.text(max_size=3), s),
    max_leaves=5,
)


@given(ANYTHING, st.data())
def test_any_value_in_any_field_reads_or_is_refused(value: object, data: st.DataObject) -> None:
    paths = ["apiVersion", "kind", "metadata", "spec", "metadata/id", "metadata/labels"]
    paths += [f"spec/{name}" for name in SPEC["spec"]] + [
        "spec/access/0",
        "spec/access/0/with",
        "spec/window/for",
    ]
    try:
        parse_spec(changed(data.draw(st.sampled_from(paths)), value))
    except InvalidInput as error:
        assert all(line.isprintable() for line in str(error).split("\n"))


@given(SPECS, ANYTHING, st.data())
def test_a_stored_spec_is_read_as_a_file_is(document: dict[str, Any], value: object, data: st.DataObject) -> None:
    paths = ["metadata/id", "metadata/labels", "spec/agent", "spec/intent", "spec/tools", "spec/access", "spec/window"]
    wrong = json.loads(changed(data.draw(st.sampled_from(paths)), value))
    for each in (document, wrong):
        assert outcome(lambda: TaskSpec.from_data(each, "spec")) == outcome(  # noqa: B023
            lambda: parse_spec(json.dumps(each).encode(), "spec")  # noqa: B023
        )


def outcome(read: Callable[[], TaskSpec]) -> TaskSpec | None:
    """The spec, or None where it is refused."""
    try:
        return read()
    except InvalidInput:
        return None
