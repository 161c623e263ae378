"""A disk of this process's files that can be full, without the right to mount one."""

from __future__ import annotations

import resource


class Disk:
    """No file of this process can grow past its first two kilobytes while it is full: a limit of the kernel's on the
    process (RLIMIT_FSIZE). Servers are processes of their own and go on.
    """

    def fill(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))

    def free(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
