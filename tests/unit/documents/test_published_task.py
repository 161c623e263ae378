"""What is published can have been written by whoever stole a worker's token: it stops no command."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_extension import PLAIN
from test_revision import revision as a_revision

from jitvault.documents.proof import Proof
from jitvault.documents.published_parts import (
    CountedDecision,
    Ended,
    GrantedExtension,
    PublishedExtension,
    Reads,
    RefusedGrant,
)
from jitvault.documents.published_task import (
    MOST_UNPACKED,
    ChainEnd,
    IllegibleDocument,
    PublishedDocument,
    PublishedRefusal,
    PublishedTask,
    packed,
    read_published,
    unpacked_receipt,
)
from jitvault.model.event_bodies import Refusal, StatedError
from jitvault.model.states import EndReason, State
from jitvault.policy.decision import Decision, Obligations, Requirement

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
REVISION = a_revision()
DECISION = Decision(
    True, Obligations(approvals=(Requirement("jitvault-approvers", 1),)), ("r-1",), "sha256:p"
).as_json()
CHECK = {"n": 1, "ok": True, "evidence": {"kind": "expiry", "at": "2030-01-31T09:00:00Z"}}
PROOF: dict[str, Any] = {
    "task_id": "t-1",
    "state": "confirmed",
    "end_reason": "completed",
    "confirmed": True,
    "reopened": 0,
    "forced": None,
    "dead_ms": 12,
    "confirmed_ms": 1_300,
    "leases": [
        {"verdict": "target_confirmed", "checks": [CHECK], "lease_id": "l", "template": "pg-read", "error": None}
    ],
    "token": {"verdict": "audit_confirmed", "checks": [CHECK]},
    "earlier_tokens": [],
    "target_asked": False,
    "not_proven": [],
    "unproven_because": None,
    "open_besides": None,
}
ERROR = {"exit_code": 3, "message": "no", "hint": "ask"}
UNCOUNTED = {"entity": "e-1", "name": "anna", "why": "the approval has expired", "withdrawn": False}
APPROVED = {"entity": "e-2", "name": "bert"}
EXTENSION: dict[str, Any] = {
    "state": "pending",
    "request": "n",
    "digest": PLAIN.digest,
    "content": PLAIN.content,
    "replaces": False,
    "decision": DECISION,
    "approved_by": [APPROVED],
    "missing": [{"group": "jitvault-approvers", "count": 1}],
    "open_to": ["jitvault-approvers"],
    "refused": [UNCOUNTED],
    "error": None,
}
HONEST: dict[str, Any] = {
    "installation": "i-1",
    "task_id": "t-1",
    "state": "active",
    "end_reason": "completed",
    "revision": 1,
    "digest": REVISION.digest,
    "chain": {"seq": 7, "head": "f" * 64},
    "body": base64.b64encode(REVISION.body).decode(),
    "requester": "e-req",
    "agent": "e-agent",
    "parent": None,
    "delegation": ["t-0"],
    "decision": DECISION,
    "approved": base64.b64encode(REVISION.body).decode(),
    "open_to": [],
    "missing": [{"group": "jitvault-approvers", "count": 1}],
    "refused": [UNCOUNTED],
    "decisions": [{"entity": "e-2", "decision": "approve", "digest": REVISION.digest}],
    "ended": {"by": None, "name": None, "at": "2030-01-31T09:00:00Z", "reason": "completed", "note": ""},
    "why_denied": None,
    "stands_until": "2030-02-07T09:00:00Z",
    "refused_grant": {"request": "n", "revision": 1, "at": "2030-01-31T09:00:00Z", "error": ERROR},
    "grant_id": "a" * 32,
    "expires_at": "2030-01-31T09:10:00Z",
    "unwrap_until": None,
    "ends_at": "2030-01-31T09:15:00.000001Z",
    "ttl": {"requested_ttl_s": 600, "ttl_s": 600, "step_s": 60},
    "reads": {"done": 2, "allowed": 3},
    "extension": EXTENSION,
    "extensions": [
        {
            **{key: PLAIN.content[key] for key in ("by", "reason", "since", "seconds", "until", "window_s")},
            **{
                "digest": PLAIN.digest,
                "approved_by": [{"entity": "e-2", "name": "bert"}],
                "rules": ["r-1"],
                "policy_digest": "sha256:p",
            },
            **{"replaces": None, "at": "2030-01-31T09:00:00Z"},
        }
    ],
    "proof": packed(PROOF),
    "receipt": packed({"payload": "x"}),
    "findings": ["something"],
    "error": ERROR,
}
"""A document with something in every field, as it is stored."""
REFUSAL = {"state": "refused", "task_id": "t-1", "requester": "e-req", "request": "n", "error": ERROR}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(), s, max_size=3),
    max_leaves=5,
)


def read(document: dict[str, Any]) -> PublishedDocument:
    return read_published("t-1", document, NOW)


def honest(**changes: Any) -> PublishedTask:
    """An honest document, as it is decoded, with other values."""
    found = read(HONEST)
    assert isinstance(found, PublishedTask)
    return msgspec.structs.replace(found, **changes)


def zipped(length: int, what: bytes = b" ", *, before: bytes = b"") -> str:
    return base64.b64encode(zlib.compress(before + what * length)).decode()


# -- what a worker writes -------------------------------------------------------------------------------------


def test_what_is_stored_has_these_keys_and_these_values() -> None:
    """Scripts and a recovery read them."""
    task = PublishedTask(
        installation="i-1",
        task_id="t-1",
        state=State.ACTIVE,
        end_reason=EndReason.COMPLETED,
        revision=1,
        digest=REVISION.digest,
        chain=ChainEnd(7, "f" * 64),
        body=REVISION.body,
        requester="e-req",
        agent="e-agent",
        parent=None,
        delegation=["t-0"],
        decision=HONEST["decision"],
        approved=REVISION.body,
        open_to=[],
        missing=msgspec.convert(HONEST["missing"], list[Requirement]),
        refused=msgspec.convert(HONEST["refused"], list[Refusal]),
        decisions=msgspec.convert(HONEST["decisions"], list[CountedDecision]),
        refused_grant=msgspec.convert(HONEST["refused_grant"], RefusedGrant),
        ended=msgspec.convert(HONEST["ended"], Ended),
        why_denied=None,
        unwrap_until=None,
        stands_until=datetime(2030, 2, 7, 9, 0, tzinfo=UTC),
        grant_id="a" * 32,
        expires_at=datetime(2030, 1, 31, 9, 10, tzinfo=UTC),
        ends_at=datetime(2030, 1, 31, 9, 15, 0, 1, tzinfo=UTC),
        ttl=HONEST["ttl"],
        reads=msgspec.convert(HONEST["reads"], Reads),
        extension=msgspec.convert(HONEST["extension"], PublishedExtension),
        extensions=msgspec.convert(HONEST["extensions"], list[GrantedExtension]),
        proof=msgspec.convert(PROOF, Proof),
        receipt={"payload": "x"},
        findings=["something"],
        error=StatedError(3, "no", "ask"),
        written_at=NOW,
    )
    assert list(task.as_document()) == list(HONEST)
    assert task.as_document() == HONEST
    assert json.dumps(task.as_document()) == json.dumps(HONEST)
    error = StatedError(3, "no", "ask")
    refusal = PublishedRefusal(task_id="t-1", requester="e-req", request="n", error=error, written_at=NOW)
    assert json.dumps(refusal.as_document()) == json.dumps(REFUSAL)


def test_what_a_worker_wrote_is_read_and_written_again_as_it_was() -> None:
    found = read(HONEST)
    assert isinstance(found, PublishedTask)
    assert (found.as_document(), found.written_at) == (HONEST, NOW)
    assert msgspec.to_builtins(found.proof) == PROOF
    assert found.full_revision.digest == REVISION.digest
    refused = read(REFUSAL)
    assert isinstance(refused, PublishedRefusal)
    assert refused.as_document() == REFUSAL


@pytest.mark.parametrize("name", sorted({*HONEST} - {"task_id", "state"}))
def test_a_document_that_lacks_a_field_is_refused_with_its_place(name: str) -> None:
    found = read({key: value for key, value in HONEST.items() if key != name})
    assert isinstance(found, IllegibleDocument) and found.place == f"/{name}"


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({**HONEST, "later": 1}, "/later"),
        ({**HONEST, "extension": {**EXTENSION, "later": 1}}, "/extension/later"),
        (
            {**HONEST, "extension": {**EXTENSION, "content": {**PLAIN.content, "a/b": 1}}},
            "/extension/content/a~1b",
        ),
        ({**HONEST, "missing": [{"group": "g", "count": "one"}]}, "/missing/0/count"),
        ({**HONEST, "proof": packed({**PROOF, "token": {"verdict": "gone"}})}, "/proof/token/checks"),
        ({**REFUSAL, "later": 1}, "/later"),
    ],
)
def test_an_unknown_or_a_wrong_field_is_refused_with_its_place(document: dict[str, Any], place: str) -> None:
    found = read(document)
    assert isinstance(found, IllegibleDocument) and found.place == place


@pytest.mark.parametrize("receipt", [None, 7, "no", base64.b64encode(b"no").decode()])
def test_what_is_no_receipt_is_none(receipt: object) -> None:
    assert unpacked_receipt({"receipt": receipt}) is None


# -- what a thief writes --------------------------------------------------------------------------------------


def body(**changes: Any) -> str:
    return base64.b64encode(json.dumps({**json.loads(REVISION.body), **changes}).encode()).decode()


@pytest.mark.parametrize(
    "forged",
    [
        {"task_id": "t-2"},
        {"state": ["sealed"]},
        {"state": "refused", "error": None},
        {"state": "granted"},
        {"chain": None},
        {"chain": {"seq": "7", "head": ""}},
        {"body": 7},
        {"body": "x"},
        {"body": "e30="},
        {"body": base64.b64encode(b"[" * 100_000).decode()},
        {"body": body(requester=None)},
        {"body": body(access=[{"template": 1}])},
        {"body": body(spec={"spec": []})},
        {"approved": "e30="},
        {"decision": None},
        {"decision": {"permitted": True, "rules": []}},
        {"decision": {**DECISION, "obligations": {"max_ttl_s": 10**12}}},
        {"findings": 7},
        {"error": "no"},
        {"error": {"exit_code": 3}},
        {"ends_at": "tomorrow"},
        {"ends_at": "2030-01-31T09:15:00"},
        {"end_reason": "for no reason"},
        {"revision": "one"},
        {"missing": [{"group": "g"}]},
        {"extension": {**EXTENSION, "content": {}}},
        {"extension": {**EXTENSION, "content": {**PLAIN.content, "since": "tomorrow"}}},
        {"extension": {**EXTENSION, "content": {**PLAIN.content, "seconds": 10**15}}},
        {"extension": {**EXTENSION, "decision": None}},
        {"extension": {**EXTENSION, "approved_by": [{}]}},
        {"extension": {**EXTENSION, "error": {}}},
        {"proof": [1]},
        {"proof": {"confirmed": "yes"}},
        {"proof": packed({**PROOF, "leases": 7})},
        {"proof": packed({**PROOF, "leases": [{}]})},
        {"proof": "x"},
        {"proof": "eA=="},
        {"proof": zipped(20)[:-8]},
        # read to its bound it would be a proof
        {"proof": zipped(MOST_UNPACKED, before=json.dumps(PROOF).encode())},
        {"proof": zipped(100_000, b"[")},
    ],
    ids=lambda forged: json.dumps(forged)[:40],
)
def test_a_published_copy_that_no_worker_can_have_written_is_illegible(forged: dict[str, Any]) -> None:
    found = read({**HONEST, **forged})
    assert isinstance(found, IllegibleDocument)
    assert (found.task_id, found.installation, found.written_at, found.state) == ("t-1", "i-1", NOW, "illegible")


def paths(value: Any, *way: Any) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, *way, key)


def with_garbage(value: Any, way: tuple[Any, ...], garbage: Any) -> Any:
    if not way:
        return garbage
    changed = copy.copy(value)
    changed[way[0]] = with_garbage(value[way[0]], way[1:], garbage)
    return changed


PLACES = sorted((way for way in paths({**HONEST, "proof": PROOF, "body": json.loads(REVISION.body)}) if way), key=str)


@st.composite
def forgeries(draw: st.DrawFn) -> dict[str, Any]:
    """An honest document of any state with something else at one place, in its revision or in its proof, too."""
    way, garbage = draw(st.sampled_from(PLACES)), draw(JSON)
    whole = {**HONEST, "state": draw(st.sampled_from(State)).value, "proof": PROOF, "body": json.loads(REVISION.body)}
    forged = with_garbage(whole, way, garbage)
    if isinstance(forged["body"], dict):
        forged["body"] = base64.b64encode(json.dumps(forged["body"]).encode()).decode()
    if isinstance(forged["proof"], dict):
        forged["proof"] = packed(forged["proof"])
    return dict(forged)


@given(st.dictionaries(st.sampled_from(sorted(HONEST)) | st.text(), JSON) | forgeries())
def test_whatever_lies_there_can_be_looked_at(forged: dict[str, Any]) -> None:
    for document in (forged, {**HONEST, **forged}):
        found = read(document)
        assert (found.task_id, found.written_at) == ("t-1", NOW)
        assert found.state in ("illegible", document.get("state"))
        if isinstance(found, PublishedTask):
            assert read(found.as_document()) == found
