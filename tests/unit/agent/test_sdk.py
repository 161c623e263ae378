"""A task's secrets in a Python program are shown by `reveal()` alone, and by nothing after the task's end."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import socket
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from secrets import token_hex
from types import GeneratorType
from typing import Any

import psycopg
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from jitvault.agent import FieldSecret, HeldCredential, InvalidInput, NotConfirmed, Task, TaskEnded, UsageError, task
from jitvault.agent.sdk.connections import Why, async_sqlalchemy_engine, psycopg_kwargs, sqlalchemy_engine
from jitvault.agent.sdk.credentials import HeldValues, credentials_of, secret_of, the_only
from jitvault.agent.sdk.holder import _Lines
from jitvault.formats.time_window import parse_seconds

WORD = "w0rd-of-passage"
LOGIN = {"host": "db.example.org", "port": 5432, "tls": "verify-full", "database": "app"}


def credential(name: str = "pg", connection: dict[str, Any] | None = None, **fields: str) -> dict[str, Any]:
    return {
        "name": name,
        "template": name,
        "expires_at": "2030-01-01T00:00:00Z",
        "connection": LOGIN if connection is None else connection,
        "fields": fields or {"username": "v-1", "password": WORD},
    }


def never() -> None:
    """The task lasts."""


def nothing() -> None:
    """A login that failed while its task lasts."""


def ended() -> TaskEnded:
    """A login that failed since its task is over."""
    return TaskEnded("task t cannot be used: revoked")


def held(*data: dict[str, Any], check: Callable[[], None] = never) -> tuple[tuple[HeldCredential, ...], HeldValues]:
    values = HeldValues(check)
    return credentials_of(data, values), values


def secret() -> FieldSecret:
    return secret_of(held(credential())[0], "password")


def dumped(value: Any) -> Any:
    return json.dumps(value)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r:>40}".format,
        lambda value: f"{value:s}",
        lambda value: "%s" % value,  # noqa: UP031 (as a logger does it)
        lambda value: repr({"password": value}),
        lambda value: json.dumps(value, default=str),
        lambda value: logging.LogRecord("x", 20, "x", 1, "%s", (value,), None).getMessage(),
    ],
)
def test_a_secret_shows_its_name_alone(show: Callable[[object], str]) -> None:
    assert WORD not in show(secret()) and "Secret(pg.password)" in show(secret())
    credentials, values = held(credential())
    assert WORD not in repr(credentials) + repr(vars(values))


@pytest.mark.parametrize("leave", [json.dumps, pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("what", [secret, lambda: held(credential())[0][0], lambda: task("x")])
def test_a_secret_leaves_by_no_copy(leave: Callable[[object], object], what: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        leave(what())


def test_a_secret_that_was_kept_reveals_nothing_after_the_end() -> None:
    over: list[str] = []

    def check() -> None:
        if over:
            raise TaskEnded(over[0])

    credentials, values = held(credential(), check=check)
    kept = secret_of(credentials, "pg.password")
    assert kept.reveal() == WORD
    over.append("revoked")
    with pytest.raises(TaskEnded, match="revoked"):
        kept.reveal()
    # and nothing is there any more to be revealed
    over.clear()
    values.forget()
    with pytest.raises(TaskEnded):
        kept.reveal()
    assert bool(kept)


def test_a_field_is_named_alone_where_one_credential_has_it() -> None:
    both, _ = held(credential(), credential("pg-eu"), credential("pki", {}, certificate="PEM"))
    assert secret_of(both, "certificate").reveal() == "PEM"
    assert repr(secret_of(both, "pg-eu.password")) == "Secret(pg-eu.password)"
    for name, told in (
        ("password", "expected pg.password or pg-eu.password"),
        ("pgg.password", "did you mean pg"),
        ("pg.pasword", "did you mean password"),
        ("certificat", "did you mean certificate"),
    ):
        with pytest.raises(InvalidInput, match=told):
            secret_of(both, name)


def test_a_login_is_named_where_there_are_several() -> None:
    logins, _ = held(credential(), credential("pg-eu"), credential("pki", {}, certificate="PEM"))
    with pytest.raises(InvalidInput, match="2 of the kind login: name one of pg, pg-eu"):
        the_only(logins, None, "login", lambda each: each.is_login)
    assert the_only(logins, "pg-eu", "login", lambda each: each.is_login).name == "pg-eu"
    with pytest.raises(InvalidInput, match="pki is no login"):
        the_only(logins, "pki", "login", lambda each: each.is_login)
    with pytest.raises(InvalidInput, match="the task has no login"):
        the_only(logins[2:], None, "login", lambda each: each.is_login)


@pytest.mark.parametrize(
    ("missing", "make", "hint"),
    [
        ("sqlalchemy", sqlalchemy_engine, "`pip install sqlalchemy psycopg`"),
        ("sqlalchemy.ext.asyncio", async_sqlalchemy_engine, "`pip install 'sqlalchemy[asyncio]' psycopg`"),
        # what only the first connection would miss
        ("greenlet", async_sqlalchemy_engine, "`pip install 'sqlalchemy[asyncio]' psycopg`"),
    ],
)
def test_an_engine_says_which_package_it_needs(
    monkeypatch: pytest.MonkeyPatch, missing: str, make: Callable[..., object], hint: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    credentials, _ = held(credential())
    with pytest.raises(UsageError) as error:
        make(credentials, None, None, {}, nothing)
    assert error.value.hint == f"{hint} does it."


def test_a_task_has_nothing_before_its_block() -> None:
    before = task("read-orders.yaml")
    assert before.is_over and repr(before) == "<Task read-orders.yaml: its block has not begun>"
    for use in (before.psycopg_kwargs, before.sqlalchemy_engine, before.ssl_context, lambda: before.secret("password")):
        with pytest.raises(TaskEnded, match="its block has not begun") as error:
            use()
        assert '`with task("read-orders.yaml") as t:` begins it' in error.value.hint
    assert isinstance(before, Task)


@given(st.lists(st.text(alphabet="ab\n{", max_size=8)), st.text(alphabet="ab\n", max_size=4))
def test_lines_are_the_same_however_they_are_cut(parts: list[str], last: str) -> None:
    whole = "".join(parts) + last
    found: list[str] = []
    lines = _Lines(found.append)
    for part in [*parts, last]:
        # nothing stands for the end
        if part:
            lines.add(part.encode())
    lines.add(b"")
    assert found == whole.removesuffix("\n").split("\n") if whole else not found


def test_importing_it_loads_nothing_heavy() -> None:
    show = "import jitvault.agent, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()}
    heavy = {"alembic", "asyncio", "cedarpy", "cryptography", "hvac", "msgspec", "psycopg", "pydantic", "requests"}
    assert "jitvault" in loaded and not loaded & {*heavy, "sqlalchemy", "ssl", "typer", "rich", "urllib3", "yaml"}


@pytest.mark.parametrize("wait", ["1s", 1, timedelta(seconds=1)])
def test_a_holder_waits_as_long_as_its_block_however_that_is_written(
    monkeypatch: pytest.MonkeyPatch, wait: str | float | timedelta
) -> None:
    asked: list[str] = []

    def start(argv: list[str], **_: Any) -> Any:
        asked.extend(argv)
        raise NotConfirmed("nobody is started")

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(NotConfirmed, match="nobody is started"):
        task("x", wait=wait).__enter__()
    (option,) = (word for word in asked if word.startswith("--wait="))
    assert parse_seconds(option.removeprefix("--wait=")) == 1


def test_a_holder_that_is_not_understood_is_an_error_and_no_endless_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    told = 'print(\'{"held": {"task_id": "t", "ends_at": "soon", "credentials": []}}\', flush=True); input()'
    started = subprocess.Popen

    def start(argv: list[str], **how: Any) -> Any:
        return started([sys.executable, "-c", told], **how)

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with pytest.raises(NotConfirmed, match="is not understood"):
        task("x").__enter__()


HOLDER = """
import json, sys, time
print(json.dumps({"held": {"task_id": "t", "ends_at": None, "credentials": []}}), flush=True)
for line in sys.stdin:
    word, _, number = line.partition(" ")
    if word != "look":
        break
    # the answer to an earlier question is none to this one
    for each in {says}:
        print(json.dumps(each), flush=True)
    time.sleep({pause})
