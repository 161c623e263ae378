"""Vault's `socket` audit device, over TCP or a unix socket.

Its connections only bring lines and get no answer. One thread serves all connections and holds no line whole. Since
nothing is acknowledged, the only honest way to refuse is not to be there. While the disk is full the port is
closed, so that Vault's connection fails. A connection that we end is reset, which Vault's next write notices; after
a normal end that write would be lost in the kernel.

A new connection has one of a few places until it sends something. Of those that have, the ones that no canary
vouched for are ended first if there are too many, or if they take too much of the disk.
"""

from __future__ import annotations

import selectors
import socket
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from jitvault.audit.files.spool import Spool
from jitvault.audit.files.spool_file import LineWriter
from jitvault.audit.receivers.peers import Guest, first_to_go, peer_of
from jitvault.audit.receivers.receiver import DISK_FULL, DRAIN_S, POLL_S, Notices
from jitvault.errors import UsageError

_CHUNK = 256 * 1024
_BACKLOG = 128
_RETRY_S = 1.0
_SILENT_PLACES = 64
# Vault's device connects when it has a line to write.
_SILENT_S = 5.0
_ACCEPT_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Address:
    """`tcp://HOST:PORT` or `unix:///PATH`."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse a URL of one of the two forms. Raises UsageError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme == "tcp" and host and port is not None and not (parts.path or parts.query or parts.fragment):
            return cls(host=host, port=port)
        if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
            return cls(path=Path(parts.path))
        raise UsageError(f"--socket: expected tcp://HOST:PORT or unix:///PATH, got {url!a:.100}")

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


@dataclass(slots=True, kw_only=True)
class _Connection(Guest):
    """A connection; it has a writer once it has sent something."""

    label: str
    writer: LineWriter | None = None


class SocketReceiver:
    """The receiver behind a listening socket.

    Implements `jitvault.audit.receivers.receiver.Receiver`.
    """

    def __init__(self, address: Address, spool: Spool, notices: Notices, *, max_connections: int) -> None:
        """Listen. Raises UsageError if that is not possible."""
        self._address = address
        self._spool = spool
        self._notices = notices
        self._max_connections = max_connections
        self._selector = selectors.DefaultSelector()
        self._open: dict[socket.socket, _Connection] = {}
        self._listener: socket.socket | None = None
        self._listen_again_at = 0.0
        try:
            self._listen()
        except OSError as error:
            raise UsageError(f"{address} cannot be used to listen on: {error.strerror or error}") from None
        self.listening = str(self._address)

    def run(self, stopping: Event) -> None:
        """Receive until `stopping` is set; then drain, for three seconds at most."""
        try:
            while not stopping.is_set():
                self._turn(POLL_S)
                self._drop_silent()
                if self._listener is None and time.monotonic() >= self._listen_again_at:
                    self._try_to_listen()
            self._drain()
        finally:
            self._stop_listening()
            for connection in list(self._open):
                self._end(connection, reset=True)
            self._selector.close()

    def _turn(self, timeout: float) -> bool:
        """Serve whatever is ready; return whether anything was."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._open:
                self._receive(key.fileobj)
        return bool(ready)

    def _drain(self) -> None:
        while self._listener is not None and self._accept():
            pass
        self._stop_listening()
        deadline = time.monotonic() + DRAIN_S
        while self._open and self._turn(0) and time.monotonic() < deadline:
            pass

    def _accept(self) -> bool:
        """Accept some of the waiting connections; return False if there are none."""
        for _ in range(_ACCEPT_AT_ONCE):
            if self._listener is None:
                return False
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                # for example too many open files: waiting connections stay where they are
                self._notices.say("a connection cannot be accepted", str(error.strerror))
                time.sleep(POLL_S)
                return False
            self._begin(connection)
        return True

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer, label = peer_of(connection)
        known = self._spool.knows(peer.name)
        self._open[connection] = _Connection(peer, time.monotonic(), known=known, label=label)
        self._selector.register(connection, selectors.EVENT_READ)
        while len(silent := self._silent()) > _SILENT_PLACES:
            first = self._socket_of(first_to_go(silent.values()))
            # what it sent may just not have been read yet
            self._receive(first)
            if first in self._silent():
                self._drop(first, "too many say nothing")

    def _silent(self) -> dict[socket.socket, _Connection]:
        return {connection: guest for connection, guest in self._open.items() if guest.writer is None}

    def _drop_silent(self) -> None:
        latest = time.monotonic() - _SILENT_S
        for connection, guest in self._silent().items():
            if guest.since < latest:
                self._drop(connection, "it says nothing")

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(connection, reset=False)
            return
        try:
            writer = self._writer(connection)
            if writer is not None:
                self._write(writer, data)
        except OSError as error:
            self._end(connection, reset=True)
            self._refuse(error)

    def _writer(self, connection: socket.socket) -> LineWriter | None:
        """Return the file of a connection, which begins with its first bytes.

        The result is None if there is no place for the connection. Raises OSError.
        """
        guest = self._open[connection]
        if guest.writer is None:
            guest.writer = self._spool.writer(guest.label, group=guest.peer.group)
            talking = [other for other in self._open.values() if other.writer is not None]
            if len(talking) > self._max_connections:
                strangers = (other for other in talking if other.writer and not other.writer.trusted)
                self._drop(self._socket_of(first_to_go(strangers)), "there are too many, and no canary vouched for it")
        return guest.writer if connection in self._open else None

    def _write(self, writer: LineWriter, data: bytes) -> None:
        """Write `data`, and keep the quota of untrusted senders. Raises OSError."""
        while data:
            try:
                data = data[writer.write(data) :]
            except OSError as error:
                # on a full disk, files that untrusted senders left are removed first
                if error.errno not in DISK_FULL or not self._spool.untrusted.relieve(everything=True):
                    raise
        while (too_much := self._spool.too_much()) is not None:
            owner = next(guest for guest in self._open.values() if guest.writer is too_much)
            self._drop(self._socket_of(owner), "what no canary vouched for takes too much of the disk")

    def _socket_of(self, wanted: _Connection | None) -> socket.socket:
        return next(socket for socket, guest in self._open.items() if guest is wanted)

    def _drop(self, connection: socket.socket, why: str) -> None:
        self._notices.say("a connection was dropped", f"{why}: {self._open[connection].label}")
        self._end(connection, reset=True)

    def _end(self, connection: socket.socket, *, reset: bool) -> None:
        writer = self._open.pop(connection).writer
        self._selector.unregister(connection)
        if reset:
            _reset(connection)
        else:
            connection.close()
        if writer is None:
            return
        try:
            self._spool.release(writer)
        except OSError as error:
            self._notices.say("the end of a connection's lines may be lost", f"{writer.path.name}: {error.strerror}")

    def _refuse(self, error: OSError) -> None:
        """Be unreachable while the disk takes nothing."""
        self._notices.say(f"{self._address} is closed while the spool takes nothing", str(error.strerror))
        self._stop_listening()
        self._listen_again_at = time.monotonic() + _RETRY_S

    def _try_to_listen(self) -> None:
        self._listen_again_at = time.monotonic() + _RETRY_S
        if not self._spool.has_room():
            return
        try:
            self._listen()
        except (OSError, UsageError) as error:
            self._notices.say(f"{self._address} cannot be used to listen on again", str(error))
        else:
            self._notices.say(f"{self._address} is open again")

    def _listen(self) -> None:
        if self._address.path is not None:
            listener = _unix_listener(self._address.path)
        else:
            family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
            listener = socket.create_server((self._address.host, self._address.port), family=family, backlog=_BACKLOG)
            # with port 0 the system chose a port, and that port stays ours
            self._address = Address(host=self._address.host, port=listener.getsockname()[1])
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._listener = listener

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = None
        if self._address.path is not None:
            self._address.path.unlink(missing_ok=True)


def _unix_listener(path: Path) -> socket.socket:
    """Return a listening unix socket that only its owner can connect to.

    Raises OSError, UsageError.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # nobody can connect before it listens, so nobody connects before this
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket that a killed receiver left.

    Raises UsageError for anything else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{path} exists and is not a socket", hint="Name a path that does not exist.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise UsageError(f"another process already listens on {path}", hint="Check whether another receiver is running.")


def _reset(connection: socket.socket) -> None:
    """End a connection so that the other side's next write fails."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
