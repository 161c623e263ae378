"""Under hvac: what is sent, how often, and in which of three ways there is no answer."""

from __future__ import annotations

import logging
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from keys import Authority, Pair

from jitvault.errors import OutcomeUnknown, VaultNotServing, VaultRefused, VaultRejected, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.http.answer_reader import MOST_HEAD
from jitvault.http.connection import (
    Answer,
    NotSent,
    NotTrusted,
    OpenConnection,
    ResponseLost,
    ServerAddress,
    TooLong,
    connect,
)
from jitvault.http.deadline_socket import DeadlineSocket, TimeLimit
from jitvault.vault import client, http_transport
from jitvault.vault.client import Connection, Vault
from jitvault.vault.documents import Documents
from jitvault.vault.http_transport import Session
from jitvault.vault.leases import Leases
from jitvault.vault.responses import understood
from jitvault.vault.server import VaultTime
from jitvault.vault.tls import Tls
from jitvault.vault.tokens import Tokens
from jitvault.vault.wrapping import Wrapping

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
TIMEOUT_S = 0.5


@dataclass
class Server:
    """What came to it: one list of requests for each connection."""

    port: int
    came: list[list[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[bytes]:
        return [request for connection in self.came for request in connection]


Behave = Callable[[socket.socket, bytes], None]


@contextmanager
def listening(behave: Behave) -> Iterator[Server]:
    """A server that does `behave` with each request, on as many connections as come."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    server, over = Server(listener.getsockname()[1]), threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket, mine: list[bytes]) -> None:
        connection.settimeout(0.05)
        with connection:
            came = b""
            while not over.is_set():
                try:
                    if not (part := connection.recv(65536)):
                        return
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not _is_whole(came := came + part):
                    continue
                mine.append(came)
                with suppress(OSError):
                    behave(connection, came)
                came = b""

    def accept() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                server.came.append([])
                threads.append(threading.Thread(target=serve, args=(connection, server.came[-1])))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield server
    finally:
        over.set()
        for thread in threads:
            thread.join()
        listener.close()


def _is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    announced = re.search(rb"Content-Length: ([0-9]+)", head)
    return bool(end) and len(body) >= (int(announced[1]) if announced else 0)


def answers(answer: bytes) -> Behave:
    return lambda connection, _: connection.sendall(answer)


def hangs_up(connection: socket.socket, _: bytes) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def answers_and_hangs_up(connection: socket.socket, _: bytes) -> None:
    connection.sendall(OK)
    connection.shutdown(socket.SHUT_RDWR)


def send(session: Session, url: str, method: str = "put", timeout: float = TIMEOUT_S) -> Answer:
    return session.request(method, url, {"X-Vault-Token": "s.held"}, timeout=timeout, json={"a": 1})


def until_something_comes(session: Session, server: Server) -> None:
    """Wait for bytes, or for the end of the connection, without taking them."""
    bare = session._connections[server.url]._socket._opened
    bare.setblocking(True)
    bare.recv(1, socket.MSG_PEEK)


def test_one_connection_carries_one_request_after_the_other() -> None:
    with listening(answers(OK)) as server:
        session = Session()
        assert [send(session, f"{server.url}/v1/{n}").body for n in range(3)] == [b"{}"] * 3
        assert [len(connection) for connection in server.came] == [3]
        session.close()


def test_a_connection_that_the_other_side_closed_meanwhile_is_made_anew() -> None:
    with listening(answers_and_hangs_up) as server:
        session = Session()
        for n in range(3):
            assert send(session, f"{server.url}/v1/{n}").ok
            # until the end of the connection has come
            until_something_comes(session, server)
        assert [len(connection) for connection in server.came] == [1, 1, 1]


def test_what_may_have_been_done_is_not_sent_again() -> None:
    with listening(hangs_up) as server:
        with pytest.raises(ResponseLost, match="closed before"):
            send(Session(), f"{server.url}/v1/x")
        assert len(server.requests) == 1


def test_nor_is_it_where_the_connection_was_used_before() -> None:
    """Some libraries do, since a connection that was kept may have been over already."""
    seen: list[bytes] = []

    def once(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        (answers(OK) if len(seen) == 1 else hangs_up)(connection, request)

    with listening(once) as server:
        session = Session()
        send(session, f"{server.url}/v1/x")
        with pytest.raises(ResponseLost):
            send(session, f"{server.url}/v1/x")
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nX: s.held",
        b"s.held\r\n\r\n",
        b"HTTP/1.1 s.held OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns.held\r\n",
    ],
    ids=["nothing", "half a body", "half a header", "no HTTP", "no status", "no chunk"],
)
def test_half_an_answer_is_none_and_nothing_of_it_is_repeated(answer: bytes) -> None:
    with listening(answers(answer)) as server, pytest.raises(ResponseLost) as caught:
        send(Session(), f"{server.url}/v1/x")
    assert "held" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_nobody_asked_for_is_not_the_next_answer() -> None:
    """A second answer on a connection would be taken for that to the next request."""
    with listening(answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake")) as server:
        session = Session()
        assert send(session, f"{server.url}/v1/x").body == b"{}"
        assert send(session, f"{server.url}/v1/y").body == b"{}"


@pytest.mark.parametrize(
    "more",
    [b"HTTP/1.1 101 X\r\nUpgrade: a\r\nConnection: Upgrade\r\n\r\n", OK.replace(b"{}", b"[]"), b"x", b"\0" * 9],
    ids=["an upgrade", "another answer", "a letter", "zeros"],
)
def test_an_answer_counts_whatever_follows_it_and_its_connection_is_not_used_again(more: bytes) -> None:
    with listening(answers(OK + more)) as server:
        session = Session()
        assert send(session, f"{server.url}/v1/x") == Answer(200, b"{}")
        assert not session._connections[server.url].is_usable()


def test_nor_is_what_came_later_unasked() -> None:
    told = threading.Event()

    def twice(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK)
        told.wait(5)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake")

    with listening(twice) as server:
        session = Session()
        send(session, f"{server.url}/v1/x")
        told.set()
        until_something_comes(session, server)
        assert send(session, f"{server.url}/v1/y").body == b"{}"
        assert [len(connection) for connection in server.came] == [1, 1]


def test_nor_is_it_where_half_of_it_came_with_the_answer() -> None:
    """The half that was read with the answer is gone, so that the rest alone could pass for an answer."""
    asked = threading.Event()

    def halved(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK + b"HTTP/1.1 ")
        asked.wait(0.3)
        connection.sendall(b"200 OK\r\nContent-Length: 4\r\n\r\nfake")

    with listening(halved) as server:
        session = Session()
        send(session, f"{server.url}/v1/x")
        assert send(session, f"{server.url}/v1/y").body == b"{}"
        asked.set()
        assert [len(connection) for connection in server.came] == [1, 1]


def test_after_an_answer_at_whose_end_the_connection_closes_another_one_is_made() -> None:
    with listening(answers(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))) as server:
        session = Session()
        assert [send(session, f"{server.url}/v1/{n}").body for n in range(2)] == [b"{}"] * 2
        assert [len(connection) for connection in server.came] == [1, 1]


def test_after_an_answer_that_was_given_up_the_connection_is_not_used_again() -> None:
    slow, over = threading.Event(), threading.Event()

    def late(connection: socket.socket, request: bytes) -> None:
        if b"/late" in request:
            slow.wait(5)
            # who gives up says so at once, so that what was asked for can be broken off
            over.set() if connection.recv(1) == b"" else None
        connection.sendall(OK if b"/late" in request else OK.replace(b"{}", b"[]"))

    with listening(late) as server:
        session = Session()
        with pytest.raises(ResponseLost, match="too long"):
            send(session, f"{server.url}/v1/late", timeout=0.1)
        slow.set()
        assert over.wait(2)
        assert send(session, f"{server.url}/v1/next").body == b"[]"


@pytest.mark.parametrize(
    ("begun", "drop"),
    [
        (b"HTTP/1.1 200 ", b"O"),
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["status", "header", "body", "chunk", "trailer", "announcements"],
)
def test_an_answer_that_drips_is_given_up(begun: bytes, drop: bytes) -> None:
    """Each byte is in time, and all of them would outlive the claim under which the request was sent."""

    def drips(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begun)
        for _ in range(100):
            connection.sendall(drop)
            time.sleep(0.05)

    with listening(drips) as server, within(1), pytest.raises(ResponseLost, match="too long"):
        send(Session(), f"{server.url}/v1/x", timeout=0.2)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    try:
        yield
    finally:
        assert time.monotonic() - begun < seconds


def test_a_request_that_is_read_too_slowly_is_given_up() -> None:
    """The server takes some of it now and then, each time soon enough. What was sent may count."""
    taken: list[int] = []

    def takes_its_time(listener: socket.socket, over: threading.Event) -> None:
        # little is on its way, so that a request of a few megabytes takes as long as this server likes
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        listener.settimeout(5)
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            while part := connection.recv(64 * 1024):
                taken.append(len(part))
                over.wait(0.05)

    length = 16 * 1024 * 1024
    body = b"x" * length
    with serving(takes_its_time) as port:
        # the time begins here: a busy machine may need all of it to make so large a request
        connection = connect(ServerAddress.of(f"http://127.0.0.1:{port}"), TimeLimit(5, time.monotonic() + 5))
        with pytest.raises(ResponseLost, match="too long"):
            connection.ask("PUT", "/v1/x", {}, body, TimeLimit(0.5, time.monotonic() + 1))
    assert 0 < sum(taken) < length


def test_a_server_that_does_not_take_a_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its name has many addresses: all of them together have the time of one request."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]
        resolve = socket.getaddrinfo

        def many(host: str, *more: object, **named: object) -> object:
            return found * 9 if host == "many" else resolve(host, *more, **named)

        monkeypatch.setattr(socket, "getaddrinfo", many)
        with within(1), pytest.raises(NotSent, match="too long"):
            send(Session(), f"http://many:{address[1]}/v1/x", timeout=0.2)
        for one in waiting:
            one.close()


def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def two(host: str, *more: object, **named: object) -> list[object]:
        found = resolve("127.0.0.1" if host == "two" else host, *more, **named)
        away = [(*one[:4], ("127.0.0.2", one[4][1])) for one in found]
        return [*away, *found] if host == "two" else found

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with listening(answers(OK)) as server:
        assert send(Session(), server.url.replace("127.0.0.1", "two") + "/v1/x").ok
        assert b"\r\nHost: two:" in server.requests[0]


@pytest.mark.parametrize("length", [b"Content-Length: 900", b"Transfer-Encoding: chunked"])
def test_an_answer_that_is_too_long_is_not_read_to_its_end(length: bytes) -> None:
    """Whoever can write a document in Vault could otherwise fill the memory of those who read it."""
    part = b"384\r\n" + b"x" * 900 + b"\r\n0\r\n\r\n" if b"chunked" in length else b"x" * 900
    with listening(answers(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n" + part)) as server:
        session = Session()
        url = f"{server.url}/v1/x"
        assert session.request("get", url, {}, timeout=TIMEOUT_S, most=900).body == b"x" * 900
        with pytest.raises(TooLong):
            session.request("get", url, {}, timeout=TIMEOUT_S, most=899)
        assert not session._connections[server.url].is_usable()


def test_an_answer_that_is_announced_comes_all_the_same() -> None:
    with listening(answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)) as server:
        assert send(Session(), f"{server.url}/v1/x") == Answer(200, b"{}")


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"103 Early Hints"])
def test_what_is_announced_and_nothing_else_is_no_answer(status: bytes) -> None:
    with listening(answers(b"HTTP/1.1 " + status + b"\r\n\r\n")) as server, pytest.raises(ResponseLost):
        send(Session(), f"{server.url}/v1/x")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 9",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        b"Transfer-Encoding: gzip, chunked",
        b"Content-Length: -2",
        b"Content-Length: 0x2",
        b"Content-Length: +2",
        b"Content-Length: 2\r\nno header",
        b" folded: x\r\nContent-Length: 2",
        b"X: y",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_none(head: bytes) -> None:
    with (
        listening(answers(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n{}")) as server,
        pytest.raises(ResponseLost, match="no HTTP"),
    ):
        send(Session(), f"{server.url}/v1/x")


@pytest.mark.parametrize("head", [b"X: " + b"y" * 3 * MOST_HEAD, b"X: y\r\n" * MOST_HEAD, b"X" * 3 * MOST_HEAD])
def test_a_head_that_does_not_end_is_not_read_for_ever(head: bytes) -> None:
    with (
        listening(answers(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nContent-Length: 2\r\n\r\n{}")) as server,
        pytest.raises(ResponseLost, match="no HTTP"),
    ):
        send(Session(), f"{server.url}/v1/x")


def test_what_follows_a_body_in_chunks_is_not_in_the_head() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nDate: Tue\r\n\r\n"
    with listening(answers(chunks)) as server:
        assert send(Session(), f"{server.url}/v1/x") == Answer(200, b"{}")


def test_a_server_that_offers_another_protocol_has_answered() -> None:
    """Apache offers HTTP/2 so with each answer."""
    offer = b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    with listening(answers(OK.replace(b"\r\n\r\n", offer))) as server:
        assert send(Session(), f"{server.url}/v1/x").body == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 204 No Content\r\nX: y",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_an_answer_that_only_the_end_of_the_connection_makes_whole_is_none(answer: bytes) -> None:
    """Somebody on the way can end a connection: what was cut off would be taken for what Vault said."""

    def cut(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    with listening(cut) as server, pytest.raises(ResponseLost):
        send(Session(), f"{server.url}/v1/x")


@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_of_a_request_that_did_not_leave_it_is_said_where_that_is_known(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion | None
) -> None:
    """The server resets the connection after it was looked at, before the request. TLS may have sent a part of it."""

    was_read = threading.Event()

    def resets(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK)
        was_read.wait(2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    not_looked_at(monkeypatch)
    with resetting(authority, version, resets) as (session, url, server):
        assert send(session, url).ok
        was_read.set()
        bare = session._connections[server]._socket._opened
        poll = select.poll()
        poll.register(bare.fileno(), select.POLLHUP)
        assert poll.poll(2000)
        with pytest.raises(ResponseLost if version else NotSent):
            send(session, url)


def test_what_was_said_before_a_request_left_is_no_answer_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server says something unasked and resets the connection, after it was looked at and before the request."""
    was_read = threading.Event()

    def speaks_unasked(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK)
        was_read.wait(2)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    not_looked_at(monkeypatch)
    with listening(speaks_unasked) as server:
        session = Session()
        assert send(session, f"{server.url}/v1/x").ok
        was_read.set()
        poll = select.poll()
        poll.register(session._connections[server.url]._socket._opened.fileno(), select.POLLHUP)
        assert poll.poll(2000)
        with pytest.raises(NotSent):
            send(session, f"{server.url}/v1/x")
        assert len(server.requests) == 1


def not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where something comes between the look at a connection and the request."""
    monkeypatch.setattr(OpenConnection, "is_usable", lambda _: True)
    monkeypatch.setattr(DeadlineSocket, "check_silent", lambda _: None)


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "kept"])
@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_that_came_before_a_request_are_no_answer_to_it(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion | None, is_new: bool
) -> None:
    """Nothing of the request was sent. With TLS 1.3 a server says something after the handshake that is no answer."""
    requests: list[bytes] = []
    heard, said = threading.Event(), threading.Event()

    def speaks_unasked(connection: socket.socket) -> None:
        connection.settimeout(2)
        if not is_new:
            requests.append(connection.recv(65536))
            connection.sendall(OK)
            heard.wait(2)
        connection.sendall(OK.replace(b"{}", b"[]"))
        said.set()
        requests.append(connection.recv(65536))

    # only a new connection is looked at again
    monkeypatch.setattr(OpenConnection, "is_usable", lambda _: True)
    opened = http_transport.connect

    def opened_and_spoken(server: ServerAddress, limit: TimeLimit) -> OpenConnection:
        made = opened(server, limit)
        if is_new:
            said.wait(2)
            time.sleep(0.05)
        return made

    monkeypatch.setattr(http_transport, "connect", opened_and_spoken)
    with speaking(authority, version, speaks_unasked) as (session, url):
        if not is_new:
            assert send(session, url).body == b"{}"
            heard.set()
            said.wait(2)
            time.sleep(0.05)
        with pytest.raises(NotSent, match="before it was asked"):
            send(session, url)
        session.close()
    assert [request for request in requests if request] == requests[: not is_new]


@contextmanager
def speaking(
    authority: Authority, version: ssl.TLSVersion | None, speak: Callable[[socket.socket], None]
) -> Iterator[tuple[Session, str]]:
    """A session and a URL, whose server does `speak` with each connection as soon as it is there."""
    context = None
    if version is not None:
        server = authority.issue("v.test", address="127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(server.certificate, server.key)

    def serve(listener: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            with suppress(OSError):
                accepted, _ = listener.accept()
                with context.wrap_socket(accepted, server_side=True) if context else accepted as connection:
                    speak(connection)

    with serving(serve) as port:
        tls = Tls(ca_file=authority.file).options() if context else {}
        yield Session(**tls), f"{'https' if context else 'http'}://127.0.0.1:{port}/v1/x"


@contextmanager
def resetting(
    authority: Authority, version: ssl.TLSVersion | None, behave: Behave
) -> Iterator[tuple[Session, str, str]]:
    """A session, a URL and the URL's server, which speaks TLS of this version, or none."""
    if version is None:
        with listening(behave) as server:
            yield Session(), f"{server.url}/v1/x", server.url
        return
    with secured(authority.issue("v.test", address="127.0.0.1"), None, behave, version) as port:
        url = f"https://127.0.0.1:{port}"
        yield Session(**Tls(ca_file=authority.file).options()), f"{url}/v1/x", url


@pytest.mark.parametrize("answer", [OK, b"HTTP/1.1 200 OK\r\nno-header-s.held\r\n\r\n"])
def test_no_request_is_logged(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A path can name a lease or a person, and a header holds the token."""
    caplog.set_level(logging.DEBUG)
    with listening(answers(answer)) as server, suppress(ResponseLost):
        send(Session(), f"{server.url}/v1/some-path")
    assert not caplog.text


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NotSent, match="Connection refused"):
        send(Session(), f"http://127.0.0.1:{port}/v1/x")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/v1/x", "http://" + "a" * 70 + ".example/v1/x", "ftp://127.0.0.1/x", "http:///x"]
)
def test_to_what_is_no_address_nothing_is_sent(url: str) -> None:
    with pytest.raises(NotSent):
        send(Session(), url)


def test_a_standby_sends_on_with_everything() -> None:
    with listening(answers(OK)) as active:
        there = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {active.url}/v1/x\r\nContent-Length: 0\r\n\r\n"
        with listening(answers(there.encode())) as standby:
            assert send(Session(), f"{standby.url}/v1/x").ok
    assert active.requests[0].startswith(b"PUT /v1/x HTTP/1.1\r\n")
    assert active.requests[0].endswith(b'{"a": 1}')
    assert b"X-Vault-Token: s.held" in active.requests[0]


def test_what_may_have_been_done_is_not_sent_on() -> None:
    with listening(answers(OK)) as active:
        there = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {active.url}/v1/x\r\nContent-Length: 0\r\n\r\n"
        with listening(answers(there.encode())) as standby:
            vault = Vault(Connection(standby.url), Secret("s.held"))
            with pytest.raises(OutcomeUnknown, match="may have done it"):
                vault.write("x")
            # what an engine makes for a read is made twice, too
            with pytest.raises(VaultUnavailable, match="may have done it"):
                vault.read("x", op="f" * 32)
            assert active.requests == []
            assert len(standby.requests) == 2


def test_what_is_sent_round_in_circles_is_given_up() -> None:
    again = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v1/x\r\nContent-Length: 0\r\n\r\n"
    with listening(answers(again)) as server:
        with pytest.raises(NotSent, match="too often"):
            send(Session(), f"{server.url}/v1/x")
        assert len(server.requests) == 3


@pytest.mark.parametrize("there", ["/v1/sys/seal", "/v1/x?y", "https://[x", "http://user@127.0.0.1:1/v1/x"])
def test_nothing_else_is_asked_for_where_it_is_sent_on(there: str) -> None:
    answer = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"
    with listening(answers(answer.encode())) as server:
        with pytest.raises(NotSent):
            send(Session(), f"{server.url}/v1/x")
        assert len(server.requests) == 1


def test_a_redirect_is_called_one_and_the_hint_says_what_to_set() -> None:
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /vault/v1/x\r\nContent-Length: 0\r\n\r\n"
    with listening(answers(moved)) as server:
        with pytest.raises(VaultUnavailable) as refused:
            Vault(Connection(server.url), None).read("x")
        assert str(refused.value) == f"the server at {server.url} redirects to another path"
        assert "Set VAULT_ADDR" in (refused.value.hint or "")


def test_another_redirect_is_an_answer_and_not_followed() -> None:
    with listening(answers(b"HTTP/1.1 303 See Other\r\nLocation: /v1/y\r\nContent-Length: 0\r\n\r\n")) as server:
        assert send(Session(), f"{server.url}/v1/x").status_code == 303
        assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with listening(answers(OK)) as server:
        assert send(Session(), f"{server.url}/v1/x").ok


def test_a_name_is_a_name_whatever_stands_in_it() -> None:
    """A question mark, a fence or a percent sign in a name would otherwise ask Vault for another one."""
    with listening(answers(b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\n" + b'{"errors":[]}')) as server:
        vault = Vault(Connection(server.url), None)
        assert vault.read("identity/entity/name/a?b#c%2Fd é\r\nX: y") is None
        line = server.requests[0].split(b"\r\n")[0]
    assert line == b"GET /v1/identity/entity/name/a%3Fb%23c%252Fd%20%C3%A9%0D%0AX:%20y HTTP/1.1"


@pytest.mark.parametrize(("method", "error"), [("get", VaultUnavailable), ("put", OutcomeUnknown)])
def test_a_token_that_cannot_be_sent_is_not_repeated(method: str, error: type[Exception]) -> None:
    vault = Vault(Connection("http://127.0.0.1:1"), Secret("s.held\r\nX: y"))
    with listening(answers(OK)) as server:
        vault.connection = Connection(server.url)
        with pytest.raises(error) as caught:
            vault._request(method, "x")
    assert "held" not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize("token", ["s.held\r\nX: y", "s.held\r\n X: y", "s.held\n\tX: y", "s.held\0", "s.held\u20ac"])
def test_what_cannot_be_in_a_header_is_not_sent(token: str) -> None:
    """http.client lets a header go on in the next line, and repeats in its error what it refuses."""
    with listening(answers(OK)) as server, pytest.raises(ValueError, match="cannot be sent") as caught:
        Session().request("get", f"{server.url}/v1/x", {"X-Vault-Token": token}, timeout=TIMEOUT_S)
    assert "held" not in repr(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, b'{"errors":["Vault is sealed"]}', VaultNotServing),
        (503, b"upstream connect error or disconnect/reset before headers", OutcomeUnknown),
        (503, b"{}", OutcomeUnknown),
        (429, b"{}", OutcomeUnknown),
        (501, b"", OutcomeUnknown),
        (500, b'{"errors":["local node not active but active cluster node not found"]}', VaultNotServing),
        (500, b'{"errors":["role local node not active but active cluster node not found: failed"]}', OutcomeUnknown),
    ],
)
def test_only_vault_says_that_nothing_was_done(status: int, body: bytes, error: type[Exception]) -> None:
    """A proxy says 503 as well of a Vault that died once it had the request."""
    answer = b"HTTP/1.1 %d Some Words\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    with listening(answers(answer)) as server:
        with pytest.raises(VaultUnavailable) as caught:
            Vault(Connection(server.url), None).write("x")
        assert type(caught.value) is error
        assert len(server.requests) == 1


RATE_LIMITED = b'{"errors":["rate limit quota exceeded"]}'


def answered(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Some Words\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize(
    ("status", "body"), [(202, b"<html>queued</html>"), (204, b""), (200, b'{"request_id":"r","data":{}}')]
)
def test_no_document_is_written_where_nobody_says_which_version(status: int, body: bytes) -> None:
    """A gateway that queues what is written says so without a word of Vault's: nobody is frozen by that."""
    with listening(answers(answered(status, body))) as server:
        documents = Documents(Vault(Connection(server.url), None))
        with pytest.raises(OutcomeUnknown, match="has no"):
            documents.put("freezes/everything", {})


@dataclass
class Elsewhere:
    """A node that is always found again at one address: what Vault takes for granted of a cluster."""

    now: str
    doubted: int = 0

    def address(self) -> str:
        return self.now

    def lost(self, address: str) -> bool:
        return True

    def doubt(self, address: str) -> None:
        self.doubted += 1


class Another:
    """A token that is always over, and replaced."""

    is_worker = False

    def token(self) -> Secret:
        return Secret("s.held")

    def replaced(self, refused: Secret) -> bool:
        return True


@pytest.mark.parametrize(
    ("status", "body", "again"),
    [
        (429, RATE_LIMITED, True),
        (429, b"<html>too many requests</html>", False),
        (503, b'{"errors":["Vault is sealed"]}', True),
        (472, b'{"errors":[]}', True),
        (500, b'{"errors":["local node not active but active cluster node not found"]}', True),
        (403, b'{"errors":["permission denied"]}', True),
    ],
)
def test_what_must_not_be_done_twice_is_sent_once_whatever_the_answer(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, again: bool
) -> None:
    """Whatever stands between here and Vault can pass a request on, and then answer in Vault's form."""
    monkeypatch.setattr(client, "_BUSY_PATIENCE_S", 0.3)
    with listening(answers(answered(status, body))) as server:
        vault = Vault(Connection(server.url, node=Elsewhere(server.url)), Another())
        acts: list[Callable[[], object]] = [
            lambda: vault.write("x", op="an act"),
            lambda: vault.delete("x", op="an act"),
            lambda: Wrapping(Vault(vault.connection, None)).unwrap(Secret("s.wrapping")),
        ]
        for n, act in enumerate(acts, start=1):
            # a token that was not this client's to replace is refused, and nothing more is known
            with pytest.raises(VaultRefused if status == 403 and n == 3 else OutcomeUnknown):
                act()
            assert len(server.requests) == n
        with pytest.raises(VaultUnavailable):
            vault.read("x", op="an act")
        assert len(server.requests) == 4
        # what may be done twice is: the worker's own questions must not fail for a moment's limit
        with pytest.raises((VaultUnavailable, VaultRefused)):
            vault.write("x")
        assert (len(server.requests) > 5) is again


def test_an_act_that_did_not_leave_is_sent_to_the_active_node() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"

    class Moved(Elsewhere):
        def lost(self, address: str) -> bool:
            self.now = server.url
            return True

    with listening(answers(answered(200, b'{"request_id":"r","data":{}}'))) as server:
        node = Moved(dead)
        assert Vault(Connection(dead, node=node), None).write("x", op="an act")["request_id"] == "r"
        assert (len(server.requests), node.doubted) == (1, 0)


@pytest.mark.parametrize(("method", "error"), [("get", VaultRejected), ("put", OutcomeUnknown)])
def test_an_answer_that_is_nested_too_deeply_does_not_say_that_nothing_was_done(
    method: str, error: type[Exception]
) -> None:
    with pytest.raises((VaultRejected, VaultUnavailable)) as caught:
        understood("http://vault", method, "x", Answer(200, b"[" * 100_000))
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "date", ["Thu, 01 Jan 2026 00:00:00 +99999999999999", "Fri, 31 Dec 9999 23:59:59 -0100", "Thu, 01 Jan 99999"]
)
def test_a_date_that_no_calendar_has_keeps_no_answer_from_its_caller(date: str) -> None:
    times = VaultTime()
    with listening(answers(OK.replace(b"\r\n\r\n", f"\r\nDate: {date}\r\n\r\n".encode()))) as server:
        vault = Vault(Connection(server.url, hears=times.hear), None)
        with pytest.raises(OutcomeUnknown, match="is not Vault"):
            vault.write("x")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "has no data"),
        (answered(200, b'{"request_id":"r","data":null,"warnings":["w"]}'), "has no data"),
        (answered(200, b'{"request_id":"r","data":{"ttl":1}}'), "has no (id|accessor)"),
        (answered(200, b'{"request_id":"r","data":{"id":"y","accessor":"y"}}'), "about something else"),
    ],
)
def test_an_answer_that_is_none_to_the_look_up_says_nothing(answer: bytes, why: str) -> None:
    """As the answer to a revocation is none to a look-up, and neither is one about somebody else."""
    with listening(answers(answer)) as server:
        vault = Vault(Connection(server.url), None)
        for ask in (Leases(vault).lookup, Tokens(vault).lookup_accessor):
            with pytest.raises(OutcomeUnknown, match=why):
                ask("x")


