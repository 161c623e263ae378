"""Vault's `socket` audit device, over a unix socket.

Only those can connect whom the kernel lets: the socket has mode 0600, or each connection's user is one that may send.
A TCP port would show nobody's identity, since the device sends none; lines from another host come through a TLS tunnel.

The device's connections only bring lines and get no answer. One thread serves all connections and holds no line whole.
Since nothing is acknowledged, the only honest way to refuse is not to be there. While the disk is full the socket is
closed, so that Vault's connection fails. A connection that we end is reset, which Vault's next write notices; after a
normal end that write would be lost in the kernel.
"""

from __future__ import annotations

import os
import pwd
import selectors
import socket
import stat
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

from jitvault.audit.files.spool import Spool
from jitvault.audit.files.spool_file import LineWriter
from jitvault.audit.receivers.receiver import DRAIN_S, MOST_CONNECTIONS, POLL_S, Notices
from jitvault.errors import UsageError

_CHUNK = 256 * 1024
_BACKLOG = 128
_RETRY_S = 1.0
_ACCEPT_AT_ONCE = 16
_UCRED = struct.Struct("3i")
# The kernel gives this id to every user of a container that has no id here.
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Address:
    """`unix:///PATH`, and who may connect.

    `senders` are the ids of users, None for those whom mode 0600 lets connect: the owner, who is this user, and root.
    """

    path: Path
    senders: frozenset[int] | None = None

    @classmethod
    def parse(cls, url: str, *, users: Iterable[str] = ()) -> Address:
        """Parse a URL and the names or ids of further users who may send.

        Raises UsageError.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme != "unix" or parts.netloc or not parts.path.startswith("/"):
            raise UsageError(
                f"--socket: expected unix:///PATH, got {url!a:.100}",
                hint='Vault\'s socket device writes to a unix socket (socket_type = "unix"), from another host through '
                "a TLS tunnel: anybody can write to a TCP port.",
            )
        more = frozenset(_user_id(user) for user in users)
        if more and not hasattr(socket, "SO_PEERCRED"):
            raise UsageError("--allow-user: this system does not say which user connects")
        return cls(Path(parts.path), more | {0, os.geteuid()} if more else None)

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(slots=True)
class _Connection:
    """A connection; it has a writer once it has sent something."""

    label: str
    writer: LineWriter | None = None


class SocketReceiver:
    """The receiver behind a listening socket.

    Implements `jitvault.audit.receivers.receiver.Receiver`.
    """

    def __init__(self, address: Address, spool: Spool, notices: Notices) -> None:
        """Listen. Raises UsageError if that is not possible."""
        self._address = address
        self._spool = spool
        self._notices = notices
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
        """Take a connection of somebody who may send; reset any other."""
        connection.setblocking(False)
        uid, label = _peer(connection)
        senders = self._address.senders
        if senders is not None and uid not in senders:
            why = "its user may not send"
        elif len(self._open) >= MOST_CONNECTIONS:
            why = "there are too many"
        else:
            self._open[connection] = _Connection(label)
            self._selector.register(connection, selectors.EVENT_READ)
            return
        self._notices.say("a connection was refused", f"{why}: {label}")
        _reset(connection)

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
        guest = self._open[connection]
        try:
            guest.writer = guest.writer or self._spool.writer(guest.label)
            while data:
                data = data[guest.writer.write(data) :]
        except OSError as error:
            self._end(connection, reset=True)
            self._refuse(error)

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
        # others may connect only where each connection's user is looked at
        listener = _unix_listener(self._address.path, 0o600 if self._address.senders is None else 0o666)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._listener = listener

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = None
        self._address.path.unlink(missing_ok=True)


def _user_id(name: str) -> int:
    try:
        uid = int(name) if name.isascii() and name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError:
        raise UsageError(f"--allow-user: this system has no user {name!a:.100}") from None
    if uid == _NOBODY:
        raise UsageError(
            f"--allow-user: {name} can be anybody",
            hint="The kernel gives this id to each user of a container that has no id on this host.",
        )
    return uid


def _peer(connection: socket.socket) -> tuple[int | None, str]:
    """Return the user at the other end, and a name of the connection.

    The kernel keeps who connected; handing the connection on changes nothing. The user is None where a system does not
    say it.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None, "unix"
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid, f"unix-uid{uid}-pid{pid}"


def _unix_listener(path: Path, mode: int) -> socket.socket:
    """Return a listening unix socket of this mode.

    Raises OSError, UsageError.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # nobody can connect before it listens, so nobody connects before this
        path.chmod(mode)
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
