"""What Vault says of itself to anybody: health, version, time, and which node is active."""

from __future__ import annotations

from datetime import UTC, datetime

from jitvault.domain.checkup.check import Known, Unknown
from jitvault.domain.checkup.server import Server
from jitvault.errors import JitvaultError, VaultUnavailable
from jitvault.ports.clock import Clock
from jitvault.vault.client import Connection, Vault


def server_at(connection: Connection, clock: Clock) -> Known[Server]:
    """What the node at `connection` says of itself; nothing is asked with anybody's token."""
    nobody = Vault(connection, None).at_root()
    try:
        return _said(nobody, connection.address, clock)
    except (JitvaultError, KeyError, TypeError, ValueError) as error:
        # what is no Vault may answer anything
        found = error if isinstance(error, JitvaultError) else VaultUnavailable(f"{connection.address} is not Vault")
        return Unknown(str(found), found.hint)
    finally:
        nobody.close()


def _said(vault: Vault, address: str, clock: Clock) -> Server:
    before = clock.now()
    health = vault.health()
    ours = before + (clock.now() - before) / 2
    theirs = datetime.fromtimestamp(int(health["server_time_utc"]), UTC)
    serves = bool(health["initialized"]) and not health["sealed"]
    # a sealed node names no leader
    leader = vault.leader() if serves else {}
    return Server(
        address=address,
        initialised=bool(health["initialized"]),
        sealed=bool(health["sealed"]),
        version=str(health.get("version") or ""),
        skew=theirs - ours,
        clustered=bool(leader.get("ha_enabled")),
        is_active=not health.get("standby") and not health.get("performance_standby"),
        leader=str(leader["leader_address"]) if leader.get("leader_address") else None,
    )
