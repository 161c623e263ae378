"""Hands on what lies around jitvault: plain requests from any loopback address, and a log shipper between files."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rig import PREFIX, Held, Rig

AGENT = "127.0.0.1"
THIEF = "127.0.0.3"


def ask(
    rig: Rig,
    method: str,
    path: str,
    token: str = "",
    body: dict[str, Any] | None = None,
    *,
    source: str = AGENT,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """One request to Vault from the address `source`: the HTTP status and the answer."""
    url = urlsplit(rig.world.address)
    with closing(http.client.HTTPConnection(url.netloc, timeout=30, source_address=(source, 0))) as connection:
        sent = {**({"X-Vault-Token": token} if token else {}), **(headers or {})}
        connection.request(method, f"/v1/{path}", json.dumps(body) if body is not None else None, sent)
        answer = connection.getresponse()
        content = answer.read()
    return answer.status, json.loads(content) if content else {}


def by_hash(lines: Iterable[bytes]) -> dict[str, dict[str, Any]]:
    """Lines of an audit file by the SHA-256 of their bytes, as findings name them."""
    return {sha256(raw).hexdigest(): json.loads(raw) for raw in lines}


def without_a_token(rig: Rig, held: Held) -> tuple[str, str]:
    """A lease and its login that look as if the task had read them and have no token, as a late lease has none.

    An administrator reads them, and a line like that of the task's own read is written for them.
    """
    line = rig.line_of(held.lease_id)
    read = rig.admin.read(PREFIX) or {}
    lease_id, login = str(read["lease_id"]), str(read["data"]["username"])
    with rig.world.audit_file.open("a") as audit:
        audit.write(line.replace(held.lease_id, lease_id).replace(held.login["user"], login))
    return lease_id, login


class Mirror:
    """A copy of Vault's audit file that follows it, with hands on it: what a log shipper could do.

    It has the lines that come from now on, each as `form` writes it.
    """

    def __init__(self, original: Path, path: Path, form: Callable[[bytes], bytes] = bytes) -> None:
        self.path = path
        self.keep: Callable[[bytes], bool] = lambda _line: True
        self._form = form
        self._original = original
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._held = threading.Event()
        self._read = original.stat().st_size
        path.touch()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def hold(self) -> None:
        """Ship nothing until `let_go`."""
        with self._lock:
            self._held.set()

    def let_go(self) -> None:
        self._held.clear()
        self.sync()

    def sync(self) -> None:
        """Bring everything that is there now."""
        with self._lock:
            self._copy()

    def change(self, act: Callable[[Path], object]) -> None:
        """Do something to the copy, after everything was brought that is there now."""
        with self._lock:
            self._copy()
            act(self.path)

    def _follow(self) -> None:
        while not self._stop.is_set():
            if not self._held.is_set():
                self.sync()
            time.sleep(0.004)

    def _copy(self) -> None:
        if self._original.stat().st_size == self._read:
            return
        with self._original.open("rb") as original:
            original.seek(self._read)
            new = original.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        if whole:
            # without a file there is nobody to write for: the lines come once it is there again
            target = self.path if self.path.exists() else self.path.with_suffix(".away")
            with target.open("ab") as copy:
                copy.writelines(self._form(line) for line in whole.splitlines(keepends=True) if self.keep(line))
