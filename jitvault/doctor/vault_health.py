"""Read what Vault shows without a token.

This is its health, version and time, and which node is active.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from jitvault.context import Clock
from jitvault.doctor.check import Known, Unknown
from jitvault.doctor.server import MOST_REQUEST, Server
from jitvault.errors import JitvaultError, VaultRefused, VaultRejected, VaultUnavailable
from jitvault.formats.server_product import is_enterprise, product_of
from jitvault.vault.client import Connection, Vault
from jitvault.vault.server import seal_status_of


def server_at(connection: Connection, clock: Clock) -> Known[Server]:
    """Return what the node at `connection` says of itself.

    It is asked without a token.
    """
    client = Vault(connection, None).at_root()
    try:
        return _ask(client, connection.address, clock)
    except (JitvaultError, KeyError, TypeError, ValueError) as error:
        # a server that is not Vault may answer anything
        found = error if isinstance(error, JitvaultError) else VaultUnavailable(f"{connection.address} is not Vault")
        return Unknown(str(found), found.hint)
    finally:
        client.close()


def takes_large(connection: Connection) -> Known[bool]:
    """Return whether the listener accepts more than MOST_REQUEST bytes.

    `connection` is that of the listener. One is sent without a token, which looks up a wrapping that does not exist: it
    changes nothing, and where it is accepted it leaves only a short line in the audit log.
    """
    client = Vault(connection, None).at_root()
    try:
        client.write("sys/wrapping/lookup", {"padding": "x" * MOST_REQUEST})
    except VaultRejected as error:
        # older servers answer 400, in these words
        too_large = any("request body too large" in reason for reason in error.reasons)
        return error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE and not too_large
    except VaultRefused:
        return True
    except JitvaultError as error:
        return Unknown(str(error), error.hint)
    finally:
        client.close()
    return True


def _ask(vault: Vault, address: str, clock: Clock) -> Server:
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
        product=product_of(health, seal_status_of(vault)),
        enterprise=is_enterprise(health),
        version=str(health.get("version") or ""),
        skew=theirs - ours,
        clustered=bool(leader.get("ha_enabled")),
        is_active=not health.get("standby") and not health.get("performance_standby"),
        leader=str(leader["leader_address"]) if leader.get("leader_address") else None,
    )