@pytest.mark.parametrize(("method", "error"), [("get", VaultUnavailable), ("put", OutcomeUnknown)])
@pytest.mark.parametrize("place", ["data", "auth", "wrap_info"])
def test_a_field_that_an_answer_lacks_is_an_error_of_what_answered(
    method: str, error: type[Exception], place: str
) -> None:
    body = f'{{"request_id":"r","data":{{}},"{place}":{{"there":1}}}}'.encode()
    found = understood("http://vault", method, "x", Answer(200, body))
    assert found[place]["there"] == 1 and found[place].get("token") is None
    with pytest.raises(VaultUnavailable, match="the answer of Vault at http://vault to x has no token") as caught:
        found[place]["token"]
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("jitvault/data/installation", "`jitvault init`"),
        ("jitvault-inbox/data/e/t", "`jitvault init`"),
        ("jitvault-x/y", "`bao secrets list`"),
        ("pki/crl", "enabled"),
    ],
)
def test_a_path_below_which_nothing_is_mounted_is_told_as_that(path: str, hint: str) -> None:
    body = f'{{"errors":["no handler for route \\"{path}\\". route entry not found."]}}'.encode()
    with pytest.raises(VaultRejected) as caught:
        understood("http://vault", "get", path, Answer(404, body))
    assert str(caught.value) == f"nothing is mounted at {path}"
    assert hint in caught.value.hint and "token lookup" not in caught.value.hint
    assert caught.value.status == 404 and caught.value.reasons


