"""Audit lines from standard input, such as from `kubectl logs -f`.

A journald works as well, or whatever else prints what Vault prints.
"""

from __future__ import annotations

import os
import select
import time
from threading import Event

from jitvault.audit.files.spool import Spool
from jitvault.audit.files.spool_file import LineWriter
from jitvault.audit.receivers.receiver import DRAIN_S, POLL_S, Notices
from jitvault.errors import AuditUntrusted, UsageError

_CHUNK = 256 * 1024


class StreamReceiver:
    """The receiver of one stream, which ends with the stream.

    Implements `jitvault.audit.receivers.receiver.Receiver`.
    """

    listening = "standard input"

    def __init__(self, spool: Spool, notices: Notices, *, descriptor: int = 0, prefix: str = "") -> None:
        """Take only lines that begin with `prefix` and a brace.

        They are taken without the prefix.

        Raises UsageError.
        """
        try:
            os.fstat(descriptor)
        except OSError:
            raise UsageError("there is no standard input", hint="Pipe the audit lines into this command.") from None
        if "\n" in prefix:
            raise UsageError("--prefix: expected the beginning of a line, without a line feed")
        self._spool = spool
        self._notices = notices
        self._descriptor = descriptor
        self._stop_at: float | None = None
        self._prefix = prefix
        self._pick = PrefixFilter(prefix.encode()) if prefix else None

    def run(self, stopping: Event) -> None:
        """Receive until the stream ends or `stopping` is set.

        Raises AuditUntrusted if it has to stop while the disk does not take what was read.
        """
        writer = self._writer(stopping)
        try:
            while data := self._next(stopping):
                self._write(writer, self._picked(data), stopping)
            self._picked(b"")
        finally:
            self._spool.release(writer)

    def _writer(self, stopping: Event) -> LineWriter:
        while True:
            try:
                return self._spool.writer("stdin")
            except OSError as error:
                self._full(error, stopping)

    def _next(self, stopping: Event) -> bytes:
        """Return the next bytes.

        They are empty at the end of the stream, or when it is time to stop and nothing is left.
        """
        while True:
            if stopping.is_set() and self._stop_at is None:
                self._stop_at = time.monotonic() + DRAIN_S
            if self._stop_at is not None and time.monotonic() > self._stop_at:
                return b""
            ready, _, _ = select.select([self._descriptor], [], [], POLL_S if self._stop_at is None else 0)
            if ready:
                return os.read(self._descriptor, _CHUNK)
            if self._stop_at is not None:
                return b""

    def _picked(self, data: bytes) -> bytes:
        """Return what is taken of the next bytes.

        Lines that are not taken are told. No bytes are the end of the stream.
        """
        if self._pick is None:
            return data
        taken = self._pick.feed(data)
        if not data:
            self._pick.end()
        if left_out := self._pick.left_out:
            self._notices.say("a line was left out", f"it does not begin with {self._prefix + '{'!r}", times=left_out)
            self._pick.left_out = 0
        return taken

    def _write(self, writer: LineWriter, data: bytes, stopping: Event) -> None:
        """Write `data`, and read nothing more until the disk takes it.

        The sender waits then.
        """
        while data:
            try:
                data = data[writer.write(data) :]
            except OSError as error:
                if writer.broken:
                    raise AuditUntrusted(f"{writer.path} cannot be written to the disk: {error.strerror}") from None
                self._full(error, stopping)

    def _full(self, error: OSError, stopping: Event) -> None:
        self._notices.say("the spool takes nothing, so nothing is read", str(error.strerror))
        if stopping.wait(1):
            raise AuditUntrusted(
                f"the spool {self._spool.directory} cannot store the lines that were read last: {error.strerror}",
                hint="Make room on its disk. The lines that are missing are in Vault's own log.",
            )


class PrefixFilter:
    """Picks the lines of a mixed stream that begin with a prefix and a brace.

    They are passed on without the prefix, and `left_out` counts the others. No line is held: only as many of its first
    bytes as are needed to decide.
    """

    def __init__(self, prefix: bytes) -> None:
        self.left_out = 0
        self._wanted = prefix + b"{"
        self._head = b""
        self._taking: bool | None = None  # whether the present line is taken; None while undecided

    def feed(self, data: bytes) -> bytes:
        """Return what is taken of the next bytes of the stream."""
        taken: list[bytes] = []
        at = 0
        while at < len(data):
            if self._taking is None:
                at = self._decide(data, at, taken)
                continue
            end = data.find(b"\n", at) + 1 or len(data)
            if self._taking:
                taken.append(data[at:end])
            if data[end - 1 : end] == b"\n":
                self._taking = None
            at = end
        return b"".join(taken)

    def end(self) -> None:
        """Count a last line that ended before it was decided."""
        self.left_out += bool(self._head)

    def _decide(self, data: bytes, at: int, taken: list[bytes]) -> int:
        end = at + len(self._wanted) - len(self._head)
        head = self._head + data[at:end]
        if head == self._wanted:
            taken.append(b"{")
            self._head = b""
            self._taking = True
            return end
        if self._wanted.startswith(head):
            self._head = head
            return len(data)
        # the line may have ended within these bytes, so they are looked at again
        self._head = b""
        self._taking = False
        self.left_out += 1
        return at
