"""A target that does not behave holds nobody up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from jitvault.engines.pki.bounded_fetch import Web
from jitvault.errors import NotConfirmed


@contextmanager
def listening(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does `behave` with each connection, after it has read a request."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.recv(65536)
                    behave(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/pki/crl"
    finally:
        over.set()
        thread.join()
        server.close()


def asked(url: str, *, within_s: float = 5) -> str:
    with pytest.raises(NotConfirmed) as caught:
        Web(None, within_s=within_s).get(url, at_most=1000)
    return str(caught.value)


def drip(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.sendall(start)
        for _ in range(100):
            time.sleep(0.05)
            connection.sendall(piece)

    return behave


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"


@pytest.mark.parametrize(
    "behave",
    [drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"), drip(HEAD, b"x"), lambda c: time.sleep(3)],
    ids=["a header byte by byte", "a body byte by byte", "nothing at all"],
)
def test_what_comes_too_slowly_is_cut_off(behave: Callable[[socket.socket], None]) -> None:
    with listening(behave) as url:
        begun = time.monotonic()
        assert "127.0.0.1" in asked(url, within_s=0.5)
        assert time.monotonic() - begun < 1.5


def test_once_the_time_is_over_nothing_is_asked_any_more() -> None:
    with listening(lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as url:
        web = Web(None, within_s=0.2)
        assert web.get(url, at_most=10) == b""
        time.sleep(0.25)
        with pytest.raises(NotConfirmed, match="too long"):
            web.get(url, at_most=10)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nxx", "closed before the answer was whole"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nxx", "closed before the answer was whole"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "HTTP 301"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
        (b"SSH-2.0-x\r\n", "could not be asked: what came is no HTTP"),
        (b"", "closed before the answer was whole"),
    ],
    ids=["too long", "of no length", "cut off", "a chunk cut off", "moved", "nothing", "no HTTP", "closed"],
)
def test_any_other_answer_is_none(answer: bytes, says: str) -> None:
    with listening(lambda c: c.sendall(answer)) as url:
        assert says in asked(url)


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with listening(lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")) as url:
        assert Web(None, within_s=5).get(url, at_most=1000) == b"here"


@pytest.mark.parametrize("ca", ["garbage", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"])
def test_a_ca_that_is_none_is_told(ca: str) -> None:
    with pytest.raises(NotConfirmed, match="URL or its CA cannot be used"):
        Web(ca, within_s=5).get("https://127.0.0.1:1/", at_most=10)


def test_https_is_not_believed_without_its_ca() -> None:
    with listening(lambda c: None) as url, pytest.raises(NotConfirmed, match="could not be asked"):
        Web(None, within_s=5).get(url.replace("http:", "https:"), at_most=10)
