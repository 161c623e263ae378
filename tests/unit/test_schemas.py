from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from jitvault import schemas
from jitvault.errors import InvalidInput
from jitvault.formats.strict_yaml import read_document
from jitvault.model.spec_file import TaskFile, parse_task_file
from jitvault.model.template import AccessTemplate, parse_template

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted((ROOT / "templates").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yaml"))


def validator(model: type[TaskFile] | type[AccessTemplate]) -> Draft202012Validator:
    schema = schemas.schema_of(model)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def document(path: Path) -> dict[str, Any]:
    return read_document(path.read_bytes(), source=path.name).data


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_the_schema_accepts_the_shipped_templates(path: Path) -> None:
    validator(AccessTemplate).validate(document(path))
    validator(AccessTemplate).validate(parse_template(path.read_bytes()).canonical())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_schema_accepts_the_examples(path: Path) -> None:
    validator(TaskFile).validate(document(path))
    validator(TaskFile).validate(parse_task_file(path.read_bytes(), path.name).named("a").canonical())


def test_there_are_documents_to_try() -> None:
    assert (len(TEMPLATES), len(EXAMPLES)) == (3, 4)


@pytest.mark.parametrize(
    "text",
    [
        "metadata.id: A",
        "metadata.id: a..b",
        "metadata.surprise: x",
        "metadata.generateName: A-",
        "metadata.generate_name: a-",
        "metadata.labels: {A: x}",
        "spec.parent: a/b",
        "spec.intent: ''",
        "spec.access: []",
        "spec.access: [{template: t, with: {a: b/c}}]",
        "spec.access: [{template: t, with: {A: b}}]",
        "spec.access: [{template: t, with: {a: 1}}]",
        "spec.window: {for: 500ms}",
        "spec.window: {for: ''}",
        "spec.window: {for_: 15m}",
        "spec.window: {until: '2030-01-01T00:00:00'}",
        "spec.tools: [a, a]",
        "spec.network: A",
        "spec.criticality: no",
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(text: str) -> None:
    path, value = next(iter(read_document(text.encode(), source="x").data.items()))
    wrong = copy.deepcopy(document(EXAMPLES[0]))
    section, name = path.split(".")
    wrong[section][name] = value
    assert not validator(TaskFile).is_valid(wrong)
    with pytest.raises(InvalidInput):
        parse_task_file(str(wrong).replace("True", "true").replace("None", "null").encode(), "x", has_id=True)


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in {"": schema, **schema["$defs"]}.items():
        for field, description in part["properties"].items():
            yield f"{name}.{field}", description


@pytest.mark.parametrize("model", [TaskFile, AccessTemplate])
def test_every_field_and_object_is_described(model: type[TaskFile] | type[AccessTemplate]) -> None:
    schema = schemas.schema_of(model)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in (schema, *schema["$defs"].values()):
        assert part["title"]
        assert part["description"]
        assert part["additionalProperties"] is False
    missing = [name for name, field in fields(schema) if not field.get("description")]
    assert missing == []


def test_the_checked_in_schemas_are_what_the_models_say() -> None:
    assert schemas.stale(ROOT / "docs" / "schemas") == []
    assert schemas.main(["--check"]) == 0


def test_check_names_a_stale_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schemas.main(["--check"], tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert schemas.main([], tmp_path) == 0
    assert schemas.main(["--check"], tmp_path) == 0
    capsys.readouterr()
    (tmp_path / "task.schema.json").write_text("{}")
    assert schemas.main(["--check"], tmp_path) == 1
    said = capsys.readouterr()
    assert "docs/schemas/task.schema.json is stale" in said.err
    assert "access-template" not in said.err
    assert said.out == ""
