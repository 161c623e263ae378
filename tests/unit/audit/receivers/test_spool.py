from __future__ import annotations

import errno
import fcntl
import io
import itertools
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.audit.files.spool import MAX_SOURCE_NAME, Spool, SpoolSources
from jitvault.audit.files.spool_file import LineWriter
from jitvault.audit.receivers.http_senders import Senders
from jitvault.audit.receivers.receiver import Notices
from jitvault.audit.receivers.stdin import PrefixFilter
from jitvault.errors import AuditUntrusted, UsageError

SEGMENT = 50
WEEK = timedelta(days=7)

# thousands of waits for a disk are not what is tested
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

# bytes as they come from a connection: cut anywhere
chunks = st.lists(st.text("ab\n", min_size=1, max_size=80).map(str.encode), max_size=30)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LineWriter]:
    writer = LineWriter(tmp_path / "sender.log", segment_bytes=SEGMENT)
    yield writer
    if not writer.broken:
        writer.close()


def parts(path: Path) -> list[bytes]:
    """The segments of a sender's file, the oldest first."""
    rotated = sorted(path.parent.glob(f"{path.name}.*"), key=lambda p: int(p.suffix[1:]), reverse=True)
    return [part.read_bytes() for part in [*rotated, path]]


def write(writer: LineWriter, data: bytes) -> None:
    while data:
        data = data[writer.write(data) :]


def fails(code: int) -> object:
    """An os.write, os.fsync or the like that fails."""

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


# --- what is appended is what came ---


@settings(max_examples=150, deadline=None)
@given(chunks, st.booleans())
def test_the_segments_together_are_exactly_what_came_and_each_ends_with_a_line(came: list[bytes], flush: bool) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        writer = LineWriter(Path(directory) / "sender.log", segment_bytes=SEGMENT)
        for chunk in came:
            write(writer, chunk)
            if flush:
                writer.flush()
        writer.close()
        written = parts(writer.path)
        assert b"".join(written) == b"".join(came)
        for full in written[:-1]:
            assert full.endswith(b"\n") and len(full) >= SEGMENT
            # it was not full before what came last, so it ends soon
            last = max(full.rfind(b"\n", 0, -1) + 1, 0)
            assert last < SEGMENT + max(map(len, came)), "no segment goes on after it could have ended"
        assert not list(Path(directory).glob(".*"))


@settings(max_examples=100, deadline=None)
@given(chunks)
def test_bodies_are_whole_lines_in_order(came: list[bytes]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        writer = LineWriter(Path(directory) / "sender.log", segment_bytes=SEGMENT)
        for body in came:
            writer.append(io.BytesIO(body))
        writer.close()
        assert b"".join(parts(writer.path)) == b"".join(b if b.endswith(b"\n") else b + b"\n" for b in came)


def test_bodies_of_many_threads_do_not_mix(writer: LineWriter) -> None:
    bodies = [bytes([65 + n]) * 300_000 + b"\n" for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda body: writer.append(io.BytesIO(body)), bodies))
    assert sorted(line for part in parts(writer.path) for line in part.splitlines(keepends=True)) == bodies


def test_there_is_a_file_under_the_name_at_every_moment(writer: LineWriter) -> None:
    missing, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            if not writer.path.exists():
                missing.append(time.monotonic())

    watcher = threading.Thread(target=look)
    watcher.start()
    for n in range(100):
        writer.write(b"%050d\n" % n)
    done.set()
    watcher.join()
    assert not missing
    assert len(parts(writer.path)) == 100


