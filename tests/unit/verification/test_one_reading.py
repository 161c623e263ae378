"""What the key signed has one reading: both verifiers refuse each value that another program could read otherwise."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forger import KNOWN, Edit, Forger, statement
from test_content import Told, put

from jitvault.documents.receipt import statement_in
from jitvault.documents.signed import DOCUMENT_TYPE
from jitvault.errors import InvalidInput, SecurityFinding
from jitvault.formats.canonical_json import canonical_bytes
from jitvault.verification.receipt import read_content

REQUEST = "/predicate/documents/request"


def as_signed(forger: Forger, edit: Edit, task: str) -> bytes:
    """A receipt with exactly these values, also those that RFC 8785 cannot hold."""
    whole = statement(task)
    edit(whole["predicate"])
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(forger.envelope(text.encode("utf-8", "surrogatepass"))).encode()


def both_refuse(forger: Forger, data: bytes, place: str = "") -> None:
    code, said = forger.run(data, forger.log())
    assert code == 1 and place in said, said
    try:
        problems = list(map(str, forger.verify(data, forger.log()).outcome.problems))
    except (SecurityFinding, InvalidInput) as error:
        problems = [str(error)]
    assert any(place in problem for problem in problems), problems


def both(*edits: Edit) -> Edit:
    return lambda told: [edit(told) for edit in edits]


def rebuilt_from(**said: object) -> Edit:
    return put([{"at": "2026-12-01T00:00:00Z", "from": said, "verified_by": []}], "recovered")


def unasked(told: Told) -> None:
    """A receipt whose target was not asked, although policy demands it."""
    for lease in told["proof"]["leases"]:
        lease["checks"] = [one for one in lease["checks"] if one["n"] != 6]
        lease["verdict"] = "audit_confirmed"
    told["proof"]["target_asked"] = False
    told["policy"]["obligations"]["confirm"] = "target"


def check(n: int, **said: object) -> Edit:
    def edit(told: Told) -> None:
        found = next(one for one in told["proof"]["token"]["checks"] if one["n"] == n)
        found["evidence"].update(said)

    return edit


def with_check(**said: object) -> Edit:
    return lambda told: told["proof"]["token"]["checks"].append({"n": 6, "ok": False, "evidence": said})


TIMES = ("2026-13-01T00:00:00Z", "2026-12-01T24:00:00Z", "2026-12-01T00:00:00.1Z", "2026-12-01T00:00:00.000000Z")
TIMES += ("\u0662\u0660\u0662\u0666-12-01T00:00:00Z",)
REFUSED: dict[str, tuple[Edit, str]] = {
    **{f"the time {at}": (put(at, "sealed_at"), "/predicate/sealed_at") for at in TIMES},
    "a number that JSON cannot hold": (put(2**53, "proof", "reopened"), ""),
    "half of a character": (put("\ud800", "intent"), ""),
    "no number": (rebuilt_from(seq=float("nan")), ""),
    "a fraction": (rebuilt_from(seq=-0.0), "/predicate/recovered/0/from"),
    "names in another order than that of UTF-16": (rebuilt_from(**{"\ufb33": 1, "\U0001f600": 2}), ""),
    "no event": (put(0, "chain", "events"), "/predicate/chain/events"),
    "a demand for less than one approval": (
        put([{"group": "g", "count": -1}], "policy", "obligations", "approvals"),
        "/predicate/policy/obligations/approvals/0/count",
    ),
    "no level of proof": (put("some", "policy", "obligations", "confirm"), "/predicate/policy/obligations/confirm"),
    "no reason": (both(put("x", "proof", "end_reason"), put("x", "ended", "reason")), "/predicate/proof/end_reason"),
    "evidence of what is missing with more": (with_check(kind="missing", lack="gap", more=1), "/evidence/more"),
    "a target that did not refuse": (with_check(kind="missing", lack="target_silent"), "/ok, /predicate/proof"),
    "a stream of no bytes": (both(check(5, begin=1), check(5, end=1)), "/checks/4/evidence"),
    "two tokens of one attempt": (put(2, "grants", 0, "attempt"), "/predicate/grants"),
    "less proof than policy demands": (unasked, "/predicate/policy/obligations/confirm"),
}


@pytest.mark.parametrize(("edit", "place"), REFUSED.values(), ids=REFUSED)
def test_a_value_that_no_honest_receipt_has_is_refused_by_both(forger: Forger, edit: Edit, place: str) -> None:
    both_refuse(forger, as_signed(forger, edit, "read-orders"), place)


def fields(part: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield place, holder and name of each field that every receipt has."""
    if isinstance(part, list):
        for n, one in enumerate(part):
            yield from fields(one, f"{place}/{n}")
    elif isinstance(part, dict):
        for name, one in list(part.items()):
            yield f"{place}/{name}", part, name
            # a template's parameters have names at will
            if name != "with":
                yield from fields(one, f"{place}/{name}")


