"""The secrets of all tasks of one MCP server, in memory that they share.

A tool of one task may come upon a secret of another, such as in a file. So whoever masks has to know them all. The
server makes the memory, and never looks into it. Each `jitvault exec` adds the secrets of its task before any program
has them, and the runners look before they mask, so what a tool that was started long before prints is masked, too. No
tool gets the descriptor.

A task's line counts while its `jitvault exec` lives: that process has a lock on it, which ends with it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from threading import Lock

from jitvault.agent.masking import Masker

Secrets = Sequence[tuple[str, str, str]]
# a byte far beyond all lines: who has it adds one
_ADDING = 1 << 62


def made() -> int | None:
    """Return a descriptor of such memory, None where the system has none."""
    return os.memfd_create("jitvault-mcp") if hasattr(os, "memfd_create") else None


def add(memory: int, secrets: Secrets) -> None:
    """Add the secrets of a task, for as long as this process lives."""
    line = json.dumps(list(secrets)).encode() + b"\n"
    fcntl.lockf(memory, fcntl.LOCK_EX, 1, _ADDING)
    try:
        end = os.fstat(memory).st_size
        fcntl.lockf(memory, fcntl.LOCK_EX, len(line), end)
        os.pwrite(memory, line, end)
    finally:
        fcntl.lockf(memory, fcntl.LOCK_UN, 1, _ADDING)


class SharedMasker:
    """What masks the secrets of one task, and those that others share."""

    def __init__(self, own: Secrets, memory: int | None) -> None:
        self._own = own
        self._memory = memory
        self._read = 0
        self._masker = Masker(own)
        self._lock = Lock()

    def now(self) -> Masker:
        """Return the masker of all secrets that there are now."""
        if self._memory is None:
            return self._masker
        with self._lock:
            size = os.fstat(self._memory).st_size
            if size > self._read:
                # a line may be on its way
                whole = os.pread(self._memory, size, 0).rpartition(b"\n")[0]
                self._masker = Masker([*self._own, *_living(self._memory, whole)])
                self._read = len(whole) + 1 if whole else 0
            return self._masker


def _living(memory: int, lines: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield the secrets of each line whose process lives."""
    start = 0
    for line in lines.splitlines(keepends=True):
        try:
            fcntl.lockf(memory, fcntl.LOCK_SH | fcntl.LOCK_NB, len(line), start)
        except OSError:
            yield from ((template, field, value) for template, field, value in json.loads(line))
        else:
            fcntl.lockf(memory, fcntl.LOCK_UN, len(line), start)
        start += len(line)
