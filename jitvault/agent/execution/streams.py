"""The standard streams of a program.

Its output is masked on its way, and a terminal stays one.     with opened(mask, masker) as streams:
        monitor.start(program, streams.of_program)
        streams.begin()
        ...
        streams.finish()

Where standard output is a terminal the program has a terminal of its own (a PTY), so that colour, window size and
Ctrl-C survive. Elsewhere it has pipes where its output is masked, and our own streams themselves where it is not.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

from jitvault.agent.masking import MaskedStream

_CHUNK = 64 * 1024
# what could become a secret is held back for so long at most
_HOLD_S = 0.02
# a program that has ended reads no more, and neither does its terminal
_LAST_INPUT_S = 1.0
_NO_SIZE = struct.pack("HHHH", 0, 0, 0, 0)


@dataclass
class Streams:
    """The streams of one program.

    `of_program` are the descriptors that it gets, 0 to 2.
    """

    of_program: tuple[int, int, int]
    has_terminal: bool = False
    _to_close: list[int] = field(default_factory=list)
    _pumps: list[Thread] = field(default_factory=list)
    _master: int | None = None

    def begin(self) -> None:
        """Copy what comes, after the program has its streams."""
        for descriptor in self._to_close:
            os.close(descriptor)
        self._to_close.clear()
        for pump in self._pumps:
            pump.start()

    def finish(self) -> None:
        """Wait until all output is copied, as long as its reader takes."""
        for pump in self._pumps:
            if pump.name == "output" and pump.ident is not None:
                pump.join()

    def resize(self) -> None:
        """Give the program's terminal the size of ours."""
        if self._master is not None:
            with suppress(OSError):
                size = fcntl.ioctl(1, termios.TIOCGWINSZ, _NO_SIZE)
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)


def fill_closed() -> None:
    """Open /dev/null in place of each standard stream that is closed.

    Otherwise the next descriptor that is opened, such as the monitor's, would become the program's stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # the lowest number that is free
            os.open(os.devnull, os.O_RDWR)


@contextmanager
def opened(make_masker: Callable[[], MaskedStream] | None) -> Iterator[Streams]:
    """Yield the streams; a terminal is as it was at the end.

    Without `make_masker` nothing is masked.
    """
    if os.isatty(1):
        with _terminal(make_masker) as streams:
            yield streams
    elif make_masker is None:
        yield Streams((0, 1, 2))
    else:
        yield _pipes(make_masker)


def _pipes(make_masker: Callable[[], MaskedStream]) -> Streams:
    streams = Streams((0, 1, 2))
    streams.of_program = (0, _masked(streams, 1, make_masker), _masked(streams, 2, make_masker))
    return streams


def _masked(streams: Streams, ours: int, make_masker: Callable[[], MaskedStream]) -> int:
    """Return a pipe's end for the program.

    What the program writes there is masked, and goes to the descriptor `ours`.
    """
    source, sink = os.pipe()
    streams._to_close.append(sink)
    streams._pumps.append(_pump(source, ours, make_masker()))
    return sink


@contextmanager
def _terminal(make_masker: Callable[[], MaskedStream] | None) -> Iterator[Streams]:
    master, slave = os.openpty()
    # in the background of a shell a terminal is neither read nor set
    own_input = os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    streams = Streams((slave if own_input else 0, slave, slave if os.isatty(2) else 2), has_terminal=True)
    streams._master = master
    streams._to_close.append(slave)
    if make_masker is not None and not os.isatty(2):
        streams.of_program = (*streams.of_program[:2], _masked(streams, 2, make_masker))
    streams._pumps.append(_pump(master, 1, make_masker() if make_masker else None))
    streams.resize()
    before = termios.tcgetattr(0) if own_input else None
    over, ends = os.pipe()
    copying = Thread(target=_copy_input, args=(master, over), name="input", daemon=True)
    if own_input:
        streams._pumps.append(copying)
        tty.setraw(0)
    try:
        yield streams
    finally:
        # what is typed from now on is not this program's
        os.close(ends)
        if before is not None:
            _restore(before)
            if copying.ident is not None:
                copying.join(_LAST_INPUT_S)
        if not copying.is_alive():
            os.close(over)


def _restore(attributes: list[object]) -> None:
    """Set the terminal as it was.

    This process may be in the background by now, which would stop it.
    """
    old = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with suppress(termios.error):
        termios.tcsetattr(0, termios.TCSADRAIN, attributes)  # type: ignore[arg-type]
    signal.signal(signal.SIGTTOU, old)


def _copy_input(master: int, over: int) -> None:
    """Copy what is typed, until `over` is at its end."""
    with suppress(OSError):
        while over not in select.select([0, over], [], [])[0] and (data := os.read(0, _CHUNK)):
            _write(master, data)


def _pump(source: int, sink: int, masker: MaskedStream | None) -> Thread:
    return Thread(target=_copy, args=(source, sink, masker), name="output", daemon=True)


def _copy(source: int, sink: int, masker: MaskedStream | None) -> None:
    """Copy until the end, masked.

    Where our own reader has gone the source is closed, so that the program is told as it would be by a pipe.
    """
    with suppress(OSError):
        _copy_all(source, sink, masker)
    os.close(source)


def _copy_all(source: int, sink: int, masker: MaskedStream | None) -> None:
    is_held = False
    while True:
        if is_held and not select.select([source], [], [], _HOLD_S)[0] and masker is not None:
            _write(sink, masker.flush_held())
            is_held = False
        try:
            data = os.read(source, _CHUNK)
        except OSError:
            # the other side of a terminal is closed
            data = b""
        if not data:
            break
        _write(sink, masker.feed(data) if masker else data)
        is_held = masker is not None
    if masker is not None:
        _write(sink, masker.finish())


def _write(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]