def test_a_segment_that_cannot_be_begun_is_gone_on_with(writer: LineWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    write(writer, b"x" * SEGMENT + b"\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fails(errno.ENOSPC))
        write(writer, b"in the same\n")
    assert parts(writer.path) == [b"x" * SEGMENT + b"\nin the same\n"]
    write(writer, b"in the next\n")
    assert [len(part) for part in parts(writer.path)] == [SEGMENT + 13, 12]
    assert not list(writer.path.parent.glob(".*"))


# --- a disk that takes nothing ---


def test_what_is_refused_leaves_nothing_behind(writer: LineWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    write(writer, b"before\n")
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if writer.path.stat().st_size >= 20:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data[:20])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="full"):
            writer.append(io.BytesIO(b"y" * 40))
        assert writer.path.read_bytes() == b"before\n"
    writer.append(io.BytesIO(b"after"))
    assert writer.path.read_bytes() == b"before\nafter\n"
    assert not writer.broken


def test_what_fits_of_a_write_stays_and_is_counted(writer: LineWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
        assert writer.write(b"12\n45\n") == 3
        patch.setattr(os, "write", fails(errno.ENOSPC))
        with pytest.raises(OSError):
            writer.write(b"45\n")
    assert writer.write(b"45\n") == 3
    assert writer.path.read_bytes() == b"12\n45\n"


def test_a_file_whose_half_line_cannot_be_taken_back_takes_nothing_more(
    writer: LineWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fails(errno.EIO))
        patch.setattr(os, "ftruncate", fails(errno.EIO))
        with pytest.raises(OSError):
            writer.append(io.BytesIO(b"half"))
    assert writer.broken
    with pytest.raises(OSError):
        writer.write(b"glued to it\n")
    writer.close()


def test_a_failed_fsync_is_not_made_good_by_the_next(writer: LineWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.write(b"line\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails(errno.EIO))
        with pytest.raises(OSError):
            writer.flush()
    # the kernel would say that all is well now
    with pytest.raises(OSError):
        writer.flush()
    with pytest.raises(OSError):
        writer.close()


# --- durable ---


def test_flush_returns_when_all_that_was_written_before_is_synced(
    writer: LineWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def counting(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        real(descriptor)
        synced.append(size)

    monkeypatch.setattr(os, "fsync", counting)
    writer.write(b"one\n")
    assert writer.pending
    writer.flush()
    assert synced == [4] and not writer.pending
    writer.flush()
    assert synced == [4], "there was nothing to do"


def test_a_segment_is_synced_before_it_gets_its_other_name(writer: LineWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[object] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda d: (order.append(os.fstat(d).st_ino), fsync(d)))
    monkeypatch.setattr(os, "link", lambda *a: (order.append("link"), link(*a)))
    segment, directory = writer.path.stat().st_ino, writer.path.parent.stat().st_ino
    write(writer, b"x" * SEGMENT + b"\n")
    write(writer, b"y\n")
    assert order.index(segment) < order.index("link")
    assert order[-1] == directory, "so that both names survive a power failure"


def test_many_who_wait_for_the_disk_share_the_waits(writer: LineWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def slow(descriptor: int) -> None:
        time.sleep(0.02)
        synced.append(descriptor)

    def keep(n: int) -> None:
        writer.append(io.BytesIO(b"%d" % n))
        writer.flush()

    writer = LineWriter(writer.path.with_name("other.log"))
    monkeypatch.setattr(os, "fsync", slow)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(keep, range(64)))
    assert len(writer.path.read_bytes().splitlines()) == 64
    assert len(synced) < 20
    writer.close()


def test_what_was_kept_for_a_sender_is_on_the_disk_and_a_broken_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool")
    senders = Senders(spool, limit=2)
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (real(d), synced.append(os.fstat(d).st_ino)))
    senders.keep("10.0.0.1", io.BytesIO(b"{}\n"))
    (first,) = spool.directory.glob("*.log")
    assert synced[-1] == first.stat().st_ino and first.read_bytes() == b"{}\n"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails(errno.EIO))
        with pytest.raises(OSError):
            senders.keep("10.0.0.1", io.BytesIO(b"lost, perhaps\n"))
    senders.keep("10.0.0.1", io.BytesIO(b"{}\n"))
    senders.keep("10.0.0.2", io.BytesIO(b"{}\n"))
    assert len(list(spool.directory.glob("*.log"))) == 3
    # of more addresses than may send, the one that was silent longest begins another file
    senders.keep("10.0.0.1", io.BytesIO(b"{}\n"))
    senders.keep("10.0.0.3", io.BytesIO(b"{}\n"))
    senders.keep("10.0.0.1", io.BytesIO(b"{}\n"))
    assert len(list(spool.directory.glob("*.log"))) == 4
    senders.keep("10.0.0.2", io.BytesIO(b"{}\n"))
    assert len(list(spool.directory.glob("*.log"))) == 5
    senders.close(Notices(lambda _: None))


# --- the directory ---


def test_names_are_unique_ordered_and_say_who_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "a" / "spool")
    writers = [spool.writer(f"http-10.0.0.{n}-/../x\n" + "y" * 200) for n in range(50)]
    names = [writer.path.name for writer in writers]
    assert names == sorted(names) and len(set(names)) == 50
    assert all(
        re.fullmatch(r"[A-Za-z0-9.-]{1,140}", name) and f"http-10.0.0.{n}-" in name for n, name in enumerate(names)
    )
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(writer.path.stat().st_mode) for writer in writers} == {0o600}
    for writer in writers:
        spool.release(writer)


def test_a_directory_that_others_may_write_or_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o770)
    with pytest.raises(UsageError, match="others may write"):
        Spool(tmp_path / "open")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        Spool(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be written"):
        Spool(Path("/proc/spool"))


def test_one_receiver_at_a_time_fills_a_directory(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "link").symlink_to(spool.directory)
    other = Spool(tmp_path / "link")
    with spool.held(), pytest.raises(UsageError, match="another receiver already fills"), other.held():
        pass
    with spool.held():
        assert stat.S_IMODE((spool.directory / "receiver.lock").stat().st_mode) == 0o600, "nobody else can lock it"


def test_flush_tries_every_file_also_after_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    writers = [spool.writer("a") for _ in range(3)]
    for writer in writers:
        writer.write(b"x\n")
    bad = writers[0].path.stat().st_ino
    real = os.fsync

    def one_is_bad(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == bad:
            raise OSError(errno.EIO, "broken")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", one_is_bad)
    with pytest.raises(OSError, match="broken"):
        spool.flush()
    assert [writer.pending for writer in writers] == [True, False, False]


def test_old_files_are_removed_unless_somebody_still_writes_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    silent, gone, recent = (spool.writer(name) for name in ("silent", "gone", "recent"))
    for writer in (silent, gone, recent):
        writer.write(b"x\n")
    spool.release(gone)
    spool.release(recent)
    rotated = [gone.path.with_name(f"{gone.path.name}.{n}") for n in (1, 2)]
    rotated += [silent.path.with_name(f"{silent.path.name}.1")]
    foreign = [spool.directory / name for name in ("notes.log", "audit.log.1", f"{gone.path.name}.old")]
    # what a receiver left behind that was killed while it began a segment
    rotated.append(gone.path.with_name(f".{gone.path.name}"))
    for path in (*rotated, *foreign):
        path.write_bytes(b"y\n")
    (spool.directory / "directory.log").mkdir()
    old = time.time() - 8 * 86_400
    for path in (silent.path, gone.path, *rotated, *foreign):
        os.utime(path, (old, old))
    assert spool.remove_old(timedelta(days=9)) == 0
    assert spool.remove_old(WEEK) == 5
    left = {path.name for path in spool.directory.iterdir()}
    assert left == {silent.path.name, recent.path.name, "directory.log", *(path.name for path in foreign)}


def test_the_lock_is_the_writer_s_as_long_as_it_writes(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    writer = spool.writer("a")

    def is_locked() -> bool:
        with writer.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    assert is_locked()
    spool.release(writer)
    assert not is_locked()


# --- reading ---


def line(n: int) -> bytes:
    return b'{"time":"2026-11-24T15:43:07Z","type":"request","request":{"id":"r-%d","path":"kv/x"}}\n' % n


def test_every_sender_is_a_source_from_its_first_byte(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    first, second = spool.writer("first"), spool.writer("second")
    first.write(line(1) + line(2))
    second.write(line(3))
    (spool.directory / "notes.log").write_bytes(b"not ours")
    (spool.directory / f"{first.path.name}.1").touch()
    (spool.directory / "20261124T182519507064Z-eb2fcf-link.log").symlink_to(first.path)
    present = SpoolSources(spool.directory, name="the spool").present()
    assert [source.name for source in present] == [f"the spool/{w.path.name}" for w in (first, second)]
    assert [sum(batch.lines for batch in source.read(source.start())) for source in present] == [2, 1]
    first.path.unlink()
    assert len(SpoolSources(spool.directory, name="the spool").present()) == 1


def test_a_name_that_is_too_long_keeps_what_tells_senders_apart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    files = [spool.writer("x" * 100).path.name for _ in range(2)]
    names = [source.name for source in SpoolSources(spool.directory, name="d" * 300).present()]
    assert all(
        len(name) == MAX_SOURCE_NAME and name.endswith(f"/{file}") for name, file in zip(names, files, strict=True)
    )


def test_a_sender_s_segments_are_read_before_what_came_after_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    path = spool.writer("unused").path.with_name("20261124T182519507064Z-eb2fcf-http.log")
    writer = LineWriter(path, segment_bytes=300)
    for n in range(20):
        write(writer, line(n).replace(b":07Z", b":%02dZ" % n))
    assert len(parts(path)) > 3
    (source,) = (s for s in SpoolSources(spool.directory, name="s").present() if s.name.endswith("http.log"))
    batches = list(source.read(source.start()))
    assert sum(batch.lines for batch in batches) == 20
    assert not any(batch.gaps for batch in batches)


def test_a_reader_that_follows_while_segments_are_begun_misses_nothing_and_reads_nothing_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    path = spool.writer("unused").path.with_name("20261124T182519507064Z-eb2fcf-http.log")
    writer = LineWriter(path, segment_bytes=2000)
    (source,) = (s for s in SpoolSources(spool.directory, name="s").present() if s.name.endswith("http.log"))
    count = 600

    def send() -> None:
        came = b"".join(
            b'{"time":"2026-11-24T15:43:07.%06dZ","type":"response","request":{"id":"r-%d",'
            b'"path":"sys/audit-hash/x","data":{"input":"n"}}}\n' % (n, n)
            for n in range(count)
        )
        for at in range(0, len(came), 777):
            write(writer, came[at : at + 777])
            time.sleep(0.0005)

    position, gaps, lines = source.start(), [], 0
    sender = threading.Thread(target=send)
    sender.start()
    last = False
    while not last:
        last = not sender.is_alive()
        for batch in source.read(position):
            position = batch.position
            gaps += batch.gaps
            lines += batch.lines
    assert (lines, gaps) == (count, [])
    assert len(parts(path)) > 30


def test_a_spool_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(AuditUntrusted, match="cannot be read"):
        SpoolSources(tmp_path / "none", name="s").present()


# --- mixed streams ---


beginnings = st.sampled_from(["{pre}{{", "{pre}{{", "{pre}", "{{", "@", "@:", "@: @: {{", "", "a"])
rows = st.lists(st.tuples(beginnings, st.text("@: {}a", max_size=9)), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(rows, st.lists(st.integers(0, 100), max_size=8), st.sampled_from(["@: ", "@@:", "{"]))
def test_lines_with_the_prefix_are_taken_wherever_the_stream_is_cut(
    shapes: list[tuple[str, str]], cuts: list[int], prefix: str
) -> None:
    data = "\n".join(beginning.format(pre=prefix) + rest for beginning, rest in shapes).encode()
    lines = data.splitlines(keepends=True)
    wanted = [row[len(prefix) :] for row in lines if row.startswith(prefix.encode() + b"{")]
    picked = PrefixFilter(prefix.encode())
    places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    taken = b"".join(picked.feed(data[a:b]) for a, b in itertools.pairwise(places))
    picked.end()
    assert (taken, picked.left_out) == (b"".join(wanted), len(lines) - len(wanted))
