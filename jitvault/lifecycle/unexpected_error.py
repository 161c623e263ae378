"""Keep a bug in the work on one task from the other tasks.

The bug is logged, and reported as that task's failure.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from jitvault.errors import JitvaultError

_log = logging.getLogger(__name__)


def failure_of(task_id: str, error: Exception) -> JitvaultError:
    """Log where a bug happened, and return it as the task's failure.

    Only the kind of the error and the lines of code are logged: the message of a foreign error may contain a secret.
    """
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("task %s: unexpected %s, a bug in jitvault\n%s", task_id, type(error).__name__, where)
    return JitvaultError(f"task {task_id}: unexpected {type(error).__name__}")


@contextmanager
def others_go_on(task_id: str) -> Iterator[None]:
    """Keep a failure of one task from the others.

    It is for a caller to which the failure does not matter. A bug is logged. Other errors are not: the task's own turn
    raises them again.
    """
    try:
        yield
    except JitvaultError:
        pass
    except Exception as error:  # noqa: BLE001 - a bug must not keep the access of the other tasks alive
        failure_of(task_id, error)
