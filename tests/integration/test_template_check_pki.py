"""The check of a template for certificates on real servers: what Vault calls revoked, others have to refuse.

These change the PKI mount and the probe's document, so they have servers of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from commands import Result
from cryptography import x509
from rig import Rig

from jitvault.engines.pki.trial import PkiTrial
from jitvault.formats.x509_signature import spelled
from jitvault.provision.template_check import trial as selftest

pytestmark = pytest.mark.usefixtures("lab", "hurried", "checked")
Spec = Callable[..., Path]
NAME = "pki-service"
ISSUE = "pki/issue/service"
ROLE = "pki/roles/service"
CRL = "pki/config/crl"
AFTER = ("session_ended", "login_refused", "probe_sees_end")


def check(rig: Rig, *, code: int = 0) -> Result:
    result = rig("admin", "templates", "check", NAME, code=code)
    assert result.json["passed"] is (code == 0)
    return result


def steps(result: Result) -> dict[str, dict[str, Any]]:
    (path,) = result.json["paths"]
    return {step["name"]: step for step in path["steps"]}


def failed(result: Result) -> dict[str, str]:
    """The steps that are not ok: name → evidence. Each says what to mend, and more than to look at the evidence."""
    found = {name: step for name, step in steps(result).items() if not step["ok"]}
    assert all(step["mend"] not in ("", "See the evidence.") for step in found.values())
    return {name: step["evidence"] for name, step in found.items()}


def left_behind(result: Result) -> list[str]:
    return list(result.json["paths"][0]["left_behind"])


def refused(rig: Rig, spec: Spec) -> str:
    file = spec(template=NAME, choices="{service: orders}")
    message: str = rig("operator", "grant", file, code=8).error["message"]
    assert rig.task_tokens(file.stem) == []
    return message


def revoked(rig: Rig) -> set[int]:
    crl = x509.load_der_x509_crl(requests.get(f"{rig.world.address}/v1/pki/crl", timeout=10).content)
    return {entry.serial_number for entry in crl}


def leases(rig: Rig) -> list[str]:
    return list(rig.admin.list(f"sys/leases/lookup/{ISSUE}/"))


@contextmanager
def rewritten(rig: Rig, path: str, **change: object) -> Iterator[None]:
    """An engine's configuration, changed and put back."""
    before = (rig.admin.read(path) or {})["data"]
    rig.admin.write(path, {**before, **change})
    try:
        yield
    finally:
        rig.admin.write(path, before)


@contextmanager
def probe_with(rig: Rig, **change: str) -> Iterator[None]:
    right = rig.document("probes/pki")
    rig.put("probes/pki", {**right, **change})
    try:
        yield
    finally:
        rig.put("probes/pki", right)


@contextmanager
def _somebody_elses_ca(rig: Rig) -> Iterator[str]:
    """The certificate of a CA with the same name and another key."""
    rig.admin.write("sys/mounts/elsewhere", {"type": "pki"})
    body = {"common_name": "jitvault sandbox CA", "key_type": "ec", "key_bits": 256}
    try:
        yield str(rig.admin.write("elsewhere/root/generate/internal", body)["data"]["certificate"])
    finally:
        rig.admin.delete("sys/mounts/elsewhere")


# -- what passes ---------------------------------------------------------------------------------------------


def test_the_sandboxs_certificates_pass_and_nothing_of_a_check_stays(rig: Rig) -> None:
    before, of_before = revoked(rig), leases(rig)
    found = steps(check(rig))
    assert list(found) == list(selftest.STEPS.values())
    (serial,) = revoked(rig) - before
    assert leases(rig) == of_before
    # good before, revoked after: what is revoked at once was never seen alive
    assert found["probe_sees_it"]["evidence"].startswith(f"serial {spelled(serial)} is not on the CRL of ")
    ended = found["probe_sees_end"]["evidence"]
    assert ended.startswith(f"serial {spelled(serial)} is on the CRL of ") and "; OCSP calls it revoked as of " in ended
    assert rig.document(f"checks/{NAME}")["paths"][ISSUE]["passed"]


def test_a_list_that_is_over_is_made_anew_before_anything_is_tried(rig: Rig) -> None:
    """As a worker would have done, which does not run here."""
    with rewritten(rig, CRL, expiry="1s"):
        rig.admin.read("pki/crl/rotate")
        time.sleep(1.5)
    check(rig)


def test_the_private_key_is_nowhere_but_in_memory(rig: Rig) -> None:
    result = check(rig)
    kept = (result.stdout, result.stderr, str(rig.document(f"checks/{NAME}")), str(rig.own_lines()))
    assert not any("PRIVATE KEY" in text for text in kept)


