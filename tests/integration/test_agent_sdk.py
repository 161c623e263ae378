"""A Python program has a task's access in a block, and nothing is left of it, however the block or the program ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from attended import Attended, wait_for
from rig import Rig
from test_exec import environment as agents_environment
from test_exec import is_alive, logs_in

from jitvault.sandbox.placement import find_programs

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
# what the programs of these tests begin with; `say` writes a line of JSON
BEGIN = """
import asyncio, ctypes, glob, json, os, sys, time
from jitvault.agent import Denied, TaskEnded, task
spec = sys.argv[1]
def say(**what):
    print(json.dumps(what), flush=True)
def url(t):
    return t.secret("postgres-readonly.url").reveal()
def pause():
    sys.stdin.readline()
def copied():
    # as a library does that makes a process without Python: the copy has every descriptor
    if ctypes.PyDLL(None).fork() == 0:
        ctypes.CDLL(None).sleep(60)
        os._exit(0)
def holder():
    (found,) = [n for file in glob.glob("/proc/self/task/*/children") for n in open(file).read().split()]
    return int(found)
"""
STAYS = """
with task(spec) as t:
    say(url=url(t), holder=holder())
    if "copied" in sys.argv:
        copied()
        say(copied=True)
    while not t.is_over:
        time.sleep(0.02)
    say(reason=t.reason)
    try:
        t.secret("password")
    except TaskEnded as error:
        say(refused=str(error))
"""


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with Attended(rig):
        yield rig


def environment(rig: Rig) -> dict[str, str]:
    """An agent's host, with the jitvault that is tested, wherever that lies."""
    return {**agents_environment(rig), "PYTHONPATH": str(Path(__file__).parents[2])}


def argv(code: str, *words: str | Path) -> list[str]:
    return [sys.executable, "-c", BEGIN + textwrap.dedent(code), *map(str, words)]


