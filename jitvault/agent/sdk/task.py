"""A task in a Python program: the block in which it has access.

    with task("read-orders.yaml") as t:
        connect(password=t.secret("postgres-readonly.password").reveal())

Entering the block asks, waits for the approvals and takes the access; leaving it gives the access back. So does the end
of the interpreter, and the end of this process by any signal: a process of its own session holds the task, and sees the
end of a pipe to this one.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from weakref import WeakSet

from jitvault.agent.end_question import EVERY, EndQuestion
from jitvault.agent.sdk import connections
from jitvault.agent.sdk.credentials import FieldSecret, HeldCredential, HeldValues, credentials_of, secret_of
from jitvault.agent.sdk.driver_frames import DRIVER, forget_login
from jitvault.agent.sdk.holder import Ended, Event, Holder, Said, Told
from jitvault.errors import JitvaultError, NotConfirmed, TaskEnded, UsageError

if TYPE_CHECKING:
    import ssl

    from jitvault.agent.sdk.connections import URL, AsyncEngine, Engine

_Error = TypeVar("_Error", bound=JitvaultError)
# giving back takes a tenth of a second; while Vault does not answer, the holder goes on without us
_LAST_S = 30.0
FAILED = "failed "
_NOT_BEGUN = "its block has not begun"
_ELSEWHERE = "this is a copy of the process that holds it"


def task(
    what: str | os.PathLike[str],
    *,
    wait: str | float | timedelta = "30m",
    on_wait: Callable[[str], object] | None = None,
) -> Task:
    """Return a task for a `with` or an `async with` block.

    `what` is a spec's file, which is asked for, or the id of a task in the agent's inbox. `wait` is how long to wait
    for approvals, as `30m` or in seconds. While it waits, `on_wait` is called with lines that say who has to approve,
    and by which command; without it they go to standard error.
    """
    return Task(what, wait=wait, on_wait=on_wait)


class Task:
    """A task that this program holds, for the time of a block."""

    def __init__(
        self,
        what: str | os.PathLike[str],
        *,
        wait: str | float | timedelta = "30m",
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        self._what = os.fspath(what)
        self._wait = f"{wait.total_seconds():.3f}" if isinstance(wait, timedelta) else str(wait)
        self._on_wait = on_wait or partial(print, file=sys.stderr, flush=True)
        self._pid = os.getpid()
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._answers: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self._question = EndQuestion(self._ask, self._next_answer)
        self._holder: Holder | None = None
        self._values = HeldValues(self._check)
        self._credentials: tuple[HeldCredential, ...] = ()
        self._task_id = ""
        self._ends_at: datetime | None = None
        self._reason = _NOT_BEGUN
        self._given_up = ""
        self._error: JitvaultError | None = None
        self._engines: WeakSet[Engine] = WeakSet()
        self._async_engines: WeakSet[AsyncEngine] = WeakSet()

    # -- what the task has -------------------------------------------------------------------------------------------

    @property
    def task_id(self) -> str:
        """The task's id, once the block has begun."""
        return self._task_id

    @property
    def ends_at(self) -> datetime | None:
        """The task's deadline, in UTC.

        It moves with more time.
        """
        return self._ends_at

    @property
    def expires_at(self) -> datetime | None:
        """When the first credential ends if nobody renews it, in UTC.

        A worker renews it until the deadline.
        """
        return min((each.expires_at for each in self._credentials), default=None)

    @property
    def credentials(self) -> tuple[HeldCredential, ...]:
        """What the task has, without the secrets."""
        return self._credentials

    @property
    def is_over(self) -> bool:
        """Whether the access can be used no more.

        In an `except` block Vault is asked, for 2 s at most: the login that failed may have ended with the task.
        Elsewhere this is what Vault said up to a second ago.
        """
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Why the task is over, "" while it lasts. It is asked as `is_over` is."""
        return self._known_reason if sys.exc_info()[1] is None else self._why()

    def secret(self, name: str) -> FieldSecret:
        """Return the field that `name` says: TEMPLATE.FIELD, or FIELD.

        A FIELD alone has to be that of one credential. The secret shows itself by `reveal()` alone. Raises
        InvalidInput, TaskEnded.
        """
        self._check()
        return secret_of(self._credentials, name)

    def psycopg_kwargs(self, credential: str | None = None) -> dict[str, Any]:
        """Return arguments of `psycopg.connect`, the password among them.

        They are those of the named login, or of the task's only one. Raises InvalidInput, TaskEnded.
        """
        self._check()
        return connections.psycopg_kwargs(self._credentials, credential)

    def sqlalchemy_engine(
        self, url: str | URL | None = None, *, credential: str | None = None, **options: Any
    ) -> Engine:
        """Return an engine of SQLAlchemy, which has to be installed.

        It logs in with the named login, or with the task's only one. `url` can name another driver or address; the user
        and the password are filled in whenever a connection is made, and are no part of the engine's URL. `options` are
        those of `create_engine`. After the task's end no connection is made, and one that its end closed says so:
        TaskEnded. The engine is disposed of when the block ends. Raises InvalidInput, TaskEnded.
        """
        self._check()
        engine = connections.sqlalchemy_engine(self._credentials, credential, url, options, self._ended)
        self._engines.add(engine)
        return engine

    def async_sqlalchemy_engine(
        self, url: str | URL | None = None, *, credential: str | None = None, **options: Any
    ) -> AsyncEngine:
        """Return an engine of SQLAlchemy for `asyncio`.

        It is as that of `sqlalchemy_engine`, with psycopg's asynchronous driver; `options` are those of
        `create_async_engine`. An `async with` block closes its idle connections at its end. Raises InvalidInput,
        TaskEnded, and UsageError where `sqlalchemy[asyncio]` is not installed.
        """
        self._check()
        engine = connections.async_sqlalchemy_engine(self._credentials, credential, url, options, self._ended)
        self._async_engines.add(engine)
        self._engines.add(engine.sync_engine)
        return engine

    def ssl_context(self, credential: str | None = None, *, ca_file: str | None = None) -> ssl.SSLContext:
        """Return a context for TLS clients with the task's certificate.

        It is that of the named credential, or of the only one that has a private key. Servers are verified by
        `ca_file`, by the template's, or by those of the system. Raises InvalidInput, TaskEnded.
        """
        self._check()
        return connections.ssl_context(self._credentials, credential, ca_file)

    # -- the block ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Task:
        self._enter(self._on_wait)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            forget_login(error, package=DRIVER)
            self._explain(error)
        self._leave(f"{FAILED}{kind.__name__}" if kind else "left", is_quiet=kind is not None)

    def _explain(self, error: BaseException) -> None:
        """Note at an error that leaves the block why the task is over.

        A driver's error does not know that.
        """
        # a copy of the process knows nothing of it
        is_asked = isinstance(error, Exception) and not isinstance(error, TaskEnded) and os.getpid() == self._pid
        if is_asked and (reason := self._why()):
            error.add_note(f"task {self._task_id or self._what} is over: {reason}")

    async def __aenter__(self) -> Task:
        import asyncio

        loop = asyncio.get_running_loop()

        def say(text: str) -> None:
            loop.call_soon_threadsafe(self._on_wait, text)

        entering = asyncio.ensure_future(asyncio.to_thread(self._enter, say))
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            self._give_up("CancelledError")
            with suppress(JitvaultError, asyncio.CancelledError):
                await entering
                # the access came at the same moment
                await asyncio.to_thread(self._leave, f"{FAILED}CancelledError", is_quiet=True)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        if os.getpid() != self._pid:
            # the connections, too, are those of the process that holds the task
            return
        try:
            # a thread could not close their connections
            for engine in list(self._async_engines):
                await engine.dispose()
        finally:
            await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))

    def _enter(self, say: Callable[[str], object]) -> None:
        """Have the task held, and return when it is.

        Raises what kept it from being held.
        """
        if self._holder is not None:
            raise UsageError("the block of a task is entered once", hint="Make another one by `task(…)`.")
        self._pid = os.getpid()
        _open.add(self)
        try:
            self._holder = Holder([f"--wait={self._wait}", "--", self._what], self._receive)
            if self._given_up:
                self._holder.leave(self._given_up)
            self._wait_until_held(say)
        except BaseException as error:
            self._leave(f"{FAILED}{type(error).__name__}", is_quiet=True)
            raise

    def _wait_until_held(self, say: Callable[[str], object]) -> None:
        while True:
            match self._events.get():
                case Said(text):
                    say(text)
                case Told("held", _):
                    return
                case Ended(error):
                    raise _with_hint(error or NotConfirmed(f"the process that asked for {self._what} was killed"))

    def _give_up(self, why: str) -> None:
        """Have the holder end while it waits."""
        self._given_up = f"{FAILED}{why}"
        if self._holder is not None:
            self._holder.leave(self._given_up)

    def _receive(self, event: Event) -> None:
        """Take what the holder says, in the thread that reads it."""
        match event:
            case Told("held", content):
                self._task_id = content["task_id"]
                self._ends_at = datetime.fromisoformat(content["ends_at"]) if content["ends_at"] else None
                self._credentials = credentials_of(content["credentials"], self._values)
                self._reason = ""
            case Told("changed", content):
                self._ends_at = datetime.fromisoformat(content["ends_at"]) if content["ends_at"] else None
                self._credentials = credentials_of(content["credentials"], self._values)
            case Told("ends_at", moved):
                self._ends_at = datetime.fromisoformat(moved)
            case Told("looked", [number, reason]):
                self._answers.put((int(number), str(reason)))
                return
            case Told("over", reason):
                self._end(str(reason))
            case Ended(error):
                self._error = error
                self._end(str(error) if error else "the process that held it was killed")
        self._events.put(event)

    def _end(self, reason: str) -> None:
        """Forget the secrets. The first reason counts."""
        self._reason = self._reason or reason
        self._values.forget()
        # whoever asks is not kept waiting
        self._answers.put((EVERY, ""))

    def _leave(self, word: str, *, is_quiet: bool) -> None:
        """Have the access given back, and wait until it is.

        Raises NotConfirmed, unless `is_quiet`, where it is not.
        """
        holder = self._holder
        if os.getpid() != self._pid:
            return
        if holder is None:
            _open.discard(self)
            return
        self._end("its block was left")
        for engine in list(self._engines):
            connections.dispose_of(engine)
        holder.leave(word)
        has_ended = holder.has_ended(_LAST_S)
        _open.discard(self)
        if is_quiet:
            return
        if not has_ended:
            raise _with_hint(
                NotConfirmed(
                    f"the access of task {self._task_id} is not given back yet",
                    hint=f"Process {holder.pid} goes on trying. `jitvault complete {self._task_id}` does it, too.",
                )
            )
        if self._error is not None:
            raise _with_hint(self._error)

    @property
    def _known_reason(self) -> str:
        """Why the task is over, as far as this process was told."""
        return _ELSEWHERE if os.getpid() != self._pid else self._reason

    def _why(self) -> str:
        """Return why the task is over, "" while it lasts. The holder is asked."""
        return self._known_reason or self._question.why() or self._known_reason

    def _ask(self, number: int) -> None:
        assert self._holder is not None  # noqa: S101 (for the type checker)
        self._holder.look(number)

    def _next_answer(self, seconds: float) -> tuple[int, str]:
        try:
            return self._answers.get(timeout=seconds)
        except Empty:
            raise TimeoutError from None

    def _ended(self) -> TaskEnded | None:
        """Return the error of a login that failed since its task is over."""
        reason = self._why()
        return _with_hint(self._error_of(reason)) if reason else None

    def _check(self) -> None:
        """Raise TaskEnded where the access cannot be used."""
        reason = self._known_reason
        if reason:
            raise _with_hint(self._error_of(reason))

    def _error_of(self, reason: str) -> TaskEnded:
        hint = f'`with task("{self._what}") as t:` begins it, and t has the access.' if reason == _NOT_BEGUN else None
        return TaskEnded(f"task {self._task_id or self._what} cannot be used: {reason}", hint=hint)

    def __repr__(self) -> str:
        return f"<Task {self._task_id or self._what}: {self._known_reason or 'held'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a task is neither copied nor pickled")


def _with_hint(error: _Error) -> _Error:
    """Return the error with its hint below the message of a traceback."""
    error.add_note(error.hint)
    return error


_open: set[Task] = set()


@atexit.register
def _at_exit() -> None:
    for each in list(_open):
        each._leave("exit", is_quiet=True)
