"""The second engine, on a real OpenBao: a certificate is granted, used, revoked, and proven by CRL and OCSP.

Most of these change the PKI mount under a running task, so they have servers of their own.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from attended import Attended, wait_for
from commands import EXAMPLE
from copied_world import copied_world
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import ocsp
from rig import Held, Rig, own_rig, rests_on

from jitvault import shipped_files as shipped
from jitvault.engines.pki import x509_revocation as revocation
from jitvault.formats.x509_signature import spelled
from jitvault.model.template import load_templates
from jitvault.provision import init
from jitvault.sandbox.world import TASKS_PER_SECOND, env, shipped_want
from jitvault.vault import client
from jitvault.vault.client import Connection, Vault

pytestmark = pytest.mark.usefixtures("lab", "hurried", "checked")
Spec = Callable[..., Path]
ISSUE = "pki/issue/service"
ROLE = "pki/roles/service"
CRL = "pki/config/crl"
BODY = {"common_name": "orders.svc.internal", "ttl": "15m"}


@pytest.fixture(autouse=True)
def current_list(rig: Rig) -> None:
    """No worker renews the list here, and on a busy machine these tests take longer than it holds."""
    rig.admin.read("pki/crl/rotate")


def certified(spec: Spec, **how: str) -> Path:
    return spec(template="pki-service", choices="{service: orders}", **how)


def granted(rig: Rig, file: Path) -> dict[str, Any]:
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    return dict(rig("operator", "grant", file.stem).json)


def active(rig: Rig, file: Path) -> Held:
    return rig.use(granted(rig, file))


def refused(rig: Rig, file: Path) -> str:
    """Why nothing is granted, and nobody is asked to approve it."""
    message: str = rig("operator", "grant", file, code=8).error["message"]
    assert message.startswith("template pki-service is not granted: ")
    assert rig.task_tokens(file.stem) == []
    return message


def certificate_of(held: Held) -> x509.Certificate:
    return x509.load_pem_x509_certificate(held.secrets[0]["fields"]["certificate"].encode())


def complete(rig: Rig, task: str, *, code: int) -> dict[str, Any]:
    answer: dict[str, Any] = rig("operator", "complete", task, code=code).json
    assert answer["confirmed"] is (code == 0)
    return answer


def failed(answer: dict[str, Any]) -> dict[int, str]:
    """The checks of the one lease that are not ok, with what they say."""
    return {check["n"]: rests_on(check) for check in answer["leases"][0]["checks"] if not check["ok"]}


def on_the_crl(rig: Rig, certificate: x509.Certificate) -> bool:
    crl = x509.load_der_x509_crl(requests.get(f"{rig.world.address}/v1/pki/crl", timeout=10).content)
    return crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


@contextmanager
def rewritten(rig: Rig, path: str, **change: object) -> Iterator[None]:
    """An engine's configuration, changed and put back."""
    before = (rig.admin.read(path) or {})["data"]
    rig.admin.write(path, {**before, **change})
    try:
        yield
    finally:
        rig.admin.write(path, before)


# -- the story -----------------------------------------------------------------------------------------------


def test_a_certificate_is_granted_used_and_proven_revoked(rig: Rig, spec: Spec) -> None:
    file = certified(spec)
    answer = granted(rig, file)
    assert (answer["wrapping"][0]["reads"], answer["wrapping"][0]["sends"]) == ([ISSUE], {ISSUE: BODY})
    held = rig.use(answer)
    certificate = certificate_of(held)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["orders.svc.internal"]
    key = serialization.load_pem_private_key(held.secrets[0]["fields"]["private_key"].encode(), None)
    assert key.public_key() == certificate.public_key()
    assert not on_the_crl(rig, certificate)

    ended = complete(rig, file.stem, code=0)
    (lease,) = ended["leases"]
    assert (lease["lease_id"], lease["verdict"]) == (held.lease_id, "target_confirmed")
    (sixth,) = [check for check in lease["checks"] if check["n"] == 6]
    refused = rests_on(sixth)
    response = ocsp.load_der_ocsp_response(b64decode(sixth["evidence"]["der"]))
    assert (sixth["evidence"]["form"], response.serial_number) == ("ocsp", certificate.serial_number)
    assert response.certificate_status is ocsp.OCSPCertStatus.REVOKED
    # as Vault writes it, so that whoever looks there finds it
    serial = held.secrets[0]["fields"]["serial_number"]
    assert refused.startswith(f"serial {serial} is on the CRL of ")
    assert "OCSP calls it revoked" in refused
    assert on_the_crl(rig, certificate)

    (row,) = rig.record(file.stem).leases
    assert row.target_name == held.secrets[0]["fields"]["serial_number"]
    assert b"PRIVATE KEY" not in rig.ledger_path.read_bytes()


