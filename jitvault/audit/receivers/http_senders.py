"""The spool files of those who send over HTTP: one for each address, over all its connections."""

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from typing import IO

from jitvault.audit.receivers.line_writer import LineWriter
from jitvault.audit.receivers.receiver import Notices
from jitvault.audit.spool import Spool


class TooManySenders(Exception):
    """One more address than may send."""


class Senders:
    """The spool file of each peer."""

    def __init__(self, spool: Spool, limit: int) -> None:
        self.spool = spool
        self._limit = limit
        self._writers: dict[str, LineWriter] = {}
        self._lock = Lock()

    def keep(self, peer: str, body: IO[bytes]) -> None:
        """Return when the body is on the disk.

        Raises TooManySenders, and OSError: the body may be there then, and may be not.
        """
        writer = self._writer(peer)
        writer.append(body)
        writer.flush()

    def _writer(self, peer: str) -> LineWriter:
        with self._lock:
            writer = self._writers.get(peer)
            if writer is not None and writer.broken:
                with suppress(OSError):
                    self.spool.release(self._writers.pop(peer))
                writer = None
            if writer is None:
                if len(self._writers) >= self._limit:
                    raise TooManySenders
                writer = self._writers[peer] = self.spool.writer(f"http-{peer}")
            return writer

    def close(self, notices: Notices) -> None:
        with self._lock:
            for writer in self._writers.values():
                try:
                    self.spool.release(writer)
                except OSError as error:
                    notices.say("a file of the spool cannot be closed", f"{writer.path.name}: {error.strerror}")
            self._writers.clear()
