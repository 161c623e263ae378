"""Which node of a cluster is the active one, found again when another one takes over.

A standby may answer reads itself: a moment late, and in an audit file of its own (docs/vault-facts.md, "Several
nodes"). `sys/leader` names the active node's address, as Vault does when it redirects.
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

# one request for all threads, unless a node takes no requests: then at once
LOOK_AGAIN_S = 1.0
# where the active node's own address cannot be reached from here, looking costs time and finds nothing
_LOOK_LATER_S = 30.0
# an election takes up to 2 s on an idle machine; this and a request stay below the ledger's claim of 30 s
ELECTION_S = 10.0
_POLL_S = 0.1
_TIMEOUT_S = 3


@dataclass(frozen=True, slots=True)
class _Found:
    """What a round of questions gave: the active node, if one is; otherwise whether nodes wait for one."""

    address: str | None
    election: bool = False


class ActiveNode:
    """`client.Node`: the active node of the Vault at `connection`, for as long as a process runs.

    `others` are further nodes, asked where the first one does not answer, as are those that were active before. Where
    nobody says who is active it stays the one that it was, at first the one of `connection`. An address with less
    protection than ours is not taken.
    """

    def __init__(self, connection: Connection, others: Sequence[str] = ()) -> None:
        self._connection = replace(connection, namespace=None, timeout_s=_TIMEOUT_S, node=None)
        # those that are found to be active are asked later on as well
        self._nodes = [connection.address, *(address.rstrip("/") for address in others)]
        self._address, self._known = connection.address, False
        self._several = False
        self._look_at = 0.0
        self._lock = Lock()

    def address(self) -> str:
        """The active node, at most LOOK_AGAIN_S old where there are several nodes. Raises nothing."""
        if self._is_fresh():
            return self._address
        # while one thread looks, the others go on with what is known
        if self._lock.acquire(blocking=not self._known):
            try:
                if not self._is_fresh():
                    self._look()
            finally:
                self._lock.release()
        return self._address

    def lost(self, address: str) -> bool:
        """That one took no request: wait while nodes elect another one; whether one is active that may take it."""
        deadline, waited = time.monotonic() + ELECTION_S, False
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
        """An answer of that one was lost: look before the next request."""
        with self._lock:
            if self._address == address:
                self._look_at, self._several = 0.0, True

    def _is_fresh(self) -> bool:
        return self._known and (not self._several or time.monotonic() < self._look_at)

    def _look(self) -> _Found:
        found = self._ask_around()
        self._known = True
        self._look_at = time.monotonic() + (LOOK_AGAIN_S if found.address else _LOOK_LATER_S)
        if found.address is not None:
            self._address = found.address
            self._nodes = list(dict.fromkeys((*self._nodes, found.address)))
        return found

    def _ask_around(self) -> _Found:
        election = False
        for address in dict.fromkeys((self._address, *self._nodes)):
            answer = self._leader(address)
            if answer is None:
                continue
            self._several = bool(answer.get("ha_enabled"))
            for active in self._named(address, answer):
                # the old active node is named for a moment after its death: only the word of the new one counts
                if active == address or (self._leader(active) or {}).get("is_self"):
                    return _Found(active)
            election = election or self._several
        return _Found(None, election)

    def _named(self, address: str, answer: dict[str, object]) -> Iterator[str]:
        """Whom a node's answer names: itself where it is the active one, or the only one."""
        own = bool(answer.get("is_self")) or not answer.get("ha_enabled")
        named = address if own else answer.get("leader_address")
        if isinstance(named, str) and urlsplit(named).scheme == urlsplit(self._connection.address).scheme:
            yield named.rstrip("/")

    def _leader(self, address: str) -> dict[str, object] | None:
        """What a node says of who is active; None where it says nothing."""
        try:
            nobody = Vault(replace(self._connection, address=address), None)
            with closing(nobody):
                return nobody.leader()
        except JitvaultError:
            return None
