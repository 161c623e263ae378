"""What the engine reads of a mount, and whom it believes: its two answers have to agree."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from authority import DER, HOUR, SERIAL, Authority
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from jitvault.audit.entry import TARGET_NAMES
from jitvault.engines.database import DatabaseEngine
from jitvault.engines.interface import Upkeep, check_template
from jitvault.engines.pki.engine import PkiEngine
from jitvault.engines.pki.x509_revocation import spelled
from jitvault.errors import InvalidInput, NotConfirmed, VaultRejected
from jitvault.model.template import TemplateBody

CA = Authority.new()
PKI = PkiEngine()
NAME = "24:29:a7:38:c3:b8:b0:d8:e7:d0:58:2d:28:15:96:bd:03:1e:e2:69"
ROLE = {"issuer_ref": "default", "generate_lease": True, "no_store": False}
KEPT_5M = {"disable": False, "auto_rebuild": False, "expiry": "5m", "ocsp_expiry": "5m"}
Answers = dict[str, tuple[int, bytes]]


@pytest.fixture
def target() -> Iterator[tuple[str, Answers, list[str]]]:
    """A mount's public side: its URL, what it answers by path, and what it was asked."""
    answers: Answers = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that the base class calls

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    now = datetime.now(UTC)
    answers["/v1/pki/crl"] = 200, CA.crl(begins=now - HOUR, ends=now + HOUR, at=now - HOUR)
    answers["/v1/pki/ocsp"] = 200, CA.ocsp(begins=now - HOUR, ends=now + HOUR)
    answers[f"/v1/pki/cert/{NAME}/raw"] = 200, CA.leaf(ends=now + HOUR).public_bytes(DER)
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/pki", answers, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def probe(target: tuple[str, Answers, list[str]], *names: str, **where: Any) -> dict[str, Any]:
    found = PKI.probe.ask({"dsn": target[0], "issuer": CA.pem, **where}, names or [NAME])
    return {name: (said.refused, said.evidence) for name, said in found.items()}


def test_it_is_refused_where_crl_and_ocsp_agree(target: Any) -> None:
    refused, evidence = probe(target)[NAME]
    assert refused
    assert evidence.startswith(f"serial {spelled(SERIAL)} is on the CRL")
    assert "; OCSP calls it revoked" in evidence
    assert target[2] == ["GET /v1/pki/crl", "POST /v1/pki/ocsp"]


def _not_listed(answers: Answers, now: datetime) -> None:
    answers["/v1/pki/crl"] = 200, CA.crl([], begins=now - HOUR, ends=now + HOUR)


def _good(answers: Answers, now: datetime) -> None:
    answers["/v1/pki/ocsp"] = (
        200,
        CA.ocsp(status=ocsp.OCSPCertStatus.GOOD, begins=now - HOUR, ends=now + HOUR),
    )


def _stale(answers: Answers, now: datetime) -> None:
    answers["/v1/pki/crl"] = 200, CA.crl(begins=now - 3 * HOUR, ends=now - HOUR, at=now - 3 * HOUR)


def _elsewhere(answers: Answers, now: datetime) -> None:
    answers["/v1/elsewhere"] = answers["/v1/pki/crl"]
    answers["/v1/pki/crl"] = 302, b"/v1/elsewhere"


def _no_crl(answers: Answers, now: datetime) -> None:
    del answers["/v1/pki/crl"]


def _no_ocsp(answers: Answers, now: datetime) -> None:
    del answers["/v1/pki/ocsp"]


