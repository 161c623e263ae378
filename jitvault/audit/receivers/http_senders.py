"""The spool files of HTTP senders: one for each address.

All connections of an address share its file.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import IO

from jitvault.audit.files.spool import Spool
from jitvault.audit.files.spool_file import LineWriter
from jitvault.audit.receivers.peers import Guest, Peer, first_to_go
from jitvault.audit.receivers.receiver import DISK_FULL, Notices


class TooManySenders(Exception):
    """One more address than may send."""


@dataclass(slots=True, kw_only=True)
class _Sender(Guest):
    writer: LineWriter


class Senders:
    """The spool file of each peer.

    With `vouched` all peers know the bearer, and no canary has to vouch for one.
    """

    def __init__(self, spool: Spool, limit: int, *, vouched: bool = False) -> None:
        self.spool = spool
        self.vouched = vouched
        self._limit = limit
        self._senders: dict[str, _Sender] = {}
        self._lock = Lock()

    def trusts(self, peer: Peer) -> bool:
        """Return whether a peer is trusted.

        It knows the bearer, or a canary vouched for what it sent in this run.
        """
        if self.vouched:
            return True
        with self._lock:
            sender = self._senders.get(peer.name)
        return sender is not None and sender.writer.trusted

    def keep(self, peer: Peer, body: IO[bytes]) -> None:
        """Return when the body is on the disk.

        Raises TooManySenders, and OSError: then the body may or may not be there.
        """
        writer = self._writer(peer)
        try:
            writer.append(body)
        except OSError as error:
            # on a full disk, files that untrusted senders left are removed first
            if error.errno not in DISK_FULL or not self.spool.untrusted.relieve(everything=True):
                raise
            writer.append(body)
        writer.flush()
        while (too_much := self.spool.too_much()) is not None:
            self._end(too_much)

    def _writer(self, peer: Peer) -> LineWriter:
        with self._lock:
            sender = self._senders.get(peer.name)
            if sender is not None and sender.writer.broken:
                with suppress(OSError):
                    self.spool.release(self._senders.pop(peer.name).writer)
                sender = None
            if sender is None:
                self._make_place()
                writer = self.spool.writer(peer.name, group=peer.group, vouched=self.vouched)
                known = self.vouched or self.spool.knows(peer.name)
                sender = _Sender(peer, time.monotonic(), known=known, writer=writer)
                self._senders[peer.name] = sender
            return sender.writer

    def _make_place(self) -> None:
        """End the file of an untrusted sender if there are too many.

        The sender's next body begins another file.
        """
        if len(self._senders) < self._limit:
            return
        first = first_to_go(sender for sender in self._senders.values() if not sender.writer.trusted)
        if first is None:
            raise TooManySenders
        with suppress(OSError):
            self.spool.release(self._senders.pop(first.peer.name).writer)

    def _end(self, writer: LineWriter) -> None:
        with self._lock:
            for name, sender in list(self._senders.items()):
                if sender.writer is writer:
                    del self._senders[name]
            with suppress(OSError):
                self.spool.release(writer)

    def close(self, notices: Notices) -> None:
        with self._lock:
            for sender in self._senders.values():
                try:
                    self.spool.release(sender.writer)
                except OSError as error:
                    notices.say("a file of the spool cannot be closed", f"{sender.writer.path.name}: {error.strerror}")
            self._senders.clear()
