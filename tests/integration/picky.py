"""A receiver of an OpenBao's audit lines that refuses those that a test chooses: its device fails for them.

OpenBao's http device sends one POST for each line and takes any other answer than 2xx for a failure. Where it is the
only device, a refused request line means that the request is not done, and a refused response line that it is done and
answered with a 500 all the same.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from jitvault.sandbox.vault_configuration import AuditDevice
from jitvault.sandbox.vault_server import AUDIT_DEVICE, VaultServer

Kind = Literal["request", "response"]


class Picky:
    """Appends what it takes to `file`, a line for each entry, in the order in which they came."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.refused: list[str] = []
        self._refuses: Callable[[dict[str, Any]], bool] = lambda _entry: False
        self._lock = threading.Lock()
        picky = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(204 if picky.takes(body) else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_POST  # noqa: N815 - its name is given

            def log_message(self, format: str, *args: object) -> None:
                """Nothing of an audit line is told."""

        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, kind: Kind, *paths: str, times: int = 1) -> None:
        """Take no line of this kind whose request path begins with one of `paths`, so many times."""
        left = [times]

        def refuses(entry: dict[str, Any]) -> bool:
            struck = left[0] > 0 and entry["type"] == kind and entry["request"]["path"].startswith(paths)
            left[0] -= struck
            return struck

        self._refuses = refuses

    def take_all(self) -> None:
        self._refuses = lambda _entry: False
        self.refused.clear()

    def takes(self, body: bytes) -> bool:
        entry = json.loads(body)
        with self._lock:
            if self._refuses(entry):
                self.refused.append(f"{entry['type']} {entry['request']['path']}")
                return False
            with self.file.open("ab") as file:
                file.write(body.rstrip(b"\n") + b"\n")
            return True


class PickilyAudited(VaultServer):
    """An OpenBao whose device `jitvault` is the receiver at `url`; `with_file`: a file is a second device."""

    def __init__(self, directory: Path, url: str, *, with_file: bool = False) -> None:
        super().__init__(directory)
        self._url = url
        self._with_file = with_file

    def _devices(self) -> tuple[AuditDevice, ...]:
        (file,) = super()._devices()
        pushed = AuditDevice("http", AUDIT_DEVICE, {"uri": self._url})
        return (replace(file, name="second"), pushed) if self._with_file else (pushed,)
