"""What one agent writes again and again costs the ledger and its readers a bounded amount, and hides nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attended import Attended, wait_for
from floods import write_all
from rig import Rig

from jitvault.documents.signed import signer_key
from jitvault.ledger import findings
from jitvault.ledger.documents import lines as document_lines
from jitvault.lifecycle.requests.sign import sign_end, sign_extension
from jitvault.model.extension_history import MOST_ASKED
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import EndReason

pytestmark = pytest.mark.usefixtures("lab", "hurried")
Spec = Callable[..., Path]
TIMES = 200


def test_each_new_word_in_a_document_is_not_a_finding_of_its_own(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "MOST", 5)
    file = spec()
    rig.active(file)
    agent, person = rig.entity("research-agent"), rig.wiring("agent").person
    for n in range(12):
        signed = person.signer.sign({"kind": "end"}, f"another-type-{n}", key=signer_key(agent))
        person.documents.put(f"requests/{agent}/{file.stem}/end", signed)
        shown = rig("operator", "status", file.stem, code=12).json["findings"]
    assert [found["more"] for found in shown] == [*5 * [0], 7]
    assert "counted and not kept one by one: 7 so far" in shown[-1]["message"]
    told = rig.rows("SELECT body FROM notices WHERE kind = 'finding' AND task_id = ?", file.stem)
    assert len(told) == 6, told
    # a process of its own has the limit as it is, and prints what was counted before
    shown_there = rig.cli("operator", "status", file.stem, code=12, alone=True).stdout
    assert "7 so far" in " ".join(shown_there.split())
    assert rig("operator", "complete", file.stem, code=12).json["confirmed"]


def test_a_document_that_is_written_again_and_again_is_few_rows_and_its_last_word_counts(rig: Rig, spec: Spec) -> None:
    file = spec()
    with Attended(rig):
        rig.active(file)
        agent = rig.entity("research-agent")
        path = f"requests/{agent}/{file.stem}/end"
        write_all(rig, "agent", TIMES * [path])
        sign_end(rig.wiring("agent").person, file.stem, reason=EndReason.COMPLETED, note="it is done")
        wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"), 60)
    rows = rig.rows("SELECT count(*) FROM observations WHERE kind = 'written' AND subject = ?", path)
    assert rows == [(document_lines.MOST_OF_ONE,)]
    counted = {one["kind"]: one["lines"] for one in rig("auditor", "audit", "status").json["not_kept"]}
    assert counted["written"] >= TIMES + 1 - document_lines.MOST_OF_ONE
    assert rig("operator", "status", file.stem, code=None).json["end_reason"] == "completed"


def test_refused_wishes_for_more_time_fill_no_chain_and_keep_nobody_else_from_an_answer(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    rig.active(file)
    person = rig.wiring("agent").person
    held = rig.record(file.stem)
    revision, ends_at = Revision.of(held.revision.body), held.task.ends_at
    assert ends_at is not None
    for n in range(MOST_ASKED + 5):
        sign_extension(person, revision, ends_at=ends_at, seconds=60 + n, reason="it is slow")
        rig("operator", "status", file.stem)
    assert [event.kind for event in rig.record(file.stem).events].count(EventKind.EXTENSION_REFUSED) == MOST_ASKED
    rig("operator", "extend", file.stem, "--for", "5m", "--reason", "the import is slow")
    later = rig.record(file.stem).task.ends_at
    assert later is not None and later > ends_at
    rig("operator", "complete", file.stem)
