"""The TLS servers that a template's certificates are shown to.

CRL and OCSP say that a certificate is revoked. What becomes of a connection that was open before, or of a session
that is resumed from a ticket, is decided by the server alone. Nobody can look there when a task ends: the worker
never has the private key. So the template check looks once (`jitvault.engines.pki.verifiers`), and the template's
`accepted_after_end` bounds what nobody sees. The servers are named in the template, and not in the probe's
document, because approvers sign the template and auditors find it in the revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Annotated

from jitvault.formats.fields import Name
from jitvault.formats.time_window import format_duration
from jitvault.model.revision_content import Access

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
    """TLS servers that take a certificate, and how long after its end.

    They may go on for `within`, in an open session or by an answer that they cached. A check waits that long for
    their refusal, but no longer than its `patience`; while it waits, it reports through `say` what it waits for,
    again and again, and nothing once the wait is over.
    """

    servers: tuple[str, ...] = ()
    within: timedelta = timedelta(0)
    patience: timedelta = timedelta(minutes=10)
    say: Callable[[str], None] = field(default=lambda _: None, compare=False)


NO_VERIFIERS = Verifiers()


def unproven_sessions(access: Iterable[Access]) -> list[str]:
    """Return what no check proves of TLS sessions.

    There is one sentence for each template.
    """
    return sorted({f"{entry.template}: {_sessions(entry)}" for entry in _certificates(access)})


def describe_acceptance(after_s: int, ttl_s: int, ended_at: datetime | None = None) -> str:
    """Describe for how long a certificate may be accepted after its end.

    `after_s` bounds what the mount publishes as it is configured now. Vault does not tell what the issuer published
    before, in this mount or another one: such a list may live for days. Only the certificate's own life, `ttl_s`,
    bounds that. `ended_at` is when it ended, where that is known.
    """
    return (
        f"others may go on accepting it {_bound('for', 'until', after_s, ended_at)}, by lists and answers that live no "
        "longer; whoever saved a list with a longer life before, or does not look for revocations, accepts it until it "
        f"expires, {_bound('at most', 'at the latest', ttl_s, ended_at)}"
    )


def _bound(how_long: str, until: str, seconds: int, ended_at: datetime | None) -> str:
    longest = timedelta(seconds=seconds)
    after = f"{format_duration(longest)} after its end"
    return f"{how_long} {after}" if ended_at is None else f"{until} {_second_after(ended_at + longest)} ({after})"


def unproven(
    access: Iterable[Access], ended: Mapping[str, datetime | None] | None = None, *, is_whole: bool = False
) -> list[str]:
    """Return what the checks do not prove about a task's certificates.

    Each sentence begins with the template. `ended` maps the templates that issued certificates to the end of the
    last certificate, or to None if that is unknown. `is_whole` says that `ended` is complete: a template that
    issued none is then left out.
    """
    known = ended or {}
    sentences: dict[str, None] = {}
    for entry in sorted(_certificates(access), key=attrgetter("template")):
        if entry.template in known or not is_whole:
            sentences.update(dict.fromkeys(_unproven(entry, known.get(entry.template))))
    return list(sentences)


def _unproven(entry: Access, ended_at: datetime | None) -> Iterator[str]:
    if after_s := entry.accepted_after_end_s:
        accepted = describe_acceptance(after_s, entry.ttl_s, ended_at)
        yield f"{entry.template}: that its certificate is refused everywhere: {accepted}"
    yield f"{entry.template}: {_sessions(entry)}"


def _certificates(access: Iterable[Access]) -> Iterator[Access]:
    return (entry for entry in access if entry.engine == SHOWN)


def _second_after(at: datetime) -> str:
    """Return the first whole second at which `at` has passed."""
    return f"{at.astimezone(UTC) + timedelta(seconds=1 if at.microsecond else 0):%Y-%m-%d %H:%M:%S} UTC"


def _sessions(entry: Access) -> str:
    sentence = "that TLS sessions opened with its certificate are over"
    if bound_s := entry.accepted_after_end_s:
        sentence += (
            f" (by the template's word they are over {format_duration(timedelta(seconds=bound_s))} after its end)"
        )
    if servers := entry.verifiers:
        return f"{sentence}; {', '.join(servers)} was shown another certificate, by the template's check"
    return f"{sentence}; no server that takes it was ever asked"
