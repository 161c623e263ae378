"""Whatever a thief of a worker's token publishes, what is read of it can be decided about and printed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from test_published_task import HONEST, forgeries, read

from jitvault.cli.quiet import quiet_if
from jitvault.cli.session import check_not_final, refused
from jitvault.cli.views import published as fallback
from jitvault.cli.views import status
from jitvault.cli.views.output import to_json
from jitvault.cli.views.proposal import proposal_lines
from jitvault.cli.views.task import not_proven, print_counted_decision, print_decision, print_end, print_grant
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError
from jitvault.lifecycle.decision.pending_approvals import approval_subject, barring_part, changes
from jitvault.model.scope import Scope

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
ABOUT = {"at": NOW.isoformat(), "age_s": 1, "vouched_by": "nobody", "vouched": "x", "problem": None, "unknown": []}


def show(document: PublishedTask) -> None:
    """Everything that a command may do with what is published of a task."""
    shown: dict[str, Any] = {**document.as_json(), "published": ABOUT, "unread": [], "freeze": None}
    to_json(shown)
    for for_program in (True, False):
        with quiet_if(asked=False, for_program=for_program):
            print_decision(document)
            print_grant(document, None, out=None)
            if document.proof is not None:
                print_end(document)
            status.print_published(document, shown, NOW)
    fallback.facts(document, ABOUT, NOW)
    not_proven(document)
    Scope(agent="x", owner="y", template="z").covers(document.full_revision.content)
    changes(document)
    if document.error is not None:
        refused(document.error)
    check_not_final(document)
    subject = approval_subject(document)
    if subject is not None:
        to_json([subject.digest, subject.words, subject.decision, list(subject.missing), subject.obligations.deciders])
        barring_part(subject.revision, "e", subject.obligations)
        subject.is_decided_by("e", "approve")
        lines = [line.plain for line in proposal_lines(subject, changes(document), ["g"], 80)]
        assert lines[-1] == f"Digest: {subject.digest}" and "\n".join(lines).replace("\n", "").isprintable()


def test_what_is_honest_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    document = read({**HONEST, "error": None, "findings": ["somebody else opened the wrapping"]})
    assert isinstance(document, PublishedTask)
    show(document)
    shown = capsys.readouterr().out
    for word in ("t-1", "pg-read", "audit_confirmed", "the approval has expired", "FINDING    somebody else opened"):
        assert word in shown


def test_whoever_decides_anew_reads_that(capsys: pytest.CaptureFixture[str]) -> None:
    document = read(HONEST)
    assert isinstance(document, PublishedTask)
    for again in ("", " again"):
        print_counted_decision(document, "approve", "sha256:x", None, missing=[], again=again)
        assert capsys.readouterr().out.startswith(f"You approved task t-1{again}; ")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forgeries())
def test_what_a_thief_wrote_is_shown_or_refused(forged: dict[str, Any]) -> None:
    document = read(forged)
    if isinstance(document, PublishedTask):
        # an error of jitvault's own says what is wrong and has an exit code
        with suppress(JitvaultError):
            show(document)
