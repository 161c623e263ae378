"""One audit file that grows, is torn, is spoilt, or is not there."""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from audit_log import Log, line, others
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.audit.decoding import decoder as decoding
from jitvault.audit.files import file_source as module
from jitvault.audit.files import log_file as logfile
from jitvault.audit.files.file_identity import BEGINNING, began
from jitvault.audit.files.file_source import FileSource
from jitvault.audit.observation import Observation, Place
from jitvault.audit.source import Batch, Position
from jitvault.errors import AuditUntrusted

OTHERS = others()


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


def test_where_one_text_is_wanted_only_lines_that_have_it_are_decoded(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_LINE", 100_000)
    long = line(6, 200_000)
    log.write(
        b"junk\n" + line(1) + b"\0\n" + line(22) + b"n-22 in junk\n" + long + line(22, 9) + line(3) + b"torn n-22"
    )
    batches = list(log.source.read(log.position, only="n-22"))
    found = [o for batch in batches for o in batch.observations]
    assert [(o.subject, o.place.offset) for o in found] == [("n-22", at) for at in _starts(log, b"n-22", b"{")]
    # as far as a reader that decodes every line
    read = list(log.source.read(log.position))
    assert batches[-1].position.identity == read[-1].position.identity
    assert [gap for batch in batches for gap in batch.gaps] == []
    assert list(log.source.read(batches[-1].position, only="n-22")) == []


def _starts(log: Log, text: bytes, begin: bytes) -> list[int]:
    """Where the whole lines begin that have this text, and begin so."""
    rows, at = [], 0
    for raw in log.path.read_bytes().splitlines(keepends=True):
        if text in raw and raw.startswith(begin) and raw.endswith(b"\n"):
            rows.append(at)
        at += len(raw)
    return rows


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
    monkeypatch.setattr(module, "CHUNK", len(line(1)))
    monkeypatch.setattr(module, limit, 3 if limit == "BATCH_OBSERVATIONS" else 2 * len(line(1)) + 1)
    log.write(b"".join(line(n) for n in range(8)))
    batches = log.read()
    assert [len(batch.observations) for batch in batches] == [3, 3, 2]
    assert log.subjects() == [f"n-{n}" for n in range(8)]
    assert log.position.epoch == 1


def test_a_batch_holds_little_more_than_its_limit(log: Log) -> None:
    log.write(b"".join(line(n) for n in range(10_000)))
    batches = log.read()
    assert len(batches) >= 5
    assert max(len(batch.observations) for batch in batches) <= 500 + logfile.CHUNK // len(line(0))
    assert log.numbers() == list(range(10_000))


def test_what_is_written_while_it_is_read_is_read_whole(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", len(line(1)))
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", 1)
    log.write(line(1) + line(2) + line(3)[:20])
    batches = log.source.read(log.position)
    log.commit(next(batches))
    log.write(line(3)[20:] + line(4))
    for batch in batches:
        log.commit(batch)
    log.read()
    assert log.numbers() == [1, 2, 3, 4]
    assert log.gaps == []


def test_a_batch_that_was_not_committed_comes_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", len(line(1)))
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", 2)
    log.write(b"".join(line(n) for n in range(5)))
    batches: Iterator[Batch] = log.source.read(log.position)
    first = next(batches)
    next(batches)
    # the reader dies here; only the first batch was committed
    log.position = first.position
    log.restart()
    log.read()
    assert log.subjects() == ["n-2", "n-3", "n-4"]


def test_a_truncated_file_starts_a_new_stretch_with_a_gap(log: Log) -> None:
    log.write(line(1) + line(2))
    log.read()
    os.truncate(log.path, 0)
    (batch,) = log.read()
    assert (batch.observations, batch.lines) == ((), 0)
    assert log.gaps == ["audit.log was truncated or written anew, and no copy of what was read of it is there"]
    assert (log.position.offset, log.position.epoch) == (0, 2)
    assert log.read() == []
    log.write(line(3))
    log.read()
    assert log.subjects() == ["n-1", "n-2", "n-3"]
    assert log.seen[-1].place.epoch == 2
    assert len(log.gaps) == 1


def test_a_replaced_file_is_read_from_its_beginning_as_a_new_stretch(log: Log) -> None:
    log.write(line(1))
    log.read()
    log.replace(line(2) + line(3))
    log.read()
    assert len(log.gaps) == 1
    assert log.subjects() == ["n-1", "n-2", "n-3"]
    assert [o.place.epoch for o in log.seen] == [1, 2, 2]
    assert log.seen[1].place.offset == 0


def test_a_replaced_empty_file_is_a_gap_that_is_told_once(log: Log) -> None:
    log.write(line(1))
    log.read()
    log.replace(b"")
    assert [len(batch.gaps) for batch in log.read()] == [1]
    assert log.read() == []
    assert log.position.epoch == 2


@pytest.mark.parametrize("bad", [b"\n", b"not json\n", b"{}\n", b"\xff\xfe\n", b"\0\0\0\n", line(9)[5:]])
def test_an_undecodable_line_starts_a_new_stretch(log: Log, bad: bytes) -> None:
    log.write(line(1) + bad + line(2))
    before, after = log.read()
    assert log.subjects() == ["n-1", "n-2"]
    assert [o.place.epoch for o in log.seen] == [1, 2]
    assert [o.place.offset for o in log.seen] == [0, len(line(1) + bad)]
    assert (before.gaps, before.position.epoch, before.position.offset) == ((), 1, len(line(1)))
    assert len(after.gaps) == 1
    assert f"the line at byte {len(line(1))} of audit.log is not an audit entry (" in after.gaps[0]
    assert (after.position.epoch, after.position.offset) == (2, log.path.stat().st_size)
    assert (before.lines, after.lines) == (1, 2)


def test_a_reader_that_dies_before_a_bad_line_tells_of_it_after(log: Log) -> None:
    log.write(line(1) + b"x\n" + line(2))
    before, after = log.source.read(log.position)
    log.commit(before)
    log.restart()
    log.read()
    # the decoder may see another thing that is wrong with it where it is the first line
    assert [gap.split(" (")[0] for gap in log.gaps] == [gap.split(" (")[0] for gap in after.gaps]
    assert log.numbers() == [1, 2]


def test_bad_lines_apart_are_gaps_of_their_own(log: Log) -> None:
    log.write(b"x\n" + line(1) + b"y\n")
    log.read()
    assert len(log.gaps) == 2
    assert log.position.epoch == 3


@pytest.mark.parametrize("after", [b"", line(2), line(2)[:30]])
def test_bad_lines_in_a_row_are_one_gap(log: Log, after: bytes) -> None:
    log.write(line(1) + b"x\n{}\n\n" + after)
    log.read()
    (gap,) = log.gaps
    assert gap.startswith(f"the 3 lines from byte {len(line(1))} of audit.log on are not audit entries (")
    assert log.position.epoch == 2
    assert log.read() == []


@pytest.mark.timeout(20)
def test_a_file_of_empty_lines_takes_no_longer_than_it_must(log: Log) -> None:
    log.write(b"\n" * 2 * logfile.CHUNK + line(1))
    log.read()
    assert log.numbers() == [1]
    assert len(log.gaps) == 1


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
    assert not log.source.has_more(log.position)
    log.replace(line(3) + line(4))
    assert log.source.has_more(log.position)


# -- a line that is too long to hold -------------------------------------------------------------------------


@dataclass
class _Skimmed:
    reduced: bytes
    sha256: str
    length: int


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lines over 300 bytes are long, and are read in pieces of 100."""
    if "decode_skimmed" not in vars(decoding):
        monkeypatch.setattr(decoding, "decode_skimmed", _decode_skimmed, raising=False)
        monkeypatch.setitem(sys.modules, "jitvault.audit.decoding.oversized", types.SimpleNamespace(skim=_skim))  # type: ignore
    monkeypatch.setattr(module, "WHOLE_LINE", 300)
    monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(logfile, "CHUNK", 100)
    return 300


def _skim(chunks: Iterator[bytes]) -> _Skimmed:
    data = b"".join(chunks)
    assert data.index(b"\n") == len(data) - 1
    return _Skimmed(data, "", len(data))


def _decode_skimmed(skimmed: _Skimmed, place: Place, *, namespace: str = "") -> Observation | None:
    return decoding.decode(skimmed.reduced, place, namespace=namespace)


@pytest.mark.parametrize("pad", [60, 160, 161, 162, 163, 164, 165, 200, 260, 1000, 5000])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_long_line_is_read_in_pieces(log: Log, short_limit: int, pad: int, before: int) -> None:
    log.write(b"".join(line(n) for n in range(before)))
    log.write(line(5, pad=pad) + line(6) + line(7, pad=pad) + line(8, pad=pad) + line(9))
    log.read()
    assert log.numbers() == [*range(before), 5, 6, 7, 8, 9]
    assert (log.gaps, log.position.epoch, log.position.offset) == ([], 1, log.path.stat().st_size)
    assert log.seen[before + 1].place.offset == len(b"".join(line(n) for n in range(before)) + line(5, pad=pad))
    log.restart()
    assert log.read() == []
    assert log.source.continues(log.position)


@pytest.mark.parametrize("runs", [1, 3])
def test_a_long_line_that_is_no_entry_is_a_gap(log: Log, short_limit: int, runs: int) -> None:
    log.write(line(1) + (b"x" * 1000 + b"\n") * runs + line(2))
    log.read()
    assert log.numbers() == [1, 2]
    (gap,) = log.gaps
    assert f"byte {len(line(1))} of audit.log" in gap
    assert [o.place.offset for o in log.seen] == [0, len(line(1)) + 1001 * runs]
    assert [o.place.epoch for o in log.seen] == [1, 2]


def test_a_long_torn_line_waits_too(log: Log, short_limit: int) -> None:
    log.write(line(1) + line(8, pad=500)[:-1])
    log.read()
    assert log.position.offset == len(line(1))
    assert log.read() == []
    assert log.source.has_more(log.position)
    log.write(b"\n" + line(9))
    log.read()
    assert (log.numbers(), log.gaps) == ([1, 8, 9], [])


# -- no file -------------------------------------------------------------------------------------------------


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.path.unlink()
    log.position = log.source.start()
    assert log.position == log.source.end() == Position("", 0, 1)
    assert not log.source.has_more(log.position)
    assert log.read() == []
    assert log.source.continues(log.position)
    log.write(line(1) + line(2))
    assert log.source.has_more(log.position)
    log.read()
    assert (log.numbers(), log.gaps, log.position.epoch) == ([1, 2], [], 1)


def test_a_directory_that_comes_later(tmp_path: Path) -> None:
    source = FileSource(tmp_path / "log" / "audit.log", name="audit")
    position = source.start()
    assert list(source.read(position)) == []
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "audit.log").write_bytes(line(1))
    assert [batch.lines for batch in source.read(position)] == [1]


def test_a_place_that_is_not_understood_is_a_gap(log: Log) -> None:
    log.write(line(1))
    log.position = Position("64768:11175025:0123456789abcdef0123456789abcdef", 10, 4)
    assert not log.source.continues(log.position)
    assert log.source.has_more(log.position)
    log.read()
    assert (log.numbers(), len(log.gaps), log.position.epoch) == ([1], 1, 5)


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "audit.log")
    with pytest.raises(AuditUntrusted, match="not a regular file"):
        FileSource(tmp_path / "audit.log", name="audit").start()


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


def test_a_file_that_was_there_and_is_missing_is_not_trusted(log: Log) -> None:
    log.write(line(1))
    log.read()
    _missing(log.path)
    assert not log.source.continues(log.position)
    for read in (lambda: list(log.source.read(log.position)), lambda: log.source.has_more(log.position)):
        with pytest.raises(AuditUntrusted, match=r"audit\.log cannot be read: No such file"):
            read()


@pytest.mark.parametrize("spoil", [_directory, _below_a_file, _unreadable])
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


# -- where it is ---------------------------------------------------------------------------------------------


def test_its_end_is_that_of_the_last_whole_line(log: Log) -> None:
    log.write(line(1) + line(2) + line(3)[:40])
    end = log.source.end()
    assert (end.offset, end.epoch) == (len(line(1) + line(2)), 1)
    log.read()
    assert log.position == end


def test_it_continues_where_it_still_holds_what_was_read(log: Log) -> None:
    log.write(line(1))
    log.read()
    assert log.source.continues(log.position)
    log.write(line(2))
    assert log.source.continues(log.position)
    os.truncate(log.path, 0)
    assert not log.source.continues(log.position)
    log.write(line(3) + line(4))
    assert not log.source.continues(log.position)
    log.replace(line(1) + line(2))
    assert not log.source.continues(log.position)


def test_a_device_that_puts_something_before_each_line_is_known_by_its_time() -> None:
    at = began(line(1))
    assert at is not None
    assert began(b"@cee: " + line(1)) == at
    assert began(b"torn\n" + line(1) + line(2)) == at
    assert began(line(1, pad=5000)[:3000]) == at
    assert began(b'{"time": "2026-11-24T15:43:07", "type": "request"}\n') is None
    assert began(b"\n\xff\n{}") is None


@given(
    st.permutations(["time", "type", "pad", "request"]),
    st.sampled_from([0, 600, BEGINNING - 200, BEGINNING, 3 * BEGINNING]),
    st.sampled_from([b"", b"torn\n", b"{" + b"x" * 99 + b"\n"]),
    st.sampled_from([1000, BEGINNING, 1_000_000]),
)
def test_when_a_file_began_is_told_whatever_the_order_of_its_keys_and_the_length_of_its_lines(
    order: list[str], pad: int, before: bytes, piece: int
) -> None:
    entry = {"time": "2026-11-24T15:43:07.5Z", "type": "response", "pad": "x" * pad, "request": {"path": "a\n"}}
    data = before + json.dumps({name: entry[name] for name in order}).encode() + b"\n" + line(9)
    pieces = [data[n : n + piece] for n in range(0, len(data), piece)]
    assert began(data[:BEGINNING], lambda: iter(pieces)) == 1795534987500000


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_file(log: Log) -> None:
    import tracemalloc

    row = others() * 1000
    for _ in range(200):
        log.write(row)
    assert log.path.stat().st_size > 16 * 2**20
    log.position = Position("", 0, 1)
    tracemalloc.start()
    try:
        assert sum(batch.lines for batch in log.read()) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_is_truncated_while_it_is_read_is_no_file_that_only_grew(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", len(line(1)))
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", 1)
    log.write(b"".join(line(n) for n in range(10, 20)))
    for n, batch in enumerate(log.source.read(log.position)):
        log.commit(batch)
        if n == 3:
            os.truncate(log.path, 0)
            # the next line begins where the reader is
            log.write(b"".join(line(n) for n in range(30, 40)))
    assert log.numbers() == [*range(10, 14), *range(30, 40)]
    assert len(log.gaps) == 1
