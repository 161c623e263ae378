"""What is published can have been written by whoever stole a worker's token: it stops no command."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.documents.published_task import ILLEGIBLE, MOST_UNPACKED, packed, unpacked

PROOF = {"confirmed": True, "leases": []}
ERROR = {"exit_code": 3, "message": "no", "hint": None}
HONEST: dict[str, Any] = {
    "task_id": "t-1",
    "state": "confirmed",
    "chain": {"seq": 7, "head": "f" * 64},
    "body": "e30=",
    "findings": [],
    "error": None,
    "proof": packed(PROOF),
    "receipt": None,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
)


def zipped(length: int, what: bytes = b" ", *, before: bytes = b"") -> str:
    return base64.b64encode(zlib.compress(before + what * length)).decode()


def test_what_a_worker_wrote_is_read() -> None:
    assert unpacked("t-1", HONEST) == {**HONEST, "proof": PROOF}
    assert unpacked("t-1", {**HONEST, "proof": None, "error": ERROR})["error"] == ERROR
    refused = {"task_id": "t-1", "state": "refused", "requester": "e", "request": "n", "error": ERROR}
    assert unpacked("t-1", refused) == {**refused, "proof": None, "receipt": None}


@pytest.mark.parametrize(
    "forged",
    [
        {"task_id": "t-2"},
        {"state": ["sealed"]},
        {"state": "refused"},
        {"chain": None},
        {"chain": {"seq": "7", "head": ""}},
        {"body": 7},
        {"findings": 7},
        {"error": "no"},
        {"error": {"exit_code": 3}},
        {"proof": [1]},
        {"proof": {"confirmed": "yes"}},
        {"proof": "x"},
        {"proof": "eA=="},
        {"proof": zipped(20)[:-8]},
        # read to its bound it would be a proof
        {"proof": zipped(MOST_UNPACKED, before=json.dumps(PROOF).encode())},
        {"proof": zipped(100_000, b"[")},
    ],
    ids=lambda forged: json.dumps(forged)[:40],
)
def test_what_no_worker_can_have_written_says_so(forged: dict[str, Any]) -> None:
    shown = unpacked("t-1", {**HONEST, **forged})
    assert (shown["task_id"], shown["state"], shown["proof"]) == ("t-1", ILLEGIBLE, None)


@given(st.dictionaries(st.sampled_from(sorted(HONEST)), JSON))
def test_whatever_lies_there_can_be_looked_at(forged: dict[str, Any]) -> None:
    for document in (forged, {**HONEST, **forged}):
        shown = unpacked("t-1", document)
        assert shown["state"] in (ILLEGIBLE, document.get("state"))
        assert shown["task_id"] == "t-1"
