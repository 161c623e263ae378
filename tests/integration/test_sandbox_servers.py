"""The sandbox's servers are real, keep what they promise to keep, and never outlive whoever started them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

psutil = pytest.importorskip("psutil")
psycopg = pytest.importorskip("psycopg")

from jitvault.errors import VaultUnavailable, WrongState  # noqa: E402
from jitvault.formats.server_product import Product, product_of, release_of  # noqa: E402
from jitvault.sandbox.accounts import reachable, server_account  # noqa: E402
from jitvault.sandbox.placement import copy_programs, find_programs, runnable  # noqa: E402
from jitvault.sandbox.processes import Account, Command, ServerProcess  # noqa: E402
from jitvault.sandbox.servers import Postgres, VaultServer, running_servers  # noqa: E402
from jitvault.vault import server as vault_server  # noqa: E402
from jitvault.vault.client import Connection, Vault  # noqa: E402

PROJECT = Path(__file__).parents[2]


def ask(bao: VaultServer, method: str, path: str, body: object = None) -> dict[str, Any]:
    with requests.Session() as session:
        session.trust_env = False
        response = session.request(
            method,
            f"{bao.address}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": bao.root_token},
            timeout=5,
        )
    response.raise_for_status()
    return response.json() if response.content else {}


def audit_hash(bao: VaultServer, value: str) -> str:
    return ask(bao, "PUT", "sys/audit-hash/jitvault", {"input": value})["data"]["hash"]


def query(postgres: Postgres, statement: str) -> object:
    with psycopg.connect(postgres.dsn(), connect_timeout=5) as connection:
        return connection.execute(statement).fetchone()[0]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_dead(pids: list[int], seconds: float) -> list[int]:
    """Those that are still alive after `seconds`."""
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def run_child(script: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with VaultServer(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


class TestVault:
    def test_serves_active_and_unsealed(self, bao: VaultServer) -> None:
        health = ask(bao, "GET", "sys/health")

        assert (health["initialized"], health["sealed"], health["standby"]) == (True, False, False)
        assert ask(bao, "GET", "auth/token/lookup-self")["data"]["policies"] == ["root"]

    def test_says_to_anybody_which_product_and_version_it_is(self, bao: VaultServer) -> None:
        nobody = Vault(Connection(bao.address), None)
        with closing(nobody):
            health, seal_status = nobody.health(), nobody.seal_status()
        assert release_of(health, seal_status) == bao.binary.release
        # where it hides its version
        if bao.product is Product.OPENBAO:
            assert product_of({}, seal_status) is Product.OPENBAO

    def test_its_audit_file_receives_lines_and_is_private(self, bao: VaultServer) -> None:
        before = bao.audit_file.stat().st_size
        ask(bao, "GET", "sys/mounts")

        with bao.audit_file.open() as file:
            file.seek(before)
            lines = [json.loads(line) for line in file]
        assert [(line["type"], line["request"]["path"]) for line in lines] == [
            ("request", "sys/mounts"),
            ("response", "sys/mounts"),
        ]
        assert stat.S_IMODE(bao.audit_file.stat().st_mode) == 0o600

    def test_no_other_user_can_read_its_key_and_no_file_has_its_root_token(self, bao: VaultServer) -> None:
        # in `.cache` a Vault puts one file of a plugin's, which says nothing
        files = [path for path in bao.directory.rglob("*") if path.is_file() and ".cache" not in path.parts]

        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert not [path for path in files if bao.root_token.encode() in path.read_bytes()]

    def test_cuts_a_request_body_over_one_mebibyte(self, bao: VaultServer) -> None:
        with pytest.raises(requests.RequestException):
            ask(bao, "PUT", "sys/audit-hash/jitvault", {"input": "x" * (1 << 20)})

    def test_raft_keeps_data_and_audit_salt_over_a_kill(self, tmp_path: Path) -> None:
        with VaultServer(tmp_path, storage="raft", max_request_duration=timedelta(seconds=5)) as bao:
            # version 1: a new mount of version 2 refuses requests for a moment
            ask(bao, "POST", "sys/mounts/kv", {"type": "kv"})
            ask(bao, "POST", "kv/thing", {"colour": "blue"})
            hashed, address, lines = audit_hash(bao, "same"), bao.address, bao.audit_file.stat().st_size

            bao.kill()
            assert not bao.running
            bao.start()

            assert bao.address == address
            assert ask(bao, "GET", "kv/thing")["data"] == {"colour": "blue"}
            assert audit_hash(bao, "same") == hashed
            assert bao.audit_file.stat().st_size > lines

    def test_in_memory_comes_back_empty_with_another_root_token(self, tmp_path: Path) -> None:
        with VaultServer(tmp_path) as bao:
            token = bao.root_token
            ask(bao, "POST", "sys/mounts/kv", {"type": "kv"})

            bao.restart()

            assert bao.root_token != token
            assert "kv/" not in ask(bao, "GET", "sys/mounts")["data"]

    def test_waits_for_its_own_port_when_it_comes_back(self, tmp_path: Path) -> None:
        with VaultServer(tmp_path) as bao:
            port = bao.port
            bao.stop()
            squatter = socket.create_server(("127.0.0.1", port))
            threading.Timer(0.3, squatter.close).start()

            bao.start()

            assert bao.port == port
            assert ask(bao, "GET", "sys/health")["sealed"] is False

    def test_a_start_that_fails_says_why_and_leaves_no_process(self, tmp_path: Path) -> None:
        bao = VaultServer(tmp_path, storage="raft")
        (tmp_path / "raft").write_text("not a directory")
        with pytest.raises(WrongState, match="another server"):
            bao.start()

        broken = VaultServer(tmp_path / "b", more_configuration='listener "pigeon" {\n}')
        with pytest.raises(VaultUnavailable, match=r"last lines of its log:\n(.*\n)*.*listener"):
            broken.start()
        assert not broken.running

    @pytest.mark.needs("static-seal")
    def test_a_start_that_fails_by_its_seal_does_not_show_the_key(self, tmp_path: Path) -> None:
        broken = VaultServer(tmp_path)
        (broken.directory / "seal.key").write_text("too short")
        with pytest.raises(VaultUnavailable, match=r"last lines of its log:\n(.*\n)*.*seal") as caught:
            broken.start()
        assert "too short" not in str(caught.value)
        assert not broken.running

    def test_has_no_token_or_port_before_its_start(self, tmp_path: Path) -> None:
        bao = VaultServer(tmp_path)

        for read in (lambda: bao.root_token, lambda: bao.address, lambda: bao.pid):
            with pytest.raises(WrongState):
                read()


def test_what_it_is_holds_while_it_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_server, "_LOOK_AGAIN_S", 0.0)
    with VaultServer(tmp_path) as bao:
        known = vault_server.ServerRelease(Connection(bao.address))
        assert known() == bao.binary.release
        bao.kill()
        assert known() == bao.binary.release
        assert vault_server.ServerRelease(Connection(bao.address))() is None


class TestPostgres:
    def test_accepts_the_right_password(self, postgres: Postgres) -> None:
        assert query(postgres, "SHOW server_version_num") >= "180000"
        assert query(postgres, "SELECT current_user") == "postgres"

    @pytest.mark.parametrize("password", ["wrong", None])
    def test_refuses_a_wrong_password_and_none(self, postgres: Postgres, password: str | None) -> None:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(postgres.dsn(user="postgres", password=password), passfile="/dev/null")

    def test_checks_the_password_of_a_role_made_later(self, postgres: Postgres) -> None:
        odd = r"it's \ odd"
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE late LOGIN PASSWORD $${odd}$$")

        with psycopg.connect(postgres.dsn(user="late", password=odd)) as connection:
            assert connection.info.user == "late"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(postgres.dsn(user="late", password=odd + "x"))

    def test_no_password_is_in_its_files(self, postgres: Postgres) -> None:
        with psycopg.connect(postgres.dsn()) as connection, pytest.raises(psycopg.Error):
            connection.execute("CREATE ROLE postgres LOGIN PASSWORD 'f0r-the-log'")

        data = Path(str(query(postgres, "SHOW data_directory")))
        texts = [postgres.log_file.read_text(), *(path.read_text() for path in data.glob("*.conf"))]
        assert not [text for text in texts if "f0r-the-log" in text or postgres.superuser_password in text]
        assert not list(data.parent.glob("password*"))

    def test_keeps_its_data_over_a_kill_and_a_restart(self, postgres: Postgres) -> None:
        with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
            pid = postgres.pid
            postgres.kill()  # with a session open
            assert not alive(pid)
            postgres.start()
        assert query(postgres, "SELECT answer FROM kept") == 42

        postgres.restart()
        assert query(postgres, "SELECT answer FROM kept") == 42

    def test_allows_200_connections_on_loopback_only(self, postgres: Postgres) -> None:
        assert query(postgres, "SHOW max_connections") == "200"
        assert query(postgres, "SHOW listen_addresses") == "127.0.0.1"
        assert query(postgres, "SHOW unix_socket_directories") == ""

    def test_refuses_the_directory_of_another_sandbox(self, tmp_path: Path) -> None:
        (tmp_path / "pgdata").mkdir()
        with pytest.raises(WrongState, match="another PostgreSQL"):
            Postgres(tmp_path).start()
        assert (tmp_path / "pgdata").is_dir()

    def test_runs_from_a_copy_of_its_programs(self, tmp_path: Path) -> None:
        copied = copy_programs(find_programs(), tmp_path / "programs")

        for program in ("initdb", "postgres"):
            said = subprocess.run([copied / "bin" / program, "--version"], capture_output=True, text=True, check=True)
            assert said.stdout.startswith(f"{program} (PostgreSQL) 18")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
    def test_as_root_it_runs_as_another_user_and_opens_no_directory(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        account = server_account()
        assert account is not None

        with Postgres(closed / "postgres") as postgres:
            assert psutil.Process(postgres.pid).uids().real == account.uid
            data = Path(str(query(postgres, "SHOW data_directory")))
            assert closed not in data.parents
            assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert not data.parent.exists()


class TestReachable:
    def test_needs_every_directory_above(self, tmp_path: Path) -> None:
        stranger = Account("stranger", 1_234_567, 1_234_567)
        path = Path("/usr/bin/env")
        assert reachable(path, stranger)

        (tmp_path / "shut").mkdir(mode=0o700)
        program = tmp_path / "shut" / "program"
        program.touch(0o755)
        assert not reachable(program, stranger)

    def test_programs_under_a_closed_directory_are_not_runnable(self, tmp_path: Path) -> None:
        installed = copy_programs(find_programs(), tmp_path / "programs")
        (tmp_path / "programs").chmod(0o700)
        assert not runnable(installed, Account("stranger", 1_234_567, 1_234_567))


class TestSeveral:
    def test_two_of_each_start_at_once_and_stop_apart(self, tmp_path: Path) -> None:
        baos = [VaultServer(tmp_path / f"bao{n}") for n in range(2)]
        databases = [Postgres(tmp_path / f"pg{n}") for n in range(2)]
        try:
            with ThreadPoolExecutor() as pool:  # its threads end here, and the servers must not
                list(pool.map(lambda server: server.start(), [*baos, *databases]))
            assert len({server.port for server in [*baos, *databases]}) == 4
            (tmp_path / "bao0" / "mine.txt").write_text("the caller's")

            baos[0].stop()
            databases[0].stop()

            assert (tmp_path / "bao0" / "mine.txt").read_text() == "the caller's"
            assert ask(baos[1], "GET", "sys/health")["sealed"] is False
            assert query(databases[1], "SELECT 1") == 1
        finally:
            for server in [*baos, *databases]:
                server.__exit__(None, None, None)

    def test_their_directory_goes_with_them_after_an_exception(self) -> None:
        with pytest.raises(KeyboardInterrupt), running_servers() as servers:
            directory, pids = servers.directory, [servers.vault.pid, servers.postgres.pid]
            raise KeyboardInterrupt

        assert not directory.exists()
        assert not wait_until_dead(pids, 0)


class TestNoOrphans:
    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
    def test_a_killed_parent_takes_its_servers_with_it(self, tmp_path: Path) -> None:
        script = f"""
            import threading, psycopg
            from pathlib import Path
            from jitvault.sandbox.servers import VaultServer, Postgres
            bao = VaultServer(Path({str(tmp_path / "bao")!r}))
            postgres = Postgres(Path({str(tmp_path / "pg")!r}))
            bao.start()
            postgres.start()
            session = psycopg.connect(postgres.dsn())
            data, = session.execute("SHOW data_directory").fetchone()
            print(bao.pid, postgres.pid, session.info.backend_pid, data, flush=True)
            session.execute("SELECT count(*) FROM generate_series(1, 100000000000)")
        """
        with run_child(script) as child:
            assert child.stdout is not None
            *numbers, data = child.stdout.readline().split()
            pids = [int(number) for number in numbers]
            pids += [process.pid for process in psutil.Process(pids[1]).children(recursive=True)]
            time.sleep(0.2)
            child.kill()

        assert not wait_until_dead(pids, 3)
        if tmp_path not in Path(data).parents:  # as root; after a SIGKILL the directory stays
            shutil.rmtree(Path(data).parent)

    def test_a_signal_made_an_exception_stops_them_and_removes_their_directory(self) -> None:
        script = """
            import signal, sys, time
            from jitvault.sandbox.servers import running_servers
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
            with running_servers() as servers:
                print(servers.vault.pid, servers.postgres.pid, servers.directory, flush=True)
                time.sleep(60)
        """
        with run_child(script) as child:
            assert child.stdout is not None
            *pids, directory = child.stdout.readline().split()
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 143

        assert not Path(directory).exists()
        assert not wait_until_dead([int(pid) for pid in pids], 0)

    def test_an_interrupted_start_leaves_nothing(self, tmp_path: Path) -> None:
        script = f"""
            from pathlib import Path
            from jitvault.sandbox.servers import VaultServer
            bao = VaultServer(Path({str(tmp_path)!r}), storage="raft")
            print("starting", flush=True)
            try:
                bao.start()  # takes over a second: it waits for an election
            except KeyboardInterrupt:
                print(bao.running)
        """
        with run_child(script) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "starting\n"
            time.sleep(0.5)
            child.send_signal(signal.SIGINT)
            assert child.communicate(timeout=10)[0] == "False\n"
        assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(p.info["cmdline"])]

    def test_a_forgotten_server_ends_with_its_object(self, tmp_path: Path) -> None:
        command = Command(("/bin/sleep", "60"), tmp_path, tmp_path / "log", {})
        process = ServerProcess(command)
        pid = process.pid
        assert alive(pid)

        del process

        assert not wait_until_dead([pid], 1)

    def test_a_fork_of_ours_does_not_end_our_server(self, tmp_path: Path) -> None:
        script = f"""
            import os, sys
            from pathlib import Path
            from jitvault.sandbox.processes import Command, ServerProcess
            here = Path({str(tmp_path)!r})
            process = ServerProcess(Command(("/bin/sleep", "60"), here, here / "log", {{}}))
            if os.fork() == 0:
                sys.exit(0)  # runs the finalizers that it inherited
            os.wait()
            print(process.exit_code)
        """
        with run_child(script) as child:
            assert child.communicate(timeout=10)[0].strip() == "None"

    def test_a_program_that_cannot_run_ends_with_127_and_says_so(self, tmp_path: Path) -> None:
        process = ServerProcess(Command(("/nowhere/server",), tmp_path, tmp_path / "log", {}))
        assert process.wait(5)
        assert process.exit_code == 127
        assert "cannot run /nowhere/server: No such file" in process.last_words()
