"""What a record of a template's check speaks for, and what it does not."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.documents.template_check import STEPS, Basis, as_recorded, read_record, template_digest, why_not
from jitvault.model.template import AccessTemplate, parse_template

TEMPLATE: dict[str, Any] = {
    "apiVersion": "jitvault.dev/v1",
    "kind": "AccessTemplate",
    "metadata": {"name": "pg-read", "description": "Read every table.", "owner": "data-owner"},
    "spec": {
        "engine": "database",
        "mount": "database",
        "path": "creds/{database}-ro",
        "parameters": {"database": {"choices": ["app", "crm"]}},
        "tier": "low",
        "data_domains": ["orders"],
        "ttl": "10m",
        "max_window": "1h",
        "wrap_ttl": "2m",
        "lease_budget": 5,
        "confirm": "target",
        "probe": "postgres",
    },
}
PATHS = ("database/creds/app-ro", "database/creds/crm-ro")
WRITTEN = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
ENGINE = "sha256:" + "e" * 64


def template(**changes: Any) -> AccessTemplate:
    document = copy.deepcopy(TEMPLATE)
    document["spec"] |= changes
    return parse_template(json.dumps(document).encode())


NOW = Basis(template_digest(template()), ENGINE, WRITTEN)


def result(**changes: Any) -> dict[str, Any]:
    found = {"template": NOW.template, "engine": ENGINE, "probe_written_at": WRITTEN.isoformat()}
    return {**found, "passed": True, "at": "2030-01-31T09:00:01Z", "failed": [], "steps": STEPS, **changes}


def record(**changes: Any) -> dict[str, Any]:
    paths = {path: result() for path in PATHS}
    found = {"kind": "TemplateCheck", "installation": "i-1", "template": "pg-read", "paths": paths, "running": []}
    return {**found, **changes}


def why(document: dict[str, Any] | None, basis: Basis = NOW) -> str | None:
    return why_not(document, installation="i-1", template="pg-read", path=PATHS[0], basis=basis)


def test_what_passed_and_is_the_same_speaks_for_itself() -> None:
    assert why(record()) is None
    assert why(record(running=["database/creds/app-ro/x"])) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    ),
    st.sampled_from(["kind", "installation", "template", "paths", "running"]),
)
def test_a_record_with_anything_else_in_a_field_is_no_pass(value: Any, field: str) -> None:
    if field != "running" or not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        assert why(record(**{field: value})) is not None
    assert why({field: value}) is not None


@pytest.mark.parametrize("field", [field for field in result() if field != "steps"])
def test_a_result_without_a_field_is_no_record(field: str) -> None:
    broken = {name: value for name, value in result().items() if name != field}
    assert read_record(record(paths={PATHS[0]: broken})) is None
    assert why(record(paths={PATHS[0]: broken})) is not None


@pytest.mark.parametrize(
    ("basis", "said"),
    [
        (Basis("sha256:" + "0" * 64, ENGINE, WRITTEN), "the template was changed since"),
        (Basis(NOW.template, "sha256:" + "0" * 64, WRITTEN), "the engine's role or connection was changed since"),
        (Basis(NOW.template, ENGINE, None), "the probe was changed since"),
        (Basis(NOW.template, ENGINE, WRITTEN.replace(microsecond=1)), "the probe was changed since"),
    ],
)
def test_a_pass_of_something_else_is_no_pass(basis: Basis, said: str) -> None:
    assert (why(record(), basis) or "").startswith(said)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (record(installation="i-2"), "its check was made by another installation"),
        (record(template="pg-write"), "the result of its check in jitvault/checks/pg-read is not one of this template"),
        (record(paths={PATHS[1]: result()}), f"it was never checked that the revocation of {PATHS[0]} works"),
        (record(paths={}), f"it was never checked that the revocation of {PATHS[0]} works"),
        (record(paths={PATHS[0]: result(failed=["x"])}), f"the check of {PATHS[0]} failed: x"),
        (record(paths={PATHS[0]: result(passed=False)}), f"the check of {PATHS[0]} failed: no reason given"),
    ],
)
def test_a_pass_by_others_or_of_another_path_is_no_pass(document: dict[str, Any], said: str) -> None:
    assert why(document) == said


def test_a_pass_of_a_check_that_tried_less_is_told_as_outdated() -> None:
    """A record from before says nothing of its steps: there were eleven."""
    old = result()
    del old["steps"]
    found = record(paths=dict.fromkeys(PATHS, old))
    assert why(found) == f"the check of {PATHS[0]} is of an older version and tried less (11 of {STEPS} steps)"
    assert as_recorded(found, template()) == "needed"


def test_a_failure_is_told_by_its_first_reason() -> None:
    failed = record(paths={PATHS[0]: result(passed=False, failed=["used: no", "revoked: no"])})
    assert why(failed) == f"the check of {PATHS[0]} failed: used: no"
    assert why(None) == "it was never checked that its revocation works"


@pytest.mark.parametrize(
    "changes",
    [{"ttl": "11m"}, {"engine": "pki"}, {"mount": "database2"}, {"probe": "other"}],
)
def test_what_decides_how_a_credential_ends_asks_for_another_check(changes: dict[str, Any]) -> None:
    assert template_digest(template(**changes)) != NOW.template


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": "high"},
        {"data_domains": []},
        {"max_window": "2h"},
        {"wrap_ttl": "1m"},
        {"lease_budget": 9},
        {"connection": {"host": "db.example.org", "port": 5432, "database": "app", "tls": "require"}},
        {"parameters": {"database": {"choices": ["app", "crm", "erp"]}}},
    ],
)
def test_what_says_nothing_about_that_does_not(changes: dict[str, Any]) -> None:
    assert template_digest(template(**changes)) == NOW.template


@pytest.mark.parametrize(
    ("document", "state"),
    [
        (None, "needed"),
        ({"garbage": 1}, "needed"),
        (record(), "passed"),
        (record(template="pg-write"), "needed"),
        (record(paths={PATHS[0]: result()}), "needed"),
        (record(paths={PATHS[0]: result(), PATHS[1]: result(passed=False)}), "failed"),
        (record(paths={PATHS[0]: result(passed=False)}), "failed"),
        (record(paths={path: result(template="sha256:" + "0" * 64) for path in PATHS}), "needed"),
    ],
)
def test_what_a_list_shows_of_a_record(document: dict[str, Any] | None, state: str) -> None:
    assert as_recorded(document, template()) == state
    assert as_recorded(document, template(confirm="audit", confirm_why="It has no door.")) == "exempt"
