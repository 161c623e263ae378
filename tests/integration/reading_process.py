"""A reader of an audit log as a process of its own, which may be killed anywhere (`test_log_rotation.py`)."""

from __future__ import annotations

from pathlib import Path

from jitvault.audit.files.file_source import FileSource
from jitvault.audit.source import Position


def read_on(path: Path, state: Path, seen: Path) -> None:
    """Read from the position in `state` on, add what was read to `seen`, and keep the position after each batch."""
    identity, offset, epoch = state.read_text().splitlines()
    position = Position(identity, int(offset), int(epoch))
    for batch in FileSource(path, name="jitvault").read(position):
        lines = "".join(f"{o.subject} {o.closing} {o.place.offset}\n" for o in batch.observations)
        after = batch.position
        new = state.with_suffix(".new")
        with seen.open("a") as file:
            file.write(lines)
        new.write_text(f"{after.identity}\n{after.offset}\n{after.epoch}\n")
        new.rename(state)
