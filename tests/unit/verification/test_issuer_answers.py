"""What a certificate's issuer signed is derived again by issuers that the auditor brings, and attested without."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from authority import DER, Authority
from cryptography import x509
from cryptography.x509 import ocsp
from forger import KNOWN, Forger, statement
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jitvault.errors import SecurityFinding
from jitvault.verification.outcome import Basis
from jitvault.verification.trust import Trust

Told = dict[str, Any]
TASK = "serve-orders"
LEASE = "/predicate/proof/leases/0"
AT = f"{LEASE}/checks/5/evidence"
CA = Authority.new()
IMPOSTOR = Authority.new(name="a CA")
SECOND = timedelta(seconds=1)


def checks(told: Told) -> list[Told]:
    return list(told["proof"]["leases"][0]["checks"])


RECORDED = checks(statement(TASK)["predicate"])
SERIAL = int(RECORDED[5]["evidence"]["question"].replace(":", ""), 16)
ENDED = datetime.fromisoformat(RECORDED[1]["evidence"]["at"])
SEALED = datetime.fromisoformat(statement(TASK)["predicate"]["sealed_at"])


def answer(der: bytes, **more: object) -> Callable[[Told], None]:
    """An edit that puts other bytes in place of what the issuer signed."""

    def edit(told: Told) -> None:
        said = {"der": base64.b64encode(der).decode(), "sha256": hashlib.sha256(der).hexdigest()}
        checks(told)[5]["evidence"].update(said | more)

    return edit


def revoked(ca: Authority = CA, serial: int = SERIAL, **how: Any) -> bytes:
    return ca.ocsp(serial, **{"begins": ENDED, "ends": ENDED + timedelta(hours=1), **how})


def results(forger: Forger, edit: Callable[[Told], None], *issuers: Authority) -> tuple[list[str], list[str], str]:
    """The places that `jitvault verify` refuses and attests, and what the script prints."""
    trust = replace(KNOWN, issuers=tuple(ca.certificate for ca in issuers))
    receipt = forger.receipt(edit, TASK)
    outcome = forger.verify(receipt, forger.log(), trust=trust).outcome
    places = [place for problem in outcome.problems for place in problem.places]
    return places, outcome.attested, forger.run(receipt, forger.log(), trust=trust)[1]


def is_derived(forger: Forger, edit: Callable[[Told], None], *issuers: Authority) -> bool:
    """Whether both accept an answer of one of these issuers as signed."""
    refused, attested, said = results(forger, edit, *issuers)
    assert refused == [] and "WRONG" not in said, (refused, said)
    derived = f"{AT}/der" not in attested
    assert derived is (f"ATTESTED {AT}/der\n" not in said)
    return derived


def test_the_end_of_a_certificate_is_rederived_only_against_issuers_that_the_auditor_brings(forger: Forger) -> None:
    """A certificate of the issuer in the receipt would be the worker's word."""
    for trust, basis in ((KNOWN, Basis.REDERIVED), (replace(KNOWN, issuers=()), Basis.ATTESTED)):
        receipt = forger.receipt(task=TASK)
        outcome = forger.verify(receipt, forger.log(), trust=trust).outcome
        assert outcome.holds
        assert [one.basis for one in outcome.checked if one.name == "certificates"] == [basis]
        is_attested = basis is Basis.ATTESTED
        assert (f"{AT}/der" in outcome.attested) is is_attested
        assert any(text.startswith("what a target answered") for text in outcome.not_checked) is is_attested
        code, said = forger.run(receipt, forger.log(), trust=trust)
        assert (code, f"ATTESTED {AT}/der\n" in said) == (0, is_attested)


def test_without_the_log_nothing_shows_whose_serial_number_it_is(forger: Forger) -> None:
    outcome = forger.verify(forger.receipt(task=TASK), trust=KNOWN).outcome
    assert f"{AT}/question" in outcome.attested and f"{AT}/der" not in outcome.attested
    assert [one.basis for one in outcome.checked if one.name == "certificates"] == [Basis.ATTESTED]


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_an_answer_is_derived_again_by_a_key_of_each_kind(forger: Forger, kind: str) -> None:
    ca = Authority.new(kind)
    assert is_derived(forger, answer(revoked(ca)), IMPOSTOR, ca)
    assert not is_derived(forger, answer(revoked(ca)), IMPOSTOR)


def test_a_certificate_that_expired_before_the_seal_shows_that_itself(forger: Forger) -> None:
    def expired(ends: datetime) -> Callable[[Told], None]:
        return answer(CA.leaf(SERIAL, ends=ends).public_bytes(DER), form="certificate")

    over = expired(SEALED - SECOND)
    assert is_derived(forger, over, CA)
    assert not is_derived(forger, over, IMPOSTOR)
    refused, _, said = results(forger, expired(SEALED + SECOND), CA)
    assert f"{AT}/der" in refused and f"WRONG   {AT}/der" in said


