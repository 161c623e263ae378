"""Checks of the Vault server.

Is it reachable, unsealed and the active node, and does its clock agree with ours?
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from jitvault.doctor.check import EVERYTHING, Ability, About, Check, Known, Unknown
from jitvault.errors import AuditUntrusted, VaultUnavailable
from jitvault.formats.clocks import MAX_SKEW, TOLERANCE
from jitvault.formats.server_product import Product, without_namespaces

TESTED = {Product.OPENBAO: (2, 7), Product.VAULT: (1, 14)}
"""The versions that the whole test suite runs on (OpenBao), or ran on by hand (Vault): docs/servers.md."""

REACHABLE = About("vault", "reachable", VaultUnavailable, EVERYTHING)
OPEN = About("vault", "unsealed", VaultUnavailable, EVERYTHING)
VERSION = About("vault", "version", VaultUnavailable)
CLOCK = About("vault", "clock", AuditUntrusted, frozenset({Ability.GRANT, Ability.PROVE}))
NAMESPACE = About("vault", "namespace", VaultUnavailable, EVERYTHING)
NODE = About("vault", "node", VaultUnavailable)
REQUESTS = About("vault", "request size", VaultUnavailable)
MOST_REQUEST = 1024 * 1024
"""The size in bytes that no document and no request of jitvault's own exceeds."""

AWAY = Unknown("Vault does not answer, or is sealed", "Repair `reachable` and `unsealed` first.")


@dataclass(frozen=True, slots=True)
class Server:
    """What `sys/health`, `sys/seal-status` and `sys/leader` answered.

    `product` is None where they do not show it, `enterprise` says whether it is the paid edition. `skew` is Vault's
    clock minus ours. `leader` is the active node's address, None where it is unknown. `clustered` says that there can
    be several nodes.
    """

    address: str
    initialised: bool
    sealed: bool
    product: Product | None
    enterprise: bool
    version: str
    skew: timedelta
    clustered: bool
    is_active: bool
    leader: str | None

    @property
    def serves(self) -> bool:
        return self.initialised and not self.sealed


def judge(server: Known[Server]) -> Iterator[Check]:
    """Yield all checks of this area."""
    if isinstance(server, Unknown):
        yield REACHABLE.fail(server.why, server.mend)
        yield from (about.skipped(AWAY) for about in (OPEN, VERSION, CLOCK, NODE))
        return
    yield REACHABLE.ok(f"{server.address} answers")
    yield _open(server)
    yield _version(server.product, server.version)
    yield _clock(server.skew)
    yield _node(server) if server.serves else NODE.skipped(AWAY)


def judge_namespace(server: Known[Server], namespace: str) -> Iterator[Check]:
    """Check whether the server has the namespace that commands are set to.

    A server without namespaces uses the root instead.
    """
    if isinstance(server, Unknown) or server.product is not Product.VAULT or server.enterprise:
        return
    yield NAMESPACE.fail(without_namespaces("VAULT_NAMESPACE", namespace), "Unset VAULT_NAMESPACE.")


def judge_requests(takes_large: Known[bool]) -> Check:
    """Judge how much one request can make Vault write.

    That is a document, and an audit line.
    """
    if isinstance(takes_large, Unknown):
        return REQUESTS.skipped(takes_large)
    if takes_large:
        return REQUESTS.warn(
            "the listener accepts more than 1 MiB in one request, 32 MiB by default: anyone with a token can make "
            "Vault write documents and audit lines of that size",
            "Set `max_request_size = 1048576` on each listener: docs/operations/worker.md.",
        )
    return REQUESTS.ok("the listener refuses more than 1 MiB")


def _open(server: Server) -> Check:
    if not server.initialised:
        return OPEN.fail(
            "it was never initialised",
            "Initialise it, set the audit device up (docs/operations/audit-sources.md), then run `jitvault init`.",
        )
    if server.sealed:
        return OPEN.fail("it is sealed: no lease expires or can be revoked", "Unseal it: `bao operator unseal`.")
    return OPEN.ok("it is unsealed")


def _version(product: Product | None, version: str) -> Check:
    if product is None:
        return VERSION.warn(
            f"the server says neither product nor version{f' but {version!r}' if version else ''}",
            "jitvault was tested with no server but OpenBao and Vault: docs/servers.md.",
        )
    release = f"{product} {version or 'of unknown version'}"
    found = re.match(r"(\d+)\.(\d+)", version)
    tested = ".".join(map(str, TESTED[product]))
    if found and (int(found[1]), int(found[2])) == TESTED[product]:
        return VERSION.ok(release)
    return VERSION.warn(
        f"{release}; jitvault was tested on {product} {tested}",
        "Read in docs/servers.md what differs, and run the tests on this version.",
    )


def _clock(skew: timedelta) -> Check:
    if abs(skew) <= timedelta(seconds=1):
        # Vault answers in whole seconds
        return CLOCK.ok("Vault's and ours agree")
    way = "ahead of" if skew > timedelta(0) else "behind"
    seen = f"Vault's is {abs(skew).total_seconds():.0f} s {way} ours"
    mend = "Set both clocks by NTP."
    if abs(skew) > MAX_SKEW:
        return CLOCK.fail(f"{seen}: nothing is granted or confirmed", mend)
    return CLOCK.warn(seen, mend) if abs(skew) > TOLERANCE else CLOCK.ok(seen)


def _node(server: Server) -> Check:
    if not server.clustered:
        return NODE.ok("it is a single node")
    if server.is_active:
        return NODE.ok("it is the active node")
    if server.leader is None:
        return NODE.fail("it is a standby, and no node is active", "`bao operator raft list-peers`")
    return NODE.ok(f"it is a standby; commands go to {server.leader}, the active node")
