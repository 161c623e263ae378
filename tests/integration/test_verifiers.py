"""Certificates at TLS servers that take them, and at Vault itself: what goes on after the end is told, never denied.

These write to the PKI mount and to auth methods, so they have servers of their own.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from commands import Quick, Result
from rig import Rig, rests_on
from tls_servers import Kind, TlsServer

from jitvault import shipped_files as shipped
from jitvault.engines.pki import verifiers
from jitvault.engines.pki.verifiers import AtVerifiers
from jitvault.errors import NotConfirmed
from jitvault.model.template import load_templates
from jitvault.model.verifiers import Verifiers
from jitvault.provision import init
from jitvault.sandbox.world import shipped_want

pytestmark = pytest.mark.usefixtures("lab", "hurried", "checked")
Spec = Callable[..., Path]
Issued = Mapping[str, Any]
NAME = "pki-service"
ISSUE = "pki/issue/service"
BODY = {"common_name": "orders.svc.internal", "ttl": "15m"}
LONG = timedelta(hours=1)
SHORT = timedelta(seconds=1)
BOTH = "(TLS 1.3 and 1.2)"
OVER = "that TLS sessions opened with its certificate are over"


@pytest.fixture
def mount(rig: Rig) -> str:
    """The URL of the PKI mount."""
    return f"{rig.world.address}/v1/pki"


@pytest.fixture
def server(mount: str, tmp_path: Path) -> Iterator[Callable[[Kind], TlsServer]]:
    begun: list[TlsServer] = []

    def begin(kind: Kind) -> TlsServer:
        directory = tmp_path / f"server-{len(begun)}"
        directory.mkdir()
        begun.append(TlsServer(kind, directory, mount))
        return begun[-1]

    yield begin
    for one in begun:
        one.stop()


def issued(rig: Rig) -> Issued:
    return dict(rig.admin.write(ISSUE, BODY)["data"])


def revoke(rig: Rig, certificate: Issued) -> None:
    rig.admin.write("pki/revoke", {"serial_number": certificate["serial_number"]})


@contextmanager
def shown(
    server: TlsServer,
    certificate: Issued,
    within: timedelta,
    patience: timedelta = LONG,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[AtVerifiers]:
    at = AtVerifiers(Verifiers((server.address,), within, patience, say), certificate, server.authority)
    try:
        yield at
    finally:
        at.close()


# -- what a server does ------------------------------------------------------------------------------------------


def test_a_server_that_keeps_tls_sessions_after_revocation_is_named_or_fails_the_check(
    rig: Rig, server: Callable[[Kind], TlsServer]
) -> None:
    """The revoked certificate is refused anew, while the open connection and one resumed from a ticket go on."""
    looking, certificate = server("looking"), issued(rig)
    with shown(looking, certificate, LONG) as at, shown(looking, certificate, SHORT) as bounded:
        assert at.seen == f"{looking.address} takes it in TLS 1.3 and 1.2"
        # the answer is no word of the CRL's: nothing is revoked, and the same server takes it
        assert at._servers[0].handshake().taken == ("1.3", "1.2")
        revoke(rig, certificate)
        anew = at.taken_anew()
        assert (anew.works, anew.is_remark) == (False, False)
        assert anew.seen == f"new handshakes are refused by {looking.address} (certificate revoked)"
        goes_on = f"at {looking.address} the open connection {BOTH} and a resumed session {BOTH}"
        old = at.still_open()
        assert (old.works, old.is_remark) == (False, True)
        assert old.seen == f"these go on: {goes_on}; that they are over within 1h is the template's word alone"
        # a bound that is short enough is waited for, and is no word any more
        late = bounded.still_open()
        assert (late.works, late.seen) == (True, f"1s after its end these go on: {goes_on}")


def test_a_server_that_ends_sessions_and_resumes_none_is_seen_to(rig: Rig, server: Callable[[Kind], TlsServer]) -> None:
    strict, certificate = server("strict"), issued(rig)
    with shown(strict, certificate, timedelta(seconds=20)) as at:
        assert at._servers[0].going_on() == [f"the open connection {BOTH}"]
        revoke(rig, certificate)
        old, anew = at.still_open(), at.taken_anew()
    assert (old.works, old.is_remark, anew.works) == (False, False, False)
    assert old.seen == f"at {strict.address} no session continues and none is resumed"


def test_a_server_that_never_looks_takes_the_revoked_certificate(rig: Rig, server: Callable[[Kind], TlsServer]) -> None:
    blind, certificate = server("blind"), issued(rig)
    with shown(blind, certificate, SHORT) as at, shown(blind, certificate, LONG, SHORT) as hurried:
        revoke(rig, certificate)
        anew, cut = at.taken_anew(), hurried.taken_anew()
    taken = f"a new handshake is taken by {blind.address} in TLS 1.3 and 1.2, 1s after its end"
    assert (anew.works, anew.stays, anew.seen) == (True, False, taken)
    # of a server that may yet refuse nothing is said but that nobody waited
    assert (cut.works, cut.seen) == (True, f"{taken}; the template allows 1h, and that was not waited for")
    assert cut.mend.startswith("Wait for it: `--patience 1h`.")


def test_a_server_that_is_late_is_waited_for_as_long_as_the_template_allows(
    rig: Rig, server: Callable[[Kind], TlsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifiers, "LONGEST", SHORT)
    late, certificate, said = server("late"), issued(rig), list[str]()
    with shown(late, certificate, timedelta(seconds=30), say=said.append) as at:
        revoke(rig, certificate)
        anew = at.taken_anew()
    assert (anew.works, anew.seen) == (False, f"new handshakes are refused by {late.address} (certificate revoked)")
    assert said[0] == f"waiting for {late.address} to refuse the revoked certificate: 0 s of at most 30 s"
    assert said[-1] == ""


def test_a_server_that_is_away_or_closes_without_a_word_refuses_nothing(
    rig: Rig, server: Callable[[Kind], TlsServer], mount: str, tmp_path: Path
) -> None:
    looking, certificate = server("looking"), issued(rig)
    with shown(looking, certificate, SHORT) as at:
        revoke(rig, certificate)
        looking.stop()
        with pytest.raises(NotConfirmed, match=f"{looking.address} cannot be reached"):
            at.taken_anew()
    with _closing() as address, pytest.raises(NotConfirmed, match=f"{address} ends the connection without an alert"):
        AtVerifiers(Verifiers((address,), SHORT), issued(rig), looking.authority)


def test_who_does_not_take_a_good_certificate_is_no_witness_of_its_end(
    rig: Rig, server: Callable[[Kind], TlsServer]
) -> None:
    looking, certificate = server("looking"), issued(rig)
    with pytest.raises(NotConfirmed, match="shows a certificate that is not trusted"):
        AtVerifiers(Verifiers((looking.address,), SHORT), certificate, server("looking").authority)
    revoke(rig, certificate)
    with pytest.raises(NotConfirmed, match=r"refuses the new certificate \(certificate revoked\)"):
        AtVerifiers(Verifiers((looking.address,), SHORT), certificate, looking.authority)


@contextmanager
def _closing() -> Iterator[str]:
    """A server that closes each connection after the first bytes."""

    def close() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(10_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=close)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            # also where the test failed: the process would wait for the thread
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


# -- the check of a template ---------------------------------------------------------------------------------------


def check(rig: Rig, *, code: int = 0, patience: str = "3s") -> dict[str, dict[str, Any]]:
    result: Result = rig("admin", "templates", "check", NAME, "--patience", patience, code=code)
    assert result.json["passed"] is (code == 0)
    (path,) = result.json["paths"]
    return {step["name"]: {**step, "left": path["left_behind"]} for step in path["steps"]}


def failed(steps: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, step in steps.items() if not step["ok"]]


@contextmanager
def listed_for(rig: Rig, expiry: str) -> Iterator[None]:
    """How long a CRL holds."""
    before = (rig.admin.read("pki/config/crl") or {})["data"]["expiry"]
    rig.admin.write("pki/config/crl", {"expiry": expiry})
    try:
        yield
    finally:
        rig.admin.write("pki/config/crl", {"expiry": before})
        rig.admin.read("pki/crl/rotate")


@contextmanager
def naming(rig: Rig, directory: Path, server: TlsServer) -> Iterator[None]:
    """The shipped templates, with a server named in the one for certificates, and its CA in the probe's document."""
    templates, before, right = directory / "templates", rig.cli.variables, rig.document("probes/pki")
    templates.mkdir()
    for one in shipped.templates_dir().glob("*.yaml"):
        text = one.read_text()
        if one.stem == NAME:
            text = text.replace("  tier: medium\n", f"  tier: medium\n  verifiers: [{server.address}]\n")
            assert server.address in text
        (templates / one.name).write_text(text)
    rig.cli.variables = {**before, "JITVAULT_TEMPLATES": str(templates)}
    rig.put("probes/pki", {**right, "verifiers_ca": server.authority})
    want, found = shipped_want(), load_templates(shipped.files(templates, ".yaml"))
    init.apply(rig.admin, init.plan(rig.admin, init.Want(found, want.engines, want.policies, want.networks)))
    try:
        yield
    finally:
        rig.cli.variables = before
        rig.put("probes/pki", right)


