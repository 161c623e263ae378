"""What is said of certificates by what is published, which an older worker or a thief may have written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from jitvault.cli.views.task import not_proven
from jitvault.model.verifiers import unproven

ACCESS = [{"template": "pki-service", "engine": "pki", "accepted_after_end_s": 300}]
BODY = base64.b64encode(json.dumps({"access": ACCESS}).encode()).decode()
LEASE = {"template": "pki-service"}


def published(**changes: Any) -> dict[str, Any]:
    return {"state": "sealed", "body": BODY, "proof": {"confirmed": True, "leases": [LEASE]}, **changes}


def test_an_older_workers_document_is_told_by_its_revision_and_its_leases() -> None:
    assert list(not_proven(published())) == unproven(ACCESS)
    assert list(not_proven(published(proof={"confirmed": True, "leases": []}))) == []
    assert list(not_proven(published(state="active", proof=None))) == unproven(ACCESS)
    assert list(not_proven(published(state="cancelled", proof=None))) == []


@pytest.mark.parametrize(
    "forged",
    [
        {"proof": None, "body": "x"},
        {"proof": {"confirmed": True, "leases": 7}},
        {"proof": {"confirmed": True, "leases": [{}]}},
        {"proof": {"confirmed": True, "leases": [], "not_proven": 7}},
        {"proof": None, "body": "e30="},
    ],
    ids=str,
)
def test_what_no_worker_wrote_stops_no_command(forged: dict[str, Any]) -> None:
    assert list(not_proven({"state": "sealed", "body": BODY, **forged})) == [
        "what its certificates may still do: what is published of them cannot be read"
    ]