"""


@pytest.mark.parametrize(
    ("says", "pause", "reason"),
    [
        ('[{"looked": [int(number), ""]}]', 0, ""),
        ('[{"looked": [int(number) + 1, "stale"]}, {"looked": [int(number), "revoked"]}]', 0, "revoked"),
        # the holder may learn of the end at that moment
        ('[{"over": "revoked"}]', 0, "revoked"),
        ("[]", 3, ""),
    ],
    ids=["lasts", "asked", "told", "no answer"],
)
def test_whether_the_task_is_over_is_asked_at_that_moment(
    monkeypatch: pytest.MonkeyPatch, says: str, pause: int, reason: str
) -> None:
    started = subprocess.Popen
    program = HOLDER.replace("{says}", says).replace("{pause}", str(pause))
    monkeypatch.setattr(subprocess, "Popen", lambda argv, **how: started([sys.executable, "-c", program], **how))
    with task("x") as t:
        begun = time.monotonic()
        assert not t.is_over and time.monotonic() - begun < 0.5, "nobody is asked whom nothing failed"
        try:
            json.loads("no login")
        except ValueError:
            # for both of them it is asked once
            assert (t.is_over, t.reason) == (bool(reason), reason)
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize("is_copy", [False, True], ids=["own", "copy"])
def test_an_error_that_leaves_the_block_says_why_the_task_is_over(
    monkeypatch: pytest.MonkeyPatch, *, is_copy: bool
) -> None:
    started = subprocess.Popen
    program = HOLDER.replace("{says}", '[{"over": "revoked"}]').replace("{pause}", "0")
    monkeypatch.setattr(subprocess, "Popen", lambda argv, **how: started([sys.executable, "-c", program], **how))
    t, error = task("x"), ValueError()
    with pytest.raises(ValueError), t:
        own = t._pid
        # a copy of the process has another one
        t._pid = -1 if is_copy else own
        raise error
    assert getattr(error, "__notes__", []) == ([] if is_copy else ["task t is over: revoked"])
    t._pid = own
    t.__exit__(None, None, None)


def test_an_engine_says_that_its_task_is_over_in_place_of_its_drivers_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        where = {"host": "127.0.0.1", "port": closed.getsockname()[1], "tls": "disable", "database": "app"}
    credentials, _ = held(credential(connection=where))
    with pytest.raises(TaskEnded, match="revoked"):
        sqlalchemy_engine(credentials, None, None, {}, ended).connect()
    # a connection that was open
    options = {"creator": lambda: sqlite3.connect(":memory:")}
    cases: list[tuple[Why, type[Exception]]] = [(ended, TaskEnded), (nothing, sqlalchemy.exc.ProgrammingError)]
    for why, error in cases:
        with sqlalchemy_engine(credentials, None, "sqlite://", options, why).connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.close()
            with pytest.raises(error):
                connection.exec_driver_sql("SELECT 1")


def kept(error: BaseException | None) -> Iterator[str]:
    """What can be read of an exception: the variables of its frames, but for those of this file, and what it has."""
    while error is not None:
        yield repr(vars(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != __file__:
                inner = [each.gi_frame for each in frame.f_locals.values() if isinstance(each, GeneratorType)]
                yield repr([frame.f_locals, [each.f_locals for each in inner if each]])
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("how", ["engine", "engine for asyncio", "arguments", "arguments for asyncio"])
def test_a_connection_that_fails_leaves_no_password_in_what_an_exception_keeps(how: str) -> None:
    word = token_hex()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        where = {"host": "127.0.0.1", "port": closed.getsockname()[1], "tls": "disable", "database": "app"}
    credentials, _ = held(credential(connection=where, username="v-1", password=word))

    async def connect() -> None:
        if how.startswith("engine"):
            await async_sqlalchemy_engine(credentials, None, None, {}, nothing).connect()
        await psycopg.AsyncConnection.connect(**psycopg_kwargs(credentials, None))

    with pytest.raises(Exception, match="connection failed") as failed:
        if how.endswith("asyncio"):
            asyncio.run(connect())
        elif how == "engine":
            sqlalchemy_engine(credentials, None, None, {}, nothing).connect()
        psycopg.connect(**psycopg_kwargs(credentials, None))
    if how.startswith("arguments"):
        # a block is left
        task("x").__exit__(failed.type, failed.value, failed.tb)
    seen = list(kept(failed.value))
    assert len(seen) > 1 and not [each for each in seen if word in each]
