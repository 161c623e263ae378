"""What is said of certificates by what is published."""

from __future__ import annotations

import base64
from typing import Any

from msgspec import structs
from test_published_task import HONEST, PROOF, REVISION, read
from test_revision import replaced

from jitvault.cli.views.task import not_proven
from jitvault.documents.published_task import PublishedTask
from jitvault.model.verifiers import unproven

ACCESS = [structs.replace(REVISION.access[0], template="pki-service", engine="pki", accepted_after_end_s=300)]
BODY = base64.b64encode(replaced(REVISION, access=ACCESS).body).decode()


def published(**changes: Any) -> PublishedTask:
    found = read({**HONEST, "state": "active", "body": BODY, "proof": None, **changes})
    assert isinstance(found, PublishedTask)
    return found


def test_what_holds_access_or_will_has_what_its_revision_leaves_open() -> None:
    assert list(not_proven(published())) == unproven(ACCESS)
    assert list(not_proven(published(state="cancelled"))) == []


def test_what_the_worker_says_is_shown_as_it_is() -> None:
    assert list(not_proven(published(proof={**PROOF, "not_proven": ["this"]}))) == ["this"]
