"""Under hvac: what is sent, how often, and in which of three ways there is no answer."""

from __future__ import annotations

import re
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

from jitvault.errors import OutcomeUnknown, VaultNotServing, VaultRejected, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.vault.client import Connection, Vault
from jitvault.vault.http_transport import Answer, Session
from jitvault.vault.responses import understood
from jitvault.vault.tls import Tls
from jitvault.vault.wire import NotSent, NotTrusted, Place, ResponseLost

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
            session._wires[server.url]._socket.setblocking(True)
            session._wires[server.url]._socket.recv(1, socket.MSG_PEEK)
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
        session._wires[server.url]._socket.recv(1, socket.MSG_PEEK)
        assert send(session, f"{server.url}/v1/y").body == b"{}"
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


def test_an_answer_that_drips_is_given_up() -> None:
    """Each byte is in time, and all of them would outlive the claim under which the request was sent."""

    def drips(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.05)

    with listening(drips) as server, pytest.raises(ResponseLost, match="too long"):
        begun = time.monotonic()
        try:
            send(Session(), f"{server.url}/v1/x", timeout=0.2)
        finally:
            assert time.monotonic() - begun < 1


def test_an_answer_that_is_announced_comes_all_the_same() -> None:
    with listening(answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)) as server:
        assert send(Session(), f"{server.url}/v1/x") == Answer(200, b"{}")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 9",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: -2",
        b"Upgrade: x\r\nConnection: upgrade",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_none(head: bytes) -> None:
    with listening(answers(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n{}")) as server, pytest.raises(ResponseLost):
        send(Session(), f"{server.url}/v1/x")


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


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, b'{"errors":["Vault is sealed"]}', VaultNotServing),
        (503, b"upstream connect error or disconnect/reset before headers", OutcomeUnknown),
        (503, b"{}", OutcomeUnknown),
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


@pytest.mark.parametrize(
    ("path", "hint"),
    [("jitvault/data/installation", "`jitvault init`"), ("jitvault-x/y", "`bao secrets list`"), ("pki/crl", "enabled")],
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


def test_a_name_with_a_dot_at_its_end_is_the_same() -> None:
    """The dot keeps a resolver from looking in its own domains first; no certificate has it."""
    place = Place("vault.example.", 443, ssl.create_default_context(), None)
    assert (place.certified, place.named, place.host) == ("vault.example", "vault.example", "vault.example.")


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_token_is_not_sent_on_to_where_there_is_no_tls(authority: Authority, scheme: str) -> None:
    server = authority.issue("v.test", address="127.0.0.1")
    with listening(answers(OK)) as plain:
        there = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {plain.url}/v1/x\r\nContent-Length: 0\r\n\r\n"
        with secured(server, None, answers(there.encode())) as port, pytest.raises(NotTrusted, match="no TLS"):
            get(Tls(ca_file=authority.file), port, scheme)
    assert plain.requests == []
