"""A task's access that a process holds, and how it is given back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import typer

from jitvault.agent.credential import Credential
from jitvault.agent.execution import mapping
from jitvault.agent.execution.monitor import Monitor
from jitvault.agent.execution.monitor_messages import Kept
from jitvault.agent.execution.process_tree import hold_orphans, kill_below
from jitvault.agent.execution.removal import AT_ONCE_S
from jitvault.agent.execution.secret_files import SecretFiles
from jitvault.agent.unwrap import TaskToken
from jitvault.cli.folding import for_terminal
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, NotConfirmed, VaultRefused
from jitvault.formats.secret import Secret
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.memory_protection import keep_private
from jitvault.model.states import DELIVERED_STATES, LIVE_STATES, EndReason
from jitvault.wiring import Wiring

# how long the monitor tries to give the access back where Vault does not answer
_TRY_FOR_S, _TRY_AGAIN_S = 600.0, 1.0


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
        self.token, self.ends_at, self.credentials = token, token.ends_at, ()
        self.is_published = self.is_replaced = False

    @property
    def kept(self) -> Kept:
        """What the monitor gives back should this process die."""
        directory = str(self.files.directory) if self.files is not None else None
        return Kept(self.document.task_id, self.token.token.reveal(), directory)

    def give_back(self) -> None:
        """Remove the files, revoke the token and sign the task's end, once.

        Files that take longer are removed at the end. Where Vault does not answer, the monitor goes on trying after
        this process.
        """
        if self.is_given_back:
            return
        if self.files is not None:
            self.files.remove(AT_ONCE_S)
        try:
            self._revoke()
        finally:
            if self.files is not None:
                self.files.remove()

    def _revoke(self) -> None:
        if self.is_alarmed or (self.is_replaced and self.on_other is not OtherToken.TAKE):
            # a signed end would replace the alarm, or be that of the task with its next token
            self.is_given_back = _is_revoked(self.wiring, self.token.token)
        else:
            self.is_given_back = give_back(self.wiring, self.document.task_id, self.token.token, self.note)
        if self.is_given_back:
            self.monitor.clean_up_later(None)

    def check_given_back(self) -> None:
        """Raise NotConfirmed where Vault did not answer."""
        if not self.is_given_back:
            raise NotConfirmed(
                f"the access of task {self.document.task_id} is not given back: Vault does not answer",
                hint=f"Process {self.monitor.pid} goes on trying for ten minutes. `jitvault complete "
                f"{self.document.task_id}` does it, too.",
            )


@contextmanager
def monitored(wiring: Wiring, command: str = "exec") -> Iterator[Monitor]:
    """Yield the monitor.

    Whatever ends the block, it is told that this process cleaned up. `command` is the command of this process.
    """
    _warn_of_lacking(held=hold_orphans(), private=keep_private())

    def give_back_later(kept: Kept, code: int | None) -> None:
        note = f"`jitvault {command}` was killed"
        if code is not None:
            note += f" and the program ended with exit code {code}"
        if not kept.token:
            note = f"`jitvault {command}` did not receive the token that it unwrapped"
        for _ in range(int(_TRY_FOR_S / _TRY_AGAIN_S)):
            token = Secret(kept.token) if kept.token else None
            # whatever fails is tried again: the program may have taken away this process's right to open anything
            with suppress(Exception):
                if give_back(wiring, kept.task, token, note):
                    return
            time.sleep(_TRY_AGAIN_S)

    monitor = Monitor.fork(give_back_later)
    try:
        yield monitor
    finally:
        monitor.over()
        # orphans of a monitor that was killed
        kill_below(os.getpid(), besides=monitor.pid if monitor.goes_on else None)


def _warn_of_lacking(*, held: bool, private: bool) -> None:
    """Print what this system cannot do for a program's end."""
    if not held:
        say(
            "warning: this system cannot hold what a program leaves behind: only the program's process group is "
            "killed, and where the process that watches over it is killed, not even that"
        )
    if not private:
        say("warning: this system cannot keep other processes of this user from reading the secrets in memory")


def give_back(wiring: Wiring, task: str, token: Secret | None, note: str) -> bool:
    """Revoke the task's token with the token itself, and sign the task's end.

    A worker that sees the audit line of the first ends the task; the second also says why. Without a token only the
    second is done. Return whether the token is revoked, or was, since Vault refuses one that it does not know; without
    a token, whether the end is signed.
    """
    is_dead = token is None or _is_revoked(wiring, token)
    is_signed = False
    with suppress(JitvaultError):
        sign_end(wiring.person, task, reason=EndReason.COMPLETED, note=note)
        is_signed = True
    return is_dead if token is not None else is_signed


def _is_revoked(wiring: Wiring, token: Secret) -> bool:
    """Revoke the token with itself; return whether it is revoked, or was."""
    try:
        wiring.vault(token).write("auth/token/revoke-self")
    except VaultRefused:
        pass
    except JitvaultError:
        return False
    return True


def signed_tools(document: PublishedTask) -> list[str]:
    """Return the tools that the task's approvers signed; none for any."""
    return list(document.full_revision.content["spec"]["spec"]["tools"])


def say(message: str) -> None:
    """Print a line to stderr, folded at a terminal."""
    typer.echo(for_terminal(message, sys.stderr, rest="  "), err=True)


def say_beside_program(message: str) -> None:
    """Print a line to stderr while a program runs, whose terminal may be raw."""
    text = for_terminal(message, sys.stderr, rest="  ")
    if sys.stderr.isatty():
        text = "".join(f"{line}\r\n" for line in text.splitlines())
        typer.echo(text, err=True, nl=False)
    else:
        typer.echo(text, err=True)
