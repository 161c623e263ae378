"""The tasks that processes of this user hold.

Each has a locked file with the id of its process.

    with held_here("read-orders", warn):
        ...

The kernel takes the lock away with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jitvault.agent.opened_wrappings import state_directory
from jitvault.errors import WrongState
from jitvault.formats.shorten import one_line


@contextmanager
def held_here(task: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Let no other process of this user take the task meanwhile.

    Where that cannot be written `warn` is called with the reason. Raises WrongState that names the process which holds
    it.
    """
    directory = _claims()
    descriptor = None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / task, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except BlockingIOError:
        assert descriptor is not None  # noqa: S101 (for the type checker)
        holder = os.pread(descriptor, 20, 0).decode(errors="replace")
        os.close(descriptor)
        raise WrongState(
            f"task {task} is held by another process, {one_line(holder)}",
            hint="Nothing was started. That process gives the task back when its program ends.",
        ) from None
    except OSError as error:
        warn(f"warning: {directory} cannot be written ({error.strerror}): a second process is not noticed")
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                (directory / task).unlink()
            os.close(descriptor)


def _claims() -> Path:
    """Return the directory with a locked file for each task that is held."""
    return state_directory(os.environ).parent / "exec"


def is_held_here(task: str) -> bool:
    """Return whether a process of this user holds the task's access."""
    with suppress(OSError):
        descriptor = os.open(_claims() / task, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False
