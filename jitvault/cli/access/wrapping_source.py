"""Find the wrapping token that the agent named: by a file, a pipe, a task."""

from __future__ import annotations

import difflib
import getpass
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jitvault.agent.opened_wrappings import opened_of_task, state_directory
from jitvault.agent.unwrap import TaskToken, unwrap, wrapping_token
from jitvault.cli import session
from jitvault.cli.inbox import delivered, sign_alarm
from jitvault.cli.options import is_file, is_task_id
from jitvault.cli.published import NEARLY, meant_task
from jitvault.cli.session import BEFORE
from jitvault.cli.views.task import end_in_words
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import (
    InvalidInput,
    JitvaultError,
    NotFound,
    OutcomeUnknown,
    SecurityFinding,
    UsageError,
    VaultUnavailable,
    WrongState,
)
from jitvault.formats.secret import Secret
from jitvault.formats.token_pattern import is_wrapping, without_tokens
from jitvault.model.states import LIVE_STATES, State
from jitvault.vault.wrapping import Wrapping
from jitvault.wiring import Wiring

_MOST = 64 * 1024
# a task's id can end like this too, but then it is more likely a mistyped file; `grant` decides in the same way
_OF_FILES = (".json", ".yaml", ".yml", ".txt")
_WHICH = (
    "`jitvault grant SPEC --out FILE` writes such a file. Where the spec says `deliver: agent`, name the task instead: "
    "`jitvault unwrap TASK`."
)
_NOT_OPENED = "Vault says that nothing was unwrapped. Nothing is lost: run the same command again."
_LOST = (
    "Do not run this again: to Vault a second unwrap is theft. `jitvault complete TASK`, or the operator's `jitvault "
    "revoke TASK`, ends the task. Ask for one with another id."
)


@dataclass(frozen=True, slots=True)
class Given:
    """Hold the wrapping token.

    `task` is the task that was named with it, if one was. `is_from_inbox` says that it came from the caller's inbox.
    """

    token: Secret
    task: str = ""
    is_from_inbox: bool = False


def given(wiring: Wiring, what: str) -> Given:
    """Return the wrapping token that the argument stands for.

    Raises InvalidInput, NotFound, and what reading the inbox raises.
    """
    if what == "-":
        return _from_text(_standard_input(), "standard input")
    if is_file(what):
        try:
            with Path(what).open() as file:
                return _from_text(file.read(_MOST), what)
        except (OSError, UnicodeDecodeError):
            raise InvalidInput(f"{what!a:.200} cannot be read as text", hint=_WHICH) from None
    if is_wrapping(what):
        return Given(Secret(what))
    if "/" in what or what.endswith(_OF_FILES):
        raise _no_file(what)
    if not is_task_id(what):
        shown = without_tokens(what)
        raise InvalidInput(f"expected a file, -, the id of a task or a wrapping token, got {shown!a:.80}", hint=_WHICH)
    if Path(what).is_dir() and wiring.person_token is None:
        raise _no_file(what)
    return from_inbox(wiring, what)


def opened(wiring: Wiring, given: Given) -> TaskToken:
    """Return the task token inside the wrapping token.

    Where the caller's inbox holds one that jitvault did not make, the task's end is signed, and with it the alarm:
    no audit line would show that. Raises SecurityFinding for such a token, NotFound for one that was used, and
    OutcomeUnknown where Vault may have opened it and its answer was lost.
    """
    try:
        return unwrap(wiring.vault(None), given.token)
    except SecurityFinding as error:
        if not given.is_from_inbox:
            raise
        raise sign_alarm(wiring, given.task, str(error)) from None
    except OutcomeUnknown as error:
        if _is_unopened(wiring, given.token):
            raise VaultUnavailable(str(error), hint=_NOT_OPENED) from None
        raise OutcomeUnknown(f"{error}: nobody has the token that was in the wrapping", hint=_LOST) from None


def _is_unopened(wiring: Wiring, token: Secret) -> bool:
    """Return whether Vault says that a wrapping token can still be opened."""
    with suppress(JitvaultError):
        return Wrapping(wiring.vault(None)).creation_path(token) is not None
    return False


def _standard_input() -> str:
    """Return what is piped in.

    At a terminal the token is asked for, and what is typed is not shown.
    """
    if not sys.stdin.isatty():
        return sys.stdin.read(_MOST)

    try:
        return getpass.getpass("Wrapping token (not shown): ")
    except EOFError:
        return ""


def _from_text(text: str, source: str) -> Given:
    """Return the wrapping token in a text, with the task that it names.

    The output of `jitvault grant` names one. Raises InvalidInput, which names the source.
    """
    if not text.strip():
        raise InvalidInput(f"{source} is empty", hint=_WHICH)
    try:
        token = wrapping_token(text)
    except InvalidInput as error:
        raise InvalidInput(f"{source}: {error}", hint=error.hint) from None
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        task = json.loads(text)["task_id"]
        if isinstance(task, str) and is_task_id(task):
            return Given(token, task)
    return Given(token)


