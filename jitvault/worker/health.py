"""The worker's health: counters, readiness, and an endpoint on loopback.

- GET /healthz: 200 while every loop is alive and reports so, else 503
- GET /readyz: 200 while, besides, Vault answers, the audit stream is trusted, the ledger is whole and the worker has
  its rights, else 503; it names what is frozen
- GET /metrics: the counters, as Prometheus text
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from ipaddress import ip_address
from threading import Lock
from typing import Any

import msgspec

from jitvault.errors import UsageError
from jitvault.worker.supervisor import Supervisor

SILENT_S = 60.0
"""A loop that has not reported for so long hangs, in seconds."""
_UNLABELLED = ("advanced", "ends_unproven", "notices", "removed", "renewed", "renewed_together")
"""The counters without a label: they are there from the start, so that a first count is seen as an increase."""
_REQUEST_S, _POLL_S = 0.2, 0.2
_REQUEST_BYTES = 65_536


class Sample(msgspec.Struct, frozen=True):
    """One value of the metrics; `labels` and `value` are written as Prometheus reads them."""

    name: str
    kind: str
    value: str
    labels: str = ""


class State(msgspec.Struct, frozen=True):
    """How one process of a worker is at a moment."""

    trouble: Sequence[str] = ()
    """Why it is not alive; empty while it is."""
    unready: Sequence[str] = ()
    """Why it grants and confirms nothing; empty while ready."""
    frozen: Sequence[str] = ()
    samples: Sequence[Sample] = ()


States = Mapping[str, State]
"""The processes of one worker by their numbers. The only process of a worker has an empty one."""


@dataclass
class Health:
    """What the loops report; shared by threads. Nothing in it is a secret."""

    supervisor: Supervisor
    why_not_trusted: str | None = "no canary was seen yet"
    why_not_granting: str | None = None
    """That the ledger was lost, and what rebuilds it."""
    lacking: Sequence[str] | None = None
    """The rights at Vault that the worker's token lacks; None before they were tried."""
    frozen: Sequence[str] = ()
    """What is frozen, and why: the worker grants nothing of that, and is ready to revoke."""
    _values: dict[str, float] = field(default_factory=dict)
    _counted: Counter[tuple[str, tuple[tuple[str, str], ...]]] = field(
        default_factory=lambda: Counter({(name, ()): 0 for name in _UNLABELLED})
    )
    _lock: Lock = field(default_factory=Lock)

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counted[name, tuple(sorted(labels.items()))] += by

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[name] = value

    def value(self, name: str) -> float:
        """Return a gauge; 0 before it was set."""
        with self._lock:
            return self._values.get(name, 0)

    def trouble(self) -> list[str]:
        """Return why the worker is not alive; empty while it is."""
        if self.supervisor.stopping.is_set():
            return ["it is ending"]
        return [f"the loop {name} says nothing" for name in self.supervisor.silent(SILENT_S)]

    def unready(self) -> list[str]:
        """Return why nothing is granted or confirmed now; empty while ready."""
        untried = ["the worker's rights were not tried yet"] if self.lacking is None else []
        lacks = [f"the worker's token lacks {right}" for right in self.lacking or ()]
        return [*self.trouble(), *filter(None, [self.why_not_trusted, self.why_not_granting]), *untried, *lacks]

    def state(self) -> State:
        """Return how this process is now."""
        with self._lock:
            values, counted = dict(self._values), dict(self._counted)
        trouble, unready = self.trouble(), self.unready()
        values |= {"up": 0 if trouble else 1, "ready": 0 if unready else 1}
        samples = [Sample(name, "gauge", f"{value:g}") for name, value in values.items()]
        for (name, labels), n in sorted(counted.items()):
            shown = ",".join(f"{key}={json.dumps(value)}" for key, value in labels)
            samples.append(Sample(f"{name}_total", "counter", str(n), shown))
        return State(trouble, unready, list(self.frozen), samples)


def metrics(states: States) -> str:
    """Return the values of all processes in the Prometheus text format, version 0.0.4."""
    kinds = dict[str, str]()
    lines = dict[str, list[str]]()
    for number, state in states.items():
        for sample in state.samples:
            whose = f"process={json.dumps(number)}" if number else ""
            labels = ",".join(filter(None, [whose, sample.labels]))
            name = f"jitvault_worker_{sample.name}"
            kinds[name] = sample.kind
            lines.setdefault(name, []).append(f"{name}{'{' + labels + '}' if labels else ''} {sample.value}")
    texts = [line for name, kind in kinds.items() for line in (f"# TYPE {name} {kind}", *lines[name])]
    return "".join(f"{text}\n" for text in texts)


class Endpoint(HTTPServer):
    """Answers one request after the other, in one thread.

    Nobody who sends slowly, or nothing, keeps others waiting: a request is what has arrived after 0.2 s.
    """

    timeout = _POLL_S

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


def served(states: Callable[[], States], where: str) -> Endpoint:
    """Return an endpoint at HOST:PORT, which has to be on loopback.

    `serve` answers its requests. Raises UsageError.
    """
    host, _, port = where.rpartition(":")
    try:
        address = ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise UsageError("--health: expected an address and a port, such as 127.0.0.1:9200") from None
    if not address.is_loopback or not 0 <= number < 2**16:
        raise UsageError("--health: expected an address on loopback", hint="Use a proxy to serve it to other hosts.")
    try:
        return Endpoint((str(address), number), _handler(states))
    except OSError as error:
        raise UsageError(f"--health {where}: cannot listen there: {error.strerror}") from None


def serve(endpoint: Endpoint, supervisor: Supervisor) -> None:
    """Answer requests until the worker ends."""
    with endpoint:
        while not supervisor.stopping.is_set():
            supervisor.beat("health")
            endpoint.handle_request()


_Page = tuple[int, str, str]
"""Status, content type, text."""


def _page(path: str, states: States) -> _Page:
    """Return a page about all processes: they are well if each is."""
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4", metrics(states)
    more = {}
    if path == "/healthz":
        whys = _named(states, lambda state: state.trouble)
    elif path == "/readyz":
        whys = _named(states, lambda state: state.unready)
        more = {"frozen": list(dict.fromkeys(what for state in states.values() for what in state.frozen))}
    else:
        return 404, "text/plain", "healthz, readyz or metrics\n"
    return (503 if whys else 200), "application/json", json.dumps({"ok": not whys, "why": whys, **more}) + "\n"


def _named(states: States, whys: Callable[[State], Iterable[str]]) -> list[str]:
    return [f"process {number}: {why}" if number else why for number, state in states.items() for why in whys(state)]


def _handler(states: Callable[[], States]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S

        def setup(self) -> None:
            super().setup()
            self.rfile = BytesIO(self.connection.recv(_REQUEST_BYTES))

        def do_GET(self) -> None:
            status, kind, text = _page(self.path, states())
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
