"""One audit log in several files: renamed, compressed, copied and truncated, deleted."""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_log import Log, line, lines, others
from hypothesis import given, settings
from hypothesis import strategies as st

from jitvault.audit.files import file_source as module
from jitvault.audit.files import log_file as logfile
from jitvault.audit.files import rotation
from jitvault.audit.files.file_source import FileSource
from jitvault.audit.files.log_directory import is_rotated, survey
from jitvault.audit.source import Position
from jitvault.errors import AuditUntrusted


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.close()


def whole(log: Log, *numbers: int) -> None:
    """Everything was read once, as one stretch."""
    assert log.numbers() == list(numbers)
    assert (log.gaps, log.position.epoch) == ([], 1)
    assert {o.place.epoch for o in log.seen} == {1}
    offsets = [o.place.offset for o in log.seen]
    assert offsets == sorted(set(offsets))
    assert log.source.continues(log.position)


# -- by rename -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("restart", [False, True])
def test_a_renamed_file_is_read_to_its_end_and_then_the_next(log: Log, create: bool, restart: bool) -> None:
    log.vault(lines(0, 1))
    log.read()
    log.vault(line(2))
    log.rename(create=create)
    # until SIGHUP it is written under its new name
    log.vault(line(3))
    if restart:
        log.restart()
    assert log.source.has_more(log.position)
    log.read()
    whole(log, 0, 1, 2, 3)
    assert not log.source.has_more(log.position)
    log.vault(line(4))
    assert log.source.has_more(log.position)
    log.read()
    log.vault(line(5))
    log.sighup()
    log.vault(line(6))
    if restart:
        log.restart()
    assert log.source.has_more(log.position)
    log.read()
    whole(log, *range(7))
    assert log.position.offset == len(lines(*range(7)))
    assert not log.source.has_more(log.position)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pad", [0, 700, 200_000, 5_000_000])
def test_a_file_belongs_to_the_log_whatever_the_order_and_the_length_of_its_first_line(
    log: Log, pad: int, packed: bool
) -> None:
    """Some versions of Vault write the keys in alphabetical order, and clients make lines as long as they like."""
    log.vault(line(0, alphabetical=True))
    log.read()
    for n in (1, 3, 5):
        log.rename()
        log.sighup()
        log.vault(line(n, pad, alphabetical=True) + line(n + 1, alphabetical=True))
    if packed:
        log.compress(1)
        log.compress(2)
    log.restart()
    log.read()
    whole(log, *range(7))


def test_a_file_whose_first_line_is_torn_or_no_entry_is_ordered_by_the_next_one(log: Log) -> None:
    log.vault(line(0))
    log.read()
    for n in (1, 2):
        log.rename()
        log.sighup()
        log.vault(b"{" + b"x" * 100 + b"\n" + line(n, 100_000, alphabetical=True))
    log.restart()
    log.read()
    assert log.numbers() == [0, 1, 2]


def test_a_file_that_is_not_written_anew_yet_keeps_the_place_in_the_old_one(log: Log) -> None:
    log.vault(lines(0, 1))
    log.read()
    before = log.position
    log.rename()
    log.sighup()
    assert log.read() == []
    assert not log.source.has_more(before)
    log.vault(line(2)[:10])
    assert log.source.has_more(before)
    assert log.read() == []
    log.vault(line(2)[10:])
    log.read()
    whole(log, 0, 1, 2)


