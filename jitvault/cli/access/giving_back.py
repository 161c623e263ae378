"""Give a task's access back, and say what that rests on.

`exec`, `hold` and the monitor of either call `give_back`; nothing else says that an access is given back. It is where

1. Vault acknowledged that the task's token is revoked, and then refused the token or has the end in writing, or
2. Vault refused the token, and the task's end is signed, or another token is published in its place: a worker revokes
   the token then, or has proven it dead.

One answer alone is nothing to rest on: it can come from whatever stands between this process and Vault. Where nobody
has the token, only a signed end counts.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto

from jitvault.agent.execution.monitor_messages import End, Kept
from jitvault.cli import session
from jitvault.documents.published_task import PublishedTask
from jitvault.errors import JitvaultError, VaultRefused
from jitvault.formats.secret import Secret
from jitvault.lifecycle.requests.sign import sign_end
from jitvault.model.states import WAITING, EndReason, State
from jitvault.wiring import Wiring

_UNTAKEN = WAITING | {State.ISSUING, State.ISSUED}


class Answer(Enum):
    """What came of asking Vault to revoke the token."""

    ACKNOWLEDGED = auto()
    REFUSED = auto()
    NONE = auto()
    """Vault did not answer, or nobody has the token to ask with."""


def give_back(wiring: Wiring, kept: Kept, note: str) -> bool:
    """Revoke the task's token with the token itself, and sign its end.

    A worker that sees the audit line of the first ends the task; the second also says why. Return whether the access is
    given back.
    """
    answer = _asked(wiring, kept.token)
    is_known = kept.end is End.KNOWN or (kept.end is End.WITHDRAW and is_left_alone(wiring, kept.task))
    if kept.end is End.SIGN or (kept.end is End.WITHDRAW and not is_known):
        with suppress(JitvaultError):
            sign_end(wiring.person, kept.task, reason=EndReason.COMPLETED, note=note)
            is_known = True
    if answer is Answer.ACKNOWLEDGED and not is_known and not _is_refused(wiring, kept.token):
        answer = Answer.NONE
    return is_given_back(answer, has_token=bool(kept.token), is_known=is_known)


def is_given_back(answer: Answer, *, has_token: bool, is_known: bool) -> bool:
    """Return whether an access is given back.

    `is_known` is whether Vault has it in writing that the token is over.
    """
    return answer is Answer.ACKNOWLEDGED or (is_known and (answer is Answer.REFUSED or not has_token))


def _asked(wiring: Wiring, token: str) -> Answer:
    if not token:
        return Answer.NONE
    try:
        wiring.vault(Secret(token)).write("auth/token/revoke-self")
    except VaultRefused:
        return Answer.REFUSED
    except JitvaultError:
        return Answer.NONE
    return Answer.ACKNOWLEDGED


def _is_refused(wiring: Wiring, token: str) -> bool:
    """Return whether Vault refuses the token."""
    try:
        wiring.vault(Secret(token)).read("auth/token/lookup-self")
    except VaultRefused:
        return True
    except JitvaultError:
        pass
    return False


def is_left_alone(wiring: Wiring, task: str) -> bool:
    """Return whether what is published of the task is not to be withdrawn."""
    with suppress(JitvaultError):
        document = session.published(wiring, task)
        return isinstance(document, PublishedTask) and not is_withdrawable(document, wiring.person.entity)
    return False


def is_withdrawable(document: PublishedTask, entity: str) -> bool:
    """Return whether a task is the request of `entity`, and untaken.

    Two may have asked by one id at the same moment. An operator's withdrawal would end the task of the other one.
    """
    return document.requester == entity and document.state in _UNTAKEN
