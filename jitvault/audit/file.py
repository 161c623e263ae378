"""The file that Vault's file audit device writes, read from a saved position to its present end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jitvault.audit.decoding import Undecodable, decode
from jitvault.domain.observation import Observation, Place
from jitvault.errors import AuditUntrusted
from jitvault.ports.audit import Batch, Position

BATCH_OBSERVATIONS = 500
BATCH_BYTES = 16 * 1024 * 1024
MAX_LINE = 64 * 1024 * 1024
_TAIL = 512


class FileSource:
    """`jitvault.ports.audit.Source` on one file. A replaced or truncated file starts a new stretch."""

    def __init__(self, path: Path, *, name: str, namespace: str = "") -> None:
        self.name = name
        self._path = path

    def start(self) -> Position:
        with self._open() as file:
            status = os.fstat(file.fileno())
            offset = _line_start(file, status.st_size)
            return Position(_identity(file, offset), offset, epoch=1)

    def end(self) -> Position:
        return self.start()

    def continues(self, position: Position) -> bool:
        with self._open() as file:
            return not _gaps(file, position)

    def has_more(self, position: Position) -> bool:
        with self._open() as file:
            return bool(_gaps(file, position)) or os.fstat(file.fileno()).st_size != position.offset

    def read(self, position: Position) -> Iterator[Batch]:
        with self._open() as file:
            gaps = _gaps(file, position)
            if gaps:
                position = Position(_identity(file, 0), 0, position.epoch + 1)
            file.seek(position.offset)
            while True:
                batch = self._batch(file, position, gaps)
                if batch.position == position and not gaps:
                    return
                yield batch
                position, gaps = batch.position, ()

    def _batch(self, file: BinaryIO, position: Position, gaps: tuple[str, ...]) -> Batch:
        """Whole lines up to the limits of one batch; a torn last line stays for the next time."""
        found: list[Observation] = []
        problems = list(gaps)
        offset, epoch, lines = position.offset, position.epoch, 0
        while len(found) < BATCH_OBSERVATIONS and offset - position.offset < BATCH_BYTES:
            raw = file.readline(MAX_LINE)
            if not raw.endswith(b"\n"):
                if len(raw) == MAX_LINE:
                    raw = _skip_line(file, raw)
                if not raw.endswith(b"\n"):
                    break
            try:
                observation = decode(raw, Place(self.name, epoch, offset))
            except Undecodable as error:
                # what the line said is lost, so the record is not contiguous over it
                problems.append(f"the line at byte {offset} is not an audit entry ({error})")
                observation, epoch = None, epoch + 1
            if observation:
                found.append(observation)
            offset += len(raw) if len(raw) < MAX_LINE else file.tell() - offset
            lines += 1
        after = Position(_identity(file, offset), offset, epoch)
        file.seek(offset)
        return Batch(tuple(found), after, tuple(problems), lines)

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise AuditUntrusted(f"the audit file {self._path} cannot be read: {error.strerror}") from None


def _gaps(file: BinaryIO, position: Position) -> tuple[str, ...]:
    """What shows that the file is not the one that was read up to `position`."""
    if _inode(file) != ":".join(position.identity.split(":")[:2]):
        return ("the file was replaced by another one",)
    if os.fstat(file.fileno()).st_size < position.offset:
        return ("the file became shorter than what was read of it",)
    if _identity(file, position.offset) != position.identity:
        return ("the file was written anew: it does not hold what was read of it",)
    return ()


def _identity(file: BinaryIO, offset: int) -> str:
    """The file and the last bytes before `offset`.

    Its inode alone says little: a file that was truncated and grew again has the same, and a new file may get it.
    """
    begin = max(0, offset - _TAIL)
    file.seek(begin)
    return f"{_inode(file)}:{hashlib.sha256(file.read(offset - begin)).hexdigest()[:32]}"


def _inode(file: BinaryIO) -> str:
    status = os.fstat(file.fileno())
    return f"{status.st_dev}:{status.st_ino}"


def _line_start(file: BinaryIO, size: int) -> int:
    """The end of the last whole line before `size`."""
    step = 64 * 1024
    end = size
    while end > 0:
        begin = max(0, end - step)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _skip_line(file: BinaryIO, raw: bytes) -> bytes:
    """Pass over the rest of a line that is too long to hold; what comes back cannot be decoded."""
    while chunk := file.readline(MAX_LINE):
        if chunk.endswith(b"\n"):
            return raw[: MAX_LINE - 1] + b"\n"
    return b""
