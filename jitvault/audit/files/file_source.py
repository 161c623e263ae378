"""The file that Vault's file audit device writes, with its rotated predecessors, read from a saved position on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from jitvault.audit.audit_form import wrong_form
from jitvault.audit.decoding.decoder import Undecodable, decode, decode_skimmed, scan
from jitvault.audit.decoding.oversized import skim
from jitvault.audit.files.bookmark import Bookmark
from jitvault.audit.files.log_file import CHUNK, Rewritten, last_bytes
from jitvault.audit.files.rotation import ReadPosition, Rotation
from jitvault.audit.observation import Observation, Place
from jitvault.audit.source import Batch, Position
from jitvault.errors import AuditMissing

BATCH_OBSERVATIONS = 500
BATCH_BYTES = 16 * 1024 * 1024
# a longer line is not held in memory as a whole
WHOLE_LINE = 4 * 1024 * 1024


class FileSource:
    """`jitvault.audit.source.Source` on one audit file, across its rotation.

    A stretch begins with the byte of the file where it begins: until the first rotation, offsets are bytes of
    the file. `Position("", 0, 1)` is the beginning of everything that is there.
    """

    passing = False

    def __init__(self, path: Path, *, name: str, namespace: str = "") -> None:
        self.name = name
        self._namespace = namespace
        self._path = path
        self._rotation = Rotation(path)

    def vouch(self) -> None:
        """Nobody asks: the file is Vault's own."""

    def start(self) -> Position:
        return self.end()

    def beginning(self) -> Position:
        return Position("", 0, epoch=1)

    def end(self) -> Position:
        """The end of the last whole line that is there now. A file that is not there yet may come later."""
        mark = self._rotation.end()
        return Position(str(mark), mark.offset, epoch=1)

    def continues(self, position: Position) -> bool:
        try:
            stand = self._rotation.locate(Bookmark.parse(position.identity))
        except AuditMissing:
            return False
        if stand is None:
            return True
        with stand:
            return not stand.gap and not (stand.lossy and stand.cursor.offset)

    def wrong_form(self) -> str:
        return wrong_form(last_bytes(self._path))

    def has_more(self, position: Position) -> bool:
        stand = self._rotation.locate(Bookmark.parse(position.identity))
        if stand is None:
            return False
        with stand:
            if stand.gap or stand.file.has_more():
                return True
            following = self._rotation.after(stand)
        if following:
            following.file.close()
        return following is not None

    def read(self, position: Position, *, only: str = "") -> Iterator[Batch]:
        return _Reading(self._rotation, self.name, self._namespace, position, only.encode()).batches()


