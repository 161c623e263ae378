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
from typing import Any

_LENGTH = 8
_LONGEST = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """What is to be given back.

    That is the task's token, "" before it is unwrapped, and the directory of its files.
    """

    task: str
    token: str = field(default="", repr=False)
    directory: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """What is started.

    `argv` has the name first; `environment` is the whole one. With `has_terminal` the program's standard output is its
    controlling terminal.
    """

    executable: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    has_terminal: bool = False


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
