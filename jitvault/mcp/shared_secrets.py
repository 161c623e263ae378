"""The secrets of all tasks of one MCP server, in memory that they share.

A tool of one task may come upon a secret of another, such as in a file. So whoever masks has to know them all. The
server makes the memory, and never looks into it. Each `jitvault exec` adds the secrets of its task before any program
has them, and the runners look before they mask, so what a tool that was started long before prints is masked, too. No
tool gets the descriptor. Nor does a process inherit it: while a program starts, every process of the same user can open
its descriptors. So it inherits one end of a socket pair, which nobody can open, and asks there once it is private.

A task's line counts while its `jitvault exec` lives: that process has a lock on it, which ends with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Lock

from jitvault.agent.masking import Masker

Secrets = Sequence[tuple[str, str, str]]
# a byte far beyond all lines: who has it adds one
_ADDING = 1 << 62
_HERE = b"."


def made() -> int | None:
    """Return a descriptor of such memory, None where the system has none."""
    return os.memfd_create("jitvault-mcp") if hasattr(os, "memfd_create") else None


def hand_out(memory: int, line: socket.socket) -> bool:
    """Give the memory to each process that asks on `line`.

    Return whether others may ask.
    """
    asked = line.recv(16)
    for _ in asked:
        socket.send_fds(line, [_HERE], [memory])
    return bool(asked)


def received(line: int) -> int | None:
    """Return the memory, which is asked for on an inherited socket.

    None where the server has gone. This process has to be private before.
    """
    found: list[int] = []
    with suppress(BrokenPipeError), socket.socket(fileno=os.dup(line)) as asking:
        asking.sendall(_HERE)
        found = socket.recv_fds(asking, len(_HERE), 1)[1]
    if not found:
        return None
    # no tool is to get it
    os.set_inheritable(found[0], False)
    return found[0]


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