# -- what nothing is made for ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "change", "says", "mend"),
    [
        (CRL, {"disable": True}, "disable=true: whatever is revoked is on no CRL", "disable=false"),
        (ROLE, {"generate_lease": False}, "makes certificates without a lease", "generate_lease=true no_store=false"),
        (ROLE, {"no_store": True}, "makes certificates without a lease", "generate_lease=true no_store=false"),
        (ROLE, {"not_after": "2099-01-01T00:00:00Z"}, "its certificates end then, whatever their ttl", "not_after="),
        (ROLE, {"ext_key_usage": ["OCSPSigning"]}, "a certificate vouches for others, or for itself", "without them"),
        (ROLE, {"key_usage": ["CRLSign"]}, "a certificate vouches for others, or for itself", "without them"),
        (CRL, {"expiry": "72h"}, "has expiry=72h: a saved answer is valid for that long", "expiry=5m"),
        (CRL, {"ocsp_expiry": "12h"}, "has ocsp_expiry=12h: a saved answer is valid", "ocsp_expiry=5m"),
    ],
    ids=str,
)
def test_what_could_never_be_taken_back_is_not_even_tried(
    rig: Rig, spec: Spec, path: str, change: dict[str, Any], says: str, mend: str
) -> None:
    before = rig.document(f"checks/{NAME}"), len(rig.admin.list("pki/certs/"))
    with rewritten(rig, path, **change):
        error = rig("admin", "templates", "check", NAME, code=8).error
        assert says in error["message"] and f"vault write {path} " in error["hint"] and mend in error["hint"]
        assert says in refused(rig, spec)
        if path == CRL:
            # a check would end with the same
            (note,) = rig("admin", "init", "--plan").json["missing"]
            assert says in note and mend in note and "templates check" not in note
    assert (rig.document(f"checks/{NAME}"), len(rig.admin.list("pki/certs/"))) == before


def test_a_mount_that_serves_acme_gives_no_task_a_certificate(rig: Rig, spec: Spec) -> None:
    """Certificates that come by ACME are nobody's: no lease, no token, no line that names a task."""
    rig.admin.write("pki/config/cluster", {"path": f"{rig.world.address}/v1/pki"})
    rig("admin", "templates", "check", NAME)
    with rewritten(rig, "pki/config/acme", enabled=True):
        error = rig("admin", "templates", "check", NAME, code=8).error
        assert "certificates of the same issuer by ACME, without a lease" in error["message"]
        assert error["hint"].startswith("vault write pki/config/acme enabled=false")
        assert "by ACME" in refused(rig, spec)


# -- what was issued is more than what was asked for ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        # what a role does not say is not in its configuration either, and only the certificate shows it
        ({"key_usage": []}, "it does not say what its key may do"),
        ({"server_flag": False, "client_flag": False}, "it does not say what it is for"),
    ],
    ids=["any use of its key", "for whatever it is"],
)
def test_a_certificate_that_is_not_restricted_is_found(rig: Rig, spec: Spec, change: dict[str, Any], says: str) -> None:
    with rewritten(rig, ROLE, **change):
        result = check(rig, code=6)
        assert says in failed(result)["as_asked"] and list(failed(result)) == ["as_asked"]
        assert "as_asked: " in refused(rig, spec)
        # whatever it is, it is taken back
        assert left_behind(result) == [] and leases(rig) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ext_key_usage": ["OCSPSigning"]}, "it is for OCSP answers"),
        ({"key_usage": ["DigitalSignature", "CertSign"]}, "its key may sign certificates or CRLs"),
    ],
    ids=["answers for the issuer", "signs certificates"],
)
def test_what_a_role_gives_for_a_moment_only_is_seen_in_the_certificate(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    """Before and after its configuration says nothing of it."""
    credential = selftest._Check._credential

    def meanwhile(trial: Any, issuer: Any) -> Any:
        with rewritten(rig, ROLE, **change):
            return credential(trial, issuer)

    monkeypatch.setattr(selftest._Check, "_credential", meanwhile)
    result = check(rig, code=6)
    assert says in failed(result)["as_asked"]
    assert "unchanged" not in failed(result)


# -- what is tried and fails -----------------------------------------------------------------------------------


def test_an_ocsp_responder_that_is_off_is_not_taken_for_a_good_word(rig: Rig, spec: Spec) -> None:
    before, of_before = revoked(rig), leases(rig)
    with rewritten(rig, CRL, ocsp_disable=True):
        result = check(rig, code=6)
        assert list(failed(result)) == ["probe_rights", "used"]
        assert failed(result)["used"].endswith("/v1/pki/ocsp answered with HTTP 401")
        assert "CRL and OCSP have to be on" in steps(result)["used"]["mend"]
        assert "probe_rights: " in refused(rig, spec)
        # a task that holds a certificate now could not be proven
        doctor = rig("admin", "doctor", code=8).json
        probe = next(one for one in doctor["checks"] if (one["area"], one["name"]) == ("probes", "pki"))
        assert (probe["status"], doctor["can"]["prove"]) == ("fail", False)
        assert probe["seen"].endswith("/v1/pki/ocsp answered with HTTP 401")
    assert (len(revoked(rig) - before), leases(rig)) == (1, of_before)
    check(rig)


def test_a_crl_that_is_not_rebuilt_is_found_and_who_is_still_trusted_is_told(rig: Rig, spec: Spec) -> None:
    with rewritten(rig, CRL, auto_rebuild=True, auto_rebuild_grace_period="1m"):
        result = check(rig, code=6)
        assert set(failed(result)) == {"session_ended", "probe_sees_end"}
        for step in ("session_ended", "probe_sees_end"):
            assert " is not on the CRL of " in failed(result)[step]
            assert "auto_rebuild=false" in steps(result)[step]["mend"]
        (still,) = left_behind(result)
        assert still.endswith(" at the target")
        assert "session_ended: serial " in refused(rig, spec)
        rig.admin.read("pki/crl/rotate")
    assert int(still.split()[0].replace(":", ""), 16) in revoked(rig)


def test_an_issuer_that_signs_nothing_here_is_found(rig: Rig, spec: Spec) -> None:
    before = revoked(rig)
    with _somebody_elses_ca(rig) as other, probe_with(rig, issuer=other):
        result = check(rig, code=6)
        assert failed(result) == dict.fromkeys(("probe_rights", "used"), "the CRL is not signed by the issuer")
        assert "its issuer the certificate that signs" in steps(result)["probe_rights"]["mend"]
        assert "probe_rights: the CRL is not signed by the issuer" in refused(rig, spec)
    # nobody could say that it is dead, but what was made was ended
    assert len(revoked(rig) - before) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dsn": "http://127.0.0.1:1/v1/pki"}, "127.0.0.1:1/v1/pki/crl could not be asked: Connection refused"),
        ({"dsn": "ftp://127.0.0.1/pki"}, "the probe's URL or its CA cannot be used (NotSent)"),
        ({"issuer": ""}, "the probe's document has no issuer, the certificate that signs the CRL"),
        ({"issuer": "-----BEGIN CERTIFICATE-----"}, "the issuer in the probe's document is no certificate"),
    ],
    ids=["nobody there", "no web address", "no issuer", "no certificate"],
)
def test_a_probe_that_can_ask_nobody_is_found(rig: Rig, spec: Spec, change: Mapping[str, str], says: str) -> None:
    before, of_before = revoked(rig), leases(rig)
    with probe_with(rig, **change):
        result = check(rig, code=6)
        assert failed(result) == {"probe_rights": says, "used": says}
        assert "probe_rights: " in refused(rig, spec)
    assert (len(revoked(rig) - before), leases(rig)) == (1, of_before)


