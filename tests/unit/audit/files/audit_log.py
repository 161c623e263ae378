"""An audit log made by hand, and a reader of it that keeps nothing but its position."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jitvault.audit.files.file_source import FileSource
from jitvault.audit.observation import Observation
from jitvault.audit.source import Batch, Position

BEGIN = datetime(2026, 11, 24, 15, 43, 7, tzinfo=UTC)


def line(n: int, pad: int = 0, *, alphabetical: bool = False) -> bytes:
    """The n-th line that gives an observation; its subject is `n-<n>`.

    `alphabetical` puts its time after its padding.
    """
    entry = {
        "time": (BEGIN + timedelta(milliseconds=n)).isoformat(timespec="milliseconds"),
        "type": "response",
        "request": {"id": f"r-{n}", "path": "sys/audit-hash/jitvault", "data": {"input": f"n-{n}"}},
        "pad": "x" * pad,
    }
    return json.dumps(entry, sort_keys=alphabetical).encode() + b"\n"


def lines(*numbers: int) -> bytes:
    return b"".join(line(n) for n in numbers)


def others(n: int = 0) -> bytes:
    """A line that is nothing of ours."""
    time = (BEGIN + timedelta(milliseconds=n)).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "type": "request", "request": {"path": "kv/x"}}).encode() + b"\n"


class Log:
    """`audit.log` in a directory. `vault` writes to the file that it opened, whatever the name of that is now."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit.log"
        self.path.touch()
        self.source = FileSource(self.path, name="audit")
        self.position = self.source.start()
        self.seen: list[Observation] = []
        self.gaps: list[str] = []
        self._vault: int | None = None

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def replace(self, data: bytes) -> None:
        """Put another file in its place, which has another inode for sure."""
        other = self.path.with_name("other")
        other.write_bytes(data)
        other.replace(self.path)

    def vault(self, data: bytes) -> None:
        if self._vault is None:
            self.sighup()
        assert self._vault is not None
        os.write(self._vault, data)

    def sighup(self) -> None:
        self.close()
        self._vault = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def close(self) -> None:
        if self._vault is not None:
            os.close(self._vault)
            self._vault = None

    def beside(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}{ending}")

    def shift(self) -> None:
        """What logrotate does with the older files."""
        for n in range(30, 0, -1):
            for packed in ("", ".gz"):
                if self.beside(f".{n}{packed}").exists():
                    self.beside(f".{n}{packed}").rename(self.beside(f".{n + 1}{packed}"))

    def rename(self, *, create: bool = False) -> None:
        self.shift()
        self.path.rename(self.beside(".1"))
        if create:
            self.path.touch()

    def compress(self, n: int) -> None:
        """As gzip does it: the new file has another inode and the old one's times."""
        plain, packed = self.beside(f".{n}"), self.beside(f".{n}.gz")
        with plain.open("rb") as source, gzip.open(packed, "wb") as target:
            shutil.copyfileobj(source, target)
        shutil.copystat(plain, packed)
        plain.unlink()

    def copy_truncate(self) -> None:
        self.shift()
        shutil.copyfile(self.path, self.beside(".1"))
        os.truncate(self.path, 0)

    def restart(self) -> None:
        """Another process reads on."""
        self.source = FileSource(self.path, name="audit")

    def read(self) -> list[Batch]:
        batches = []
        for batch in self.source.read(self.position):
            self.commit(batch)
            batches.append(batch)
        return batches

    def commit(self, batch: Batch) -> None:
        """What the ledger does; and the rules that every batch keeps."""
        before = self.position
        assert {o.place.epoch for o in batch.observations} <= {batch.position.epoch}
        assert {o.place.source for o in batch.observations} <= {"audit"}
        assert bool(batch.gaps) == (batch.position.epoch != before.epoch)
        assert batch.position.epoch - before.epoch in (0, 1)
        assert batch.position != before
        assert len(batch.position.identity) <= 500
        offsets = [o.place.offset for o in batch.observations]
        assert offsets == sorted(set(offsets))
        if offsets:
            assert offsets[-1] < batch.position.offset
            assert batch.gaps or offsets[0] >= before.offset
        self.position = Position(batch.position.identity, batch.position.offset, batch.position.epoch)
        self.seen += batch.observations
        self.gaps += batch.gaps

    def subjects(self) -> list[str]:
        return [o.subject for o in self.seen]

    def numbers(self) -> list[int]:
        return [int(o.subject.removeprefix("n-")) for o in self.seen]
