"""The spool files of HTTP senders: one for each address.

All connections of an address share its file. Several servers may know one bearer, such as the nodes of a cluster, and
the reader tells them apart by their files.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import IO

from jitvault.audit.files.spool import Spool
from jitvault.audit.files.spool_file import LineWriter
from jitvault.audit.receivers.receiver import MOST_CONNECTIONS, Notices


class Senders:
    """The spool file of each address that sends.

    Of more than `limit` addresses, the one that sent nothing for longest begins another file with its next line.
    """

    def __init__(self, spool: Spool, limit: int = MOST_CONNECTIONS) -> None:
        self.spool = spool
        self._limit = limit
        self._writers: OrderedDict[str, LineWriter] = OrderedDict()
        self._lock = Lock()

    def keep(self, address: str, body: IO[bytes]) -> None:
        """Return when the body is on the disk.

        Raises OSError: then the body may or may not be there.
        """
        writer = self._writer(address)
        writer.append(body)
        writer.flush()

    def _writer(self, address: str) -> LineWriter:
        with self._lock:
            writer = self._writers.get(address)
            if writer is not None and writer.broken:
                self._end(address)
                writer = None
            if writer is None:
                if len(self._writers) >= self._limit:
                    self._end(next(iter(self._writers)))
                writer = self._writers[address] = self.spool.writer(f"http-{address}")
            self._writers.move_to_end(address)
            return writer

    def _end(self, address: str) -> None:
        """End the file of an address; each body in it was synced before."""
        with suppress(OSError):
            self.spool.release(self._writers.pop(address))

    def close(self, notices: Notices) -> None:
        with self._lock:
            for writer in self._writers.values():
                try:
                    self.spool.release(writer)
                except OSError as error:
                    notices.say("a file of the spool cannot be closed", f"{writer.path.name}: {error.strerror}")
            self._writers.clear()