def run(rig: Rig, code: str, *words: str | Path, exit_code: int = 0, **more: str) -> tuple[list[dict[str, Any]], str]:
    """Run a program to its end; return what it said, and its standard error."""
    done = subprocess.run(
        argv(code, *words), env={**environment(rig), **more}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == exit_code, (done.returncode, done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@contextmanager
def running(rig: Rig, code: str, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        argv(code, *words),
        env=environment(rig),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    return dict(json.loads(line))


def go_on(process: subprocess.Popen[str]) -> None:
    """End the program's pause."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def is_over(rig: Rig, file: Path) -> bool:
    wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"), 30)
    return not rig.task_tokens(file.stem)


def is_noted(rig: Rig, file: Path, text: str) -> bool:
    """Whether the record says so; the worker may have acted on the token's revocation before it read the signed end."""

    def found() -> bool:
        notes = (event.body.get("note") for event in rig.record(file.stem).events)
        return any(text in note for note in notes if note)

    return bool(wait_for(found, 5))


# -- a block ----------------------------------------------------------------------------------------------------------


def test_a_block_has_the_access_and_gives_it_back(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    import psycopg
    with task(spec) as t:
        kept = t.secret("password")
        count = psycopg.connect(**t.psycopg_kwargs()).execute("SELECT count(*) FROM orders").fetchone()[0]
        say(count=count, url=url(t), id=t.task_id, names=[each.name for each in t.credentials], shown=f"{kept} {t}")
        assert t.ends_at and t.expires_at <= t.ends_at and not t.reason
    try:
        kept.reveal()
    except TaskEnded as error:
        say(refused=str(error), left=len(t._values._values))
    """
    (inside, after), stderr = run(rig, code, file)
    assert inside["count"] >= 0 and inside["id"] == file.stem and inside["names"] == ["postgres-readonly"]
    assert inside["shown"] == f"Secret(postgres-readonly.password) <Task {file.stem}: held>"
    assert after["refused"] == f"task {file.stem} cannot be used: its block was left"
    assert after["left"] == 0
    # already when the program ends, and not only when a worker has looked
    assert not logs_in(inside["url"]) and not rig.task_tokens(file.stem)
    assert is_over(rig, file) and is_noted(rig, file, "the block of the Python program was left")
    assert stderr == ""


def test_an_exception_passes_and_the_end_names_its_kind_alone(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    with task(spec) as t:
        say(url=url(t))
        raise KeyError(t.secret("password").reveal())
    """
    (inside,), stderr = run(rig, code, file, exit_code=1)
    assert "KeyError" in stderr.splitlines()[-1] and not logs_in(inside["url"])
    assert is_over(rig, file) and is_noted(rig, file, "was left by KeyError")


def test_a_program_that_nobody_signed_gets_nothing(rig: Rig, spec: Spec) -> None:
    refused, named = spec(more="  tools: [psql]\n"), spec(more="  tools: [psql, python]\n")
    code = """
    from jitvault.agent import InvalidInput
    try:
        with task(spec):
            say(entered=True)
    except InvalidInput as error:
        say(refused=str(error))
    """
    (told,), _ = run(rig, code, refused)
    assert told["refused"].startswith("the spec names psql in spec.tools, and not python")
    assert run(rig, code, named)[0] == [{"entered": True}]


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_who_has_to_approve_is_said_while_the_block_waits(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    code = """
    with task(spec, on_wait=lambda text: say(waits=text)) as t:
        say(url=url(t))
        pause()
    """
    with running(rig, code, file) as process:
        waits = said(process)["waits"]
        assert "waits for 1 approval by jitvault-approvers" in waits and f"`jitvault approve {file.stem}`" in waits
        rig("approver-1", "approve", file.stem, "--yes")
        assert logs_in(said(process)["url"])
        go_on(process)
        assert process.wait(20) == 0
    assert is_over(rig, file)


def test_a_block_waits_no_longer_than_it_is_told(rig: Rig, spec: Spec) -> None:
    code = """
    from datetime import timedelta
    from jitvault.agent import ApprovalMissing
    try:
        with task(spec, wait=timedelta(seconds=1)):
            say(entered=True)
    except ApprovalMissing as error:
        say(refused=str(error), hint=error.__notes__)
    """
    file = spec(criticality="medium")
    (told,), stderr = run(rig, code, file)
    assert f"task {file.stem} needs approval after 1s" in told["refused"]
    assert f"`jitvault approve {file.stem}`" in told["hint"][0]
    assert "waits for 1 approval" in stderr


def test_a_task_that_is_denied_gives_nothing(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium")
    code = """
    try:
        with task(spec, on_wait=lambda text: say(waits=text)):
            say(entered=True)
    except Denied as error:
        say(refused=str(error))
    """
    with running(rig, code, file) as process:
        said(process)
        rig("approver-1", "deny", file.stem, "--yes", "--reason", "not today")
        assert 'approver-1 denied it: "not today"' in said(process)["refused"]
        assert process.wait(20) == 0


@pytest.mark.parametrize("how", ["cancelled", "interrupted", "killed", "copied"])
def test_whoever_stops_waiting_leaves_no_process_and_can_wait_again(rig: Rig, spec: Spec, how: str) -> None:
    file = spec(criticality="medium")
    code = """
    async def main():
        def waits(text):
            say(holder=holder())
            asyncio.get_running_loop().call_later(0.5, entering.cancel)
        entering = asyncio.create_task(task(spec, on_wait=waits).__aenter__())
        try:
            await entering
        except asyncio.CancelledError:
            say(cancelled=True)
    def sync():
        def waits(text):
            say(holder=holder())
            if sys.argv[2] == "copied":
                copied()
                say(copied=True)
        try:
            with task(spec, on_wait=waits):
                pass
        except KeyboardInterrupt:
            say(interrupted=True)
    asyncio.run(main()) if sys.argv[2] == "cancelled" else sync()
    """
    with running(rig, code, file, how) as process:
        holder = said(process)["holder"]
        if how == "interrupted":
            process.send_signal(signal.SIGINT)
        if how in ("killed", "copied"):
            assert how == "killed" or said(process)
            process.kill()
        else:
            assert said(process) == {how: True}
            assert not is_alive(holder)
        wait_for(lambda: not is_alive(holder), 5)
        assert process.wait(20) == (-signal.SIGKILL if how in ("killed", "copied") else 0)
    rig("approver-1", "approve", file.stem, "--yes")
    (told,), _ = run(rig, "with task(spec) as t: say(id=t.task_id)", file)
    assert told["id"] == file.stem and is_over(rig, file)


def monitor_of(holder: int) -> int:
    (found,) = (Path("/proc") / str(holder) / "task" / str(holder) / "children").read_text().split()
    return int(found)


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["program", "copied program", "group of the program", "holder", "monitor"])
def test_the_access_of_a_python_program_ends_whichever_of_its_processes_is_killed(
    rig: Rig, spec: Spec, victim: str
) -> None:
    file = spec()
    with running(rig, STAYS, file, *victim.split()[:-1]) as process:
        inside = said(process)
        assert logs_in(inside["url"]) and len(rig.task_tokens(file.stem)) == 1
        monitor = monitor_of(inside["holder"])
        match victim:
            case "program" | "copied program":
                assert victim == "program" or said(process) == {"copied": True}
                process.kill()
            case "group of the program":
                os.killpg(process.pid, signal.SIGKILL)
            case "holder":
                os.kill(inside["holder"], signal.SIGKILL)
            case "monitor":
                os.kill(monitor, signal.SIGKILL)
        wait_for(lambda: not rig.task_tokens(file.stem), 5)
        wait_for(lambda: not logs_in(inside["url"]), 10)
        if victim in ("holder", "monitor"):
            assert said(process)["reason"] and "cannot be used" in said(process)["refused"]
            assert process.wait(20) == 0
        wait_for(lambda: not is_alive(inside["holder"]) and not is_alive(monitor), 15)
    assert is_over(rig, file) and rig.record(file.stem).task.end_reason == "completed"
    notes = {"holder": "`jitvault hold` was killed", "monitor": "gives it back in any case was killed"}
    assert is_noted(rig, file, notes.get(victim, "ended without giving it back"))


def test_where_both_are_killed_at_once_the_access_ends_by_its_heartbeat(rig: Rig, spec: Spec) -> None:
    file = spec()
    with running(rig, STAYS, file) as process:
        inside = said(process)
        monitor = monitor_of(inside["holder"])
        os.kill(monitor, signal.SIGSTOP)
        os.kill(inside["holder"], signal.SIGKILL)
        os.kill(monitor, signal.SIGKILL)
        # the program knows at once, and the target half a minute later at most
        assert "was killed" in said(process)["reason"]
        wait_for(lambda: not logs_in(inside["url"]), 30)
    assert is_over(rig, file) and rig.record(file.stem).task.end_reason == "heartbeat"


def test_a_task_that_is_revoked_is_over_for_the_program(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    import psycopg
    def work():
        with task(spec) as t:
            engine = t.sqlalchemy_engine()
            own, of_engine = psycopg.connect(**t.psycopg_kwargs()), engine.connect()
            say(holder=holder())
            try:
                own.execute("SELECT pg_sleep(60)")
            except psycopg.Error:
                # at the moment of the driver's error
                say(over=t.is_over, reason=t.reason)
            try:
                of_engine.exec_driver_sql("SELECT 1")
            except TaskEnded as error:
                say(lost=str(error))
            try:
                t.secret("password")
            except TaskEnded as error:
                say(refused=str(error))
            own.execute("SELECT 1")
    try:
        work()
    except psycopg.Error as error:
        say(left=error.__notes__)
    """
    with running(rig, code, file) as process:
        inside = said(process)
        rig("operator", "revoke", file.stem, "--reason", "look", code=None)
        told = said(process)
        assert told["over"] and told["reason"].endswith('(revoked by operator: "look")')
        assert said(process)["lost"].endswith('(revoked by operator: "look")')
        assert f"task {file.stem} cannot be used: it is" in said(process)["refused"]
        # what leaves the block says it, too
        assert said(process)["left"] == [f"task {file.stem} is over: {told['reason']}"]
        assert process.wait(20) == 0
        assert not is_alive(inside["holder"])


def test_the_end_of_the_interpreter_gives_back_what_no_block_did(rig: Rig, spec: Spec) -> None:
    file = spec()
    (inside,), _ = run(rig, "t = task(spec).__enter__(); say(url=url(t))", file)
    assert not rig.task_tokens(file.stem) and not logs_in(inside["url"])
    assert is_over(rig, file) and is_noted(rig, file, "the Python program ended")


def test_a_copy_of_the_process_neither_ends_the_task_nor_keeps_it(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    with task(spec) as t:
        kept = t.secret("password")
        child = os.fork()
        if child == 0:
            try:
                kept.reveal()
            except TaskEnded as error:
                say(refused=str(error))
            # leaves the block, and the interpreter
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        time.sleep(2)
        say(url=url(t), over=t.is_over, status=status)
        pause()
        copied()
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    say(left=True)
    """
    with running(rig, code, file) as process:
        assert "a copy of the process" in said(process)["refused"]
        inside = said(process)
        assert inside["over"] is False and inside["status"] == 0 and logs_in(inside["url"])
        go_on(process)
        # two further copies still live, of which Python knows one
        assert said(process) == {"left": True}
        assert not rig.task_tokens(file.stem)
    assert is_over(rig, file)


def test_a_copy_keeps_no_task_of_a_killed_process_where_the_system_refuses_a_pidfd(rig: Rig, spec: Spec) -> None:
    """The holder knows of its caller's end by the pipe alone, which a copy of the caller has as well."""
    file = spec()
    code = """
    def refused(*_):
        raise OSError
    os.pidfd_open = refused
    with task(spec) as t:
        if os.fork() == 0:
            time.sleep(600)
        say(ready=True)
        time.sleep(600)
    """
    with running(rig, code, file) as process:
        assert said(process) == {"ready": True} and len(rig.task_tokens(file.stem)) == 1
        process.kill()
        wait_for(lambda: not rig.task_tokens(file.stem), 5)


def test_an_asynchronous_block_ends_with_its_cancellation(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    async def work():
        async with task(spec) as t:
            say(url=url(t), pid=os.getpid())
            await asyncio.sleep(600)
    async def main():
        working = asyncio.create_task(work())
        await asyncio.sleep(float(sys.argv[2]))
        working.cancel()
        try:
            await working
        except asyncio.CancelledError:
            say(cancelled=True)
    asyncio.run(main())
    """
    told, _ = run(rig, code, file, "6")
    assert told[-1] == {"cancelled": True} and not logs_in(told[0]["url"])
    assert is_over(rig, file) and is_noted(rig, file, "CancelledError")


# -- what a program connects with -------------------------------------------------------------------------------------


def test_an_engine_logs_in_while_the_task_lasts_and_has_no_password(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    import sqlalchemy
    with task(spec) as t:
        engine = t.sqlalchemy_engine(pool_size=1, max_overflow=1)
        other = t.sqlalchemy_engine(engine.url.set(database="app"), poolclass=sqlalchemy.NullPool)
        count = sqlalchemy.text("SELECT count(*) FROM orders")
        word = t.secret("password").reveal()
        with engine.connect() as one, engine.connect() as two, other.connect() as three:
            say(counts=[each.execute(count).scalar() for each in (one, two, three)])
        # what the engine connects with
        kept = repr([cell.cell_contents for cell in engine.pool._creator.__closure__])
        say(url=url(t), shown=repr(engine.url), seen="dbname" in kept, kept=word in kept)
    try:
        engine.connect()
    except TaskEnded as error:
        say(refused=str(error))
    """
    (counts, inside, after), _ = run(rig, code, file)
    assert len({*counts["counts"]}) == 1
    assert "***" not in inside["shown"] and "@" not in inside["shown"] and inside["seen"] and not inside["kept"]
    assert "its block was left" in after["refused"]


@pytest.mark.parametrize("block", ["async with", "with"])
def test_an_engine_for_asyncio_logs_in_while_the_task_lasts_and_has_no_password(
    rig: Rig, spec: Spec, block: str
) -> None:
    file = spec()
    code = """
    import gc, warnings
    from contextlib import asynccontextmanager
    warnings.simplefilter("error")
    sys.unraisablehook = lambda what: say(warned=str(what.exc_value))
    @asynccontextmanager
    async def plain(spec):
        with task(spec) as t:
            yield t
    async def main(held):
        async with held as t:
            engine = t.async_sqlalchemy_engine(pool_size=1)
            word = t.secret("password").reveal()
            async with engine.connect() as one, engine.connect() as two:
                counts = [(await each.exec_driver_sql("SELECT count(*) FROM orders")).scalar() for each in (one, two)]
            kept = repr([cell.cell_contents for cell in engine.sync_engine.pool._creator.__closure__])
            say(counts=counts, shown=repr(engine.url), seen="dbname" in kept, kept=word in kept)
            if sys.argv[2] == "with":
                await engine.dispose()
        idle = engine.sync_engine.pool.checkedin()
        gc.collect()
        try:
            await engine.connect()
        except TaskEnded as error:
            say(refused=str(error), idle=idle)
    asyncio.run(main(task(spec) if sys.argv[2] == "async with" else plain(spec)))
    """
    (inside, after), _ = run(rig, code, file, block)
    assert len({*inside["counts"]}) == 1 and len(inside["counts"]) == 2
    assert "@" not in inside["shown"] and inside["seen"] and not inside["kept"]
    assert "its block was left" in after["refused"] and after["idle"] == 0


def test_a_copy_of_the_process_closes_no_connection_of_an_engine_for_asyncio(rig: Rig, spec: Spec) -> None:
    file = spec()
    code = """
    async def main():
        async with task(spec) as t:
            engine = t.async_sqlalchemy_engine(pool_size=1)
            async def session():
                async with engine.connect() as connection:
                    return (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar()
            before = await session()
            child = os.fork()
            if child == 0:
                # asyncio itself does not work in a copy
                try:
                    t.__aexit__(None, None, None).send(None)
                except StopIteration:
                    os._exit(0)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            say(status=status, same=await session() == before)
    asyncio.run(main())
    """
    assert run(rig, code, file)[0] == [{"status": 0, "same": True}]


def test_a_certificate_is_shown_to_servers_while_the_task_lasts(rig: Rig, spec: Spec) -> None:
    file = spec(template="pki-service", choices="{service: orders}")
    code = """
    import ssl
    with task(spec, on_wait=lambda text: say(waits=text)) as t:
        (held,) = t.credentials
        context = t.ssl_context()
        assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
        context.load_verify_locations(cadata=t.secret("issuing_ca").reveal())
        of_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        of_server.verify_mode = ssl.CERT_REQUIRED
        of_server.load_verify_locations(cadata=t.secret("issuing_ca").reveal())
        with open(sys.argv[2], "w") as file:
            file.write("\\n".join(t.secret(each).reveal() for each in ("private_key", "certificate")))
        of_server.load_cert_chain(sys.argv[2])
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname="orders.svc.internal")
        server = of_server.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(4):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass
        say(seen=str(server.getpeercert()["subject"]), fields=sorted(held.fields))
    try:
        t.ssl_context()
    except TaskEnded:
        say(over=True)
    """
    with running(rig, code, file, file.parent / "server.pem") as process:
        said(process)
        rig("approver-1", "approve", file.stem, "--yes")
        told = said(process)
        assert "orders.svc.internal" in told["seen"], told
        assert said(process) == {"over": True}


def test_no_secret_is_in_arguments_environment_or_on_standard_error(rig: Rig, spec: Spec) -> None:
    file = spec()
    with running(rig, STAYS, file) as process:
        inside = said(process)
        password = inside["url"].split(":")[2].partition("@")[0].encode()
        (token,) = rig.task_tokens(file.stem)
        for pid in (process.pid, inside["holder"]):
            for place in ("cmdline", "environ"):
                assert password not in (Path("/proc") / str(pid) / place).read_bytes(), (pid, place)
        rig("operator", "revoke", file.stem, "--reason", "look", code=None)
        _, stderr = process.communicate(timeout=20)
    assert stderr == "" and token


# -- more time --------------------------------------------------------------------------------------------------------

WAITS = """
with task(spec, wait="1m") as t:
    say(url=url(t), ends_at=t.ends_at.isoformat())
    before = t.ends_at
    while not t.is_over and t.ends_at == before:
        time.sleep(0.05)
    say(ends_at=t.ends_at.isoformat(), reason=t.reason)
    pause()
"""


def offset_time(time: str) -> str:
    """Return a time as the program that asks prints it."""
    return datetime.fromisoformat(time).isoformat()


def test_more_time_with_the_same_token_is_followed(rig: Rig, spec: Spec) -> None:
    file = spec(window="5m")
    with running(rig, WAITS, file) as process:
        said(process)
        told = rig("agent", "extend", file.stem, "--for", "7m", "--reason", "slow", code=None)
        moved = said(process)
        assert moved == {"ends_at": offset_time(told.json["ends_at"]), "reason": ""}, told
        go_on(process)
        assert process.wait(20) == 0
    assert is_over(rig, file)


CHANGES = """
import sqlalchemy
with task(spec) as t:
    first, kept, engine = url(t), t.secret("password"), t.sqlalchemy_engine()
    engine.connect().close()
    engine.dispose()
    say(url=first)
    while not t.is_over and url(t) == first:
        time.sleep(0.05)
    with engine.connect() as connection:
        user = connection.execute(sqlalchemy.text("SELECT current_user")).scalar()
    same = kept.reveal() == t.secret("password").reveal() == t.psycopg_kwargs()["password"]
    say(url=url(t), user=user, same=same, ends_at=t.ends_at.isoformat(), reason=t.reason)
    pause()
"""


@pytest.mark.parametrize("who", ["agent", "operator"])
def test_more_time_with_another_token_is_followed_and_its_secrets_are_the_blocks(
    rig: Rig, spec: Spec, who: str
) -> None:
    file = spec(window="5m", more="" if who == "agent" else "  deliver: agent\n")
    if who == "operator":
        rig("operator", "grant", file)
    with running(rig, CHANGES, file if who == "agent" else file.stem) as process:
        first = said(process)["url"]
        told = rig(who, "extend", file.stem, "--for", "20m", "--reason", "slow")
        changed = said(process)
        assert changed["same"] and changed["user"] in changed["url"] and not changed["reason"]
        assert changed["ends_at"] == offset_time(told.json["ends_at"])
        assert logs_in(changed["url"]) and not logs_in(first)
        go_on(process)
        assert process.wait(20) == 0
    assert is_over(rig, file) and not logs_in(changed["url"])
    assert rig.record(file.stem).task.end_reason == "completed"


# -- the examples -----------------------------------------------------------------------------------------------------


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize("words", [["python", "count_orders.py"], ["sh", "count_orders.sh"]], ids=["Python", "shell"])
def test_the_examples_print_a_number_and_leave_nothing(rig: Rig, words: list[str]) -> None:
    """As they are, in the directory of their specs, on a host that has nothing but an agent's login."""
    path = f"{Path(sys.executable).parent}:{find_programs() / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=EXAMPLES,
        env={**environment(rig), "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.strip().isdigit(), done

    def are_over() -> bool:
        tasks = rig("auditor", "list").json["tasks"]
        states = {each["state"] for each in tasks if each["task_id"].startswith("count-orders-")}
        return bool(states) and states <= {"confirmed", "sealed"}

    wait_for(are_over, 30)


def test_the_page_begins_with_the_example() -> None:
    page = (EXAMPLES.parent / "sdk.md").read_text()
    assert page.split("```")[1] == f"python\n{(EXAMPLES / 'count_orders.py').read_text()}"
