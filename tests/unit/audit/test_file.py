from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.audit import file as module
from jitvault.audit.file import FileSource
from jitvault.domain.observation import Observation
from jitvault.errors import AuditUntrusted
from jitvault.ports.audit import Batch, Position


def line(n: int, pad: int = 0) -> bytes:
    """A line that gives an observation whose subject is `n`."""
    entry = {
        "time": "2026-11-24T15:43:07Z",
        "type": "response",
        "request": {"id": f"r-{n}", "path": "sys/audit-hash/jitvault", "data": {"input": f"n-{n}"}},
        "pad": "x" * pad,
    }
    return json.dumps(entry).encode() + b"\n"


OTHERS = json.dumps({"time": "2026-11-24T15:43:07Z", "type": "request", "request": {"path": "kv/x"}}).encode() + b"\n"


class Log:
    """An audit file, and a reader of it that keeps its position."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit.log"
        self.path.touch()
        self.source = FileSource(self.path, name="audit")
        self.position = self.source.start()
        self.seen: list[Observation] = []
        self.gaps: list[str] = []

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def read(self) -> list[Batch]:
        batches = list(self.source.read(self.position))
        for batch in batches:
            self.seen += batch.observations
            self.gaps += batch.gaps
            self.position = batch.position
        return batches

    def subjects(self) -> list[str]:
        return [o.subject for o in self.seen]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_it_begins_at_the_present_end(log: Log) -> None:
    log.write(line(1) + line(2))
    start = log.source.start()
    assert (start.offset, start.epoch) == (len(line(1) + line(2)), 1)
    log.write(line(3))
    log.position = start
    log.read()
    assert log.subjects() == ["n-3"]


@pytest.mark.parametrize("pad", [0, 10, 64 * 1024, 200_000])
def test_it_begins_before_a_line_that_is_being_written(log: Log, pad: int) -> None:
    log.write(line(1) + line(2, pad)[:-1])
    log.position = log.source.start()
    assert log.position.offset == len(line(1))
    log.write(b"\n" + line(3))
    log.read()
    assert log.subjects() == ["n-2", "n-3"]


@pytest.mark.parametrize("torn", [b"", b"{", line(1)[:-1]])
def test_it_begins_at_0_where_no_line_is_whole(log: Log, torn: bytes) -> None:
    log.write(torn)
    assert log.source.start().offset == 0


def test_lines_have_their_place(log: Log) -> None:
    log.write(line(1) + OTHERS + line(2))
    (batch,) = log.read()
    assert [o.place.offset for o in log.seen] == [0, len(line(1) + OTHERS)]
    assert {(o.place.source, o.place.epoch) for o in log.seen} == {("audit", 1)}
    assert (batch.lines, batch.gaps, batch.position.offset) == (3, (), len(line(1) + OTHERS + line(2)))


def test_nothing_new_is_no_batch(log: Log) -> None:
    assert log.read() == []
    log.write(line(1))
    assert len(log.read()) == 1
    assert log.read() == []


def test_a_torn_last_line_waits_for_its_rest(log: Log) -> None:
    log.write(line(1) + line(2)[:20])
    log.read()
    assert log.subjects() == ["n-1"]
    assert log.position.offset == len(line(1))
    assert log.read() == []
    log.write(line(2)[20:-1])
    assert log.read() == []
    log.write(b"\n")
    log.read()
    assert log.subjects() == ["n-1", "n-2"]
    assert log.gaps == []
    assert log.position.epoch == 1


@st.composite
def pieces(draw: st.DrawFn) -> tuple[int, list[bytes]]:
    """A number of lines, and their bytes cut anywhere."""
    kinds = draw(st.lists(st.sampled_from(["ours", "others"]), max_size=8))
    data, count = b"", 0
    for kind in kinds:
        data += line(count) if kind == "ours" else OTHERS
        count += kind == "ours"
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    edges = [0, *cuts, len(data)]
    return count, [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(pieces(), st.lists(st.booleans(), min_size=12, max_size=12))
def test_no_line_is_lost_or_doubled_however_its_bytes_arrive(
    written: tuple[int, list[bytes]], reads: list[bool]
) -> None:
    count, parts = written
    with tempfile.TemporaryDirectory() as directory:
        log = Log(Path(directory))
        for n, part in enumerate(parts):
            log.write(part)
            if reads[n]:
                log.read()
        # a reader that starts anew from the saved position, as after a crash
        log.source = FileSource(log.path, name="audit")
        log.read()
        assert log.subjects() == [f"n-{n}" for n in range(count)]
        assert (log.gaps, log.position.epoch) == ([], 1)
        assert log.position.offset == log.path.stat().st_size


@pytest.mark.parametrize("limit", ["BATCH_OBSERVATIONS", "BATCH_BYTES"])
def test_batches_are_bounded_and_join_without_a_seam(log: Log, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, limit, 3 if limit == "BATCH_OBSERVATIONS" else 2 * len(line(1)) + 1)
    log.write(b"".join(line(n) for n in range(8)))
    batches = log.read()
    assert [len(batch.observations) for batch in batches] == [3, 3, 2]
    assert log.subjects() == [f"n-{n}" for n in range(8)]
    assert log.position.epoch == 1


def test_what_is_written_between_two_batches_of_one_reading_is_read_whole(log: Log) -> None:
    log.write(line(1) + line(2)[:20])
    batches = log.source.read(log.position)
    first = next(batches)
    log.write(line(2)[20:] + line(3))
    second = next(batches)
    assert [o.subject for o in (*first.observations, *second.observations)] == ["n-1", "n-2", "n-3"]
    assert (first.gaps, second.gaps) == ((), ())


def test_a_batch_that_was_not_committed_comes_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", 2)
    log.write(b"".join(line(n) for n in range(5)))
    batches: Iterator[Batch] = log.source.read(log.position)
    first = next(batches)
    next(batches)
    # the reader dies here; only the first batch was committed
    log.position = first.position
    log.read()
    assert log.subjects() == ["n-2", "n-3", "n-4"]


def test_a_truncated_file_starts_a_new_stretch_with_a_gap(log: Log) -> None:
    log.write(line(1) + line(2))
    log.read()
    os.truncate(log.path, 0)
    log.read()
    assert log.gaps == ["the file became shorter than what was read of it"]
    assert (log.position.offset, log.position.epoch) == (0, 2)
    log.write(line(3))
    log.read()
    assert log.subjects() == ["n-1", "n-2", "n-3"]
    assert log.seen[-1].place.epoch == 2
    assert len(log.gaps) == 1


def test_a_replaced_file_is_read_from_its_beginning_as_a_new_stretch(log: Log) -> None:
    log.write(line(1))
    log.read()
    log.path.rename(log.path.with_suffix(".1"))
    log.path.write_bytes(line(2) + line(3))
    log.read()
    assert log.gaps == ["the file was replaced by another one"]
    assert log.subjects() == ["n-1", "n-2", "n-3"]
    assert [o.place.epoch for o in log.seen] == [1, 2, 2]
    assert log.seen[1].place.offset == 0


def test_a_replaced_empty_file_is_a_gap_that_is_told_once(log: Log) -> None:
    log.write(line(1))
    log.read()
    log.path.rename(log.path.with_suffix(".1"))
    log.path.touch()
    assert [len(batch.gaps) for batch in log.read()] == [1]
    assert log.read() == []
    assert log.position.epoch == 2


@pytest.mark.parametrize("bad", [b"\n", b"not json\n", b"{}\n", b"\xff\xfe\n", b"\0\0\0\n", line(9)[5:]])
def test_an_undecodable_line_starts_a_new_stretch(log: Log, bad: bytes) -> None:
    log.write(line(1) + bad + line(2))
    (batch,) = log.read()
    assert log.subjects() == ["n-1", "n-2"]
    assert [o.place.epoch for o in log.seen] == [1, 2]
    assert [o.place.offset for o in log.seen] == [0, len(line(1) + bad)]
    assert len(batch.gaps) == 1
    assert f"the line at byte {len(line(1))} is not an audit entry" in batch.gaps[0]
    assert batch.position.epoch == 2


def test_each_undecodable_line_is_a_gap_of_its_own(log: Log) -> None:
    log.write(b"x\n" + line(1) + b"y\n")
    log.read()
    assert len(log.gaps) == 2
    assert log.position.epoch == 3


def test_only_a_bad_line_still_moves_on(log: Log) -> None:
    log.write(b"x\n")
    assert len(log.read()) == 1
    assert log.read() == []


def test_a_reader_that_lands_within_a_line_notices(log: Log) -> None:
    # truncated and grown again past the old position between two reads
    log.write(line(1))
    log.read()
    os.truncate(log.path, 0)
    log.write(line(2, pad=50) + line(3))
    log.read()
    assert log.position.epoch == 2
    assert log.gaps != []


@pytest.mark.parametrize("more", [b"", line(4)])
def test_a_file_that_was_written_anew_to_the_same_length_or_more_is_a_gap(log: Log, more: bytes) -> None:
    # the inode is the same, and the old position falls on the end of a line
    log.write(line(1) + line(2))
    log.read()
    os.truncate(log.path, 0)
    log.write(line(3) + line(2).replace(b"n-2", b"n-9") + more)
    log.read()
    assert len(log.gaps) == 1
    assert log.subjects()[:4] == ["n-1", "n-2", "n-3", "n-9"]
    assert {o.place.epoch for o in log.seen[2:]} == {2}


def test_it_tells_whether_there_is_anything_to_read(log: Log) -> None:
    log.write(line(1) + line(2))
    assert log.source.has_more(log.position)
    log.read()
    assert not log.source.has_more(log.position)
    log.write(b"{")
    assert log.source.has_more(log.position)
    os.truncate(log.path, 0)
    assert log.source.has_more(log.position)
    log.write(line(3) + line(4))
    assert log.source.has_more(log.position)
    log.read()
    log.path.rename(log.path.with_suffix(".1"))
    log.path.write_bytes(line(3) + line(4))
    assert log.source.has_more(log.position)


@pytest.mark.parametrize("long", [80, 81, 200, 1000])
def test_a_line_over_the_limit_is_a_gap_and_the_next_is_read(
    log: Log, long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = len(line(1))
    monkeypatch.setattr(module, "MAX_LINE", limit)
    too_long = line(8, pad=long)
    log.write(line(1) + too_long + line(2))
    log.read()
    assert log.subjects() == ["n-1", "n-2"]
    assert len(log.gaps) == 1
    assert [o.place.offset for o in log.seen] == [0, len(line(1) + too_long)]
    assert log.position == Position(log.position.identity, log.path.stat().st_size, 2)


def test_a_line_of_exactly_the_limit_is_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", len(line(1)))
    log.write(line(1) + line(2))
    log.read()
    assert log.subjects() == ["n-1", "n-2"]
    assert log.gaps == []


def test_a_torn_line_over_the_limit_waits_too(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", len(line(1)))
    log.write(line(1) + line(8, pad=500)[:-1])
    log.read()
    assert log.position.offset == len(line(1))
    assert log.read() == []
    log.write(b"\n" + line(2))
    log.read()
    assert log.subjects() == ["n-1", "n-2"]
    assert len(log.gaps) == 1


def _missing(path: Path) -> None:
    path.unlink()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _unreadable(path: Path) -> None:
    path.chmod(0)


def _below_a_file(path: Path) -> None:
    path.unlink()
    path.symlink_to(Path(__file__) / "audit.log")


@pytest.mark.parametrize("spoil", [_missing, _directory, _below_a_file, _unreadable])
def test_a_file_that_cannot_be_read_is_not_trusted(log: Log, spoil: object) -> None:
    if spoil is _unreadable and os.geteuid() == 0:
        pytest.skip("root reads every file")
    log.write(line(1))
    spoil(log.path)  # type: ignore[operator]
    for read in (
        log.source.start,
        lambda: list(log.source.read(log.position)),
        lambda: log.source.has_more(log.position),
    ):
        with pytest.raises(AuditUntrusted, match=r"audit\.log cannot be read") as caught:
            read()
        assert caught.value.exit_code == 7
        assert caught.value.hint
