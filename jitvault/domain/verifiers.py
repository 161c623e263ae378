"""The TLS servers that a template names because the certificates it gives are shown to them.

CRL and OCSP say that a certificate is revoked. What becomes of a connection that was open before, or of one that is
resumed from a ticket, only the server decides that has it, and when a task ends nobody can look there: the worker never
has the private key. So the check of a template looks once (`jitvault.engines.pki_verifiers`), and the template's
`accepted_after_end` bounds what nobody sees. The servers are named in the template as well, and not in the probe's
document, because approvers sign what the template says and auditors find it in the revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from jitvault.domain.fields import Name
from jitvault.domain.windows import format_duration

SHOWN = "pki"
"""The engine whose credentials are shown to verifiers."""
MAX_VERIFIERS = 8

_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
Server = Annotated[
    str,
    Name(rf"^[A-Za-z0-9][A-Za-z0-9.-]{{0,252}}:{_PORT}$", "a TLS server as host:port, by its name or its IPv4 address"),
]


@dataclass(frozen=True, slots=True)
class Verifiers:
    """TLS servers that take a certificate, and for how long after its end they may go on, in a session or by an answer
    that they saved.
    """

    servers: tuple[str, ...] = ()
    within: timedelta = timedelta(0)


NO_VERIFIERS = Verifiers()


def sessions_told(access: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is not proven of certificates, whatever the checks of a proof say: one sentence for each template."""
    given = (entry for entry in access if entry["engine"] == SHOWN)
    return sorted({f"{entry['template']}: {_told(entry)}" for entry in given})


def _told(entry: Mapping[str, Any]) -> str:
    said = "that TLS sessions opened with its certificate are over"
    if bound_s := entry.get("accepted_after_end_s"):
        said += f" (by the template's word they are {format_duration(timedelta(seconds=bound_s))} after its end)"
    if servers := entry.get("verifiers"):
        return f"{said}; when the template was checked {', '.join(servers)} was asked"
    return f"{said}; no server that takes it was ever asked"
