"""The files of an audit log: the present one, and rotated ones beside it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from jitvault.audit.files.file_identity import SAMPLE
from jitvault.audit.files.log_file import LogFile, unreadable


class Moved(Exception):
    """Files were renamed while they were looked at."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the log as it was found.

    `began` is Vault's time of its first entry, in microseconds.
    """

    name: str
    key: str
    size: int
    compressed: bool
    head: bytes
    began: int

    def begins_like(self, other: Member) -> bool:
        """Return whether one file can be a copy of the other, by the first bytes.

        The copy may have been made when the original was shorter.
        """
        known = min(len(self.head), len(other.head))
        return self.began == other.began and self.head[:known] == other.head[:known]


@dataclass(frozen=True, slots=True)
class LogDirectory:
    """All files that were there at one moment.

    `beside` is sorted, the oldest first. None of the files in `beside` is empty.
    """

    present: Member | None
    beside: tuple[Member, ...]

    @property
    def rotated(self) -> list[Member]:
        """The files that begin with an audit entry.

        The others merely have such names.
        """
        return [member for member in self.beside if member.began]

    def known_as(self, key: str) -> Member | None:
        every = (*self.beside, self.present) if self.present else self.beside
        return next((member for member in every if member.key == key), None)

    def distinct(self) -> list[Member]:
        """Return the rotated files, each content once.

        There may be a copy of a file, or gzip may be at work on it.
        """
        found: list[Member] = []
        for member in self.rotated:
            if self.present and member.begins_like(self.present):
                continue
            if found and member.begins_like(found[-1]):
                found[-1] = _fuller(found[-1], member)
            else:
                found.append(member)
        return found


def survey(path: Path) -> LogDirectory:
    """Return the files of the log at one moment.

    They include whatever was rotated before the present file came, and nothing that is rotated later.
    """
    present = open_present(path)
    if present:
        with present:
            newest = member_of(present)
            names = _steady_names(path)
            if not present.is_at(path):
                raise Moved
    else:
        newest = None
        names = _steady_names(path)
        if path.exists():
            raise Moved
    found = [_member_at(path.parent / name, inode) for name, inode in names]
    return LogDirectory(newest, tuple(sorted((member for member in found if member), key=lambda member: member.began)))


def _steady_names(path: Path) -> list[tuple[str, int]]:
    """Return the names, if two readings of the directory agree.

    A file that is renamed while a directory is read may be in the list twice, or not at all.
    """
    names = _names(path)
    if names != _names(path):
        raise Moved
    return names


def _names(path: Path) -> list[tuple[str, int]]:
    try:
        with os.scandir(path.parent) as entries:
            return sorted(
                (entry.name, entry.inode())
                for entry in entries
                if is_rotated(entry.name, path.name) and entry.is_file(follow_symlinks=False)
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(path.parent, error) from None


def _member_at(path: Path, inode: int) -> Member | None:
    with LogFile(path, rotated=True) as file:
        if file.inode != inode:
            raise Moved
        return member_of(file) if file.size else None


def open_member(path: Path, member: Member) -> LogFile:
    file = LogFile(path.parent / member.name, rotated=member.name != path.name)
    if file.key != member.key:
        file.close()
        raise Moved
    return file


def open_present(path: Path) -> LogFile | None:
    try:
        return LogFile(path, rotated=False)
    except FileNotFoundError:
        return None


def is_rotated(name: str, present: str) -> bool:
    """Return whether a file beside `present` can be an earlier one of its log.

    `audit.log.1`, `audit.log-20261124.gz`, `audit.log.old`; with the date or number before the ending,
    `audit-20261124.log`, `audit.1.log`. Not `audit2.log` or `audit-raw.log`: those are other devices'.
    """
    stem = Path(present).stem
    ending = re.escape(Path(present).suffix)
    if name.startswith(present):
        return re.match(r"[^a-zA-Z0-9]", name[len(present) :]) is not None
    return name.startswith(stem) and re.match(rf"[-._]\d{{4}}|[.]\d+{ending}", name[len(stem) :]) is not None


def member_of(file: LogFile) -> Member:
    head = file.beginning()[:SAMPLE]
    return Member(file.path.name, file.key, file.size, file.compressed, head, file.began or 0)


def _fuller(one: Member, other: Member) -> Member:
    """Return which of two files with equal beginnings to read.

    While gzip works on a file both are there and only the original is whole. Any other pair is a file and a copy
    that may have been made before the file was complete; a compressed file does not show how much it holds.
    """
    for plain, packed in ((one, other), (other, one)):
        if packed.compressed and not plain.compressed and packed.name == f"{plain.name}.gz":
            return plain
    return max(one, other, key=lambda member: (member.compressed, member.size))
