"""What `jitvault exec` and its monitor say to each other, over a socket.

A message is its length in eight bytes and then JSON. Descriptors come beside it.
"""

from __future__ import annotations

import array
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_LENGTH = 8
_LONGEST = 64 * 1024 * 1024


class End(StrEnum):
    """What is done about the task's end when its token is given back."""

    SIGN = "sign"
    """It is signed."""
    WITHDRAW = "withdraw"
    """It is signed, unless somebody has taken the access, or the request is somebody else's."""
    KNOWN = "known"
    """Nothing: the end is signed, or another token is published in place of this one."""
    UNSAID = "unsaid"
    """Nothing, though nothing is known of it: what would be signed could hide an alarm."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be given back.

    That is the task's token, "" before it is unwrapped, and the directory of its files. `note` is for the task's end;
    without one the monitor says who was killed.
    """

    task: str
    token: str = field(default="", repr=False)
    directory: str | None = None
    end: End = End.SIGN
    note: str = ""

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Kept:
        """Return what a message says."""
        return cls(**{**message, "end": End(message["end"])})


@dataclass(frozen=True, slots=True)
class Program:
    """What is started.

    `argv` has the name first; `environment` is the whole one. With `has_terminal` the program's standard output is its
    controlling terminal. `descriptors` are those that it gets besides its streams; the monitor had them when it began.
    """

    executable: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    has_terminal: bool = False
    descriptors: Sequence[int] = ()


def send(line: socket.socket, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send a message, and descriptors with it.

    Raises OSError where the other side is gone.
    """
    body = json.dumps(message).encode()
    whole = len(body).to_bytes(_LENGTH, "big") + body
    if not descriptors:
        line.sendall(whole)
        return
    sent = line.sendmsg([whole], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
    line.sendall(whole[sent:])


def split(received: bytes) -> tuple[dict[str, Any] | None, bytes]:
    """Return the first whole message, or None, and what follows it."""
    if len(received) < _LENGTH:
        return None, received
    end = _LENGTH + int.from_bytes(received[:_LENGTH], "big")
    if end > _LONGEST:
        sys.exit(1)
    if len(received) < end:
        return None, received
    message: dict[str, Any] = json.loads(received[_LENGTH:end])
    return message, received[end:]
