"""One tool that the runner started, with what it printed."""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock, Thread
from typing import IO

from jitvault.agent.masking import Masker
from jitvault.mcp.frames import LONGEST_STDERR, LONGEST_STDOUT

_CHUNK = 64 * 1024
# a process that the tool left behind may hold its output open
_AFTER_END_S = 0.5
_REPLACED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Printed:
    """What a stream had since it was last taken.

    `cut` is how many characters were dropped.
    """

    text: str
    cut: int
    is_utf8: bool


class PrintedStream:
    """What comes out of one descriptor, as masked text.

    Until it is taken only its first `most` characters are kept. `masker` returns what masks now.
    """

    def __init__(self, masker: Callable[[], Masker], most: int) -> None:
        self._masker = masker
        self._masked = masker().stream()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._most = most
        self._lock = Lock()
        self._text = ""
        self._cut = 0
        self._is_utf8 = True

    def feed(self, data: bytes) -> None:
        """Add what came."""
        self._masked.masker = self._masker()
        self._add(self._masked.feed(data), is_end=False)

    def finish(self) -> None:
        """Add what was held back, for nothing more will come."""
        self._add(self._masked.finish(), is_end=True)

    def take(self) -> Printed:
        """Return what came since the last time, and forget it."""
        with self._lock:
            found = Printed(self._text, self._cut, self._is_utf8)
            self._text, self._cut, self._is_utf8 = "", 0, True
        return found

    def _add(self, data: bytes, *, is_end: bool) -> None:
        text = self._decoder.decode(data, final=is_end)
        with self._lock:
            if text.count(_REPLACED) > data.count(_REPLACED.encode()):
                self._is_utf8 = False
            kept = text[: self._most - len(self._text)]
            self._text += kept
            self._cut += len(text) - len(kept)


class ToolRun:
    """A tool that runs, or has ended.

    It has a session of its own. Its output is read all the time, however little of it is taken.
    """

    def __init__(
        self, argv: Sequence[str], executable: str, environment: Mapping[str, str], masker: Callable[[], Masker]
    ) -> None:
        """Start the tool.

        Raises OSError for one that cannot be started, ValueError for an argument with a NUL.
        """
        self._process = subprocess.Popen(  # noqa: S603 (the program that approvers signed)
            list(argv),
            executable=executable,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.stdout = PrintedStream(masker, LONGEST_STDOUT)
        self.stderr = PrintedStream(masker, LONGEST_STDERR)
        self._pumps = [
            _thread(_copy, self._process.stdout, self.stdout),
            _thread(_copy, self._process.stderr, self.stderr),
        ]

    def give(self, text: str) -> None:
        """Write its standard input, in the background, and close it."""
        _thread(_write, self._process.stdin, text.encode("utf-8", "surrogatepass"))

    def wait(self, patience: float) -> int | None:
        """Return its exit code as a shell reports it.

        The result is None where it still runs after `patience` seconds.
        """
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        for pump in self._pumps:
            pump.join(_AFTER_END_S)
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        # the group can outlive its first process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill its process group."""
        self.signal(signal.SIGKILL)


def _thread(what: object, *arguments: object) -> Thread:
    thread = Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def _copy(source: IO[bytes], printed: PrintedStream) -> None:
    with suppress(OSError, ValueError):
        while data := os.read(source.fileno(), _CHUNK):
            printed.feed(data)
    printed.finish()


def _write(sink: IO[bytes], data: bytes) -> None:
    # a tool need not read its input
    with suppress(OSError):
        sink.write(data)
    with suppress(OSError):
        sink.close()
