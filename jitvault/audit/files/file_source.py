"""The file of Vault's file audit device as a source, across rotations."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from jitvault.audit.audit_form import wrong_form
from jitvault.audit.changes import Change
from jitvault.audit.decoding.decoder import Undecodable, decode, decode_skimmed, scan
from jitvault.audit.decoding.oversized import skim
from jitvault.audit.files.file_identity import Bookmark
from jitvault.audit.files.log_file import CHUNK, Rewritten, last_bytes
from jitvault.audit.files.rotation import ReadPosition, Rotation
from jitvault.audit.observation import Observation, Place
from jitvault.audit.source import Batch, Position
from jitvault.errors import AuditMissing

BATCH_OBSERVATIONS = 500
BATCH_BYTES = 16 * 1024 * 1024
# A longer line is not held in memory as a whole.
WHOLE_LINE = 4 * 1024 * 1024


class FileSource:
    """One audit file as a source, across its rotation.

    Implements `jitvault.audit.source.Source`. Offsets of a segment count from the byte of the file where the
    segment begins: until the first rotation, they are bytes of the file. `Position("", 0, 1)` is the beginning of
    everything that is there.
    """

    passing = False

    def __init__(self, path: Path, *, name: str, namespace: str = "") -> None:
        self.name = name
        self._namespace = namespace
        self._path = path
        self._rotation = Rotation(path)

    def start(self) -> Position:
        return self.end()

    def beginning(self) -> Position:
        return Position("", 0, epoch=1)

    def end(self) -> Position:
        """Return the end of the last whole line; a missing file may come later."""
        mark = self._rotation.end()
        return Position(str(mark), mark.offset, epoch=1)

    def continues(self, position: Position) -> bool:
        try:
            read_at = self._rotation.locate(Bookmark.parse(position.identity))
        except AuditMissing:
            return False
        if read_at is None:
            return True
        with read_at:
            return not read_at.gap and not (read_at.lossy and read_at.cursor.offset)

    def wrong_form(self) -> str:
        return wrong_form(last_bytes(self._path))

    def has_more(self, position: Position) -> bool:
        read_at = self._rotation.locate(Bookmark.parse(position.identity))
        if read_at is None:
            return False
        with read_at:
            if read_at.gap or read_at.file.has_more():
                return True
            following = self._rotation.after(read_at)
        if following:
            following.file.close()
        return following is not None

    def stamp(self) -> Hashable:
        # a rotation is seen by the directory as well
        return tuple(map(_stamp_of, (self._path, self._path.parent)))

    def read(self, position: Position, *, only: str = "") -> Iterator[Batch]:
        return _Reading(self._rotation, self.name, self._namespace, position, only.encode()).batches()


def _stamp_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class _Reading:
    """One pass from a position to the present end.

    It holds what was found since the last batch, and what is missing before that. With `only`, lines without these
    bytes are skipped undecoded.
    """

    def __init__(self, rotation: Rotation, source: str, namespace: str, position: Position, only: bytes = b"") -> None:
        self._rotation = rotation
        self._source = source
        self._namespace = namespace
        self._only = only
        self._begin = Bookmark.parse(position.identity)
        self._epoch = position.epoch
        self._offset = position.offset
        self._found: list[Observation] = []
        self._changes: list[Change] = []
        self._lines = self._bytes = self._passed_over = 0
        self._gaps: list[str] = []
        self._bad: _BadLines | None = None

    def batches(self) -> Iterator[Batch]:
        with ExitStack() as files:
            read_at = self._rotation.locate(self._begin)
            while read_at:
                files.push(read_at)
                following = None
                try:
                    if read_at.gap:
                        yield from self._gap(read_at, read_at.gap)
                    yield from self._file(read_at)
                    following = self._rotation.after(read_at)
                    if following:
                        files.push(following)
                        # only now is nothing more written to the previous file
                        yield from self._file(read_at)
                        following.gap = following.gap or _cut_off(read_at)
                except Rewritten:
                    yield from self._flush(read_at)
                    following = self._rotation.locate(read_at.mark())
                last, read_at = read_at, following
                last.file.close()
                if read_at is None and (self._gaps or self._bad):
                    yield self._batch(last)

    def _file(self, read_at: ReadPosition) -> Iterator[Batch]:
        """Read the whole lines of one file up to its present end.

        A torn last line stays for the next time.
        """
        while True:
            while data := read_at.file.whole_lines(CHUNK):
                yield from self._whole_lines(read_at, data)
            length, whole = _next_line(read_at)
            read_at.torn = bool(length) and not whole
            if length:
                read_at.file.seek_to(read_at.cursor)
            if not whole:
                break
            if length > WHOLE_LINE and self._only:
                self._pass_over(read_at, read_at.file.pieces(length))
            elif length > WHOLE_LINE:
                yield from self._flush(read_at)
                yield from self._long_line(read_at, length)
            else:
                yield from self._whole_lines(read_at, b"".join(read_at.file.pieces(length)))
        yield from self._flush(read_at)

    def _whole_lines(self, read_at: ReadPosition, data: bytes) -> Iterator[Batch]:
        if self._only:
            self._found += self._wanted_lines(data)
            self._pass_over(read_at, iter([data]))
            return
        begin = 0
        while begin < len(data):
            # Bad lines are scanned one by one, so that many of them do not copy the chunk as often.
            end = data.index(b"\n", begin) + 1 if self._bad else len(data)
            scanned = scan(data[begin:end], self._place(), namespace=self._namespace)
            stop = begin + scanned.consumed
            good = stop if scanned.bad is None else max(begin, data.rfind(b"\n", begin, stop - 1) + 1)
            if scanned.lines:
                self._accept(scanned.observations, scanned.changes, scanned.lines, good - begin)
                read_at.cursor.pass_over(data, begin, good)
            if len(self._found) >= BATCH_OBSERVATIONS or self._bytes >= BATCH_BYTES:
                yield self._batch(read_at)
            if scanned.bad is not None:
                yield from self._bad_line(read_at, scanned.bad)
                read_at.cursor.pass_over(data, good, stop)
                self._offset = read_at.cursor.offset
            begin = stop

    def _wanted_lines(self, data: bytes) -> Iterator[Observation]:
        """Yield the observations in the lines that contain the wanted bytes.

        The other lines do not count in this pass.
        """
        at = data.find(self._only)
        while at >= 0:
            begin, end = data.rfind(b"\n", 0, at) + 1, data.index(b"\n", at) + 1
            with suppress(Undecodable):
                place = Place(self._source, self._epoch, self._offset + begin)
                if observation := decode(data[begin:end], place, namespace=self._namespace):
                    yield observation
            at = data.find(self._only, end)

    def _pass_over(self, read_at: ReadPosition, pieces: Iterator[bytes]) -> None:
        for data in pieces:
            read_at.cursor.pass_over(data)
            self._offset += len(data)
        self._lines += 1

    def _long_line(self, read_at: ReadPosition, length: int) -> Iterator[Batch]:
        """Decode a line of `length` bytes, in pieces."""
        cursor = replace(read_at.cursor)

        def pieces() -> Iterator[bytes]:
            for data in read_at.file.pieces(length):
                cursor.pass_over(data)
                yield data

        line = pieces()
        try:
            decoded = decode_skimmed(skim(line), self._place(), namespace=self._namespace)
            observations = [decoded.observation] if decoded.observation else []
            self._accept(observations, [decoded.change] if decoded.change else [], 1, length)
        except Undecodable as error:
            yield from self._bad_line(read_at, str(error))
            self._offset = read_at.cursor.offset + length
        for _ in line:
            pass
        read_at.cursor = cursor

    def _accept(self, observations: list[Observation], changes: list[Change], lines: int, size: int) -> None:
        self._settle()
        self._found += observations
        self._changes += changes
        self._lines += lines
        self._bytes += size
        self._offset += size

    def _bad_line(self, read_at: ReadPosition, why: str) -> Iterator[Batch]:
        """Count a bad line as a gap.

        What the line said is lost, so the record is not contiguous. The cursor is still before the line.
        """
        if self._bad:
            self._bad.count += 1
        else:
            yield from self._break(read_at)
            self._bad = _BadLines(read_at.file.path.name, read_at.cursor.offset, why)
        self._passed_over += 1

    def _gap(self, read_at: ReadPosition, reason: str) -> Iterator[Batch]:
        yield from self._break(read_at)
        self._settle()
        self._gaps.append(reason)
        self._offset = read_at.cursor.offset

    def _break(self, read_at: ReadPosition) -> Iterator[Batch]:
        """Begin another segment at the cursor, unless one has just begun."""
        yield from self._flush(read_at)
        if not self._gaps and not self._bad:
            self._epoch += 1

    def _flush(self, read_at: ReadPosition) -> Iterator[Batch]:
        if self._lines:
            yield self._batch(read_at)

    def _batch(self, read_at: ReadPosition) -> Batch:
        self._settle()
        position = Position(str(read_at.mark()), self._offset, self._epoch)
        lines = self._lines + self._passed_over
        batch = Batch(tuple(self._found), position, tuple(self._gaps), lines, tuple(self._changes))
        self._found, self._changes, self._gaps = [], [], []
        self._lines = self._bytes = self._passed_over = 0
        return batch

    def _settle(self) -> None:
        """End a run of bad lines, if there is one."""
        if self._bad:
            self._gaps.append(str(self._bad))
            self._bad = None

    def _place(self) -> Place:
        return Place(self._source, self._epoch, self._offset)


@dataclass(slots=True)
class _BadLines:
    """Consecutive lines that are no audit entries, and the first's problem."""

    file: str
    offset: int
    why: str
    count: int = 1

    def __str__(self) -> str:
        if self.count == 1:
            return f"the line at byte {self.offset} of {self.file} is not an audit entry ({self.why})"
        return f"the {self.count} lines from byte {self.offset} of {self.file} on are not audit entries ({self.why})"


def _cut_off(read_at: ReadPosition) -> str:
    """Return what is missing at the end of a file that is complete."""
    if read_at.file.damage:
        return f"{read_at.file.path.name} cannot be decompressed to its end: {read_at.file.damage}"
    return f"{read_at.file.path.name} ends within a line" if read_at.torn else ""


def _next_line(read_at: ReadPosition) -> tuple[int, bool]:
    """Return the length of the next line so far, and whether its end is there."""
    length = 0
    while data := read_at.file.read(CHUNK):
        found = data.find(b"\n")
        if found >= 0:
            return length + found + 1, True
        length += len(data)
    return length, False
