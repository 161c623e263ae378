"""A go-between on loopback: commands reach the real OpenBao through it, and a test can let chosen requests go wrong.

It answers nothing by itself, but can have answers look as those of another server. A rule says of which request, before
it is passed on or after its answer came, what happens: any act of the test (kill the server, fill a disk), and then
whether the answer is passed on, lost, held back until the client has given up, or replaced by another one; and whether
the request is passed on twice, or later.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Moment = Literal["before", "after"]
_UPSTREAM_S = 15
# an address of its own: Vault limits how often each may ask
_OUR_ADDRESS = ("127.0.0.7", 0)
_HELD_S = 15.0
LATER_S = 0.6
"""How long a request is kept that is passed on later."""


class Fate(Enum):
    """What becomes of a request after a rule's act."""

    PASS = "pass"
    LOSE = "lose"  # the connection ends without an answer
    HOLD = "hold"  # nothing comes until the client has gone
    LIE = "lie"  # the rule's own answer comes
    TWICE = "twice"  # the request is passed on twice, and the second answer comes
    LATER = "later"  # the rule's own answer comes, and a moment later the request is passed on


Answered = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""
REFUSED: Answered = (
    403,
    [("Content-Type", "application/json")],
    b'{"errors":["1 error occurred:\\n\\t* permission denied\\n\\n"]}',
)
"""As Vault refuses."""


@dataclass
class Rule:
    """About the requests whose `METHOD path` matches. `times` is how often it strikes, `skip` how many it lets by.

    `answer` is what the client hears of a LIE; None for the answer to the same request before, or else to another one.
    """

    pattern: re.Pattern[str]
    moment: Moment
    act: Callable[[], object]
    fate: Fate
    times: int
    skip: int
    answer: Answered | None = None
    struck: int = 0
    hit: str = ""

    def strikes(self, what: str, moment: Moment) -> bool:
        if self.moment != moment or self.struck >= self.times or not self.pattern.search(what):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.struck += 1
        self.hit = what
        return True


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what is tested."""


@dataclass
class GoBetween:
    """Relays to `upstream` (host, port). `down` and `up` close and open its door, as a server's that is killed."""

    upstream: tuple[str, int]
    rules: list[Rule] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    ahead_s: float = 0.0
    """By how much its own clock is ahead, by which it dates each answer."""
    change: Callable[[str, bytes], bytes] | None = None
    """What becomes of the answer to a `METHOD path`."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, Answered] = {}
        self._open: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0
        self.up()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def when(
        self,
        pattern: str,
        moment: Moment,
        act: Callable[[], object] = lambda: None,
        fate: Fate = Fate.PASS,
        *,
        times: int = 1,
        skip: int = 0,
        answer: Answered | None = None,
    ) -> Rule:
        """A new rule about requests whose `METHOD path` matches `pattern`, the path without `/v1/`."""
        rule = Rule(re.compile(pattern), moment, act, fate, times, skip, answer)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()
        self.seen.clear()
        self.change = None

    def up(self) -> None:
        if self._server is None:
            self._server = _Server(("127.0.0.1", self._port), _handler(self))
            self._port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and end those that there are."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def struck(self, what: str, moment: Moment) -> Rule | None:
        """The rule that this request meets, once its act is done."""
        with self._lock:
            if moment == "before":
                self.seen.append(what)
            rule = next((rule for rule in self.rules if rule.strikes(what, moment)), None)
        if rule is not None:
            rule.act()
        return rule

    def former(self, what: str) -> Answered:
        """The last answer to the same request, or else to any."""
        anything = (200, [], b"{}")
        return self._answers.get(what) or next(reversed(self._answers.values()), anything)

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answered | None:
        """What the server answers; None where it does not."""
        connection = http.client.HTTPConnection(*self.upstream, timeout=_UPSTREAM_S, source_address=_OUR_ADDRESS)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            found = answer.status, answer.getheaders(), answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.OK:
            what = f"{method} {path.removeprefix('/v1/')}"
            self._answers.pop(what, None)
            self._answers[what] = found
        return found

    @contextmanager
    def connected(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


def _handler(between: GoBetween) -> type[BaseHTTPRequestHandler]:
    class Handler(_Relay):
        go_between = between

    return Handler


class _Relay(BaseHTTPRequestHandler):
    """One connection of a client."""

    go_between: GoBetween
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with self.go_between.connected(self.connection), suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Paths and lease ids are nobody's business."""

    def _pass_on(self) -> None:
        between = self.go_between
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        what = f"{self.command} {self.path.removeprefix('/v1/')}"
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        request = (self.command, self.path, headers, body)
        rule = between.struck(what, "before")
        if rule is not None and rule.fate in (Fate.LIE, Fate.LATER):
            found: Answered | None = rule.answer or between.former(what)
            if rule.fate is Fate.LATER:
                threading.Timer(LATER_S, between.ask, request).start()
        elif rule is not None and self._ends(rule.fate):
            return
        else:
            if rule is not None and rule.fate is Fate.TWICE:
                between.ask(*request)
            former = between.former(what)
            found = between.ask(*request)
            rule = between.struck(what, "after")
            if rule is not None and rule.fate is Fate.LIE:
                found = rule.answer or former
            elif found is None or (rule is not None and self._ends(rule.fate)):
                self.close_connection = True
                return
        self._answer(what, *found)

    def _answer(self, what: str, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        between = self.go_between
        content = between.change(what, content) if between.change else content
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _ends(self, fate: Fate) -> bool:
        if fate is Fate.HOLD:
            self.connection.settimeout(_HELD_S)
            with suppress(OSError):
                # until the client goes away
                self.connection.recv(1)
        is_over = fate in (Fate.LOSE, Fate.HOLD)
        self.close_connection = self.close_connection or is_over
        return is_over

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((time.time() if timestamp is None else timestamp) + self.go_between.ahead_s)

    do_GET = do_PUT = do_POST = do_DELETE = do_LIST = do_PATCH = _pass_on  # noqa: N815 - their names are given


class Mute:
    """Relays TCP to a port of this host until a client says `word`; from then on it takes everything and says nothing.

    Without a word it never says anything.
    """

    def __init__(self, port: int, word: bytes = b"") -> None:
        self._target = ("127.0.0.1", port)
        self._word = word
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=[one, other, one is client], daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if from_client and self._word in data:
                    # its connection stays open, and is as good as dead
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