# -- TLS ----------------------------------------------------------------------------------------------------------


@contextmanager
def serving(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """Have `serve` listen in a thread until the block is left, of which the event tells it; gives its port."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()
    listener.settimeout(0.05)
    thread = threading.Thread(target=serve, args=(listener, over))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        thread.join()
        listener.close()


@contextmanager
def secured(
    server: Pair, asks_for: Authority | None, behave: Behave, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Iterator[int]:
    """A server that speaks TLS on loopback, and wants to see a certificate of `asks_for`; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(server.certificate, server.key)
    if asks_for is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(asks_for.file)

    def serve(listener: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                connection.settimeout(2)
                behave(connection, connection.recv(65536))

    with serving(serve) as own:
        yield own


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def get(tls: Tls, port: int, scheme: str = "https") -> Answer:
    session = Session(**tls.options())
    try:
        return session.request("get", f"{scheme}://127.0.0.1:{port}/v1/x", {}, timeout=2)
    finally:
        session.close()


def test_whoever_is_not_the_one_that_is_meant_gets_nothing(authority: Authority, tmp_path: Path) -> None:
    came: list[bytes] = []
    server = authority.issue("vault.test", address="127.0.0.1")
    with secured(server, None, lambda _, request: came.append(request)) as port:
        for tls in (
            Tls(ca_file=Authority(tmp_path / "other").file),
            Tls(ca_file=authority.file, server_name="another.test"),
        ):
            with pytest.raises(NotTrusted):
                get(tls, port)
    assert came == []


def test_a_common_name_is_no_servers_name(authority: Authority) -> None:
    """A person's certificate can have any."""
    server = authority.issue("v.test", has_names=False)
    with secured(server, None, answers(OK)) as port, pytest.raises(NotTrusted):
        get(Tls(ca_file=authority.file, server_name="v.test"), port)


ALERT = b"\x15\x03\x03\x00\x02\x02"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", NotSent),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", NotSent),
        (ALERT + b"\x50", NotSent),
        (ALERT + b"\x28", NotTrusted),
        (ALERT + b"\x2a", NotTrusted),
    ],
    ids=["nothing", "no TLS", "internal error", "handshake failure", "bad certificate"],
)
def test_a_handshake_that_breaks_off_is_mistrust_only_where_a_certificate_is_refused(
    authority: Authority, said: bytes, error: type[Exception]
) -> None:
    """As a load balancer without a server behind it closes: who then checks certificates looks in the wrong place."""

    def breaks_off(listener: socket.socket, _: threading.Event) -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(said)

    with serving(breaks_off) as port, pytest.raises((NotSent, NotTrusted)) as caught:
        get(Tls(ca_file=authority.file), port)
    assert type(caught.value) is error


