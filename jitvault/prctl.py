"""Set a property of this process that only Linux has."""

from __future__ import annotations

import ctypes


def prctl(option: int, value: int) -> bool:
    """Call prctl(2), and return whether the property is set.

    It is not on another system, and not where the kernel refuses, as some containers have it.
    """
    try:
        return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0)) == 0
    except (OSError, AttributeError):
        return False
