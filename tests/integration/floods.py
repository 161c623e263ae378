"""One person who writes thousands of documents, as fast as Vault takes them, with nothing but their own token."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from rig import Rig

WRITERS = 4
JUNK = {"data": {"payload": "bm90aGluZw==", "payloadType": "x", "signatures": []}}


@dataclass
class Flood:
    """How many documents Vault has taken, and in how long."""

    written: int = 0
    took_s: float = 0.0


def write_all(rig: Rig, who: str, paths: Sequence[str], document: dict[str, Any] | None = None) -> Flood:
    """Write a document at each of `paths` below the mount; JUNK where none is given."""
    done, begun = Flood(), time.monotonic()
    body = json.dumps({"data": document} if document is not None else JUNK)
    with ThreadPoolExecutor(WRITERS) as pool:
        for written in pool.map(lambda n: _write(rig, who, paths[n::WRITERS], body, Event()), range(WRITERS)):
            done.written += written
    done.took_s = time.monotonic() - begun
    return done


@contextmanager
def flooding(rig: Rig, who: str, paths: Sequence[str]) -> Iterator[Flood]:
    """Write JUNK at each of `paths` while the block lasts, over and over if need be."""
    stop, done = Event(), Flood()
    body = json.dumps(JUNK)
    with ThreadPoolExecutor(WRITERS) as pool:
        parts = [pool.submit(_write, rig, who, paths[n::WRITERS], body, stop) for n in range(WRITERS)]
        begun = time.monotonic()
        try:
            yield done
        finally:
            stop.set()
            done.written = sum(part.result() for part in parts)
            done.took_s = time.monotonic() - begun


def _write(rig: Rig, who: str, paths: Sequence[str], body: str, stop: Event) -> int:
    address, headers = urlsplit(rig.world.address).netloc, {"X-Vault-Token": rig.token_of(who)}
    written = 0
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        for path in paths:
            if stop.is_set():
                break
            connection.request("PUT", f"/v1/jitvault/data/{path}", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, (path, answer.status)
            written += 1
    return written
