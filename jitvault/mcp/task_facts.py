"""What a model is told of a task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jitvault.errors import WrongState
from jitvault.formats.rfc3339 import rfc3339
from jitvault.mcp.access_process import AccessProcess, State
from jitvault.mcp.answers import Answer, Failure, failed, told


def check_token_lasts(access: AccessProcess, more: timedelta) -> None:
    """Raise WrongState for more time than the task's token can live.

    It would be replaced, which ends the programs that have the old login.
    """
    if access.until is not None and access.latest_end is not None and access.until + more > access.latest_end:
        latest = rfc3339(access.latest_end)
        raise WrongState(
            f"task {access.task} can be extended until {latest} at most",
            hint="Its programs go on until its end. Call request_access for what is left. Nothing was asked for.",
        )


def end_of(access: AccessProcess) -> Failure:
    """Return why a task that is over holds no access."""
    if access.failure is not None:
        return access.failure
    what = "its access is given back" if access.was_held else "its request is withdrawn"
    return Failure(f"task {access.task} was finished: {what}", "Ask for another task with request_access.")


def facts(access: AccessProcess) -> dict[str, Any]:
    """Return what is told of a task, by its state."""
    found: dict[str, Any] = {"task": access.task, "template": access.template, "state": access.state.value}
    if access.state is State.WAITING:
        return {**found, "waits_for": access.waits_for or "the answer of a worker"}
    if access.state is State.ENDED:
        return {**found, "why": end_of(access).message}
    until = rfc3339(access.until) if access.until else None
    return {**found, "until": until, "tools": list(access.tools), "variables": list(access.variables)}


def state_of(access: AccessProcess) -> Answer:
    """Return the answer about a task.

    It is an error for one that ended otherwise than by `finish`.
    """
    if access.failure is not None:
        return failed(access.failure)
    if access.state is State.WAITING:
        return told({**facts(access), "next": "call wait_for_access"})
    return told(facts(access))