def _huge(answers: Answers, now: datetime) -> None:
    answers["/v1/pki/ocsp"] = 200, answers["/v1/pki/ocsp"][1] + b"\0" * 70_000


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (_not_listed, "is not on the CRL"),
        (_good, f"OCSP calls serial {spelled(SERIAL)} good"),
        (_stale, "the CRL is stale"),
        (_elsewhere, "/v1/pki/crl answered with HTTP 302"),
        (_no_crl, "/v1/pki/crl answered with HTTP 404"),
        (_no_ocsp, "/v1/pki/ocsp answered with HTTP 404"),
        (_huge, "/v1/pki/ocsp answered with more than 65536 bytes"),
    ],
    ids=["not listed", "good", "stale", "redirected", "no CRL", "no OCSP", "huge"],
)
def test_one_answer_is_not_enough(target: Any, broken: Callable[[Answers, datetime], None], says: str) -> None:
    broken(target[1], datetime.now(UTC))
    refused, evidence = probe(target)[NAME]
    assert not refused
    assert says in evidence


def test_what_is_over_is_refused_whatever_the_crl_says(target: Any) -> None:
    now = datetime.now(UTC)
    _not_listed(target[1], now)
    _good(target[1], now)
    target[1][f"/v1/pki/cert/{NAME}/raw"] = 200, CA.leaf(ends=now - HOUR).public_bytes(DER)
    assert probe(target)[NAME] == (True, probe(target)[NAME][1])
    assert "expired at" in probe(target)[NAME][1]


def test_each_of_several_is_asked_about(target: Any) -> None:
    other = "7f:01"
    found = probe(target, NAME, other, "no serial/../x")
    assert [found[name][0] for name in (NAME, other, "no serial/../x")] == [True, False, False]
    assert "is not a serial number" in found["no serial/../x"][1]
    # the CRL is fetched once, and what is not a serial number becomes no URL
    assert target[2].count("GET /v1/pki/crl") == 1
    assert not any(".." in path for path in target[2])


def test_a_crl_of_its_own_can_be_named(target: Any) -> None:
    target[1]["/v1/pki/issuer/next/crl/der"] = target[1].pop("/v1/pki/crl")
    assert not probe(target)[NAME][0]
    assert probe(target, crl=f"{target[0]}/issuer/next/crl/der")[NAME][0]


@pytest.mark.parametrize(
    "dsn", ["http://user:secret@127.0.0.1/pki", "file:///etc/passwd", "http://", "x", "http://h:p/"]
)
def test_a_url_that_is_none_is_not_asked_and_not_repeated(dsn: str) -> None:
    (found,) = PKI.probe.ask({"dsn": dsn, "issuer": CA.pem}, [NAME]).values()
    assert (found.refused, "secret" in found.evidence) == (False, False)
    assert "cannot be used" in found.evidence


def test_without_an_issuer_it_is_not_asked() -> None:
    with pytest.raises(NotConfirmed, match="has no issuer"):
        PKI.probe.ask({"dsn": "http://127.0.0.1:1/"}, [NAME])


# -- what it reads of the mount -----------------------------------------------------------------------------


def snapshot(
    role: dict[str, Any] | None, crl: dict[str, Any] | None = None, path: str = "issue/web", **more: dict[str, Any]
) -> Any:
    held: dict[str, Any] = {
        "pki/roles/web": None if role is None else {"data": role},
        "pki/config/crl": {"data": crl or {"disable": False}},
        "pki/config/urls": {"data": {"ocsp_servers": ["http://x"]}},
        "pki/issuer/default": {"data": {"certificate": "PEM"}},
        "pki/issuer/next": {"data": {"certificate": "NEXT"}},
        "sys/mounts/pki/tune": {"data": {"max_lease_ttl": 900, "audit_non_hmac_response_keys": ["x"]}},
    }
    held |= {f"pki/config/{name}": {"data": data} for name, data in more.items()}

    def read(at: str) -> Any:
        if at in ("pki/config/acme", "pki/config/cluster") and at not in held:
            # as a server answers that is older than ACME
            raise VaultRejected(f"Vault rejected {at}", status=404, reasons=("unsupported path",))
        return held[at]

    return PKI.snapshot(read, "pki", path)


