"""A task's access that a process holds, and how it is given back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

import typer

from jitvault.agent.credential import Credential
from jitvault.agent.execution import mapping
from jitvault.agent.execution.monitor import Monitor
from jitvault.agent.execution.monitor_messages import End, Kept
from jitvault.agent.execution.process_tree import hold_orphans, kill_below
from jitvault.agent.execution.removal import AT_ONCE_S
from jitvault.agent.execution.secret_files import SecretFiles
from jitvault.agent.unwrap import TaskToken
from jitvault.cli.access.giving_back import give_back
from jitvault.cli.folding import for_terminal
from jitvault.cli.views.output import warn
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import NotConfirmed
from jitvault.memory_protection import keep_private
from jitvault.model.states import DELIVERED_STATES, LIVE_STATES
from jitvault.wiring import Wiring

# how long the monitor tries to give the access back
_TRY_FOR_S = 600.0
_TRY_AGAIN_S = 1.0


class OtherToken(Enum):
    """What is done where the task gets more time with another token."""

    TAKE = "take"
    """Take it from the inbox; whoever uses the access begins anew with what it gives."""
    IGNORE = "ignore"
    """Go on without access, as long as the task lasts."""
    STOP = "stop"
    """The access is over, and not the task."""


@dataclass
class Access:
    """A task's access while its program runs."""

    wiring: Wiring
    document: PublishedTask
    token: TaskToken
    credentials: Sequence[Credential]
    wanted: mapping.Wanted
    monitor: Monitor
    ends_at: datetime | None = None
    files: SecretFiles | None = None
    note: str = "the program did not start"
    is_given_back: bool = False
    is_published: bool = False
    is_replaced: bool = False
    is_loss_told: bool = False
    on_other: OtherToken = OtherToken.STOP
    is_alarmed: bool = False
    is_alarm_signed: bool = False
    passed: Sequence[int] = ()
    """Descriptors that the program gets besides its streams."""

    def is_replaced_in(self, document: PublishedTask) -> bool:
        """Return whether the task has, or is getting, another token than this.

        What was published before this token was made says nothing.
        """
        if document.grant_id == self.token.grant_id and document.state in DELIVERED_STATES:
            self.is_published = True
        elif self.is_published and document.state in LIVE_STATES:
            self.is_replaced = True
        return self.is_replaced

    def replace_token(self, token: TaskToken) -> None:
        """Hold the token that came after this one, and was taken."""
        self.token = token
        self.ends_at = token.ends_at
        self.credentials = ()
        self.is_published = self.is_replaced = False

    @property
    def kept(self) -> Kept:
        """What the monitor gives back should this process die."""
        directory = str(self.files.directory) if self.files is not None else None
        return Kept(self.document.task_id, self.token.token.reveal(), directory, self._end)

    @property
    def _end(self) -> End:
        # a signed end would replace the alarm, or be that of the task with its next token
        if self.is_alarm_signed or (self.is_replaced and (self.is_alarmed or self.on_other is not OtherToken.TAKE)):
            return End.KNOWN
        return End.UNSAID if self.is_alarmed else End.SIGN

    def give_back(self) -> None:
        """Remove the files, revoke the token and sign the task's end, once.

        Files that take longer are removed at the end. Where it is not given back, the monitor goes on trying after this
        process.
        """
        if self.is_given_back:
            return
        if self.files is not None:
            self.files.remove(AT_ONCE_S)
        try:
            kept = replace(self.kept, note=self.note)
            self.is_given_back = give_back(self.wiring, kept, self.note)
            self.monitor.clean_up_later(None if self.is_given_back else kept)
        finally:
            if self.files is not None:
                self.files.remove()

    def check_given_back(self) -> None:
        """Raise NotConfirmed where it is not given back."""
        if not self.is_given_back:
            task = self.document.task_id
            tries = f"Process {self.monitor.pid} goes on trying for ten minutes."
            if not self.monitor.is_alive:
                tries = "The process that would go on trying was killed."
            raise NotConfirmed(
                f"the access of task {task} is not given back: Vault did not acknowledge the revocation of its token, "
                "and refused it without a signed end or did not answer",
                hint=f"{tries} `jitvault complete {task}` does it, too.",
            )


@contextmanager
def monitored(wiring: Wiring, command: str = "exec", ends: Sequence[int] = ()) -> Iterator[Monitor]:
    """Yield the monitor.

    Whatever ends the block, it is told that this process cleaned up. `command` is the command of this process. `ends`
    are those of processes for which this one is there (`opened_end`).
    """
    _warn_of_lacking(held=hold_orphans(), private=keep_private())

    def give_back_later(kept: Kept, code: int | None) -> None:
        note = f"`jitvault {command}` was killed"
        if code is not None:
            note += f" and the program ended with exit code {code}"
        if not kept.token:
            note = f"`jitvault {command}` did not receive the token that it unwrapped"
        for _ in range(int(_TRY_FOR_S / _TRY_AGAIN_S)):
            # whatever fails is tried again: the program may have taken away this process's right to open anything
            with suppress(Exception):
                if give_back(wiring, kept, kept.note or note):
                    return
            time.sleep(_TRY_AGAIN_S)

    monitor = Monitor.fork(give_back_later, ends)
    try:
        yield monitor
    finally:
        monitor.over()
        # orphans of a monitor that was killed
        kill_below(os.getpid(), besides=monitor.pid if monitor.goes_on else None)


def _warn_of_lacking(*, held: bool, private: bool) -> None:
    """Print what this system cannot do for a program's end."""
    if not held:
        warn(
            "warning: this system cannot hold what a program leaves behind: only the program's process group is "
            "killed, and where the process that watches over it is killed, not even that"
        )
    if not private:
        warn("warning: this system cannot keep other processes of this user from reading the secrets in memory")


def signed_tools(document: PublishedTask) -> list[str]:
    """Return the tools that the task's approvers signed; none for any."""
    return list(document.full_revision.spec.spec.tools)


def say_beside_program(message: str) -> None:
    """Print a line to stderr while a program runs, whose terminal may be raw."""
    text = for_terminal(message, sys.stderr, rest="  ")
    if sys.stderr.isatty():
        text = "".join(f"{line}\r\n" for line in text.splitlines())
        typer.echo(text, err=True, nl=False)
    else:
        typer.echo(text, err=True)
