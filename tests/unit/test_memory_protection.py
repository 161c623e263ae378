"""The memory of a worker is its own."""

from __future__ import annotations

import subprocess
import sys

SEEN = """
import ctypes, resource
from jitvault.memory_protection import keep_private
from jitvault.prctl import prctl
print(keep_private(), prctl(999999, 1))
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_no_core_is_dumped_and_no_other_process_may_look() -> None:
    found = subprocess.run([sys.executable, "-c", SEEN], capture_output=True, text=True, check=True)
    # the kernel has no property 999999, and says so
    assert found.stdout == "True False\n(0, 0) 0\n"