def held(flag: x509.ReasonFlags) -> bytes:
    return revoked(reason=flag)


REFUSED: dict[str, tuple[Callable[[Told], None], str]] = {
    "about another certificate": (answer(revoked(serial=SERIAL + 1)), "question"),
    "another certificate that is revoked, under its own name": (
        answer(revoked(serial=0x1234), question="12:34"),
        "question",
    ),
    "good": (answer(revoked(status=ocsp.OCSPCertStatus.GOOD)), "der"),
    "unknown": (answer(revoked(status=ocsp.OCSPCertStatus.UNKNOWN)), "der"),
    "on hold": (answer(held(x509.ReasonFlags.certificate_hold)), "der"),
    "from before the end": (answer(revoked(begins=ENDED.replace(microsecond=0) - SECOND)), "der"),
    "signed by another in its name": (answer(revoked(signer=IMPOSTOR)), "der"),
    "signed by a responder": (answer(revoked(signer=Authority.new(name="a responder"))), "der"),
    "a certificate in place of a response": (answer(CA.leaf(SERIAL).public_bytes(DER)), "form"),
    "a response in place of a certificate": (answer(revoked(), form="certificate"), "form"),
    "a CRL": (answer(CA.crl([SERIAL])), "form"),
    "a response that says nothing": (answer(ocsp.OCSPResponseBuilder.build_unsuccessful(
        ocsp.OCSPResponseStatus.UNAUTHORIZED).public_bytes(DER)), "form"),
    "with another digest": (answer(revoked(), sha256="0" * 64), "sha256"),
    "of another engine": (answer(revoked(), engine="postgresql"), "engine"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "field"), REFUSED.values(), ids=REFUSED)
def test_an_answer_that_does_not_show_the_end_is_refused_at_its_place(
    forger: Forger, edit: Callable[[Told], None], field: str
) -> None:
    refused, _, said = results(forger, edit, CA)
    assert f"{AT}/{field}" in refused
    assert any(f"{AT}/{field}" in line for line in said.splitlines() if "WRONG" in line), said


def test_an_answer_of_a_form_that_there_is_not_is_refused(forger: Forger) -> None:
    receipt = forger.receipt(answer(revoked(), form="crl"), TASK)
    with pytest.raises(SecurityFinding, match=f"{AT}/form"):
        forger.verify(receipt, trust=KNOWN)
    assert f"{AT}/der, {AT}/form: there is no such form" in forger.said(receipt, forger.log())


def test_bytes_that_were_too_many_are_attested_by_their_digest(forger: Forger) -> None:
    def edit(told: Told) -> None:
        checks(told)[5]["evidence"]["der"] = None

    refused, attested, said = results(forger, edit, CA)
    assert refused == [] and "WRONG" not in said
    assert {f"{AT}/sha256", f"{AT}/question"} <= {*attested} and f"ATTESTED {AT}/sha256\n" in said


def test_an_answer_without_what_the_issuer_signed_is_attested(forger: Forger) -> None:
    def edit(told: Told) -> None:
        said = checks(told)[5]["evidence"]
        checks(told)[5]["evidence"] = {name: said[name] for name in ("engine", "question", "answer")}
        checks(told)[5]["evidence"]["kind"] = "target_answer"

    refused, attested, said = results(forger, edit, CA)
    assert refused == [] and f"{AT}/answer" in attested and f"ATTESTED {AT}/question\n" in said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(-5_000_000, 5_000_000))
def test_an_answer_counts_from_the_second_of_the_end_on(forger: Forger, microseconds: int) -> None:
    at = (ENDED + timedelta(microseconds=microseconds)).replace(microsecond=0)
    refused, _, said = results(forger, answer(revoked(begins=at)), CA)
    assert (refused == []) is ("WRONG" not in said) is (at >= ENDED.replace(microsecond=0))


def forced(told: Told) -> None:
    """Vault was made to forget the lease, and the issuer's answer remains."""
    told["proof"]["forced"] = {"by": "e-1", "name": "ines", "reason": "no answer"}
    missing = {"kind": "missing", "lack": "revocation_line"}
    checks(told)[1].update(ok=False, evidence=missing)


@pytest.mark.parametrize(("trust", "is_open"), [(KNOWN, False), (Trust(KNOWN.namespace_id, KNOWN.workers), True)])
def test_a_forced_end_rests_on_what_the_issuer_signed(forger: Forger, trust: Trust, is_open: bool) -> None:
    receipt = forger.receipt(forced, TASK)
    outcome = forger.verify(receipt, forger.log(), trust=trust).outcome
    (closed,) = (one for one in outcome.checked if one.name == "closed")
    assert (closed.holds is None) is is_open
    said = forger.run(receipt, forger.log(), trust=trust)[1]
    assert ("NOT CHECKED: what the target answered, on which a forced end rests" in said) is is_open