def test_a_check_asks_the_servers_that_are_named_and_tells_what_goes_on(
    rig: Rig, spec: Spec, server: Callable[[Kind], TlsServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifiers, "LONGEST", timedelta(seconds=3))
    looking, blind = server("looking"), server("blind")
    with naming(rig, tmp_path, looking):
        found = check(rig)
        assert found["used"]["evidence"].endswith(f"; {looking.address} takes it in TLS 1.3 and 1.2")
        assert f"these go on: at {looking.address} the open connection {BOTH}" in found["session_ended"]["evidence"]
        assert found["session_ended"]["remark"]
        assert f"; new handshakes are refused by {looking.address}" in found["login_refused"]["evidence"]
        # an administrator reads it on the terminal, too
        text = Quick(rig.cli.variables, rig.cli.home)("admin", "templates", "check", NAME).stdout
        assert "is the template's word alone" in " ".join(text.split())
    other = tmp_path / "other"
    other.mkdir()
    # a list that is soon over is kept up while the check waits, as by a worker
    with naming(rig, other, blind), listed_for(rig, "5s"):
        found = check(rig, code=6, patience="7s")
        assert failed(found) == ["login_refused"]
        assert found["login_refused"]["evidence"].startswith(f"a new handshake is taken by {blind.address}")
        # it is revoked, and nobody can do more about it
        assert found["login_refused"]["left"] == []
        assert "login_refused: a new handshake is taken by" in _refused(rig, spec)


def _refused(rig: Rig, spec: Spec) -> str:
    message: str = rig("operator", "grant", spec(template=NAME, choices="{service: orders}"), code=8).error["message"]
    return message


def test_without_a_named_server_nobody_who_looks_was_asked_and_the_check_says_so(rig: Rig) -> None:
    found = check(rig)
    said = "no server that accepts it is named: nobody knows what became of sessions"
    assert said in found["session_ended"]["evidence"]
    assert found["session_ended"]["remark"]
    shown_there = people(rig, "templates", "show", NAME)
    assert "after end others may go on accepting it for 5m after its end" in shown_there
    # who did not see the check reads it, too
    assert said in shown_there


# -- the end of a task ---------------------------------------------------------------------------------------------


def test_the_proof_of_a_certificate_says_nothing_of_a_connection_that_goes_on(
    rig: Rig, spec: Spec, server: Callable[[Kind], TlsServer]
) -> None:
    looking, file = server("looking"), spec(template=NAME, choices="{service: orders}")
    rig("operator", "grant", file, code=4)
    rig("approver-1", "approve", file.stem, "--yes")
    held = rig.use(dict(rig("operator", "grant", file.stem).json))
    with shown(looking, held.secrets[0]["fields"], LONG) as at:
        text = people(rig, "complete", file.stem)
        assert f"not proven: {NAME}: {OVER}" in text
        assert re.search(r"others may go on accepting it until \S+ \S+ UTC \(5m after its end\), by lists", text)
        ended = rig("operator", "complete", file.stem).json
        assert ended["confirmed"]
        # the agent's connection is open, and nobody who proves has said that it is not
        assert "the open connection" in at._servers[0].going_on()[0]
    refused = next(one for one in ended["leases"][0]["checks"] if one["n"] == 6)
    assert rests_on(refused).endswith("; sessions that it opened before were not looked at")
    assert f"not proven: {NAME}: {OVER}" in people(rig, "status", file.stem)
    # and so do those who have no ledger, machines, and auditors
    published = people(rig, "status", file.stem, worker=False)
    assert "as a worker published it" in published
    assert f"not proven: {NAME}: {OVER}" in published
    assert any(OVER in said for said in ended["not_proven"])
    (row,) = rig("operator", "report", file.stem).json["leases"]
    assert row["not_proven"] == ended["not_proven"]


def people(rig: Rig, *words: str, worker: bool = True) -> str:
    """What an operator reads on a terminal, without its line breaks."""
    shown = Quick(rig.cli.variables, rig.cli.home)("operator", *words, worker=worker, code=None)
    return " ".join(shown.stdout.split())


def test_the_kill_switch_says_what_is_not_proven_of_a_certificate(rig: Rig, spec: Spec) -> None:
    held, unread = (spec(template=NAME, choices="{service: orders}") for _ in range(2))
    for file in (held, unread):
        rig("operator", "grant", file, code=4)
        rig("approver-1", "approve", file.stem, "--yes")
        assert f"not proven {NAME}: that its certificate is refused everywhere" in people(rig, "status", file.stem)
        granted = dict(rig("operator", "grant", file.stem).json)
        if file is held:
            rig.use(granted)
    text = people(rig, "revoke", "--template", NAME, "--reason", "a drill", "--yes")
    assert "2 of 2 tasks are ended and proven" in text
    assert f"{held.stem}: not proven: {NAME}: {OVER}" in text
    assert re.search(rf"{held.stem}: not proven: .*? until \S+ \S+ UTC \(5m after its end\)", text)
    # who never had one has nothing that goes on
    assert f"{unread.stem}: not proven" not in text
    assert "not proven" not in people(rig, "status", unread.stem)


# -- a login to Vault ------------------------------------------------------------------------------------------------


@contextmanager
def entry(rig: Rig, **demands: Any) -> Iterator[None]:
    """An entry of a cert auth method that trusts the CA of the certificates."""
    rig.admin.write("sys/auth/by-cert", {"type": "cert"}, method="post")
    authority = requests.get(f"{rig.world.address}/v1/pki/ca/pem", timeout=5).text
    try:
        rig.admin.write("auth/by-cert/certs/services", {"certificate": authority, **demands})
        yield
    finally:
        rig.admin.delete("sys/auth/by-cert")


def test_a_certificate_that_vault_itself_takes_as_a_login_does_not_pass(rig: Rig, spec: Spec) -> None:
    with entry(rig):
        found = check(rig, code=6)
        assert failed(found) == ["no_vault_login"]
        assert "auth/by-cert/certs/services takes it as a login to Vault" in found["no_vault_login"]["evidence"]
        assert "no_vault_login: " in _refused(rig, spec)
        doctor = {one["name"]: one for one in rig("admin", "doctor", code=None).json["checks"]}
        warned = doctor["logins by certificate"]
        assert (warned["status"], warned["seen"]) == ("warn", f"auth/by-cert/certs/services trusts the CA of {NAME}")
    with entry(rig, allowed_common_names=["*.other.internal"]):
        found = check(rig)
        assert found["no_vault_login"]["remark"]
        assert found["no_vault_login"]["evidence"].endswith("trusts its CA, and takes certificates of other names")
    assert check(rig)["no_vault_login"]["evidence"] == "no cert auth method of this namespace trusts its CA"