def test_what_decides_about_a_certificate_is_in_the_snapshot() -> None:
    assert snapshot(ROLE) == {
        "role": ROLE,
        "crl": {"disable": False},
        "urls": {"ocsp_servers": ["http://x"]},
        "issuer": {"certificate": "PEM"},
        "acme": {},
        "cluster": {},
        "tuning": {"max_lease_ttl": 900},
    }
    assert snapshot({**ROLE, "issuer_ref": "next"})["issuer"] == {"certificate": "NEXT"}


def test_the_worker_may_read_what_the_snapshot_reads() -> None:
    paths = PKI.worker_paths("pki", "issue/web")
    assert set(paths) == {
        "pki/roles/web",
        *(f"pki/config/{name}" for name in ("crl", "urls", "acme", "cluster")),
        "pki/issuer/*",
        "pki/crl/rotate",
        "sys/mounts/pki/tune",
    }


@pytest.mark.parametrize(
    ("role", "crl"),
    [
        (None, {}),
        ({**ROLE, "generate_lease": False}, {}),
        ({**ROLE, "no_store": True}, {}),
        ({}, {}),
        (ROLE, {"disable": True}),
    ],
    ids=["no role", "no lease", "not stored", "an empty role", "no CRL"],
)
def test_what_nothing_can_end_is_refused(role: dict[str, Any] | None, crl: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        snapshot(role, crl)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"not_after": "2099-01-01T00:00:00Z"}, "not_after='2099-01-01T00:00:00Z'"),
        ({"key_usage": ["DigitalSignature", "CertSign"]}, "key_usage='CertSign'"),
        ({"key_usage": "digitalsignature, crlsign"}, "key_usage='crlsign'"),
        ({"ext_key_usage": ["ClientAuth", "OCSPSigning"]}, "ext_key_usage='OCSPSigning'"),
        ({"ext_key_usage": ["any"]}, "ext_key_usage='any'"),
        ({"ext_key_usage_oids": ["1.3.6.1.5.5.7.3.9"]}, "ext_key_usage_oids='1.3.6.1.5.5.7.3.9'"),
    ],
    ids=str,
)
def test_a_role_that_says_it_gives_more_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        snapshot({**ROLE, **change})
    assert "pki/roles/web" in str(refused.value) and says in str(refused.value)


def test_a_role_whose_usages_vouch_for_nobody_is_taken() -> None:
    usages = {"key_usage": ["DigitalSignature"], "ext_key_usage": ["clientauth"], "ext_key_usage_oids": [], "ou": []}
    snapshot({**ROLE, **usages, "not_after": "", "basic_constraints_valid_for_non_ca": True, "allow_any_name": True})


def test_a_mount_that_serves_acme_is_refused_and_one_that_could_is_not() -> None:
    assert snapshot(ROLE, acme={"enabled": False})["acme"] == {"enabled": False}
    with pytest.raises(InvalidInput, match=r"pki/config/acme has enabled=true: .* without a lease"):
        snapshot(ROLE, acme={"enabled": True})


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("sign/web", "a key that somebody else made"),
        ("sign-verbatim", "whatever the role allows"),
        ("sign-verbatim/web", "whatever the role allows"),
        ("issuer/x/issue/web", "issuer_ref"),
        ("acme/new-order", "without a lease"),
        ("root/sign-intermediate", "certificate authorities"),
        *((path, "") for path in ("issue/", "issue/a/b", "creds/x")),
    ],
)
def test_only_issue_is_a_path_of_a_template(path: str, why: str) -> None:
    with pytest.raises(InvalidInput, match="issue/<role>") as refused:
        PKI.worker_paths("pki", path)
    assert why in str(refused.value)


# -- what a template says, and what the mount is configured for ------------------------------------------------


