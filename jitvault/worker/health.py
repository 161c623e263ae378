"""The worker's health: counters, readiness, and an endpoint on loopback.

- GET /healthz: 200 while every loop is alive and reports so, else 503
- GET /readyz: 200 while, besides, Vault answers, the audit stream is trusted, the ledger is whole and the worker has
  its rights, else 503; it names what is frozen
- GET /metrics: the counters, as Prometheus text
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Lock
from typing import Any

from jitvault.errors import UsageError
from jitvault.worker.supervisor import Supervisor

SILENT_S = 60.0
"""A loop that has not reported for so long hangs, in seconds."""
_REQUEST_S, _POLL_S = 5.0, 0.2


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
    _counted: Counter[tuple[str, tuple[tuple[str, str], ...]]] = field(default_factory=Counter)
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

    def metrics(self) -> str:
        """Return all values in the Prometheus text format, version 0.0.4."""
        with self._lock:
            values, counted = dict(self._values), dict(self._counted)
        values |= {"up": 0 if self.trouble() else 1, "ready": 0 if self.unready() else 1}
        lines = [
            f"# TYPE jitvault_worker_{name} gauge\njitvault_worker_{name} {value:g}" for name, value in values.items()
        ]
        for name in sorted({name for name, _ in counted}):
            lines.append(f"# TYPE jitvault_worker_{name}_total counter")
            for (of, labels), n in sorted(counted.items()):
                if of == name:
                    shown = ",".join(f"{key}={json.dumps(value)}" for key, value in labels)
                    lines.append(f"jitvault_worker_{name}_total{'{' + shown + '}' if shown else ''} {n}")
        return "\n".join(lines) + "\n"


def served(health: Health, where: str) -> ThreadingHTTPServer:
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
        return ThreadingHTTPServer((str(address), number), _handler(health))
    except OSError as error:
        raise UsageError(f"--health {where}: cannot listen there: {error.strerror}") from None


def serve(endpoint: ThreadingHTTPServer, supervisor: Supervisor) -> None:
    """Answer requests until the worker ends."""
    endpoint.timeout = _POLL_S
    endpoint.daemon_threads = True
    with endpoint:
        while not supervisor.stopping.is_set():
            supervisor.beat("health")
            endpoint.handle_request()


_Page = tuple[int, str, str]
"""Status, content type, text."""


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    def state(why: list[str], **more: list[str]) -> _Page:
        return (503 if why else 200), "application/json", json.dumps({"ok": not why, "why": why, **more}) + "\n"

    pages: dict[str, Callable[[], _Page]] = {
        "/healthz": lambda: state(health.trouble()),
        "/readyz": lambda: state(health.unready(), frozen=list(health.frozen)),
        "/metrics": lambda: (200, "text/plain; version=0.0.4", health.metrics()),
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_S

        def do_GET(self) -> None:
            page = pages.get(self.path)
            status, kind, text = page() if page else (404, "text/plain", "healthz, readyz or metrics\n")
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
