"""Disks that can be full: a small one, and a limit on this process's files, which needs no right to mount."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

PAGE = 4096


class Disk(Protocol):
    """What can be full, and have room again."""

    def fill(self) -> None: ...

    def free(self) -> None: ...


class Limit:
    """No file of this process can grow past its first two kilobytes while it is full: a limit of the kernel's on the
    process (RLIMIT_FSIZE). Servers are processes of their own and go on.
    """

    def fill(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))

    def free(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class SmallDisk:
    """A file system in memory that `small_disk` has mounted at `directory`. Full it is for everybody.

    A file can still grow within its last page of 4 KiB, so what is written last is cut off somewhere.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"

    def fill(self, *, spare_pages: int = 0) -> None:
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while filler.write(b"\0" * PAGE):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            filler.truncate(filler.tell() - spare_pages * PAGE)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(directory: Path, *, megabytes: int = 16, files: int = 0) -> Iterator[SmallDisk]:
    """Mount it. Where that is not allowed the test fails: nothing else shows what a full disk does to a server.

    With `files` it can hold so many files and directories, itself among them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0700,uid={os.getuid()}" + (f",nr_inodes={files}" if files else "")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "jitvault-test", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert mounted.returncode == 0, f"this test has to mount a small tmpfs, as root can: {mounted.stderr.strip()}"
    try:
        yield SmallDisk(directory)
    finally:
        # what still has a file open there lets go of it by itself
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
