"""When the first entry of a file was written.

The files of one log are ordered by that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from jitvault.audit.decoding.json_tokens import Undecodable
from jitvault.audit.decoding.oversized import skim

BEGINNING = 64 * 1024
"""An entry that begins after so many bytes is not looked for: the file is no audit log."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The device's option `prefix` puts text before the entry.
_PREFIX = re.compile(rb"[^{\n]{0,64}(?=\{)")
_TIME_FIRST = re.compile(rb'\{\s*"time"\s*:\s*"([^"]{1,40})"')


class _Stamp(msgspec.Struct):
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    type: str


_stamps = msgspec.json.Decoder(_Stamp)


def began(beginning: bytes, content: Callable[[], Iterator[bytes]] | None = None) -> int | None:
    """Return Vault's time of the first entry, or None.

    The time is in microseconds of the epoch. `beginning` are the first bytes of a file, at most BEGINNING of them,
    and `content` gives the whole file: OpenBao writes the time first, some versions of HashiCorp Vault write the
    keys in alphabetical order, and a client can make a line as long as it likes. The file is read only as far as
    its first entry.
    """
    offset = 0
    for line in beginning.splitlines(keepends=True):
        prefix = _PREFIX.match(line)
        raw = line[prefix.end() :] if prefix else line
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            return _microseconds(_stamps.decode(raw).time)
        if not raw.endswith(b"\n"):
            # the line is longer than what was read
            if found := _TIME_FIRST.match(raw):
                with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    return _microseconds(msgspec.convert(found[1].decode(), datetime))
            if content is not None and prefix is not None:
                return _of_long_line(content(), offset)
        offset += len(line)
    return None


def _of_long_line(content: Iterator[bytes], offset: int) -> int | None:
    """Return the time in the one line that begins at `offset`, or None.

    None means that the line is no entry, or that its end is not there yet.
    """
    with suppress(Undecodable, msgspec.MsgspecError, UnicodeDecodeError):
        return _microseconds(_stamps.decode(skim(_one_line(content, offset)).reduced).time)
    return None


def _one_line(content: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """Yield the bytes from `offset` to the next newline.

    Raises Undecodable if there is none.
    """
    for piece in content:
        data = piece[offset:]
        offset = max(0, offset - len(piece))
        end = data.find(b"\n")
        if end >= 0:
            yield data[: end + 1]
            return
        if data:
            yield data
    raise Undecodable("its end is not there yet")


def _microseconds(time: datetime) -> int | None:
    return (time - _EPOCH) // timedelta(microseconds=1) if time.tzinfo else None