def test_by_its_name_it_is_the_one_that_is_meant(authority: Authority) -> None:
    server = authority.issue("vault.test")
    with secured(server, None, answers(OK)) as port:
        with pytest.raises(NotTrusted):
            get(Tls(ca_file=authority.file), port)
        assert get(Tls(ca_file=authority.file, server_name="vault.test"), port).ok


@pytest.mark.parametrize("name", ["another authority", "test authority"])
def test_a_certificate_that_is_refused_is_told_as_such(authority: Authority, tmp_path: Path, name: str) -> None:
    """With TLS 1.3 it is refused after the handshake, when the request is on its way."""
    server, other = authority.issue("v.test", address="127.0.0.1"), Authority(tmp_path / "other", name)
    stranger, mine = other.issue("me.test"), authority.issue("me.test")
    with secured(server, authority, answers(OK)) as port:
        with pytest.raises(NotTrusted):
            get(Tls(ca_file=authority.file, client_cert=stranger.certificate, client_key=stranger.key), port)
        assert get(Tls(ca_file=authority.file, client_cert=mine.certificate, client_key=mine.key), port).ok


def test_a_connection_that_breaks_off_is_lost_and_not_mistrusted(authority: Authority) -> None:
    """The request was read: it may have been done."""

    def breaks_off(connection: socket.socket, _: bytes) -> None:
        with socket.socket(fileno=connection.detach()) as bare:
            bare.sendall(b"something that is no TLS")

    server = authority.issue("v.test", address="127.0.0.1")
    with secured(server, None, breaks_off) as port, pytest.raises(ResponseLost):
        get(Tls(ca_file=authority.file), port)


