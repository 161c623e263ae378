"""Run the program until it ends, or until its task is over."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from jitvault.agent.execution.monitor import Exited, Gone, Monitor, NotStarted, Started
from jitvault.agent.execution.monitor_messages import Program
from jitvault.agent.execution.process_tree import kill_below
from jitvault.agent.execution.streams import Streams
from jitvault.agent.execution.task_watch import AccessEnd, TaskWatch

_FORWARDED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH),
)
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# how long after that the monitor may take to say that the program has ended
_ANSWER_S = 12.0
# how often the monitor is looked at: a program that stops it would go on unseen when it has ended
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended.

    `code` is what a shell would report of the program: its exit code, or 128 and the signal. `over` is why the task was
    over before, None where the program ended by itself; `not_started` is the `errno` of a program that cannot run.
    `was_interrupted` says that this process was asked to end meanwhile.
    """

    code: int
    over: AccessEnd | None = None
    not_started: int = 0
    monitor_died: bool = False
    was_interrupted: bool = False


@dataclass(frozen=True, slots=True)
class StopRule:
    """How a program is stopped whose task is over.

    By a signal, and after `timeout_s` by SIGKILL.
    """

    signal: int = signal.SIGTERM
    timeout_s: float = 30.0


def run(monitor: Monitor, program: Program, streams: Streams, watch: TaskWatch, stop: StopRule) -> Outcome:
    """Start the program, and return how it ended.

    What it left behind is being killed then, and its output may not be copied whole yet.
    """
    with _signals() as woken:
        monitor.start(program, streams.of_program)
        streams.begin()
        # not only when the monitor says that the program runs: the program may have stopped it by then
        watch.start()
        outcome = _Loop(monitor, streams, watch, stop, woken).until_the_end()
    # what the program started and left behind
    if outcome.monitor_died:
        kill_below(os.getpid())
    else:
        monitor.kill_all()
    return outcome


class _Loop:
    def __init__(self, monitor: Monitor, streams: Streams, watch: TaskWatch, stop: StopRule, woken: int) -> None:
        self._monitor = monitor
        self._streams = streams
        self._watch = watch
        self._stop = stop
        self._woken = woken
        self._over: AccessEnd | None = None
        self._was_interrupted = False
        self._kill_at: float | None = None
        self._is_killed = False

    def until_the_end(self) -> Outcome:
        with selectors.DefaultSelector() as selector:
            for each in (self._monitor.line, self._watch.line, self._woken):
                selector.register(each, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(self._patience())}
                if self._monitor.is_stopped:
                    self._monitor.kill()
                if self._woken in ready:
                    self._forward()
                if self._watch.line in ready:
                    selector.unregister(self._watch.line)
                    self._begin_stop()
                if self._monitor.line in ready and (outcome := self._told()):
                    return replace(outcome, was_interrupted=self._was_interrupted)
                if self._kill_at is not None and time.monotonic() >= self._kill_at:
                    self._kill()

    def _patience(self) -> float:
        return _LOOK_S if self._kill_at is None else min(_LOOK_S, max(0.0, self._kill_at - time.monotonic()))

    def _kill(self) -> None:
        """Have everything killed, and the monitor itself where it does not answer.

        The program may have stopped it.
        """
        if self._is_killed:
            self._kill_at = None
            self._monitor.kill()
        else:
            self._is_killed = True
            self._kill_at = time.monotonic() + _ANSWER_S
            self._monitor.kill_all()

    def _begin_stop(self) -> None:
        self._over = self._watch.end
        self._monitor.signal(self._stop.signal)
        self._kill_at = time.monotonic() + self._stop.timeout_s

    def _told(self) -> Outcome | None:
        """Return how the program ended, None while it runs."""
        for event in self._monitor.events():
            match event:
                case Started():
                    pass
                case NotStarted(number):
                    return Outcome(0, not_started=number or 1)
                case Exited(code):
                    return Outcome(code if code >= 0 else 128 - code, over=self._over)
                case Gone():
                    return Outcome(128 + signal.SIGKILL, over=self._over, monitor_died=True)
        return None

    def _forward(self) -> None:
        """Pass the signals of this process on to the program's process group."""
        with suppress(BlockingIOError):
            for number in os.read(self._woken, 256):
                if number == signal.SIGWINCH:
                    self._streams.resize()
                if number == signal.SIGTSTP:
                    # the program has no controlling terminal that would stop it
                    self._monitor.signal(signal.SIGSTOP)
                    os.kill(os.getpid(), signal.SIGSTOP)
                    self._monitor.signal(signal.SIGCONT)
                    continue
                self._was_interrupted |= number in _ENDING
                self._monitor.signal(number)


@contextmanager
def _signals() -> Iterator[int]:
    """Yield a descriptor that gives the numbers of this process's signals."""
    woken, wake = os.pipe()
    for descriptor in (woken, wake):
        os.set_blocking(descriptor, False)
    # what was ignored before, as after `nohup`, stays so
    heeded = [number for number in _FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in heeded}
    old = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield woken
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)
