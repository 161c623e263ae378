"""`jitvault hold`: hold a task's access for a Python process."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jitvault.agent.execution.allowed_program import names_of
from jitvault.agent.execution.mapping import Wanted
from jitvault.cli import session
from jitvault.cli.access import execute_steps, held_access, hold_steps
from jitvault.cli.options import APPROVAL_WAIT, ApprovalWait, TaskOrSpec, ending
from jitvault.cli.quiet import quiet_if
from jitvault.errors import UsageError


def hold(
    context: typer.Context,
    what: TaskOrSpec,
    wait: ApprovalWait = APPROVAL_WAIT,
    caller_end: Annotated[
        int | None, typer.Option(metavar="FD", hidden=True, help="Can be read once the caller has ended.")
    ] = None,
) -> None:
    """Hold a task's access for another process, until standard input ends.

    `jitvault.agent` starts this command. It prints lines of JSON, the first with the task's secrets, so standard output
    has to be a pipe. When standard input ends, or the task is over, the access is given back.

    Example: jitvault hold count-orders.yaml
    """
    if sys.stdout.isatty():
        raise UsageError("this would print secrets to your terminal", hint="`jitvault exec` runs a program with them.")
    program = ("python", *names_of(sys.executable))
    wiring = session.open_session()
    # before anything is known that is secret, and while this process has one thread and no connection
    # the caller reads on standard error what this command waits for
    with quiet_if(asked=False), hold_steps.hints_for_a_program(), held_access.monitored(wiring, "hold") as monitor:
        caller = hold_steps.Caller(caller_end)
        wiring.clock = hold_steps.CallersClock(caller)
        try:
            task = execute_steps.requested(context, wiring, what, program, Wanted(), monitor, wait=wait)
        except hold_steps.CallerLeft:
            hold_steps.end_if_granted(wiring, ending(context).task)
            raise typer.Exit(1) from None
        ending(context).task = task
        with execute_steps.held(wiring, task, program, Wanted(), monitor) as access:
            hold_steps.hold(access, monitor, caller)
        access.check_given_back()
        hold_steps.tell({"given_back": True})