def test_a_mount_that_hides_the_serial_number_is_found(rig: Rig, spec: Spec) -> None:
    rig.admin.write("sys/mounts/pki/tune", {"audit_non_hmac_response_keys": []}, method="post")
    try:
        result = check(rig, code=6)
        assert failed(result) == {"name_shown": "the audit stream hides `serial_number` of pki/"}
        assert steps(result)["name_shown"]["mend"] == "`jitvault init` tunes the mount."
        assert "name_shown: the audit stream hides `serial_number`" in refused(rig, spec)
    finally:
        keys = {"audit_non_hmac_response_keys": ["serial_number"]}
        rig.admin.write("sys/mounts/pki/tune", keys, method="post")


# -- what changes while it is checked ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        # OCSP of a certificate that is revoked without a CRL still says so
        ({"disable": True}, {"session_ended", "probe_sees_end", "unchanged"}),
        ({"ocsp_disable": True}, {"login_refused", "probe_sees_end", "unchanged"}),
    ],
    ids=["CRL", "OCSP"],
)
def test_what_is_switched_off_before_the_revocation_is_no_pass(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, change: dict[str, bool], fails: set[str]
) -> None:
    revoke = selftest._Check._revoke

    def switching_off(trial: Any) -> bool:
        rig.admin.write(CRL, {**before, **change})
        return revoke(trial)

    before = (rig.admin.read(CRL) or {})["data"]
    monkeypatch.setattr(selftest._Check, "_revoke", switching_off)
    try:
        assert set(failed(check(rig, code=6))) == fails
    finally:
        rig.admin.write(CRL, before)


def test_a_probe_that_hears_nothing_has_not_seen_it_alive(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not answer refuses nobody, and is no witness of a life either."""
    use = PkiTrial.use

    @contextmanager
    def moving_away(self: PkiTrial, where: dict[str, Any], *given: Any) -> Iterator[Any]:
        with use(self, where, *given) as used:
            where["dsn"] = "http://127.0.0.1:1/v1/pki"
            yield used

    before, of_before = revoked(rig), leases(rig)
    monkeypatch.setattr(PkiTrial, "use", moving_away)
    result = check(rig, code=6)
    assert set(failed(result)) == {"probe_sees_it", *AFTER}
    assert all(" could not be asked: Connection refused" in says for says in failed(result).values())
    assert (len(revoked(rig) - before), leases(rig)) == (1, of_before)