def test_the_audit_line_shows_the_serial_number_and_the_lease_and_hides_the_key(rig: Rig, spec: Spec) -> None:
    """docs/vault-facts.md, "Certificates"."""
    held = active(rig, certified(spec))
    lines = [json.loads(line) for line in rig.own_lines()]
    issued = [entry for entry in lines if entry["type"] == "response" and entry["request"]["path"] == ISSUE]
    response = issued[-1]["response"]
    assert response["secret"]["lease_id"] == held.lease_id
    assert response["data"]["serial_number"] == held.secrets[0]["fields"]["serial_number"]
    for name in ("private_key", "certificate", "issuing_ca"):
        assert response["data"][name].startswith("hmac-sha256:")
    assert issued[-1]["request"]["data"]["common_name"].startswith("hmac-sha256:")


def test_the_agent_sends_what_was_approved_with_nothing_but_its_token(rig: Rig, spec: Spec) -> None:
    file = certified(spec)
    held = rig.use(granted(rig, file), read=False)
    (fetch,) = held.task.reads
    assert (fetch.path, fetch.capability, dict(fetch.data)) == (ISSUE, "update", BODY)
    meta = rig.vault(held.token).read("auth/token/lookup-self")
    assert meta is not None
    assert meta["data"]["meta"]["jitvault_reads"] == f"pki-service={ISSUE}?common_name=orders.svc.internal&ttl=15m"


# -- what was approved, and nothing else -----------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "another name": {**BODY, "common_name": "billing.svc.internal"},
    "the same name in other letters": {**BODY, "common_name": "ORDERS.svc.internal"},
    "a list of names": {**BODY, "common_name": ["orders.svc.internal", "billing.svc.internal"]},
    "an alternative name": {**BODY, "alt_names": "billing.svc.internal"},
    "an alternative name, in capitals": {**BODY, "ALT_NAMES": "billing.svc.internal"},
    "no alternative name": {**BODY, "alt_names": None},
    "an address": {**BODY, "ip_sans": "10.0.0.1"},
    "a longer life": {**BODY, "ttl": "1h"},
    "a longer life in seconds": {**BODY, "ttl": 3600},
    "an end": {**BODY, "not_after": "2099-01-01T00:00:00Z"},
    "the role's own life": {"common_name": BODY["common_name"]},
    "nothing": {},
}


