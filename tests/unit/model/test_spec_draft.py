"""The first spec of a template: its YAML says what its data say, and it lacks what only a person knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_spec import PROSE

from jitvault.formats.strict_yaml import read_document
from jitvault.model.spec_draft import WIDTH, Draft, DraftOptions, draft, yaml_text
from jitvault.model.spec_file import LONGEST_PREFIX, parse_task_file, placeholders
from jitvault.model.template import AccessTemplate, parse_template

TEMPLATES = {path.stem: path for path in sorted((Path(__file__).parents[3] / "templates").glob("*.yaml"))}
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_@-]{0,30}", fullmatch=True)
# what YAML 1.1 takes for something else than text, and text that ends a scalar or begins a comment
TRICKY = st.sampled_from(
    [
        "yes",
        "No",
        "y",
        "null",
        "~",
        "true",
        "1",
        "0x1F",
        "1:30",
        "1e3",
        "007",
        "2030-01-01",
        "a: b",
        "a #b",
        "- a",
        "'",
        '"',
        "\\",
        "|",
        ">-",
        "{a",
        "[a",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "a:",
        "=",
        "<<",
        "...",
        "---",
        "é",
    ]
)
WORDS = st.lists(st.one_of(TRICKY, PROSE), min_size=1, max_size=12).map(" ".join).filter(lambda text: len(text) <= 500)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "--agent": NAMES,
        "--owner": NAMES,
        "--intent": WORDS,
        "--criticality": st.sampled_from(["low", "critical"]),
        "--for": st.sampled_from(["10s", "15m", "1h"]),
        "--tool": st.lists(st.sampled_from(["no", "1e3", "y", "007", "a:b", "psql"]), min_size=1, unique=True),
        "--deliver": st.sampled_from(["requester", "agent"]),
        "--id": st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
        "--generate-name": st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
    },
)


def template(**parameters: list[str]) -> AccessTemplate:
    """The shipped template for reading, with other parameters."""
    data = yaml.safe_load(TEMPLATES["postgres-readonly"].read_text())
    names = {name: {"choices": choices} for name, choices in parameters.items()}
    path = "creds/" + "-".join(f"{{{name}}}" for name in names)
    spec = {**data["spec"], "parameters": names, "path": path}
    spec["connection"] = None
    return parse_template(json.dumps({**data, "spec": spec}).encode())


def made(options: dict[str, Any], of: AccessTemplate, **choices: str) -> Draft:
    return draft(of, DraftOptions.model_validate(options), choices)


def read(found: Draft) -> dict[str, Any]:
    return read_document(found.as_yaml().encode(), source="new").data


@given(TRICKY | PROSE | NAMES)
def test_a_scalar_is_text_for_every_reader_of_yaml(text: str) -> None:
    written = f"v: {yaml_text(text)}\n"
    assert read_document(written.encode(), source="x").data == {"v": text}
    assert yaml.safe_load(written) == {"v": text}


@given(options=OPTIONS, choices=st.sets(st.sampled_from(["1e5", "no", "app", "1:30", "007", "a_b@c"]), min_size=1))
def test_the_yaml_says_what_the_data_say(options: dict[str, Any], choices: set[str]) -> None:
    found = made(options, template(y=sorted(choices), database=["app", "no"]), database="no")
    assert found.data["spec"]["access"][0]["with"]["database"] == "no", "the choice that was made"
    assert read(found) == found.data
    assert yaml.safe_load(found.as_yaml()) == found.data


@given(OPTIONS)
def test_it_lacks_exactly_what_nobody_said(options: dict[str, Any]) -> None:
    options.pop("--id", None)
    found = made(options, template(one=["a"], two=["a", "b"]))
    missing = {"agent", "intent"} - {name.removeprefix("--") for name in options}
    assert {word for _, word in placeholders(found.data)} == {*missing, "two"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_draft_of_a_shipped_template_reads_once_agent_and_intent_are_given(name: str) -> None:
    known = parse_template(TEMPLATES[name].read_bytes())
    found = made({"--agent": "research-agent", "--intent": "Count."}, known)
    file = parse_task_file(found.as_yaml().encode(), "new")
    body = file.spec
    assert file.metadata.generate_name == f"{name}-" and body.owner == known.metadata.owner
    assert (body.criticality, body.window.for_) == (known.spec.tier, known.spec.ttl)
    known.resolve(body.access[0].with_)
    assert max(map(len, found.as_yaml().splitlines())) <= WIDTH


def test_the_tools_that_nobody_named_are_a_line_to_complete() -> None:
    said = made({}, template(database=["app"])).as_yaml()
    assert "  # tools: [psql]\n" in said and "approvers read" in said
    assert "  tools: [pg_dump, psql]\n" in made({"--tool": ["psql", "pg_dump"]}, template(database=["app"])).as_yaml()


def test_what_is_offered_stands_beside_the_choice() -> None:
    few = made({}, template(database=["app", "hr"])).as_yaml()
    assert "        # one of app, hr\n        database: <database>\n" in few
    many = made({}, template(database=[f"d{n:02}" for n in range(20)])).as_yaml()
    said = "d07 or 12 more, which `jitvault templates show postgres-readonly` shows"
    assert said in " ".join(many.replace("#", "").split())
    assert "`jitvault templates show postgres-readonly`" in many, "a command is not broken"


def test_the_longest_name_of_a_template_gives_a_prefix_that_is_valid() -> None:
    shipped = template(database=["app"])
    metadata = shipped.metadata.model_copy(update={"name": "x" * 63})
    found = made({"--agent": "a", "--intent": "b"}, shipped.model_copy(update={"metadata": metadata}))
    assert parse_task_file(found.as_yaml().encode(), "new").metadata.generate_name == "x" * (LONGEST_PREFIX - 1) + "-"


def test_a_template_without_parameters_gets_no_choices() -> None:
    data = yaml.safe_load(TEMPLATES["postgres-readonly"].read_text())
    spec = {**data["spec"], "parameters": {}, "path": "creds/app", "connection": None}
    found = made({}, parse_template(json.dumps({**data, "spec": spec}).encode()))
    assert "with" not in found.data["spec"]["access"][0] and read(found) == found.data


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--agent", "a/b"),
        ("--owner", ""),
        ("--intent", " x"),
        ("--id", "A"),
        ("--for", "1.5h"),
        ("--deliver", "me"),
        ("--tool", ["a b"]),
    ],
)
def test_an_option_is_checked_as_the_field_is(option: str, value: object) -> None:
    with pytest.raises(ValidationError):
        DraftOptions.model_validate({option: value})
