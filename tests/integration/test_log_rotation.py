"""A real server's audit log is rotated while it is written, in both ways that logrotate has."""

from __future__ import annotations

import gzip
import http.client
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from reading_process import read_on

from jitvault.audit.files.file_source import FileSource
from jitvault.audit.observation import Kind, Observation
from jitvault.audit.source import Position
from jitvault.sandbox.vault_server import VaultServer

REQUESTS = 3_000
THREADS = 4
EVERY_S = 0.3
_FORKING = multiprocessing.get_context("forkserver")


@pytest.fixture
def bao(tmp_path: Path) -> Iterator[VaultServer]:
    with VaultServer(tmp_path) as server:
        yield server


class Clients:
    """Threads that ask for hashes of one text after the other, and remember the answers."""

    def __init__(self, bao: VaultServer) -> None:
        self._bao = bao
        self.hashes: list[str] = []
        self.failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(THREADS)]

    def _ask(self, number: int) -> None:
        try:
            connection = http.client.HTTPConnection(self._bao.host, self._bao.port, timeout=20)
            found = []
            for n in range(number, REQUESTS, THREADS):
                body = json.dumps({"input": f"request-{n}"})
                connection.request("PUT", "/v1/sys/audit-hash/jitvault", body, {"X-Vault-Token": self._bao.root_token})
                found.append(json.loads(connection.getresponse().read())["hash"])
            connection.close()
            self.hashes += found
        except BaseException as error:  # noqa: BLE001
            self.failed.append(error)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def work(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)


class Reader:
    """It keeps nothing but its position from one pass to the next."""

    def __init__(self, path: Path, position: Position) -> None:
        self.path = path
        self.position = position
        self.seen: list[Observation] = []
        self.gaps: list[str] = []
        self.passes = 0

    def read(self, *, batches: int | None = None) -> None:
        """One pass; with `batches` it dies after so many."""
        self.passes += 1
        source = FileSource(self.path, name="jitvault")
        if source.has_more(self.position):
            for n, batch in enumerate(source.read(self.position)):
                if n == batches:
                    return
                self.seen += batch.observations
                self.gaps += batch.gaps
                self.position = batch.position

    def lines_of(self, hashes: list[str]) -> list[tuple[str, bool]]:
        """The request's and the response's line of each hash that clients got."""
        wanted = set(hashes)
        return [(o.subject, o.closing) for o in self.seen if o.kind is Kind.CANARY and o.subject in wanted]


class Logrotate:
    """What logrotate does to the file: the older ones go one number up, and then the present one is moved or copied."""

    def __init__(self, bao: VaultServer) -> None:
        self._bao = bao
        self._path = bao.audit_file
        self.rotations = 0

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)

    def _shift(self) -> None:
        self.rotations += 1
        for n in range(100, 0, -1):
            for packed in ("", ".gz"):
                if (file := self._beside(f".{n}{packed}")).exists():
                    file.rename(self._beside(f".{n + 1}{packed}"))

    def rename(self) -> None:
        self._shift()
        self._path.rename(self._beside(".1"))
        self._path.touch(mode=0o600)
        time.sleep(0.02 if self.rotations % 2 else 0)
        os.kill(self._bao.pid, signal.SIGHUP)

    def rename_and_compress(self) -> None:
        """With delaycompress: the file before the last one is compressed."""
        self.rename()
        old = self._beside(".2")
        if old.exists() and self.rotations % 3:
            with old.open("rb") as source, gzip.open(self._beside(".2.gz"), "wb", compresslevel=1) as target:
                shutil.copyfileobj(source, target)
            shutil.copystat(old, self._beside(".2.gz"))
            old.unlink()

    def copy_and_truncate(self) -> None:
        self._shift()
        shutil.copyfile(self._path, self._beside(".1"))
        os.truncate(self._path, 0)


@contextmanager
def every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do it again and again in a thread. What goes wrong there goes wrong here."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.wait(seconds):
                act()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failed == []


def under_load(
    bao: VaultServer, rotate: Callable[[], object], *, between: Callable[[], object] | None = None
) -> list[str]:
    """The hashes of all requests, made while the log is rotated again and again; `between` is called all the time."""
    clients = Clients(bao)
    with every(EVERY_S, rotate):
        clients.start()
        while clients.work():
            if between:
                between()
            time.sleep(0.02)
    rotate()
    assert clients.failed == []
    assert len(set(clients.hashes)) == REQUESTS
    # one more line, so that the last file has begun
    bao._ask("GET", "/v1/sys/mounts")
    return clients.hashes