def test_the_task_token_can_ask_for_nothing_else(rig: Rig, spec: Spec) -> None:
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_DENIED_LIMIT": "400"}
    file = certified(spec)
    held = rig.use(granted(rig, file), read=False)
    url, headers = f"{rig.world.address}/v1/{ISSUE}", {"X-Vault-Token": held.token}

    def asked(**how: Any) -> requests.Response:
        return requests.post(url, headers={**headers, **how.pop("headers", {})}, timeout=10, **how)

    for why, body in OTHERS.items():
        assert asked(json=body).status_code == 403, why
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert asked(data={**BODY, "alt_names": "billing.svc.internal"}, headers=form).status_code == 403
    twice = '{"common_name": "orders.svc.internal", "common_name": "billing.svc.internal", "ttl": "15m"}'
    assert asked(data=twice).status_code == 403
    for path in ("pki/issuer/default/issue/service", "pki/sign/service", "pki/sign-verbatim", "pki/revoke"):
        assert (
            requests.post(f"{rig.world.address}/v1/{path}", json=BODY, headers=headers, timeout=10).status_code == 403
        )
    # what is in the URL is not looked at
    answer = requests.post(f"{url}?alt_names=billing.svc.internal&ttl=1h", json=BODY, headers=headers, timeout=10)
    certificate = x509.load_pem_x509_certificate(answer.json()["data"]["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["orders.svc.internal"]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc < timedelta(minutes=16)


def test_an_approver_reads_what_will_be_sent(rig: Rig, spec: Spec) -> None:
    file = certified(spec)
    rig("operator", "grant", file, code=4)
    shown = rig("approver-1", "approve", file.stem, "--yes").stderr
    assert "sends         exactly common_name=orders.svc.internal, ttl=15m" in shown


def test_a_template_that_sends_something_else_is_another_policy_and_ends_the_approval(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    file = certified(spec)
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    _with_template(rig, tmp_path, "ttl: 15m\n  tier", "ttl: 5m\n  tier")
    # its policy is not provisioned: nothing can be granted by it
    assert "not provisioned" in rig("operator", "grant", file.stem, code=8).stderr
    _provision(rig)
    assert "the template was changed since" in refused(rig, file)
    rig("admin", "templates", "check", "pki-service")
    rig("operator", "grant", file.stem, code=4)
    assert rig.task_tokens(file.stem) == []


def _with_template(rig: Rig, directory: Path, old: str, new: str) -> None:
    """The shipped templates, with another text in the one for certificates."""
    templates = directory / "templates"
    templates.mkdir()
    for one in shipped.templates_dir().glob("*.yaml"):
        text = one.read_text()
        if one.stem == "pki-service":
            assert text.count(old) == 1
            text = text.replace(old, new)
        (templates / one.name).write_text(text)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_TEMPLATES": str(templates)}


def _provision(rig: Rig) -> None:
    want = shipped_want()
    templates = load_templates(shipped.files(Path(rig.cli.variables["JITVAULT_TEMPLATES"]), ".yaml"))
    # both: other tests need the policies of the shipped ones
    init.apply(rig.admin, init.plan(rig.admin, replace(want, templates=templates)))


# -- what others saved ------------------------------------------------------------------------------------


def test_a_cached_ocsp_answer_or_crl_is_valid_no_longer_than_the_template_allows(rig: Rig, spec: Spec) -> None:
    """An OCSP answer is stapled, a list lies in a file: both are the issuer's word until they expire."""
    file = certified(spec)
    held = active(rig, file)
    certificate = certificate_of(held)
    ca = x509.load_pem_x509_certificate(rig.document("probes/pki")["issuer"].encode())
    question = revocation.request_for(certificate.serial_number, ca)
    kind = {"Content-Type": "application/ocsp-request"}
    said = requests.post(f"{rig.world.address}/v1/pki/ocsp", data=question, headers=kind, timeout=10)
    answer = ocsp.load_der_ocsp_response(said.content)
    crl = x509.load_der_x509_crl(requests.get(f"{rig.world.address}/v1/pki/crl", timeout=10).content)
    complete(rig, file.stem, code=0)
    ended = rig.record(file.stem).leases[0].dead_at
    assert ended is not None
    (single,) = answer.responses
    assert single.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is None
    bound = load_templates(shipped.files(shipped.templates_dir(), ".yaml"))["pki-service"].spec.accepted_after_end
    assert bound is not None
    for until in (single.next_update_utc, crl.next_update_utc):
        assert until is not None and until <= ended + bound


def test_a_verifier_with_an_older_crl_is_named_as_accepting_the_certificate_until_it_expires(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    """Lists lived for three days until `init` shortened them, and none of them is ever called back."""
    with rewritten(rig, CRL, expiry="72h"):
        rig.admin.read("pki/crl/rotate")
        (tmp_path / "old.crl").write_text(requests.get(f"{rig.world.address}/v1/pki/crl/pem", timeout=10).text)
    rig.admin.read("pki/crl/rotate")
    file = certified(spec)
    rig("operator", "grant", file, code=4)
    read = " ".join(rig("approver-1", "approve", file.stem, "--yes").stderr.split())
    held = rig.use(dict(rig("operator", "grant", file.stem).json))
    not_proven = complete(rig, file.stem, code=0)["not_proven"]
    ended = rig.record(file.stem).leases[0].dead_at
    assert ended is not None
    certificate = certificate_of(held)
    last = certificate.not_valid_after_utc - timedelta(seconds=1)
    (tmp_path / "ca.pem").write_text(rig.document("probes/pki")["issuer"])
    (tmp_path / "held.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    looks = f"openssl verify -crl_check -CAfile ca.pem -CRLfile old.crl -attime {last.timestamp():.0f} held.pem"
    assert subprocess.check_output(looks.split(), cwd=tmp_path, text=True) == "held.pem: OK\n"

    assert "whoever saved a list with a longer life before" in read and "expires, at most 15m after its end" in read
    # what the receipt says, too: test_verifiers.py
    (said,) = re.findall(r"accepts it until it expires, at the latest ([0-9: -]{19}) UTC", " ".join(not_proven))
    assert datetime.fromisoformat(f"{said}+00:00") >= last > ended + timedelta(minutes=5)


def test_the_mount_is_retuned_behind_a_running_task_and_that_is_drift(rig: Rig, spec: Spec) -> None:
    file = certified(spec)
    active(rig, file)
    tune = "sys/mounts/pki/tune"
    before = (rig.admin.read(tune) or {})["data"]
    rig.admin.write(tune, {"max_lease_ttl": "9000h"}, method="post")
    try:
        assert rig("operator", "status", file.stem, code=None).json["end_reason"] == "drift"
    finally:
        rig.admin.write(tune, {"max_lease_ttl": before["max_lease_ttl"]}, method="post")


def current(rig: Rig) -> bool:
    """Whether the list that everybody gets holds now."""
    crl = x509.load_der_x509_crl(requests.get(f"{rig.world.address}/v1/pki/crl", timeout=10).content)
    return crl.next_update_utc is not None and datetime.now(UTC) < crl.next_update_utc


def test_a_list_that_is_over_is_renewed_by_a_worker_though_nothing_was_revoked(rig: Rig) -> None:
    with rewritten(rig, CRL, expiry="3s"):
        rig.admin.read("pki/crl/rotate")
        time.sleep(4)
        # Vault leaves it as it is
        assert not current(rig)
        rig.admin.write(CRL, {"expiry": "1m"})
        with Attended(rig):
            wait_for(lambda: current(rig))
            # somebody shortens it, as `init` does: the worker hears of it before that list is over
            rig.admin.write(CRL, {"expiry": "3s"})
            rig.admin.read("pki/crl/rotate")
            began = time.monotonic()
            while time.monotonic() - began < 5:
                assert current(rig)
                time.sleep(0.1)
    # one that holds for other tests
    rig.admin.read("pki/crl/rotate")


# -- lies --------------------------------------------------------------------------------------------------


def test_a_certificate_that_is_on_no_crl_is_not_confirmed(rig: Rig, spec: Spec) -> None:
    """With auto_rebuild it is revoked, says Vault, and OCSP says so too; whoever reads the CRL still trusts it."""
    with rewritten(rig, CRL, auto_rebuild=True, auto_rebuild_grace_period="1m"):
        assert "the engine's role or connection was changed since" in refused(rig, certified(spec))
        rig("admin", "templates", "check", "pki-service", code=6)
        assert "the check of pki/issue/service failed: session_ended: serial " in refused(rig, certified(spec))
        # an administrator who lies does not make it proven
        rig.vouch()
        file = certified(spec)
        held = active(rig, file)
        ended = complete(rig, file.stem, code=6)
        assert ended["leases"][0]["verdict"] == "audit_confirmed"
        assert list(failed(ended)) == [6]
        assert f"serial {spelled(certificate_of(held).serial_number)} is not on the CRL" in failed(ended)[6]
        # it is a matter of time: once the CRL is made, the same task is proven
        rig.admin.read("pki/crl/rotate")
        assert complete(rig, file.stem, code=0)["leases"][0]["verdict"] == "target_confirmed"


def test_a_crl_that_was_switched_off_is_never_confirmed_over(rig: Rig, spec: Spec) -> None:
    file = certified(spec)
    held = active(rig, file)
    with rewritten(rig, CRL, disable=True):
        ended = complete(rig, file.stem, code=6)
        assert sorted(failed(ended)) == [4, 6]
        assert CRL in failed(ended)[4]
        assert ended["leases"][0]["verdict"] == "gone"
        assert not on_the_crl(rig, certificate_of(held))
    # that it is on again does not undo what happened in between
    assert sorted(failed(complete(rig, file.stem, code=6))) == [4]


def test_an_ocsp_responder_that_is_switched_off_is_no_proof(rig: Rig, spec: Spec) -> None:
    with rewritten(rig, CRL, ocsp_disable=True):
        rig("admin", "templates", "check", "pki-service", code=6)
        assert "the check of pki/issue/service failed: probe_rights: " in refused(rig, certified(spec))
        rig.vouch()
        file = certified(spec)
        active(rig, file)
        ended = complete(rig, file.stem, code=6)
        assert list(failed(ended)) == [6]
        assert failed(ended)[6].endswith("/v1/pki/ocsp answered with HTTP 401")
    complete(rig, file.stem, code=0)


@pytest.mark.parametrize("change", [{"generate_lease": False}, {"no_store": True}], ids=str)
def test_a_role_whose_certificates_nothing_can_end_is_refused(rig: Rig, spec: Spec, change: dict[str, bool]) -> None:
    with rewritten(rig, ROLE, **change):
        assert "without a lease" in rig("operator", "submit", certified(spec), code=8).stderr


def test_a_crl_that_is_off_is_refused_before_anything_is_granted(rig: Rig, spec: Spec) -> None:
    with rewritten(rig, CRL, disable=True):
        # not even by the word of an administrator that was given before
        assert "disable=true" in rig("operator", "submit", certified(spec), code=8).stderr


@pytest.mark.parametrize("change", [{"generate_lease": False}, {"no_store": True, "generate_lease": False}], ids=str)
def test_a_certificate_without_a_lease_is_never_confirmed_over(rig: Rig, spec: Spec, change: dict[str, bool]) -> None:
    """The role was another one for just that moment: there is no lease to revoke, and none is listed."""
    file = certified(spec)
    held = rig.use(granted(rig, file), read=False)
    with rewritten(rig, ROLE, **change):
        answer = rig.vault(held.token).write(ISSUE, BODY)
    assert not answer["lease_id"]
    for _ in range(2):
        ended = complete(rig, file.stem, code=6)
        assert ended["leases"] == []
        assert not rig.is_live(held.token)
    quiet = [rests_on(c) for c in rig.record(file.stem).checks if c.n == 7 and not c.ok]
    assert "has no lease" in quiet[0]


def test_a_certificate_that_was_issued_in_a_wrapping_is_never_confirmed_over(rig: Rig, spec: Spec) -> None:
    """Which of the mount's certificates it is, no line and no target says. Its wrapping is ended with the task."""
    file = certified(spec)
    (theirs,) = wrapped(rig, rig.world.admin_token.reveal(), 1)
    held = rig.use(granted(rig, file), read=False)
    (own,), (as_jwt,) = wrapped(rig, held.token, 1), wrapped(rig, held.token, 1, {"X-Vault-Wrap-Format": "jwt"})
    ended = complete(rig, file.stem, code=6)
    (quiet,) = [check for check in ended["token"]["checks"] if check["n"] == 7]
    assert (quiet["ok"], "does not say which of its credentials were made when" in rests_on(quiet)) == (False, True)
    assert set(rig.findings(file.stem)) == {"wrapped_lease"}
    assert [opens(rig, wrapping) for wrapping in (own, as_jwt, theirs)] == [False, False, True]


def wrapped(rig: Rig, token: str, number: int, more: dict[str, str] | None = None) -> list[str]:
    """The wrapping tokens of so many certificates: no line shows which ones."""
    sent = {"X-Vault-Token": token, "X-Vault-Wrap-TTL": "10m", **(more or {})}
    with requests.Session() as session:
        answers = [
            session.put(f"{rig.world.address}/v1/{ISSUE}", headers=sent, json=BODY, timeout=10) for _ in range(number)
        ]
    return [answer.json()["wrap_info"]["token"] for answer in answers if answer.ok]


def opens(rig: Rig, wrapping: str) -> bool:
    """Whether somebody gets what is in it."""
    sent = {"X-Vault-Token": wrapping}
    answer = requests.put(f"{rig.world.address}/v1/sys/wrapping/unwrap", headers=sent, timeout=10)
    return answer.ok and "private_key" in answer.json()["data"]


def test_who_read_nothing_in_a_wrapping_is_sealed_while_certificates_of_others_belong_to_nobody(
    rig: Rig, spec: Spec
) -> None:
    """While the other task is held, and once it has ended and Vault goes on revoking what it made."""
    guilty = certified(spec)
    thief = rig.use(granted(rig, guilty), read=False)
    for ended in (False, True):
        file = certified(spec)
        active(rig, file)
        if not ended:
            assert len(wrapped(rig, thief.token, 100, {"X-Vault-Wrap-Format": "jwt"})) == 100
        complete(rig, file.stem, code=0)
        rig.settle()
        shown = rig("operator", "status", file.stem).json
        assert (shown["state"], shown["findings"]) == ("sealed", [])
        if not ended:
            there = rig.admin.list(f"sys/leases/lookup/{ISSUE}/")
            assert len([name for name in there if len(name) < 60]) >= 100
            complete(rig, guilty.stem, code=6)
    assert set(rig.findings(guilty.stem)) >= {"wrapped_lease", "over_budget"}


def test_a_flood_is_kept_out_and_whoever_reads_beside_it_loses_nothing(
    rig: Rig, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a second is for all that have one address. Who was kept out for that second is no finding."""
    file, beside = certified(spec), certified(spec)
    thief, honest = rig.use(granted(rig, file), read=False), granted(rig, beside)
    # what was unwrapped is lost with who gives up: they wait for longer than for any other request
    monkeypatch.setattr(client, "_BUSY_PATIENCE_S", 0.3)
    limit(rig, 1)
    made = list[str]()
    flood = Thread(target=lambda: made.extend(wrapped(rig, thief.token, 400)))
    try:
        flood.start()
        time.sleep(0.2)
        held = rig.use(honest)
    finally:
        flood.join()
        limit(rig, TASKS_PER_SECOND)
    assert 3 <= len(made) < 20
    assert rig("operator", "status", beside.stem).json["findings"] == []
    assert certificate_of(held)
    complete(rig, beside.stem, code=0)
    assert not complete(rig, file.stem, code=6)["confirmed"]


def limit(rig: Rig, tasks_per_second: int) -> None:
    want = replace(shipped_want(), tasks_per_second=tasks_per_second)
    plan = init.plan(rig.admin, want)
    assert {step.kind for step in plan.changes} <= {"read limit"}
    init.apply(rig.admin, plan)


def test_a_role_that_is_rewritten_ends_the_task_as_drift(rig: Rig, spec: Spec) -> None:
    file = certified(spec)
    active(rig, file)
    with rewritten(rig, ROLE, max_ttl="2h"):
        status = rig("operator", "status", file.stem, code=None).json
    assert status["end_reason"] == "drift"


def test_a_crl_of_somebody_else_is_no_proof(rig: Rig, spec: Spec) -> None:
    """Its document names another CA: what that signs is not what signs here."""
    file = certified(spec)
    active(rig, file)
    right = rig.document("probes/pki")
    rig.admin.write("sys/mounts/elsewhere", {"type": "pki"})
    body = {"common_name": "jitvault sandbox CA", "key_type": "ec", "key_bits": 256}
    other = rig.admin.write("elsewhere/root/generate/internal", body)["data"]["certificate"]
    rig.put("probes/pki", {**right, "issuer": other})
    try:
        assert failed(complete(rig, file.stem, code=6)) == {6: "the CRL is not signed by the issuer"}
    finally:
        rig.put("probes/pki", right)
        rig.admin.delete("sys/mounts/elsewhere")
    complete(rig, file.stem, code=0)


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
def test_a_target_that_cannot_be_asked_is_no_proof(rig: Rig, spec: Spec, change: dict[str, str], says: str) -> None:
    file = certified(spec)
    active(rig, file)
    right = rig.document("probes/pki")
    rig.put("probes/pki", {**right, **change})
    try:
        ended = complete(rig, file.stem, code=6)
        assert (ended["leases"][0]["verdict"], failed(ended)) == ("audit_confirmed", {6: says})
    finally:
        rig.put("probes/pki", right)
    complete(rig, file.stem, code=0)


def test_a_certificate_that_is_over_is_on_no_crl_and_proven_by_its_own_time(
    rig: Rig, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vault does not put on the CRL what expires within two seconds, and says 204."""
    _with_template(rig, tmp_path, "ttl: 15m\n  tier", "ttl: 4s\n  tier")
    _provision(rig)
    rig("admin", "templates", "check", "pki-service")
    file = certified(spec)
    held = active(rig, file)
    certificate = certificate_of(held)
    time.sleep(2.5)
    ended = complete(rig, file.stem, code=6)
    assert list(failed(ended)) == [6]
    time.sleep(2)
    assert not on_the_crl(rig, certificate)
    # not as long as somebody's clock may say that it still is valid
    assert list(failed(complete(rig, file.stem, code=6))) == [6]
    monkeypatch.setattr(revocation, "SKEW", timedelta(0))
    (lease,) = complete(rig, file.stem, code=0)["leases"]
    assert lease["verdict"] == "target_confirmed"
    assert f"serial {spelled(certificate.serial_number)} expired at" in rests_on(lease["checks"][-1])
    said = lease["checks"][-1]["evidence"]
    assert (said["form"], b64decode(said["der"])) == (
        "certificate",
        certificate.public_bytes(serialization.Encoding.DER),
    )


def test_a_revocation_through_the_old_hands_of_an_administrator_is_proven_too(rig: Rig, spec: Spec) -> None:
    """By serial number: the lease is still there, so its revocation finds the certificate revoked already."""
    file = certified(spec)
    held = active(rig, file)
    rig.admin.write("pki/revoke", {"serial_number": held.secrets[0]["fields"]["serial_number"]})
    assert complete(rig, file.stem, code=0)["leases"][0]["verdict"] == "target_confirmed"


@pytest.mark.parametrize(
    "tidy", [{"tidy_cert_store": True, "tidy_revoked_certs": True, "safety_buffer": "1s"}], ids=str
)
def test_a_tidy_of_certificates_takes_only_what_has_expired(rig: Rig, spec: Spec, tidy: dict[str, Any]) -> None:
    file = certified(spec)
    held = active(rig, file)
    rig.admin.write("pki/tidy", tidy)
    assert complete(rig, file.stem, code=0)["leases"][0]["verdict"] == "target_confirmed"
    rig.admin.write("pki/tidy", tidy)
    time.sleep(0.5)
    assert on_the_crl(rig, certificate_of(held))


ASKED_BY_ANYBODY = (
    "pki/ocsp/roles/service",
    "pki/cert/config",
    f"pki/cert/{'a' * 5000}",
    "pki/issuer/roles/json",
    "pki/issuer/config/acme/new-nonce",
    "pki/issuer/roles/acme/new-order",
    "pki/acme/challenge/config/x",
)


def test_what_everybody_may_ask_of_the_engine_keeps_no_certificate_from_being_proven(rig: Rig, spec: Spec) -> None:
    """Some paths of the engine take any token, and below them what looks like its configuration is none."""
    file = certified(spec)
    active(rig, file)
    stranger = rig.admin.write("auth/token/create", {"policies": ["default"]})["auth"]["client_token"]
    for path in ASKED_BY_ANYBODY:
        url, headers = f"{rig.world.address}/v1/{path}", {"X-Vault-Token": stranger}
        assert requests.post(url, headers=headers, json={}, timeout=10).status_code in (404, 405), path
        assert requests.head(url, headers=headers, timeout=10).status_code in (200, 404, 405), path
    complete(rig, file.stem, code=0)


# the last ones: afterwards the mount has no issuer that makes anything

GONE = {
    "an issuer that does not sign CRLs any more": lambda v: v.write(
        "pki/issuer/default", {"usage": "read-only,issuing-certificates"}, method="post"
    ),
    "another default issuer": lambda v: v.write(
        "pki/root/replace",
        {
            "default": v.write("pki/root/rotate/internal", {"common_name": "new", "key_type": "ec", "key_bits": 256})[
                "data"
            ]["issuer_id"]
        },
    ),
    "no issuer at all": lambda v: v.delete("pki/root"),
}


@pytest.mark.parametrize("taken", GONE.values(), ids=GONE)
def test_an_issuer_that_was_changed_in_between_is_never_confirmed_over(
    tmp_path: Path, spec: Spec, taken: Callable[[Vault], object]
) -> None:
    with copied_world() as world:
        rig = own_rig(world, env(world, "", EXAMPLE), tmp_path)
        file = certified(spec)
        held = active(rig, file)
        taken(Vault(Connection(world.address), world.admin_token))
        ended = complete(rig, file.stem, code=6)
        assert sorted(failed(ended)) == [4, 6]
        assert ended["leases"][0]["verdict"] == "gone"
        # Vault itself has nothing to say against it
        assert not rig.lease_is_live(held.lease_id)