@pytest.mark.parametrize(("version", "records"), [(ssl.TLSVersion.TLSv1_2, 1), (ssl.TLSVersion.TLSv1_3, 2)])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_an_alert_after_the_request_was_read_is_lost(
    authority: Authority, version: ssl.TLSVersion, records: int, begun: bytes
) -> None:
    """Somebody on the way can provoke it by a few bytes, after the act was done."""

    def spoils(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begun)
        # the record that nobody can read, of which an alert tells
        with suppress(OSError):
            connection.recv(1)

    server = authority.issue("v.test", address="127.0.0.1")
    with (
        secured(server, None, spoils, version) as port,
        spoiling(port, records) as spoilt,
        pytest.raises(ResponseLost) as lost,
    ):
        get(Tls(ca_file=authority.file), spoilt)
    assert "BAD_RECORD_MAC" in str(lost.value)


@contextmanager
def spoiling(port: int, records: int) -> Iterator[int]:
    """Somebody on the way, who adds a record that nobody can read once so many of the client's have gone by that the
    request is one of them; gives the port.
    """

    def serve(listener: socket.socket, over: threading.Event) -> None:
        listener.settimeout(2)
        here, _ = listener.accept()
        with here, socket.create_connection(("127.0.0.1", port)) as there:
            sent, is_spoilt = b"", False
            for one in (here, there):
                one.settimeout(0.02)
            while not over.is_set():
                for source, target in ((here, there), (there, here)):
                    with suppress(TimeoutError):
                        if not (data := source.recv(65536)):
                            return
                        target.sendall(data)
                        sent += data if source is here else b""
                if sent.count(b"\x17\x03\x03") >= records and not is_spoilt:
                    there.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
                    is_spoilt = True

    with serving(serve) as own:
        yield own


