"""A file to which nothing was written is not opened again at once, and never forgotten."""

from __future__ import annotations

from pathlib import Path

from jitvault.audit.files.file_source import FileSource
from jitvault.worker.stream_loops import _LONGEST_IDLE_S, Changes


def test_a_file_is_read_on_when_it_looks_otherwise_or_was_not_looked_at_for_long(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    source, changes = FileSource(path, name="a"), Changes()

    def changed(at: float) -> bool:
        """Whether the file is read on; it is read to its end if so."""
        for found, stamp in changes.changed([source], at):
            changes.read_to_end(found, stamp, at)
            return True
        return False

    assert changed(0) and not changed(0.1), "it need not be there"
    path.write_text("one\n")
    assert changed(0.2) and not changed(0.3)
    with path.open("a") as file:
        file.write("two\n")
    assert changed(0.4) and not changed(0.5)
    path.rename(tmp_path / "audit.log.1")
    assert changed(0.6)
    path.write_text("one\ntwo\n")
    assert changed(0.7) and not changed(0.8)
    assert changed(0.7 + _LONGEST_IDLE_S)


def test_what_was_not_read_to_its_end_is_read_on_at_once(tmp_path: Path) -> None:
    source, changes = FileSource(tmp_path / "audit.log", name="a"), Changes()
    for _ in range(2):
        assert [found for found, _ in changes.changed([source], 0)] == [source]