def each_line_once(reader: Reader, hashes: list[str]) -> None:
    found = Counter(reader.lines_of(hashes))
    assert set(found.values()) == {1}
    assert len(found) == 2 * REQUESTS
    assert (reader.gaps, reader.position.epoch) == ([], 1)
    offsets = [o.place.offset for o in reader.seen]
    assert offsets == sorted(set(offsets))
    assert {o.place.epoch for o in reader.seen} == {1}


def started(bao: VaultServer) -> Reader:
    return Reader(bao.audit_file, FileSource(bao.audit_file, name="jitvault").start())


@pytest.mark.parametrize("compress", [False, True])
def test_a_reader_that_follows_sees_every_line_once(bao: VaultServer, compress: bool) -> None:
    rotation, reader = Logrotate(bao), started(bao)

    def read() -> None:
        # each third pass dies after its first batch
        reader.read(batches=1 if reader.passes % 3 == 0 else None)

    hashes = under_load(bao, rotation.rename_and_compress if compress else rotation.rename, between=read)
    reader.read()
    each_line_once(reader, hashes)
    assert rotation.rotations >= 3
    assert reader.passes > 20


@pytest.mark.parametrize("compress", [False, True])
def test_a_reader_that_comes_afterwards_sees_every_line_once(bao: VaultServer, compress: bool) -> None:
    rotation, reader = Logrotate(bao), started(bao)
    hashes = under_load(bao, rotation.rename_and_compress if compress else rotation.rename)
    assert rotation.rotations >= 3
    reader.read(batches=2)
    reader.read()
    each_line_once(reader, hashes)


def test_a_reader_between_rename_and_sighup_has_what_was_written_until_now(bao: VaultServer) -> None:
    reader = started(bao)
    before = reader.position.offset
    bao.audit_file.rename(bao.audit_file.with_suffix(".log.1"))
    bao._ask("GET", "/v1/sys/mounts")
    reader.read()
    assert reader.position.offset > before
    late = FileSource(bao.audit_file, name="jitvault").start()
    os.kill(bao.pid, signal.SIGHUP)
    while not bao.audit_file.exists():
        time.sleep(0.01)
    bao._ask("GET", "/v1/sys/mounts")
    written = bao.audit_file.stat().st_size
    assert written
    for position in (reader.position, late):
        other = Reader(bao.audit_file, position)
        other.read()
        assert other.position.offset == position.offset + written
        assert (other.gaps, other.position.epoch) == ([], 1)


def test_copies_before_a_truncation_are_told_and_nothing_is_read_twice(bao: VaultServer) -> None:
    rotation, reader = Logrotate(bao), started(bao)
    hashes = under_load(bao, rotation.copy_and_truncate, between=reader.read)
    reader.read()
    found = Counter(reader.lines_of(hashes))
    assert set(found.values()) == {1}
    assert rotation.rotations >= 3
    # none is passed over; the last one may have found the file empty
    assert len(reader.gaps) == reader.position.epoch - 1
    assert rotation.rotations - 1 <= len(reader.gaps) <= rotation.rotations
    assert all("copied and truncated" in gap for gap in reader.gaps)
    assert len(found) >= REQUESTS


def test_a_reader_that_is_killed_goes_on_where_it_was(bao: VaultServer, tmp_path: Path) -> None:
    """Another process each time, killed anywhere. What it wrote after the last position comes again, nothing else."""
    rotation, reader = Logrotate(bao), started(bao)
    state, seen = tmp_path / "state", tmp_path / "seen"
    state.write_text(f"{reader.position.identity}\n{reader.position.offset}\n1\n")
    seen.touch()
    kills = []

    def read_and_die() -> None:
        process = _FORKING.Process(target=read_on, args=(bao.audit_file, state, seen))
        process.start()
        process.join(0.02 + 0.02 * (len(kills) % 7))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills.append(process.pid)

    hashes = under_load(bao, rotation.rename_and_compress, between=read_and_die)
    assert kills
    read_on(bao.audit_file, state, seen)
    # a batch that was written twice has the same places both times
    rows = set(seen.read_text().splitlines())
    wanted = set(hashes)
    found = Counter(tuple(row.split()[:2]) for row in rows if row.split()[0] in wanted)
    assert set(found.values()) == {1}
    assert len(found) == 2 * REQUESTS
    assert state.read_text().splitlines()[2] == "1"
