"""A model chooses a template, parameters, programs, a reason and a time; the rest of a spec is not its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jitvault import shipped_files as shipped
from jitvault.errors import InvalidInput, JitvaultError
from jitvault.mcp.access_request import offered, spec_data
from jitvault.mcp.arguments import TOOLS, RequestAccess, parsed, schema
from jitvault.model.spec_file import parse_task_file
from jitvault.model.template import load_templates

TEMPLATES = load_templates(shipped.files(Path(shipped.templates_dir()), ".yaml"))
ASKED = {"template": "postgres-readwrite", "parameters": {"database": "app"}, "tools": ["psql"], "reason": "Fix\n it."}


def asked(**change: Any) -> RequestAccess:
    found = parsed("request_access", {**ASKED, **change})
    assert isinstance(found, RequestAccess)
    return found


def test_a_request_is_a_spec_that_its_approvers_can_read() -> None:
    data = spec_data(TEMPLATES, asked(tools=["psql", "ls"], minutes=5), agent="me", task="task-1", tools=())
    spec = parse_task_file(json.dumps(data).encode(), "here").named("task-1").spec
    assert (spec.agent, spec.tools, spec.intent, spec.deliver) == ("me", ("ls", "psql"), "Fix it.", "agent")
    # the template's own, which a model cannot make look harmless
    assert (spec.criticality, spec.owner) == ("medium", "data-owner")
    assert spec.window.canonical() == {"for": "5m"}


@pytest.mark.parametrize(
    "change",
    [
        {"tools": []},
        {"tools": ["../psql"]},
        {"reason": "\u202eevil"},
        {"reason": " "},
        {"minutes": 0},
        {"minutes": True},
        {"criticality": "low"},
        {"owner": "me"},
        {"parameters": {"database": 1}},
    ],
    ids=str,
)
def test_arguments_that_are_wrong_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"request_access: {next(iter(change))}"):
        asked(**change)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"template": "postgres-readwrit"}, "did you mean postgres-readwrite"),
        ({"parameters": {}}, "parameter database is missing"),
        ({"parameters": {"database": "other"}}, "expected one of app"),
        ({"minutes": 61}, "is for 1h at most"),
        ({"tools": ["psql", "sh"]}, "does not run sh; it runs psql"),
    ],
)
def test_what_nobody_may_ask_for_is_refused_before_anything_is_written(change: dict[str, Any], why: str) -> None:
    with pytest.raises(JitvaultError, match=why) as refused:
        spec_data(TEMPLATES, asked(**change), agent="me", task="task-1", tools=("psql",))
    assert "Traceback" not in refused.value.hint


def test_a_server_for_python_runs_it_by_either_name() -> None:
    spec_data(TEMPLATES, asked(tools=["python3"]), agent="me", task="task-1", tools=("python",))


def test_what_is_offered_is_enough_to_ask() -> None:
    facts = offered(TEMPLATES["postgres-readonly"], ["psql"])
    assert facts["parameters"] == {"database": ["app"]} and facts["tools"] == ["psql"]
    assert (facts["minutes"], facts["minutes_at_most"]) == (15, 60)
    # another's words, which are one line
    assert facts["owner_says"] == f"| {TEMPLATES['postgres-readonly'].metadata.description}"


def test_schemas_have_nothing_that_a_client_may_not_know() -> None:
    text = json.dumps([schema(arguments) for arguments in TOOLS.values()])
    assert "attern" not in text and "$ref" not in text
    assert all(schema(arguments)["additionalProperties"] is False for arguments in TOOLS.values())


def test_an_argument_that_is_null_gets_no_advice_about_files() -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed("finish", {"task": None})
    assert str(refused.value) == "finish: task: expected text, got null"
