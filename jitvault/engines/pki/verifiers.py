"""What becomes of a certificate at the TLS servers that a template names.

CRL and OCSP say that a certificate is revoked. Whether a server looks there, and what it does with a connection
that is open already or is resumed from a ticket, shows at the server alone (docs/vault-facts.md, "Certificates").
So a template check opens a session at each server, in TLS 1.3 and 1.2, keeps the session and its ticket, and tries
both again after the revocation.

A server refuses by a TLS alert. In TLS 1.3 the client's handshake is over before the server has looked at the
certificate, so its alert comes with the first read. A connection that is closed without an alert refuses nothing: a
server that is down closes it as well. Nothing is sent over a connection, since its protocol is unknown.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cryptography.x509 import load_pem_x509_certificate

from jitvault.engines.interface import After
from jitvault.errors import NotConfirmed
from jitvault.formats.time_window import format_duration
from jitvault.model.verifiers import Verifiers

LONGEST = timedelta(seconds=60)
"""How long a check waits at most for old sessions to end."""

_VERSIONS = {"1.3": ssl.TLSVersion.TLSv1_3, "1.2": ssl.TLSVersion.TLSv1_2}
# A server may ask an OCSP responder before it answers.
_ANSWER_S = 5.0
# How long a server that has taken the certificate may be silent before it is believed.
_QUIET_S = 0.3
_PAUSE_S = 0.5
_MOST_READS = 64
_ALERT = "_ALERT_"
# So long before a certificate's own end, a refusal may be due to the end, by a clock that is ahead.
_ALMOST_OVER_S = 60.0
_LOOKS_NOT = "It has to fetch the CRL or to ask OCSP, and to refuse within the template's accepted_after_end."
_ENDS = "Nothing is to be ended by hand: the certificate is revoked, its key was in memory alone, and it soon expires."
_KEEPS = "Have it end sessions whose certificate is revoked, or say in accepted_after_end how long they last there."

T = TypeVar("T")


class AtVerifiers:
    """A certificate in use at the servers of a template; `close` ends the use."""

    def __init__(self, verifiers: Verifiers, issued: Mapping[str, Any], authorities: object) -> None:
        """Show the certificate to each server.

        `authorities` is the PEM of the CAs that signed the servers' own certificates. Raises NotConfirmed if a
        server does not take the certificate.
        """
        self._within = verifiers.within
        self._patience = verifiers.patience
        self._say = verifiers.say
        self._issued = issued
        self._ended_at: float | None = None
        self._servers: list[_Server] = []
        try:
            for server in verifiers.servers:
                self._servers.append(_Server(server, issued, authorities))
        except BaseException:
            self.close()
            raise

    @property
    def seen(self) -> str:
        """Which servers take the certificate; empty if the template names none."""
        return "; ".join(f"{server.name} takes it in TLS {' and '.join(server.versions)}" for server in self._servers)

    def still_open(self) -> After:
        """Return what became of the sessions after the revocation.

        Sessions that go on are wrong once the template's bound has passed, and are only reported if the bound is
        too long to wait for. Raises NotConfirmed if a server does not show what became of them.
        """
        if not self._servers:
            seen = "no server that accepts it is named: nobody knows what became of sessions"
            return After(False, seen, is_remark=True)
        is_awaited = self._within <= LONGEST
        longest = self._within if is_awaited else timedelta(0)
        going_on = {
            server.name: self._waited(
                server.going_on, lambda found: not found, longest, f"{server.name} to end old sessions"
            )
            for server in self._servers
        }
        listed = "; ".join(f"at {name} {' and '.join(found)}" for name, found in going_on.items() if found)
        if not listed:
            return After(False, f"at {', '.join(going_on)} no session continues and none is resumed")
        bound = format_duration(self._within)
        if is_awaited:
            return After(True, f"{bound} after its end these go on: {listed}", f"{_KEEPS} {_ENDS}", stays=False)
        # the holder of the certificate keeps its connections, and only the bound limits that
        seen = f"these go on: {listed}; that they are over within {bound} is the template's word alone"
        return After(False, seen, is_remark=True)

    def taken_anew(self) -> After:
        """Return whether a server takes the revoked certificate anew.

        Raises NotConfirmed if a server does not show that.
        """
        if not self._servers:
            return After(False, "no server that takes it is named: no handshake was tried")
        longest = max(timedelta(0), min(self._within, self._patience, self._valid_for()))
        found = {
            server.name: self._waited(
                server.handshake,
                lambda result: not result.taken,
                longest,
                f"{server.name} to refuse the revoked certificate",
            )
            for server in self._servers
        }
        taken = [f"{name} in TLS {' and '.join(result.taken)}" for name, result in found.items() if result.taken]
        if taken:
            waited, mend = self._waited_for(longest)
            return After(True, f"a new handshake is taken by {'; '.join(taken)}, {waited}", mend, stays=False)
        alerts = sorted({alert for result in found.values() for alert in result.alerts})
        return After(False, f"new handshakes are refused by {', '.join(found)} ({', '.join(alerts)})")

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def _valid_for(self) -> timedelta:
        """Return for how long a refusal shows the revocation.

        After that, the refusal may be due to the certificate's own end.
        """
        ends = load_pem_x509_certificate(str(self._issued["certificate"]).encode()).not_valid_after_utc
        return ends - datetime.now(UTC) - timedelta(seconds=_ALMOST_OVER_S)

    def _waited_for(self, longest: timedelta) -> tuple[str, str]:
        """Return how long a refusal was waited for in vain, and what to do."""
        whole = timedelta(seconds=max(1, round(longest.total_seconds())))
        bound = format_duration(self._within)
        if longest >= self._within:
            return f"{bound} after its end", f"{_LOOKS_NOT} {_ENDS}"
        waited = f"{format_duration(whole)} after its end; the template allows {bound}"
        if longest >= self._patience:
            return f"{waited}, and that was not waited for", f"Wait for it: `--patience {bound}`. {_ENDS}"
        return f"{waited}, and the certificate itself expires before", f"{_LOOKS_NOT} {_ENDS}"

    def _waited(self, look: Callable[[], T], is_over: Callable[[T], bool], longest: timedelta, what: str) -> T:
        """Call `look` until its result is over or the time is.

        Return the last result.

        Raises NotConfirmed if `look` still raises that when the time is over.
        """
        if self._ended_at is None:
            self._ended_at = time.monotonic()
        most_s = longest.total_seconds()
        until = self._ended_at + most_s
        try:
            while True:
                now = time.monotonic()
                try:
                    found = look()
                except NotConfirmed:
                    if now >= until:
                        raise
                else:
                    if now >= until or is_over(found):
                        return found
                self._say(f"waiting for {what}: {now - self._ended_at:.0f} s of at most {most_s:.0f} s")
                time.sleep(_PAUSE_S)
        finally:
            self._say("")


@dataclass(frozen=True, slots=True)
class _Handshake:
    """The TLS versions in which a server takes a new handshake.

    `alerts` are those of its refusals in the other versions.
    """

    taken: tuple[str, ...]
    alerts: tuple[str, ...]


class _Server:
    """One server, with a connection and a saved session in each version.

    The versions are those that it speaks.
    """

    def __init__(self, name: str, issued: Mapping[str, Any], authorities: object) -> None:
        """Open the connections.

        Raises NotConfirmed if no version takes the certificate.
        """
        self.name = name
        self._contexts = {known: _context(version, issued, authorities) for known, version in _VERSIONS.items()}
        self._open: dict[str, ssl.SSLSocket] = {}
        self._saved: dict[str, ssl.SSLSession | None] = {}
        refusals = []
        try:
            for version, context in self._contexts.items():
                try:
                    attempt = _attempt(name, context)
                except NotConfirmed as error:
                    refusals.append(str(error))
                    continue
                if attempt.connection is None:
                    refusals.append(f"{name} refuses the new certificate ({attempt.alert})")
                else:
                    self._open[version], self._saved[version] = attempt.connection, attempt.connection.session
        except BaseException:
            self.close()
            raise
        if not self._open:
            raise NotConfirmed(refusals[0])

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(self._open)

    def going_on(self) -> list[str]:
        """Return which of the old sessions go on.

        Raises NotConfirmed if the server does not show it.
        """
        is_open = [version for version, connection in self._open.items() if not _is_over(connection)]
        resumed = [version for version in self._open if self._resumes(version)]
        found = {"the open connection": is_open, "a resumed session": resumed}
        return [f"{what} (TLS {' and '.join(versions)})" for what, versions in found.items() if versions]

    def _resumes(self, version: str) -> bool:
        """Return whether the server resumes the saved session.

        A server that makes a new handshake instead does not.
        """
        saved = self._saved[version]
        if saved is None:
            return False
        connection = _attempt(self.name, self._contexts[version], saved).connection
        if connection is None:
            return False
        with connection:
            return bool(connection.session_reused)

    def handshake(self) -> _Handshake:
        """Try a new handshake in each version.

        Raises NotConfirmed if the server ends one without an alert.
        """
        taken, alerts = [], []
        for version in self._open:
            attempt = _attempt(self.name, self._contexts[version])
            if attempt.connection is None:
                alerts.append(attempt.alert)
            else:
                attempt.connection.close()
                taken.append(version)
        return _Handshake(tuple(taken), tuple(alerts))

    def close(self) -> None:
        for connection in self._open.values():
            with suppress(OSError):
                connection.close()


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The connection to a server that took a certificate, or the alert of one that did not."""

    connection: ssl.SSLSocket | None
    alert: str = ""


