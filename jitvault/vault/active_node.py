"""Find the active node of a cluster, also after another one took over.

A standby may answer reads itself: a moment late, and in an audit file of its own (docs/vault-facts.md, "Several
nodes"). `sys/leader` names the active node's address, as Vault's redirects do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Lock
from urllib.parse import urlsplit

from jitvault.errors import JitvaultError
from jitvault.vault.client import Connection, Vault

# how often all threads together ask; at once when a node takes no requests
LOOK_AGAIN_S = 1.0
# Looking costs time and finds nothing where the active node's own address cannot be reached from here.
_LOOK_LATER_S = 30.0
# An election takes up to 2 s on an idle machine. This time and a request stay below the ledger's claim of 30 s.
ELECTION_S = 10.0
_POLL_S = 0.1
_TIMEOUT_S = 3


@dataclass(frozen=True, slots=True)
class _LookResult:
    """The result of asking the nodes.

    `address` is the active node, None where there is none; then `election` says whether nodes are electing one.
    """

    address: str | None
    election: bool = False


class ActiveNode:
    """`client.Node`: the active node of a cluster, for one process.

    `others` are further nodes. They are asked where the node of `connection` does not answer, and so are nodes that
    were active before. Where no node says which one is active, the last known one is used, at first that of
    `connection`. An address with less protection than that of `connection` is never used.
    """

    def __init__(self, connection: Connection, others: Sequence[str] = ()) -> None:
        self._connection = replace(connection, namespace=None, timeout_s=_TIMEOUT_S, node=None)
        # nodes that are found to be active are added
        self._nodes = [connection.address, *(address.rstrip("/") for address in others)]
        self._address = connection.address
        self._known = False
        self._several = False
        self._look_at = 0.0
        self._lock = Lock()

    def address(self) -> str:
        """Return the active node's address. Raises nothing.

        At most LOOK_AGAIN_S old where there are several nodes.
        """
        if self._is_fresh():
            return self._address
        # while one thread looks, the others use the known address
        if self._lock.acquire(blocking=not self._known):
            try:
                if not self._is_fresh():
                    self._look()
            finally:
                self._lock.release()
        return self._address

    def lost(self, address: str) -> bool:
        """Report a node that took no request; wait for an election.

        Returns whether a node is active that may take the request.
        """
        deadline = time.monotonic() + ELECTION_S
        waited = False
        while True:
            with self._lock:
                if self._address != address:
                    return True
                found = self._look()
            if found.address is not None and (found.address != address or waited):
                return True
            if not found.election or time.monotonic() >= deadline:
                return False
            waited = True
            time.sleep(_POLL_S)

    def doubt(self, address: str) -> None:
        """Report a node whose answer was lost: look before the next request."""
        with self._lock:
            if self._address == address:
                self._look_at = 0.0
                self._several = True

    def _is_fresh(self) -> bool:
        return self._known and (not self._several or time.monotonic() < self._look_at)

    def _look(self) -> _LookResult:
        found = self._ask_around()
        self._known = True
        self._look_at = time.monotonic() + (LOOK_AGAIN_S if found.address else _LOOK_LATER_S)
        if found.address is not None:
            self._address = found.address
            self._nodes = list(dict.fromkeys((*self._nodes, found.address)))
        return found

    def _ask_around(self) -> _LookResult:
        election = False
        for address in dict.fromkeys((self._address, *self._nodes)):
            answer = self._leader(address)
            if answer is None:
                continue
            self._several = bool(answer.get("ha_enabled"))
            for active in self._claimed_leader(address, answer):
                # A dead active node is still named for a moment: only what the named node says of itself counts.
                if active == address or (self._leader(active) or {}).get("is_self"):
                    return _LookResult(active)
            election = election or self._several
        return _LookResult(None, election)

    def _claimed_leader(self, address: str, answer: dict[str, object]) -> Iterator[str]:
        """Yield the address that a node's answer names as active.

        Its own where it is the active node or the only one.
        """
        is_self = bool(answer.get("is_self")) or not answer.get("ha_enabled")
        leader = address if is_self else answer.get("leader_address")
        if isinstance(leader, str) and urlsplit(leader).scheme == urlsplit(self._connection.address).scheme:
            yield leader.rstrip("/")

    def _leader(self, address: str) -> dict[str, object] | None:
        """Return a node's answer to `sys/leader`, None where it gives none."""
        try:
            anonymous = Vault(replace(self._connection, address=address), None)
            with closing(anonymous):
                return anonymous.leader()
        except JitvaultError:
            return None