@pytest.mark.parametrize("limit", [1, 500])
def test_what_vault_writes_to_the_old_file_while_that_is_read_is_not_missed(
    log: Log, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", limit)
    log.vault(lines(0, 1))
    log.rename(create=True)
    batches = log.source.read(log.position)
    # with the larger limit, this comes when the end of the old file was seen
    log.commit(next(batches))
    log.vault(line(2))
    log.sighup()
    log.vault(line(3))
    for batch in batches:
        log.commit(batch)
    whole(log, 0, 1, 2, 3)


def test_several_rotations_between_two_readings(log: Log) -> None:
    log.vault(lines(0, 1))
    log.read()
    for n in range(2, 30, 2):
        log.vault(lines(n, n + 1))
        log.rename(create=n % 3 == 0)
        log.sighup()
    log.restart()
    log.read()
    whole(log, *range(30))


def test_two_rotations_without_a_sighup_between_them(log: Log) -> None:
    log.vault(line(0))
    log.read()
    log.rename(create=True)
    log.vault(line(1))
    log.rename(create=True)
    log.vault(line(2))
    log.read()
    log.sighup()
    log.vault(line(3))
    log.read()
    whole(log, 0, 1, 2, 3)


@pytest.mark.parametrize(
    "name", ["audit.log.1", "audit.log-20261124", "audit-20261124.log", "audit.log.old", "audit.1.log", "audit.log~"]
)
def test_names_of_rotated_files(log: Log, name: str) -> None:
    log.vault(line(0))
    log.read()
    log.vault(line(1))
    log.path.rename(log.path.with_name(name))
    log.sighup()
    log.vault(line(2))
    log.read()
    whole(log, 0, 1, 2)


@pytest.mark.parametrize(
    "name", ["audit2.log", "audit-raw.log", "audit.log2", "other.log", "audit.json", ".audit.log.swp"]
)
def test_names_of_other_files(name: str) -> None:
    assert not is_rotated(name, "audit.log")


def test_a_name_without_an_ending() -> None:
    assert is_rotated("audit.1", "audit")
    assert is_rotated("audit-20261124.gz", "audit")
    assert not is_rotated("audits", "audit")
    assert not is_rotated("audit", "audit")


def test_the_order_is_that_of_the_lines_whatever_the_names_and_times_of_the_files(log: Log) -> None:
    log.vault(line(0))
    log.read()
    for n, name in enumerate(("audit.log.7", "audit.log.3", "audit.log-20250101", "audit.log.9"), start=1):
        log.vault(line(n))
        log.path.rename(log.path.with_name(name))
        os.utime(log.path.with_name(name), (2_000_000_000 - n, 2_000_000_000 - n))
        log.sighup()
    log.vault(line(5))
    log.read()
    whole(log, 0, 1, 2, 3, 4, 5)


def test_a_file_without_any_line_of_ours_is_one_of_the_log(log: Log) -> None:
    log.vault(line(0))
    log.read()
    log.rename()
    log.sighup()
    log.vault(others(1) * 3)
    log.rename()
    log.sighup()
    log.vault(line(2))
    assert sum(batch.lines for batch in log.read()) == 4
    whole(log, 0, 2)


def test_copies_that_somebody_made_are_not_read(log: Log) -> None:
    log.vault(lines(0, 1))
    log.read()
    log.vault(lines(2, 3, 4, 5))
    shutil.copyfile(log.path, log.beside(".bak"))
    log.vault(line(6))
    log.rename()
    log.sighup()
    log.vault(lines(7, 8, 9, 10))
    shutil.copyfile(log.path, log.beside(".bak2"))
    log.read()
    whole(log, *range(11))
    log.vault(line(11))
    log.rename()
    log.sighup()
    shutil.copyfile(log.beside(".1"), log.beside(".copy"))
    log.vault(line(12))
    log.read()
    whole(log, *range(13))


@pytest.mark.parametrize("ending", [".0", ".9"])
@pytest.mark.parametrize("packed", [False, True])
def test_of_a_file_and_a_copy_that_was_made_too_early_the_file_is_read(log: Log, ending: str, packed: bool) -> None:
    log.vault(line(0))
    log.read()
    log.rename()
    log.sighup()
    log.vault(lines(1, 2, 3, 4))
    shutil.copyfile(log.path, log.beside(ending))
    log.vault(lines(5, 6))
    log.rename()
    log.sighup()
    if packed:
        log.compress(1)
    log.vault(line(7))
    log.read()
    whole(log, *range(8))


def test_files_that_only_have_such_a_name_do_no_harm(log: Log) -> None:
    log.vault(line(0))
    log.read()
    log.beside(".md5").write_text("d41d8cd98f00b204e9800998ecf8427e  audit.log\n")
    log.beside(".lock").touch()
    log.beside(".d").mkdir()
    log.beside(".link").symlink_to(log.path)
    os.mkfifo(log.beside(".pipe"))
    log.rename()
    log.sighup()
    log.vault(line(1))
    log.read()
    whole(log, 0, 1)


@pytest.mark.parametrize("torn", [line(1)[:-1], b"{", b"x" * 100])
def test_an_old_file_that_ends_within_a_line_is_a_gap(log: Log, torn: bytes) -> None:
    log.vault(line(0) + torn)
    log.read()
    log.rename()
    log.read()
    assert log.gaps == []
    log.sighup()
    log.vault(line(2))
    log.read()
    assert log.gaps == ["audit.log.1 ends within a line"]
    assert log.numbers() == [0, 2]
    assert [o.place.epoch for o in log.seen] == [1, 2]


def test_the_gap_at_the_end_of_an_old_file_is_told_where_nothing_follows_yet(log: Log) -> None:
    log.vault(line(0) + b"{")
    log.rename()
    log.sighup()
    log.vault(line(1)[:9])
    log.read()
    assert (log.numbers(), len(log.gaps), log.position.epoch) == ([0], 1, 2)
    assert log.read() == []
    log.vault(line(1)[9:])
    log.rename()
    log.sighup()
    log.vault(line(2))
    log.restart()
    log.read()
    assert (log.numbers(), len(log.gaps), log.position.epoch) == ([0, 1, 2], 1, 2)


def test_bad_lines_on_both_sides_of_a_rotation_are_told(log: Log) -> None:
    log.vault(line(0) + b"x\n")
    log.rename()
    log.sighup()
    log.vault(line(1) + b"y\n")
    log.rename()
    log.sighup()
    log.vault(line(2))
    log.read()
    assert log.numbers() == [0, 1, 2]
    assert [o.place.epoch for o in log.seen] == [1, 2, 3]


def test_a_reader_that_starts_between_rename_and_sighup_misses_nothing(log: Log) -> None:
    for create in (False, True):
        log.vault(line(0))
        log.rename(create=create)
        log.restart()
        log.position = log.source.start()
        log.seen.clear()
        assert not log.source.has_more(log.position)
        log.vault(line(1))
        log.sighup()
        log.vault(line(2))
        log.read()
        whole(log, 1, 2)
        log.read()
        for old in log.path.parent.glob("audit.log*"):
            old.unlink()
        log.sighup()


def test_a_reader_that_starts_where_all_is_compressed_and_nothing_was_written_yet(log: Log) -> None:
    for n in range(3):
        log.vault(line(n))
        log.rename()
        log.sighup()
        log.compress(1)
    log.position = log.source.start()
    assert not log.source.has_more(log.position)
    log.vault(line(3))
    log.rename()
    log.sighup()
    log.vault(line(4))
    log.restart()
    log.read()
    whole(log, 3, 4)


def test_everything_that_is_there_can_be_read(log: Log) -> None:
    for n in range(6):
        log.vault(line(n))
        log.rename()
        log.sighup()
        if n < 3:
            log.compress(1)
    log.vault(line(6))
    log.position = Position("", 0, 1)
    log.read()
    whole(log, *range(7))


def test_an_inode_that_is_used_again_is_another_file(log: Log) -> None:
    """ext4 gives a new file the inode of the one that was just deleted."""
    log.vault(lines(0, 1))
    log.read()
    inode = log.path.stat().st_ino
    log.vault(line(2))
    log.rename()
    log.close()
    log.compress(1)
    log.sighup()
    if log.path.stat().st_ino != inode or "." not in log.position.identity.split()[0]:
        pytest.skip("this file system does not use an inode again at once, or has no generations")
    log.vault(lines(3, 4, 5))
    log.read()
    whole(log, *range(6))


# -- compressed ----------------------------------------------------------------------------------------------


def test_a_place_inside_of_what_is_compressed_now(log: Log) -> None:
    log.vault(lines(*range(50)))
    log.read()
    log.vault(lines(*range(50, 100)))
    log.rename()
    log.sighup()
    log.vault(lines(100, 101))
    log.rename()
    log.sighup()
    log.compress(1)
    log.compress(2)
    log.restart()
    assert log.source.continues(log.position)
    assert log.source.has_more(log.position)
    log.read()
    whole(log, *range(102))
    # the present one is empty: the place is in a compressed file now
    assert not log.source.has_more(log.position)
    assert log.read() == []
    log.vault(line(102))
    log.restart()
    log.read()
    whole(log, *range(103))


def test_a_reader_that_dies_within_a_compressed_file(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 400)
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", 1)
    log.vault(line(0))
    log.read()
    log.vault(lines(*range(1, 20)))
    log.rename()
    log.sighup()
    log.compress(1)
    log.vault(line(20))
    while batch := next(log.source.read(log.position), None):
        log.commit(batch)
        log.restart()
    whole(log, *range(21))


def test_while_gzip_works_the_original_is_read(log: Log) -> None:
    log.vault(line(0))
    log.read()
    for n in (1, 4):
        log.vault(lines(n, n + 1, n + 2))
        log.rename()
        log.sighup()
    packed = gzip.compress(log.beside(".1").read_bytes())
    log.beside(".1.gz").write_bytes(packed[: len(packed) // 2])
    log.vault(line(7))
    log.read()
    whole(log, *range(8))


def test_a_compressed_file_that_is_cut_off_is_a_gap(log: Log) -> None:
    log.vault(line(0))
    log.read()
    log.vault(b"".join(line(n, pad=n) for n in range(1, 200)))
    log.rename()
    log.sighup()
    log.compress(1)
    packed = log.beside(".1.gz")
    packed.write_bytes(packed.read_bytes()[:-300])
    log.vault(line(200))
    log.read()
    assert log.numbers()[-1] == 200
    assert log.numbers() == sorted(set(log.numbers()))
    (gap,) = log.gaps
    assert "audit.log.1.gz cannot be decompressed to its end" in gap


@pytest.mark.thorough
def test_memory_does_not_grow_with_a_compressed_file(log: Log) -> None:
    import tracemalloc

    log.vault(line(0))
    log.read()
    with gzip.open(log.beside(".1.gz"), "wb") as file:
        file.write(line(0))
        for _ in range(200):
            file.write(others(1) * 1000)
    log.path.unlink()
    log.sighup()
    log.vault(line(1))
    tracemalloc.start()
    try:
        log.read()
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    whole(log, 0, 1)


# -- copied and truncated ------------------------------------------------------------------------------------

LOST = "audit.log was copied and truncated: lines that were written in between are lost"


@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_is_read_on_to_its_end_and_then_the_truncated_file_as_another_stretch(log: Log, packed: bool) -> None:
    log.vault(lines(0, 1))
    log.read()
    log.vault(line(2))
    log.copy_truncate()
    if packed:
        log.compress(1)
    log.restart()
    assert log.source.has_more(log.position)
    assert not log.source.continues(log.position)
    log.vault(line(3))
    log.read()
    assert log.numbers() == [0, 1, 2, 3]
    assert [o.place.epoch for o in log.seen] == [1, 1, 1, 2]
    assert log.gaps == [LOST]
    assert log.source.continues(log.position)
    assert log.read() == []


def test_a_truncated_file_that_is_empty_is_told_at_once(log: Log) -> None:
    log.vault(lines(0, 1))
    log.read()
    log.copy_truncate()
    assert log.source.has_more(log.position)
    (batch,) = log.read()
    assert (batch.observations, batch.gaps) == ((), (LOST,))
    assert not log.source.has_more(log.position)
    assert log.read() == []
    log.vault(line(2))
    log.copy_truncate()
    log.vault(line(3))
    log.restart()
    log.read()
    assert log.numbers() == [0, 1, 2, 3]
    assert [o.place.epoch for o in log.seen] == [1, 1, 2, 3]


def test_each_seam_between_copies_is_a_gap_also_for_a_reader_that_dies(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 200)
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", 1)
    log.vault(lines(0, 1))
    log.read()
    for n in range(2, 14, 3):
        log.vault(lines(n, n + 1, n + 2))
        log.copy_truncate()
    log.vault(line(14))
    while batch := next(log.source.read(log.position), None):
        log.commit(batch)
        log.restart()
    assert log.numbers() == list(range(15))
    assert [o.place.epoch for o in log.seen] == [1] * 5 + [2] * 3 + [3] * 3 + [4] * 3 + [5]
    assert log.gaps == [LOST] * 4


@pytest.mark.parametrize("told_at_once", [False, True])
def test_lines_that_were_read_but_are_not_in_the_copy_do_not_come_again(log: Log, told_at_once: bool) -> None:
    log.vault(lines(0, 1, 2, 3, 4))
    log.shift()
    shutil.copyfile(log.path, log.beside(".1"))
    log.vault(line(5))
    log.read()
    os.truncate(log.path, 0)
    if told_at_once:
        assert [batch.gaps for batch in log.read()] == [(LOST,)]
    log.vault(lines(6, 7))
    log.restart()
    log.read()
    assert log.numbers() == list(range(8))
    assert log.gaps == [LOST]
    assert [o.place.epoch for o in log.seen] == [1] * 6 + [2] * 2


def test_a_file_that_begins_with_a_bad_line_and_is_copied_too_early(log: Log) -> None:
    log.vault(b"x\n")
    log.read()
    log.vault(lines(0, 1))
    shutil.copyfile(log.path, log.beside(".1"))
    log.vault(line(2))
    log.read()
    os.truncate(log.path, 0)
    log.vault(line(3))
    log.restart()
    log.read()
    assert log.numbers() == [0, 1, 2, 3]
    assert log.gaps[1:] == [LOST]


# -- gone ----------------------------------------------------------------------------------------------------


def test_what_is_left_is_read_where_the_file_is_gone(log: Log) -> None:
    log.vault(lines(0, 1))
    log.read()
    for n in range(2, 8, 2):
        log.vault(lines(n, n + 1))
        log.rename()
        log.sighup()
    log.vault(line(8))
    log.beside(".3").unlink()
    assert not log.source.continues(log.position)
    log.read()
    assert log.numbers() == [0, 1, 4, 5, 6, 7, 8]
    (gap,) = log.gaps
    assert "is gone" in gap
    assert [o.place.epoch for o in log.seen] == [1, 1, 2, 2, 2, 2, 2]


def test_a_renamed_file_that_cannot_be_read_is_not_passed_over(log: Log) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    log.vault(line(0))
    log.read()
    log.rename(create=True)
    log.beside(".1").chmod(0)
    with pytest.raises(AuditUntrusted, match=r"audit\.log\.1 cannot be read: Permission denied"):
        log.read()


def test_files_that_are_renamed_while_they_are_looked_at(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is read twice, and the present file is looked at before and after."""
    log.vault(line(0))
    log.read()
    log.rename()
    log.sighup()
    log.vault(line(1))
    turns = iter(range(2, 4))
    original = os.scandir

    def scandir(path: Path) -> object:
        found = original(path)
        if (n := next(turns, None)) is not None:
            log.rename()
            log.sighup()
            log.vault(line(n))
        return found

    monkeypatch.setattr(os, "scandir", scandir)
    log.read()
    log.read()
    whole(log, 0, 1, 2, 3)


def test_files_that_are_renamed_all_the_time_are_not_trusted(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_PAUSE_S", 0)
    log.vault(line(0))
    log.read()
    log.rename()
    original = os.scandir

    def scandir(path: Path) -> object:
        log.beside(".1").rename(log.beside(".2")) if log.beside(".1").exists() else log.beside(".2").rename(
            log.beside(".1")
        )
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(AuditUntrusted, match="renamed again and again"):
        log.read()


def test_no_file_stays_open(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_OBSERVATIONS", 1)
    log.vault(line(0))
    log.read()
    for n in range(1, 9):
        log.vault(line(n))
        log.rename()
        log.sighup()
        if n % 2:
            log.compress(1)
    log.vault(line(9))
    before = list(Path("/proc/self/fd").iterdir())
    next(log.source.read(log.position))
    log.source.has_more(log.position)
    log.source.continues(log.position)
    log.source.end()
    survey(log.path)
    log.read()
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(before)
    whole(log, *range(10))


# -- whatever happens ----------------------------------------------------------------------------------------

RENAMES = ["piece"] * 8 + ["rename", "rename+create", "sighup", "sighup", "gzip", "read", "read", "die", "restart"]


class Story(Log):
    """Vault writes numbered lines; their bytes arrive in pieces of any size."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.count = 0
        self._line = b""
        self.sighup()

    def piece(self, size: int) -> None:
        while size > 0:
            if not self._line:
                self._line = line(self.count, pad=(self.count * 7919) % 300)
                self.count += 1
            self.vault(self._line[:size])
            self._line, size = self._line[size:], size - len(self._line)

    def finish_line(self) -> None:
        self.piece(len(self._line))

    def act(self, what: str, size: int) -> None:
        if what == "piece":
            self.piece(size)
        elif what.startswith("rename") and self.path.exists():
            self.rename(create=what == "rename+create")
        elif what == "sighup":
            # Vault writes a line with one call, and opens the file anew between two
            self.finish_line()
            self.sighup()
        elif what == "gzip":
            assert self._vault is not None
            closed = [
                n
                for n in range(1, 30)
                if (file := self.beside(f".{n}")).exists() and not os.path.samestat(file.stat(), os.fstat(self._vault))
            ]
            for n in closed[size % 3 :]:
                self.compress(n)
        elif what == "read":
            self.read()
        elif what == "die":
            if batch := next(self.source.read(self.position), None):
                self.commit(batch)
            self.restart()
        elif what == "restart":
            self.restart()


def acts(names: list[str]) -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(1, 900)), max_size=40)


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    """Everything is a matter of chunks and batches; these are small enough that there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 512)
        patch.setattr(module, "BATCH_OBSERVATIONS", 3)
        patch.setattr(logfile, "CHUNK", 512)
        yield


@settings(max_examples=250, deadline=None)
@given(acts(RENAMES))
def test_every_line_is_read_once_and_in_order_however_the_log_is_rotated(story: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Story(Path(directory))
        for what, size in story:
            log.act(what, size)
        log.act("sighup", 0)
        log.act("piece", 1)
        log.finish_line()
        log.read()
        whole(log, *range(log.count))
        assert log.position.offset == sum(len(line(n, pad=(n * 7919) % 300)) for n in range(log.count))
        assert not log.source.has_more(log.position)
        log.close()


COPIES = ["piece"] * 6 + ["line", "copy", "copy", "gzip", "read", "read", "die", "restart"]


@settings(max_examples=250, deadline=None)
@given(acts(COPIES))
def test_no_line_is_read_twice_or_joined_over_a_truncation(story: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Story(Path(directory))
        eras, lost = [0], set()
        for what, size in story:
            if what == "copy":
                log.shift()
                shutil.copyfile(log.path, log.beside(".1"))
                before = log.count - bool(log._line)
                if size % 3:
                    # what is written between the two is lost; perhaps a reader was quicker
                    log.piece(size // 3)
                    if size % 2:
                        log.read()
                os.truncate(log.path, 0)
                lost.update(range(before, log.count))
                eras.append(log.count)
            elif what == "line":
                log.finish_line()
            else:
                log.act(what, size)
        log.piece(1)
        log.finish_line()
        log.read()
        numbers = log.numbers()
        assert numbers == sorted(set(numbers))
        assert set(range(log.count)) - set(numbers) <= lost
        for one, other in itertools.pairwise(log.seen):
            era, next_era = (sum(e <= int(o.subject[2:]) for e in eras) for o in (one, other))
            assert era == next_era or other.place.epoch > one.place.epoch
        assert log.read() == []
        log.close()


def test_the_source_is_what_the_port_asks_for(tmp_path: Path) -> None:
    from jitvault.audit.source import Source

    source: Source = FileSource(tmp_path / "audit.log", name="n" * 255, namespace="team")
    assert source.name == "n" * 255
