"""What is said of certificates by what is published, which an older worker may have written."""

from __future__ import annotations

import base64
import json
from typing import Any

from test_published_task import HONEST, PROOF, REVISION, read

from jitvault.cli.views.task import not_proven
from jitvault.documents.published_task import PublishedTask
from jitvault.model.verifiers import unproven

ACCESS = [{**REVISION.access[0], "template": "pki-service", "engine": "pki", "accepted_after_end_s": 300}]
BODY = base64.b64encode(json.dumps({**REVISION.content, "access": ACCESS}).encode()).decode()
LEASE = {**PROOF["leases"][0], "template": "pki-service"}
OLDER = {key: value for key, value in PROOF.items() if key != "not_proven"}


def published(leases: list[Any] | None = None, **changes: Any) -> PublishedTask:
    proof = {**OLDER, "leases": [LEASE] if leases is None else leases}
    found = read({**HONEST, "state": "sealed", "body": BODY, "proof": proof, **changes})
    assert isinstance(found, PublishedTask)
    return found


def test_an_older_workers_document_is_told_by_its_revision_and_its_leases() -> None:
    assert list(not_proven(published())) == unproven(ACCESS)
    assert list(not_proven(published(leases=[]))) == []
    assert list(not_proven(published(state="active", proof=None))) == unproven(ACCESS)
    assert list(not_proven(published(state="cancelled", proof=None))) == []


def test_what_the_worker_says_is_shown_as_it_is() -> None:
    assert list(not_proven(published(proof={**PROOF, "not_proven": ["this"]}))) == ["this"]