def spec(**change: Any) -> TemplateBody:
    found = {
        "engine": "pki",
        "mount": "pki",
        "path": "issue/web",
        "parameters": {"life": {"choices": ["5m", "15m"]}},
        "data": {"common_name": "a.example", "ttl": "{life}"},
        "tier": "low",
        "ttl": "15m",
        "accepted_after_end": "5m",
        "max_window": "1h",
        "wrap_ttl": "2m",
        "lease_budget": 1,
        "confirm": "target",
        "probe": "pki",
    }
    return TemplateBody.model_validate({**found, **change})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"accepted_after_end": None}, "says in accepted_after_end how long"),
        ({"data": {"common_name": "{life}", "not_after": "2099-01-01T00:00:00Z"}}, "data.not_after"),
        ({"ttl": "10m"}, "data.ttl asks for '15m'"),
        ({"data": {"common_name": "{life}", "ttl": "901"}}, "data.ttl asks for '901'"),
        ({"data": {"common_name": "{life}", "ttl": "soon"}}, "data.ttl asks for 'soon'"),
    ],
    ids=["no bound", "an end of its own", "one choice is too long", "seconds", "no duration"],
)
def test_a_template_that_asks_for_more_than_it_says_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PKI.check_template(spec(**change))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("crl", "says"),
    [
        ({"expiry": "72h"}, "expiry=72h"),
        ({"expiry": "5m1s"}, "expiry=5m1s"),
        ({"ocsp_expiry": "12h"}, "ocsp_expiry=12h"),
        ({"ocsp_expiry": "0"}, "ocsp_expiry=0"),
        ({"ocsp_expiry": "0s"}, "ocsp_expiry=0s"),
        ({"ocsp_expiry": None}, "ocsp_expiry=None"),
        ({"expiry": "for ever"}, "expiry=for ever"),
    ],
    ids=str,
)
def test_a_mount_whose_crl_lives_longer_than_the_template_allows_is_refused(crl: dict[str, Any], says: str) -> None:
    PKI.check_template(spec(), {"crl": KEPT_5M})
    with pytest.raises(InvalidInput) as refused:
        PKI.check_template(spec(), {"crl": {**KEPT_5M, **crl}})
    assert says in str(refused.value) and "accepted_after_end: 5m" in str(refused.value)
    assert "vault write pki/config/crl" in str(refused.value.hint)


def test_what_was_issued_ends_when_the_template_says() -> None:
    """That its usages are not restricted is said first; one that ends late is told for its end as well."""
    now = datetime.now(UTC)
    for ends, late in ((now + timedelta(minutes=14), False), (now + HOUR, True), (now + 7000 * HOUR, True)):
        pem = CA.leaf(ends=ends).public_bytes(Encoding.PEM).decode()
        with pytest.raises(NotConfirmed) as refused:
            PKI.trial.check_issued(spec(), {"common_name": "orders.svc.internal"}, {"role": {}}, {"certificate": pem})
        assert ("; it ends at " in str(refused.value)) is late


def test_a_login_has_nothing_that_goes_on_accepting_it() -> None:
    with pytest.raises(InvalidInput, match="has no accepted_after_end"):
        check_template(DatabaseEngine(), spec())
    check_template(DatabaseEngine(), spec(accepted_after_end=None))


@pytest.mark.parametrize(
    ("crl", "every_s"),
    [
        (KEPT_5M, 100),
        ({**KEPT_5M, "auto_rebuild": True}, None),
        ({**KEPT_5M, "disable": True}, None),
        ({}, None),
    ],
    ids=["by hand", "by Vault", "no list", "no configuration"],
)
def test_a_list_that_vault_does_not_renew_is_renewed_three_times_in_its_life(
    crl: dict[str, Any], every_s: int | None
) -> None:
    found = PKI.upkeep(lambda path: {"data": crl} if path == "pki/config/crl" else None, "pki")
    wanted = None if every_s is None else Upkeep("pki/crl/rotate", timedelta(seconds=every_s))
    assert found == wanted


def test_a_mount_that_reads_like_an_issue_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot end with issue"):
        PKI.worker_paths("team/issue", "issue/web")


def test_every_engines_names_are_looked_for_in_the_stream() -> None:
    for engine in (PKI, DatabaseEngine()):
        assert engine.probe.credential_key in TARGET_NAMES