def test_a_name_with_a_dot_at_its_end_is_the_same(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dot keeps a resolver from looking in its own domains first; no certificate has it."""
    asked: list[str] = []
    came: list[bytes] = []
    resolve = socket.getaddrinfo

    def local(host: str, *more: object, **named: object) -> object:
        asked.append(host)
        return resolve("127.0.0.1", *more, **named)

    def notes(connection: socket.socket, request: bytes) -> None:
        came.append(request)
        connection.sendall(OK)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    with secured(authority.issue("vault.example"), None, notes) as port:
        session = Session(**Tls(ca_file=authority.file).options())
        assert session.request("get", f"https://vault.example.:{port}/v1/x", {}, timeout=2).ok
    assert asked[0] == "vault.example."
    assert f"\r\nHost: vault.example:{port}\r\n".encode() in came[0]


@pytest.mark.parametrize("drop", [b"", b"\x16"], ids=["says nothing", "drips"])
def test_a_handshake_that_takes_too_long_is_given_up_and_nothing_was_sent(authority: Authority, drop: bytes) -> None:
    record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + bytes(200)

    def stalls(listener: socket.socket, over: threading.Event) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                for byte in record:
                    if over.wait(0.05):
                        return
                    connection.sendall(bytes([byte]) if drop else b"")

    session = Session(**Tls(ca_file=authority.file).options())
    with serving(stalls) as port, within(1.5), pytest.raises(NotSent, match="too long"):
        session.request("get", f"https://127.0.0.1:{port}/v1/x", {}, timeout=0.3)


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_token_is_not_sent_on_to_where_there_is_no_tls(authority: Authority, scheme: str) -> None:
    server = authority.issue("v.test", address="127.0.0.1")
    with listening(answers(OK)) as plain:
        there = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {plain.url}/v1/x\r\nContent-Length: 0\r\n\r\n"
        with secured(server, None, answers(there.encode())) as port, pytest.raises(NotTrusted, match="no TLS"):
            get(Tls(ca_file=authority.file), port, scheme)
    assert plain.requests == []
