"""Where there is room in memory, the files of tests and of their servers are kept there.

A commit to a ledger waits for the disk, which is a tenth of the suite's time. What a process that is killed has written
is there afterwards in memory as well. TMPDIR, where it is set, says where they are kept instead.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY, _KNOWN = Path("/dev/shm"), Path("/proc/meminfo")
# four worlds with their servers, and what their tests leave behind, take less than half of it
_ROOM = 6 * 1024**3


def keep_files_in_memory() -> None:
    """Let this process and its children make their temporary files in memory."""
    if "TMPDIR" in os.environ or not _has_room():
        return
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)


def _has_room() -> bool:
    try:
        free, flags = shutil.disk_usage(_MEMORY).free, os.statvfs(_MEMORY).f_flag
        (available,) = (row.split()[1] for row in _KNOWN.read_text().splitlines() if row.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return False
    # tests write programs, and run them
    return min(free, int(available) * 1024) > _ROOM and not flags & os.ST_NOEXEC and os.access(_MEMORY, os.W_OK)
