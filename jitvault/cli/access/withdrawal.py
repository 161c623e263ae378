"""Withdraw a request whose command is ended with Ctrl-C while it waits.

Nobody would take the access that is granted to it later.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from jitvault.agent.execution.monitor import Monitor
from jitvault.agent.execution.monitor_messages import End, Kept
from jitvault.agent.held_tasks import is_held_here
from jitvault.cli import session
from jitvault.cli.access.giving_back import is_left_alone
from jitvault.cli.options import DEFAULT_WAIT, ending
from jitvault.cli.views.output import warn
from jitvault.errors import JitvaultError
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import LIVE_STATES, WAITING, EndReason
from jitvault.wiring import Wiring

_NOTE = "`jitvault exec` was interrupted before it took the access"
_TAKEN = "Nothing was withdrawn: `jitvault status {task}` shows who has the access, or why it is over."


@contextmanager
def withdrawn_if_interrupted(context: typer.Context, wiring: Wiring, monitor: Monitor, task: str) -> Iterator[None]:
    """Withdraw the request of a task where Ctrl-C ends the block.

    The withdrawal is written first, and waited for. Another Ctrl-C ends only the waiting: what this process has not
    written yet the monitor goes on to write. A task whose access another process took, here or elsewhere, goes on, and
    so does somebody else's.
    """
    try:
        yield
    except KeyboardInterrupt:
        if is_held_here(task):
            ending(context).interrupt_hint = _TAKEN.format(task=task)
        else:
            with suppress(JitvaultError):
                _withdraw(context, wiring, monitor, task)
        raise


def _withdraw(context: typer.Context, wiring: Wiring, monitor: Monitor, task: str) -> None:
    """Sign the end of a task, granted or not, and wait for a worker.

    The hint says how far that came. Raises what keeps it from coming further.
    """
    end = ending(context)
    monitor.clean_up_later(Kept(task, end=End.WITHDRAW, note=_NOTE))
    end.interrupt_hint = (
        f"Process {monitor.pid} goes on with the withdrawal for ten minutes. `jitvault cancel {task}` does it, too."
    )
    if sys.stderr.isatty():
        # the terminal has printed ^C
        typer.echo(err=True)
    warn(f"The request for task {task} is being withdrawn; another Ctrl-C ends the waiting for that")
    if is_left_alone(wiring, task):
        monitor.clean_up_later(None)
        end.interrupt_hint = _TAKEN.format(task=task)
        return
    sign_end(wiring.person, task, reason=EndReason.COMPLETED, note=_NOTE)
    monitor.clean_up_later(None)
    end.interrupt_hint = f"The withdrawal is signed. `jitvault status {task}` shows whether a worker has read it."
    document = session.wait_for_worker(wiring, task, lambda d: d.state not in WAITING | LIVE_STATES, DEFAULT_WAIT)
    end.interrupt_hint = (
        f"The request is withdrawn: task {task} is {document.state.value}. With `--id ID` the same spec asks again."
    )
