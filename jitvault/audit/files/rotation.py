"""The files that together are one audit log, and what follows what.

A log is rotated by rename (Vault continues in the old file until SIGHUP), or is copied and truncated. Rotation
deletes the oldest file first. So while the file in which a reader stopped is there, all younger ones are, and
reading them one after the other misses nothing. What follows a copy that was made before a truncation is not
complete: lines written between the two are lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from jitvault.audit.files.file_identity import Bookmark, Cursor, began, digest
from jitvault.audit.files.log_directory import LogDirectory, Member, Moved, member_of, open_member, open_present, survey
from jitvault.audit.files.log_file import LogFile
from jitvault.errors import AuditMissing, AuditUntrusted

_TRIES = 50
_PAUSE_S = 0.01
_T = TypeVar("_T")


@dataclass(slots=True)
class ReadPosition:
    """Where to continue reading: in `file`, after what `cursor` passed over.

    `gap` says what is missing before that place. `lossy` means that the file is a copy that was made before a
    truncation; `key` is then the truncated file's, which shows a later reader that the file is a copy. `torn` is
    set by the reader: the file ended within a line.
    """

    file: LogFile
    cursor: Cursor
    key: str
    since: int
    gap: str = ""
    lossy: bool = False
    torn: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def mark(self) -> Bookmark:
        # by the bytes that were read: the file itself may be truncated by now
        return self.cursor.mark(self.key, began(self.cursor.head) or self.since)


class Rotation:
    """The log whose present file is at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def locate(self, mark: Bookmark) -> ReadPosition | None:
        """Return where to continue from `mark`.

        The result is None if there is no file and never was.

        Raises AuditUntrusted.
        """
        return self._steadily(lambda: self._locate(mark))

    def after(self, read_at: ReadPosition) -> ReadPosition | None:
        """Return the beginning of the file that follows, or None.

        None means that the file is the last one, or that the next one is still empty. Vault opens the next file
        when it has closed the last one. So once this gives a file, what can be read of the last one is all there
        will ever be.
        """
        return None if read_at.file.is_at(self._path) else self._steadily(lambda: self._after(read_at))

    def end(self) -> Bookmark:
        """Return the end of the last whole line that is there now.

        Raises AuditUntrusted.
        """
        return self._steadily(self._end)

    def _locate(self, mark: Bookmark) -> ReadPosition | None:
        present = open_present(self._path) if mark.offset else None
        if present:
            read_at = _resume_in(present, mark) if present.key == mark.key else None
            if read_at:
                return read_at
            present.close()
        there = survey(self._path)
        if not mark.offset:
            return self._first_position(there, mark)
        same = there.known_as(mark.key)
        read_at = _resume_in(open_member(self._path, same), mark) if same else None
        if read_at:
            return read_at
        # No file of any name holds what the file was. It was truncated, or replaced by a compressed one.
        for member in there.distinct():
            if not _begins_as(member, mark):
                continue
            read_at = _resume_in(open_member(self._path, member), mark)
            if read_at:
                read_at.lossy = same is not None
                read_at.key = mark.key if same else member.key
                return read_at
        return self._restart(there, mark, truncated=same is not None)

    def _first_position(self, there: LogDirectory, mark: Bookmark) -> ReadPosition | None:
        """Begin with the files that are younger than the mark.

        Nothing was read before.
        """
        younger = [member for member in there.distinct() if member.began >= mark.since]
        first = younger[0] if younger else there.present
        if first is None:
            return None
        lossy = first is not there.present and there.present is not None and there.present.key == mark.key
        key = mark.key if lossy else first.key
        return ReadPosition(open_member(self._path, first), Cursor(), key, first.began or mark.since, lossy=lossy)

    def _restart(self, there: LogDirectory, mark: Bookmark, *, truncated: bool) -> ReadPosition:
        """Begin another segment: the file that was read is gone."""
        rest = [member for member in there.distinct() if member.began >= mark.since]
        # a copy of the mark's file begins at the mark's time: more was read of the file than had been copied
        unread = [member for member in rest if not (truncated and member.began == mark.since)]
        first = unread[0] if unread else there.present
        if first is None or (there.present is None and not truncated):
            raise AuditMissing(f"the audit file {self._path} cannot be read: No such file or directory")
        if unread != rest:
            gap = self._lost_by_truncation()
        elif truncated:
            gap = f"{self._path.name} was truncated or written anew, and no copy of what was read of it is there"
        else:
            gap = f"{self._path.name} is another file, and the one that was read up to byte {mark.offset} is gone"
        lossy = truncated and first is not there.present
        key = mark.key if lossy else first.key
        since = first.began or mark.since + 1
        return ReadPosition(open_member(self._path, first), Cursor(), key, since, gap=gap, lossy=lossy)

    def _after(self, read_at: ReadPosition) -> ReadPosition | None:
        there = survey(self._path)
        own = member_of(read_at.file)
        since = own.began + 1 if own.began else read_at.since
        younger = [member for member in there.distinct() if member.began >= since]
        present = there.present
        if younger:
            following = younger[0]
            lossy = read_at.lossy
        elif present and (present.size or read_at.lossy):
            following = present
            lossy = False
        else:
            return None
        gap = self._lost_by_truncation() if read_at.lossy else ""
        key = read_at.key if lossy else following.key
        return ReadPosition(
            open_member(self._path, following), Cursor(), key, following.began or since, gap=gap, lossy=lossy
        )

    def _end(self) -> Bookmark:
        present = open_present(self._path)
        if present:
            with present:
                if offset := present.last_line_end():
                    since = present.began or 0
                    return present.cursor_at(offset).mark(present.key, since)
        # Between the rename and its SIGHUP, Vault writes to the file that has another name already.
        there = survey(self._path)
        last = there.rotated[-1] if there.rotated else None
        if last and not last.compressed:
            with open_member(self._path, last) as file:
                return file.cursor_at(file.last_line_end()).mark(last.key, last.began)
        return Bookmark(there.present.key if there.present else "", since=last.began + 1 if last else 0)

    def _lost_by_truncation(self) -> str:
        return f"{self._path.name} was copied and truncated: lines that were written in between are lost"

    def _steadily(self, look: Callable[[], _T]) -> _T:
        """Return what `look` sees while no file is renamed."""
        for _ in range(_TRIES):
            with suppress(Moved, FileNotFoundError):
                return look()
            time.sleep(_PAUSE_S)
        raise AuditUntrusted(f"the files beside {self._path} are renamed again and again, so it cannot be read")


def _begins_as(member: Member, mark: Bookmark) -> bool:
    """Return whether the file can be the mark's file or a copy of it.

    The first bytes decide.
    """
    return digest(member.head[: mark.offset]) == mark.head


def _resume_in(file: LogFile, mark: Bookmark) -> ReadPosition | None:
    """Go to the mark, or close the file."""
    cursor = None
    try:
        cursor = file.find(mark)
    finally:
        if cursor is None:
            file.close()
    return ReadPosition(file, cursor, mark.key, mark.since) if cursor else None