def _no_file(what: str) -> JitvaultError:
    """Return the error for a path at which there is no file."""
    if Path(what).is_dir():
        return InvalidInput(f"{what!a:.200} is a directory", hint=_WHICH)
    return NotFound(f"there is no file {what!a:.200}{_meant(what)}", hint=_WHICH)


def _meant(what: str) -> str:
    """Return ` (did you mean …?)` where a file has nearly this name."""
    path = Path(what)
    files: list[str] = []
    with suppress(OSError):
        files = sorted(each.name for each in path.parent.iterdir() if each.is_file())
    close = difflib.get_close_matches(path.name, files, n=1, cutoff=NEARLY)
    return f" (did you mean {path.parent / close[0]}?)" if close else ""


def from_inbox(wiring: Wiring, task: str) -> Given:
    """Return the wrapping token of a task in the caller's inbox.

    Raises NotFound, which says why there is none, and SecurityFinding for what no worker delivers.
    """
    if wiring.person_token is None:
        raise UsageError(
            f"there is no file {task}{_meant(task)}, and to look for a task of that name in your inbox takes your "
            "Vault token: VAULT_TOKEN is not set",
            hint="Log in to Vault (`bao login`) first, or name the file that `jitvault grant --out FILE` wrote.",
        )
    message = delivered(wiring, task)
    # a token that was delivered too late was removed again
    if message is None or not message["wrapping"]:
        raise _nothing_in_the_inbox(wiring, task)
    _check_not_over(wiring, task)
    return Given(Secret(message["wrapping"][0]["token"]), task, is_from_inbox=True)


def _check_not_over(wiring: Wiring, task: str) -> None:
    """Raise WrongState for a task that is over.

    Its token gives nothing any more. Without that the agent would be told of a token that somebody else opened.
    """
    document = None
    with suppress(JitvaultError):
        document = session.published(wiring, task)
    if isinstance(document, PublishedTask) and document.state in session.DONE | session.ENDING:
        why = f" ({end_in_words(document.end_reason, document.ended)})" if document.end_reason else ""
        raise WrongState(
            f"task {task} is {document.state.value}{why}: what is in your inbox gives nothing any more",
            hint=f"`jitvault status {task}` shows who or what ended it. Ask for a task with another id.",
        )


def _nothing_in_the_inbox(wiring: Wiring, task: str) -> JitvaultError:
    """Return the error that says why the caller's inbox has no wrapping token."""
    document = None
    with suppress(JitvaultError):
        document = session.published(wiring, task)
    opened = opened_of_task(task, wiring.vault(None).connection.address, state_directory(os.environ))
    if opened is not None:
        hint = f"Go on with what it gave then. `jitvault status {task}` shows what the task may still do."
        if document is not None and document.state in session.DONE | session.ENDING:
            hint = "The task has ended since, and what it gave with it. Ask for a task with another id."
        return NotFound(
            f"nothing of task {task} is in your inbox: you opened its wrapping at {opened.at:%Y-%m-%d %H:%M:%S} UTC",
            hint=hint,
        )
    if not isinstance(document, PublishedTask):
        if Path(task).is_dir():
            return InvalidInput(f"{task!a} is a directory, and there is no task of that name", hint=_WHICH)
        return NotFound(
            f"there is no file {task}{_meant(task)}, and no task of that name{meant_task(wiring, task)}",
            hint="Ask whoever requested the access for the task's id, or for the file that `jitvault grant` wrote.",
        )
    why, hint = _why_empty(document, wiring.person.entity)
    return NotFound(f"nothing of task {task} is in your inbox: {why}", hint=hint)


def _why_empty(document: PublishedTask, me: str) -> tuple[str, str]:
    """Return why an inbox has no wrapping token of the task, and a hint.

    `me` is the entity whose inbox it is.
    """
    task = document.task_id
    to = document.full_revision.recipient
    if document.state in (State.DENIED, State.LAPSED):
        why = document.why_denied or ("it was not granted in time" if document.state is State.LAPSED else "")
        words = f"the task is {document.state.value}, and gets no token" + (f": {why}" if why else "")
        asker = document.full_revision.content.requester.name
        return words, f"Its requester, {asker}, can ask again, or for a task with another id."
    if document.state in BEFORE or document.state is State.ISSUING:
        waits = f"`jitvault status {task}` shows what it waits for. Run the same command again when it is issued."
        return f"the task is {document.state.value}, so its token is not made yet", waits
    if document.state not in LIVE_STATES:
        ended = f" ({end_in_words(document.end_reason, document.ended)})" if document.end_reason else ""
        return f"the task is {document.state.value}{ended}", "Ask for a task with another id."
    if to.entity != me:
        hint = f"Ask {to.name} for the file, or for a spec with `deliver: agent`."
        if document.is_for_agent:
            hint = f"Only {to.name} can take it, as the spec says (`deliver: agent`)."
        return f"its wrapping token went to {to.name}", hint
    if document.state is State.ACTIVE:
        return (
            "its wrapping was opened",
            f"If that was not you, somebody else has its token: `jitvault complete {task}` ends the task.",
        )
    return (
        "its wrapping token was taken out, or waited for longer than it lives",
        f"Tell the operator: `jitvault revoke {task}`, and a task with another id.",
    )