class _Reading:
    """One pass from a position to the present end.

    It holds what was found since the last batch, and what is missing before that. Where `only` is given, lines without
    these bytes are passed over and not decoded.
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
        self._lines = self._bytes = self._passed_over = 0
        self._gaps: list[str] = []
        self._bad: _BadLines | None = None

    def batches(self) -> Iterator[Batch]:
        with ExitStack() as files:
            stand = self._rotation.locate(self._begin)
            while stand:
                files.push(stand)
                following = None
                try:
                    if stand.gap:
                        yield from self._gap(stand, stand.gap)
                    yield from self._file(stand)
                    following = self._rotation.after(stand)
                    if following:
                        files.push(following)
                        # only now nothing is written to it any more
                        yield from self._file(stand)
                        following.gap = following.gap or _cut_off(stand)
                except Rewritten:
                    yield from self._flush(stand)
                    following = self._rotation.locate(stand.mark())
                last, stand = stand, following
                last.file.close()
                if stand is None and (self._gaps or self._bad):
                    yield self._batch(last)

    def _file(self, stand: ReadPosition) -> Iterator[Batch]:
        """The whole lines of one file up to its present end; a torn last line stays for the next time."""
        while True:
            while data := stand.file.whole_lines(CHUNK):
                yield from self._whole_lines(stand, data)
            length, whole = _next_line(stand)
            stand.torn = bool(length) and not whole
            if length:
                stand.file.stand_at(stand.cursor)
            if not whole:
                break
            if length > WHOLE_LINE and self._only:
                self._pass_over(stand, stand.file.pieces(length))
            elif length > WHOLE_LINE:
                yield from self._flush(stand)
                yield from self._long_line(stand, length)
            else:
                yield from self._whole_lines(stand, b"".join(stand.file.pieces(length)))
        yield from self._flush(stand)

    def _whole_lines(self, stand: ReadPosition, data: bytes) -> Iterator[Batch]:
        if self._only:
            self._found += self._wanted_lines(data)
            self._pass_over(stand, iter([data]))
            return
        begin = 0
        while begin < len(data):
            # among bad lines one after the other, so that many of them do not copy the chunk as often
            end = data.index(b"\n", begin) + 1 if self._bad else len(data)
            scanned = scan(data[begin:end], self._place(), namespace=self._namespace)
            stop = begin + scanned.consumed
            good = stop if scanned.bad is None else max(begin, data.rfind(b"\n", begin, stop - 1) + 1)
            if scanned.lines:
                self._accept(scanned.observations, scanned.lines, good - begin)
                stand.cursor.pass_over(data, begin, good)
            if len(self._found) >= BATCH_OBSERVATIONS or self._bytes >= BATCH_BYTES:
                yield self._batch(stand)
            if scanned.bad is not None:
                yield from self._bad_line(stand, scanned.bad)
                stand.cursor.pass_over(data, good, stop)
                self._offset = stand.cursor.offset
            begin = stop

    def _wanted_lines(self, data: bytes) -> Iterator[Observation]:
        """The observations in the lines that have the wanted bytes in them; others are nobody's for now."""
        at = data.find(self._only)
        while at >= 0:
            begin, end = data.rfind(b"\n", 0, at) + 1, data.index(b"\n", at) + 1
            with suppress(Undecodable):
                place = Place(self._source, self._epoch, self._offset + begin)
                if observation := decode(data[begin:end], place, namespace=self._namespace):
                    yield observation
            at = data.find(self._only, end)

    def _pass_over(self, stand: ReadPosition, pieces: Iterator[bytes]) -> None:
        for data in pieces:
            stand.cursor.pass_over(data)
            self._offset += len(data)
        self._lines += 1

    def _long_line(self, stand: ReadPosition, length: int) -> Iterator[Batch]:
        """A line of `length` bytes, in pieces."""
        cursor = replace(stand.cursor)

        def pieces() -> Iterator[bytes]:
            for data in stand.file.pieces(length):
                cursor.pass_over(data)
                yield data

        line = pieces()
        try:
            observation = decode_skimmed(skim(line), self._place(), namespace=self._namespace)
            self._accept([observation] if observation else [], 1, length)
        except Undecodable as error:
            yield from self._bad_line(stand, str(error))
            self._offset = stand.cursor.offset + length
        for _ in line:
            pass
        stand.cursor = cursor

    def _accept(self, observations: list[Observation], lines: int, size: int) -> None:
        self._settle()
        self._found += observations
        self._lines += lines
        self._bytes += size
        self._offset += size

    def _bad_line(self, stand: ReadPosition, why: str) -> Iterator[Batch]:
        """What the line said is lost, so the record is not contiguous over it. The cursor still stands before it."""
        if self._bad:
            self._bad.count += 1
        else:
            yield from self._break(stand)
            self._bad = _BadLines(stand.file.path.name, stand.cursor.offset, why)
        self._passed_over += 1

    def _gap(self, stand: ReadPosition, reason: str) -> Iterator[Batch]:
        yield from self._break(stand)
        self._settle()
        self._gaps.append(reason)
        self._offset = stand.cursor.offset

    def _break(self, stand: ReadPosition) -> Iterator[Batch]:
        """Another stretch begins where the cursor stands, unless one just did."""
        yield from self._flush(stand)
        if not self._gaps and not self._bad:
            self._epoch += 1

    def _flush(self, stand: ReadPosition) -> Iterator[Batch]:
        if self._lines:
            yield self._batch(stand)

    def _batch(self, stand: ReadPosition) -> Batch:
        self._settle()
        position = Position(str(stand.mark()), self._offset, self._epoch)
        batch = Batch(tuple(self._found), position, tuple(self._gaps), self._lines + self._passed_over)
        self._found, self._gaps = [], []
        self._lines = self._bytes = self._passed_over = 0
        return batch

    def _settle(self) -> None:
        """A run of bad lines is over."""
        if self._bad:
            self._gaps.append(str(self._bad))
            self._bad = None

    def _place(self) -> Place:
        return Place(self._source, self._epoch, self._offset)


@dataclass(slots=True)
class _BadLines:
    """Lines one after the other that are no audit entries, and what is wrong with the first."""

    file: str
    offset: int
    why: str
    count: int = 1

    def __str__(self) -> str:
        if self.count == 1:
            return f"the line at byte {self.offset} of {self.file} is not an audit entry ({self.why})"
        return f"the {self.count} lines from byte {self.offset} of {self.file} on are not audit entries ({self.why})"


def _cut_off(stand: ReadPosition) -> str:
    """What is missing at the end of a file that is complete."""
    if stand.file.damage:
        return f"{stand.file.path.name} cannot be decompressed to its end: {stand.file.damage}"
    return f"{stand.file.path.name} ends within a line" if stand.torn else ""


def _next_line(stand: ReadPosition) -> tuple[int, bool]:
    """How long the next line is as far as it is there, and whether its end is."""
    length = 0
    while data := stand.file.read(CHUNK):
        found = data.find(b"\n")
        if found >= 0:
            return length + found + 1, True
        length += len(data)
    return length, False
