"""The TLS servers that a template names because the certificates it gives are shown to them.

CRL and OCSP say that a certificate is revoked. What becomes of a connection that was open before, or of one that is
resumed from a ticket, only the server decides that has it, and when a task ends nobody can look there: the worker never
has the private key. So the check of a template looks once (`jitvault.engines.pki_verifiers`), and the template's
`accepted_after_end` bounds what nobody sees. The servers are named in the template as well, and not in the probe's
document, because approvers sign what the template says and auditors find it in the revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from jitvault.formats.fields import Name
from jitvault.formats.time_window import format_duration

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

    A check waits for their refusal that long, and no longer than its `patience`; it says (`say`) what it waits for,
    over and over, and nothing more once that is over.
    """

    servers: tuple[str, ...] = ()
    within: timedelta = timedelta(0)
    patience: timedelta = timedelta(minutes=10)
    say: Callable[[str], None] = field(default=lambda _: None, compare=False)


NO_VERIFIERS = Verifiers()


def sessions_told(access: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is not proven of TLS sessions, whatever the checks of a proof say: one sentence for each template."""
    return sorted({f"{entry['template']}: {_sessions(entry)}" for entry in _certificates(access)})


def accepted_told(after_s: int, until: datetime | None = None) -> str:
    """For how long a certificate may be accepted after its end; `until` says when that is over, where it is known."""
    longest = format_duration(timedelta(seconds=after_s))
    bound = f"for {longest} after its end" if until is None else f"until {_second(until)} ({longest} after its end)"
    return (
        f"others may go on accepting it {bound}, by what they saved before; whoever does not look for revocations "
        "accepts it until it expires"
    )


def unproven(
    access: Iterable[Mapping[str, Any]], ended: Mapping[str, datetime | None] | None = None, *, is_whole: bool = False
) -> list[str]:
    """What the checks of a proof do not say of a task's certificates, in sentences that begin with the template.

    `ended` has the templates that gave certificates, each with the end of its last one, or None where that is not
    known. `is_whole` says that there are no others: a template that gave none has nothing to tell then.
    """
    known = ended or {}
    told = dict.fromkeys(
        said
        for entry in sorted(_certificates(access), key=lambda entry: str(entry["template"]))
        if entry["template"] in known or not is_whole
        for said in _unproven(entry, known.get(entry["template"]))
    )
    return list(told)


def _unproven(entry: Mapping[str, Any], ended_at: datetime | None) -> Iterator[str]:
    if after_s := entry.get("accepted_after_end_s"):
        until = None if ended_at is None else ended_at + timedelta(seconds=after_s)
        yield f"{entry['template']}: that its certificate is refused everywhere: {accepted_told(after_s, until)}"
    yield f"{entry['template']}: {_sessions(entry)}"


def _certificates(access: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (entry for entry in access if entry["engine"] == SHOWN)


def _second(at: datetime) -> str:
    """The whole second by which it is over."""
    return f"{at.astimezone(UTC) + timedelta(seconds=1 if at.microsecond else 0):%Y-%m-%d %H:%M:%S} UTC"


def _sessions(entry: Mapping[str, Any]) -> str:
    said = "that TLS sessions opened with its certificate are over"
    if bound_s := entry.get("accepted_after_end_s"):
        said += f" (by the template's word they are over {format_duration(timedelta(seconds=bound_s))} after its end)"
    if servers := entry.get("verifiers"):
        return f"{said}; {', '.join(servers)} was shown another certificate, by the template's check"
    return f"{said}; no server that takes it was ever asked"