def _attempt(server: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> _Attempt:
    """Show the certificate to a server.

    Raises NotConfirmed if the server neither takes it nor sends an alert.
    """
    host, _, port = server.rpartition(":")
    try:
        plain = socket.create_connection((host, int(port)), timeout=_ANSWER_S)
    except OSError as error:
        raise NotConfirmed(f"{server} cannot be reached ({type(error).__name__})") from None
    connection = None
    try:
        # a failed handshake closes the socket
        connection = context.wrap_socket(plain, server_hostname=host, session=session)
        _await_alert(connection)
    except (OSError, ValueError) as error:
        if connection is not None:
            connection.close()
        return _Attempt(None, _alert_of(server, error))
    return _Attempt(connection)


def _await_alert(connection: ssl.SSLSocket) -> None:
    """Give a server the time to refuse.

    Raises OSError if it ends the connection.
    """
    until = time.monotonic() + _ANSWER_S
    connection.settimeout(_QUIET_S)
    while True:
        try:
            received = connection.recv(1)
        except TimeoutError:
            if _is_taken(connection) or time.monotonic() > until:
                return
        else:
            if not received:
                raise ConnectionAbortedError
            return


def _is_taken(connection: ssl.SSLSocket) -> bool:
    """Return whether the server has shown that it took the certificate.

    The end of a handshake shows that; in TLS 1.3 a ticket does.
    """
    session = connection.session
    return connection.version() != "TLSv1.3" or (session is not None and session.has_ticket)


def _is_over(connection: ssl.SSLSocket) -> bool:
    """Return whether the server has ended a connection.

    What it sent before is discarded.
    """
    try:
        for _ in range(_MOST_READS):
            if not connection.recv(4096):
                return True
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def _alert_of(server: str, error: Exception) -> str:
    """Return the alert that ended a handshake.

    Raises NotConfirmed if there was none.
    """
    reason = str(getattr(error, "reason", None) or "")
    if _ALERT in reason:
        return reason.partition(_ALERT)[2].lower().replace("_", " ")
    if isinstance(error, ssl.SSLCertVerificationError):
        raise NotConfirmed(
            f"{server} shows a certificate that is not trusted ({error.verify_message})",
            hint="Write the CA of the verifiers' certificates to `verifiers_ca` of the probe's document.",
        ) from None
    raise NotConfirmed(f"{server} ends the connection without an alert ({type(error).__name__})") from None


def _context(version: ssl.TLSVersion, issued: Mapping[str, Any], authorities: object) -> ssl.SSLContext:
    """Return the context that shows the certificate in one version of TLS.

    Raises NotConfirmed for what is no certificate.
    """
    try:
        context = ssl.create_default_context(cadata=str(authorities) if authorities else None)
        context.minimum_version = context.maximum_version = version
    except (ssl.SSLError, ValueError) as error:
        raise NotConfirmed(
            f"verifiers_ca in the probe's document is not a CA certificate ({type(error).__name__})"
        ) from None
    chain = issued.get("ca_chain") or [issued.get("issuing_ca") or ""]
    try:
        _load(context, [issued["private_key"], issued["certificate"], *chain])
    except (OSError, KeyError, AttributeError) as error:
        raise NotConfirmed(f"the issued certificate cannot be shown ({type(error).__name__})") from None
    return context


def _load(context: ssl.SSLContext, pem: Iterable[str]) -> None:
    """Load the certificate and its key into a context, without a file on disk.

    Python reads them from files only. Raises OSError, AttributeError if the system has no files in memory (Linux
    has).
    """
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", buffering=0) as memory:
        memory.write("\n".join(pem).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