def refusals(forger: Forger, said: dict[str, Any]) -> int:
    """How many of the two readings, the worker's and the verifier's, refuse what the key signed."""
    payload = canonical_bytes(said)
    count = 0
    try:
        statement_in(forger.envelope(payload), {1: forger.raw})
    except SecurityFinding:
        count += 1
    try:
        read_content(payload)
    except SecurityFinding:
        count += 1
    return count


@pytest.mark.parametrize("task", ["read-orders", "fix-orders", "serve-orders"])
def test_both_readings_need_every_field(forger: Forger, task: str) -> None:
    said = statement(task)
    assert refusals(forger, said) == 0
    for place, holder, name in fields(said):
        value = holder.pop(name)
        assert refusals(forger, said) == 2, place
        holder[name] = value


def requested(edit: Edit, version: str = "99") -> Edit:
    """The request, changed and signed by a version of its author's key that nobody brings."""

    def changed(told: Told) -> None:
        said = json.loads(base64.b64decode(told["documents"]["request"]["payload"]))
        edit(said)
        key_id = f"jitvault-signer-{said['entity']}:v{version}"
        payload = json.dumps(said).encode()
        told["documents"]["request"] = Forger(Path()).envelope(payload, kind=DOCUMENT_TYPE, key_id=key_id)

    return changed


VERSIONS = ("01", "\u0661", "", "-1", "1" * 5000)
OTHERS: dict[str, tuple[Edit, str]] = {
    **{
        f"version {one[:5]!r}": (requested(lambda said: None, one), f"{REQUEST}/signatures/0/keyid") for one in VERSIONS
    },
    "another intent": (requested(put("Read it all", "spec", "spec", "intent")), f"{REQUEST}/payload"),
    "less access": (requested(put([], "spec", "spec", "access")), f"{REQUEST}/payload"),
    "no list of access": (requested(put(5, "spec", "spec", "access")), f"{REQUEST}/payload"),
    "what is no access": (requested(put([None], "spec", "spec", "access")), f"{REQUEST}/payload"),
    "no spec": (requested(put("x", "spec", "spec")), f"{REQUEST}/payload"),
    "a month 13": (requested(put("2026-13-01T00:00:00Z", "at")), f"{REQUEST}/payload"),
    "half of a character": (requested(put("\ud800", "spec", "more")), f"{REQUEST}/payload"),
    "no number": (requested(put(float("nan"), "spec", "more")), f"{REQUEST}/payload"),
    "a field of another kind": (requested(put("n", "cancels")), f"{REQUEST}/payload"),
}


@pytest.mark.parametrize(("edit", "place"), OTHERS.values(), ids=OTHERS)
def test_a_request_for_something_else_or_by_no_key_is_refused_by_both(forger: Forger, edit: Edit, place: str) -> None:
    both_refuse(forger, as_signed(forger, edit, "read-orders"), place)


def with_key_id(key_id: object) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        envelope = json.loads(data)
        envelope["signatures"][0]["keyid"] = key_id
        return json.dumps(envelope).encode()

    return edit


ENVELOPES: dict[str, Callable[[bytes], bytes]] = {
    "another key": with_key_id("jitvault-signer-x:v1"),
    "a version alone": with_key_id("1"),
    "a number": with_key_id(1),
    "a list": with_key_id([]),
    "one name twice": lambda data: data.replace(b'{"payload"', b'{"payload":"e30=","payload"', 1),
    "no number": lambda data: data[:-1] + b',"more":NaN}',
}


@pytest.mark.parametrize("edit", ENVELOPES.values(), ids=ENVELOPES)
def test_an_envelope_that_can_be_read_in_two_ways_is_refused_by_both(
    forger: Forger, edit: Callable[[bytes], bytes]
) -> None:
    both_refuse(forger, edit(forger.receipt()))


@pytest.mark.parametrize("edit", [put("AA==", "receipt_keys", 0, "public_key"), put([{}], "signers")])
def test_a_trust_file_without_keys_is_none(forger: Forger, edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    told = forger.trusted(KNOWN)
    edit(told)
    monkeypatch.setattr(forger, "trusted", lambda trust: told)
    with pytest.raises(OSError, match="no trust file"):
        forger.script(forger.receipt(), forger.log())
