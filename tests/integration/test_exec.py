"""`jitvault exec` runs a program with a task's access, and leaves nothing behind, however it or the program ends."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from attended import Attended, wait_for
from forked import Forked, run_in_bytes
from rig import Rig

from jitvault.cli.access.giving_back import give_back
from jitvault.cli.access.withdrawal import withdrawn_if_interrupted
from jitvault.cli.options import Ending
from jitvault.documents.signed import payload_of
from jitvault.model.revision import Revision

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
# prints its login and its processes, one of which left its parent and its session; both live until they are killed
STAYS = """
import json, os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for n in range(3):
        os.close(n)
    with open(sys.argv[1] + ".daemon", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1] + ".daemon") or not open(sys.argv[1] + ".daemon").read():
    time.sleep(0.01)
known = {"pid": os.getpid(), "url": os.environ["DATABASE_URL"], "file": os.environ["PGPASSFILE"],
    "daemon": int(open(sys.argv[1] + ".daemon").read())}
with open(sys.argv[1] + ".part", "w") as file:
    json.dump(known, file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""

# as where the kernel does not have prctl(2), or refuses it
WITHOUT_PRCTL = """\
from jitvault import memory_protection
from jitvault.agent.execution import process_tree
memory_protection.prctl = process_tree.prctl = lambda option, value: False
from jitvault.cli.app import main
main()
"""
# as a library does that makes a process without Python: the copy has every descriptor
COPIED = """\
import ctypes, os
from jitvault.agent.execution.monitor import Monitor
start = Monitor.start
def copied(*words):
    if ctypes.PyDLL(None).fork() == 0:
        ctypes.CDLL(None).sleep(60)
        os._exit(0)
    start(*words)
Monitor.start = copied
from jitvault.cli.app import main
main()
"""


@contextmanager
def own_memory(rig: Rig) -> Iterator[None]:
    """A directory in memory for this test's commands alone, in which they leave nothing."""
    with TemporaryDirectory(dir="/dev/shm") as memory:
        rig.cli.variables = {**rig.cli.variables, "XDG_RUNTIME_DIR": memory}
        yield
        # of an exec that was killed, its monitor takes them away a moment later
        wait_for(lambda: not list(Path(memory).iterdir()), 5)


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with own_memory(rig), Attended(rig):
        yield rig


@dataclass
class Running:
    """`jitvault exec` with a program that stays, and what the program said of itself."""

    process: Forked | subprocess.Popen[bytes]
    pid: int
    daemon: int
    url: str
    file: Path

    @property
    def monitor(self) -> int:
        """The parent of the program."""
        return int((Path("/proc") / str(self.pid) / "stat").read_text().rpartition(")")[2].split()[1])

    def is_gone(self) -> bool:
        return not (is_alive(self.pid) or is_alive(self.daemon))


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def environment(rig: Rig) -> dict[str, str]:
    """An agent's host: its own login, and neither the worker's identity nor a ledger."""
    return {**rig.cli.environment("agent", worker=False), "HOME": str(rig.cli.home)}


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "jitvault", "exec", *map(str, words)]


def started(rig: Rig, *words: str | Path, leads: bool = False, cwd: Path | None = None, **more: str) -> Forked:
    """`jitvault exec` with these words, which runs."""
    return Forked(["exec", *map(str, words)], {**environment(rig), **more}, cwd=cwd, leads=leads)


def execute(rig: Rig, *words: str | Path, given: bytes = b"", code: int | None = 0, **more: str) -> Any:
    done = run_in_bytes(["exec", *map(str, words)], {**environment(rig), **more}, given)
    assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@contextmanager
def running(rig: Rig, file: Path, place: Path, *options: str, program: str = "") -> Iterator[Running]:
    said = place / "said"
    words = (file, "--preset", "postgres", *options, "--", sys.executable, "-c", STAYS, said)
    process: Forked | subprocess.Popen[bytes]
    if program:
        argv, pipe = [sys.executable, "-c", program, "exec", *map(str, words)], subprocess.PIPE
        process = subprocess.Popen(argv, env=environment(rig), stdout=pipe, stderr=pipe, start_new_session=True)
    else:
        process = started(rig, *words, leads=True)
    try:
        wait_for(lambda: said.exists() or process.poll() is not None, 30)
        assert process.poll() is None, process.communicate()
        known = json.loads(said.read_text())
        yield Running(process, known["pid"], known["daemon"], known["url"], Path(known["file"]))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)


def logs_in(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


# -- what the program gets --------------------------------------------------------------------------------------------


def test_a_spec_is_asked_for_run_and_given_back_in_one_step(rig: Rig, spec: Spec) -> None:
    file = spec()
    query = "import psycopg; print(psycopg.connect().execute('SELECT count(*) FROM orders').fetchone()[0])"
    # the shell has another login, as after `jitvault unwrap -o env`
    own = {"PGPASSWORD": "of another login", "PGHOSTADDR": "192.0.2.1", "PGSERVICE": "another"}
    done = execute(rig, file, "--preset", "postgres", "--", sys.executable, "-c", query, **own)
    assert done.stdout.strip().isdigit()
    wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"))
    # the worker may have acted on the token's revocation before it read the signed end
    notes = [event.body.get("note") or "" for event in rig.record(file.stem).events]
    assert rig.record(file.stem).task.end_reason == "completed" and "exit code 0" in "".join(notes)
    # which of the two came first, people read what the signed end says
    for worker in (True, False):
        shown = " ".join(rig.cli("operator", "status", file.stem, worker=worker).stdout.split())
        # once: the line of the end says it
        assert re.search(r" is (confirmed|sealed) [^(]", shown), shown
        assert shown.partition("when (UTC)")[0].count("exit code 0") == 1, shown
        assert re.search(r"UTC by research-agent: [^.]*exit code 0", shown), shown


def test_a_program_that_is_stopped_at_the_deadline_has_not_completed_its_task(rig: Rig, spec: Spec) -> None:
    file = spec(window="10s")
    stopped = execute(rig, file, "--preset", "postgres", "--", "sleep", "60", code=125)
    assert b"the program was stopped, because task" in stopped.stderr

    signed = payload_of(rig.document(f"requests/{rig.entity('research-agent')}/{file.stem}/end"))
    assert signed["note"] == "the program was stopped, because its access was over, and ended with exit code 143"
    wait_for(lambda: rig.record(file.stem).task.end_reason)
    assert rig.record(file.stem).task.end_reason == "deadline"


def test_a_spec_that_was_asked_for_without_a_heartbeat_is_not_another_one_now(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig("agent", "submit", file)
    execute(rig, file, "--", "true")
    assert Revision.of(rig.record(file.stem).revision.body).spec.spec.window.heartbeat is None


def test_the_program_has_the_secrets_and_nothing_of_the_agents_own(rig: Rig, spec: Spec) -> None:
    show = "import json, os; print(json.dumps({**os.environ, 'read': open(os.environ['PGPASSFILE']).read()}))"
    maps = ("--env", "LOGIN=postgres-readonly.username", "--file", "WORD=postgres-readonly.password", "--mask", "never")
    more = {"SPIFFE_ENDPOINT_SOCKET": "unix:///x"}
    done = execute(rig, spec(), "--preset", "postgres", *maps, "--", sys.executable, "-c", show, **more)
    got = json.loads(done.stdout)
    assert got["LOGIN"] == got["PGUSER"] and got["read"].startswith("*:*:*:*:")
    own = [name for name in got if name.startswith(("VAULT_", "BAO_", "JITVAULT_", "SPIFFE_"))]
    assert own == ["JITVAULT_CONTEXT_FILE"]
    assert not Path(got["WORD"]).exists() and not logs_in(got["DATABASE_URL"])


def test_a_file_tells_a_model_what_it_may_do_and_no_secret(rig: Rig, spec: Spec) -> None:
    show = "cat $JITVAULT_CONTEXT_FILE; printf 'END%s %s' $PGUSER $(cut -d: -f5 $PGPASSFILE)"
    file = spec(more="  tools: [sh, psql]\n")
    done = execute(rig, file, "--preset", "postgres", "--mask", "never", "--", "sh", "-c", show)
    told, _, secrets = done.stdout.decode().partition("END")
    assert secrets.startswith("v-") and not [each for each in secrets.split() if each in told]
    assert f"Task {file.stem} gives this program access until 20" in told
    assert "- postgres-readonly, database app: Read every table" in told
    assert "Programs that may be run: psql, sh" in told and "PGPASSFILE" in told


def test_what_it_prints_is_masked_and_everything_else_is_as_it_was(rig: Rig, spec: Spec) -> None:
    noise = bytes(range(256)) * 300
    copy = "import os, sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    told = f"{copy}; print(os.environ['DATABASE_URL'], file=sys.stderr)"
    done = execute(rig, spec(), "--preset", "postgres", "--", sys.executable, "-c", told, given=noise)
    assert done.stdout == noise
    assert b":[jitvault:postgres-readonly.password]@" in done.stderr


def test_the_exit_code_is_a_shells(rig: Rig, spec: Spec) -> None:
    for code, words in {
        7: ("sh", "-c", "exit 7"),
        128 + signal.SIGKILL: ("sh", "-c", "kill -KILL $$"),
        127: ("/nowhere/program",),
        126: (Path(__file__),),
    }.items():
        execute(rig, spec(), "--", *words, code=code)


def test_one_spec_is_run_twice_under_two_ids(rig: Rig, spec: Spec) -> None:
    file = spec()
    for task in (f"{file.stem}-a", f"{file.stem}-b"):
        assert execute(rig, file, "--id", task, "--", "sh", "-c", "echo ran", code=0).stdout == b"ran\n"
        assert rig.state(task) is not None
    assert rig.state(file.stem) is None
    refused = execute(rig, f"{file.stem}-a", "--id", "other", "--", "sh", "-c", "echo ran", code=125)
    assert b"--id names the task of a SPEC" in refused.stderr and refused.stdout == b""


def test_a_program_that_nobody_signed_and_a_mapping_that_cannot_be_filled_start_nothing(rig: Rig, spec: Spec) -> None:
    file = spec(more="  tools: [psql]\n")
    refused = execute(rig, file, "--", "sh", "-c", "echo ran", code=125)
    assert b"the spec names psql in spec.tools, and not sh" in refused.stderr and refused.stdout == b""
    assert b"approvers signed" not in refused.stderr.lower() and rig.state(file.stem) is None, "nobody has signed it"
    rig("operator", "grant", signed := spec(more="  tools: [psql]\n  deliver: agent\n"))
    refused = execute(rig, signed.stem, "--", "sh", "-c", "echo ran", code=125)
    assert f"task {signed.stem} is for psql, and not for sh".encode() in refused.stderr and refused.stdout == b""
    wrong = ("--env", "WORD=postgres-readonly.pasword")
    refused = execute(rig, spec(), *wrong, "--", "sh", "-c", "echo ran", code=125)
    assert b"did you mean password" in refused.stderr and refused.stdout == b""
    # which fields it has is known once it is read, and by then the task is used up
    assert b"The access was taken and is given back. Ask for a task with another id (`--id ID`)." in refused.stderr
    # which credentials a task has is known before it is asked for
    file = spec()
    refused = execute(rig, file, "--env", "WORD=postgres-redonly.password", "--", "sh", "-c", "echo ran", code=125)
    assert b"did you mean postgres-readonly" in refused.stderr and rig.state(file.stem) is None
    file = spec(template="pki-service", choices="{service: orders}")
    refused = execute(rig, file, "--preset", "postgres", "--", "sh", "-c", "echo ran", code=125)
    assert b"the task has no login to a database" in refused.stderr and rig.state(file.stem) is None
    # and so is whose inbox the access goes to
    file = spec(more="  deliver: agent\n")
    operator = rig.cli.environment("operator", worker=False)
    refused = execute(rig, file, "--", "sh", "-c", "echo ran", code=125, **operator)
    assert b"and you are operator" in refused.stderr and rig.state(file.stem) is None


def test_ctrl_c_during_the_wait_for_an_approval_withdraws_the_request(rig: Rig, spec: Spec) -> None:
    file = spec(criticality="medium", more="  deliver: agent\n")
    waiting = started(rig, file, "--", "true")
    wait_for(lambda: rig.state(file.stem) == "pending_approval" or waiting.poll() is not None, 30)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130 and f"withdrawn: task {file.stem} is cancelled".encode() in said, said
    assert rig.state(file.stem) == "cancelled"


def test_who_interrupts_the_wait_for_access_that_another_host_took_ends_nothing(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    assert rig("operator", "status", file.stem).json["state"] == "active"
    kept: list[object] = []
    context, monitor = SimpleNamespace(obj=Ending()), SimpleNamespace(pid=0, clean_up_later=kept.append)
    waits = withdrawn_if_interrupted(cast("Any", context), rig.wiring(), cast("Any", monitor), file.stem)
    with pytest.raises(KeyboardInterrupt), waits:
        raise KeyboardInterrupt
    assert context.obj.interrupt_hint.startswith("Nothing was withdrawn: ") and kept[-1] is None
    # nor does the monitor, of whoever interrupts it twice
    assert give_back(rig.wiring(), cast("Any", kept[0]), "")
    assert rig.admin.read(f"jitvault/data/requests/{rig.entity('operator')}/{file.stem}/end") is None
    rig("operator", "complete", file.stem)


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "victim", ["exec", "copied exec", "monitor", "program", "group of the program", "group of exec"]
)
def test_exec_leaves_nothing_whichever_of_its_processes_is_killed(
    rig: Rig, spec: Spec, tmp_path: Path, victim: str
) -> None:
    file = spec()
    with running(rig, file, tmp_path, program=COPIED if victim == "copied exec" else "") as held:
        assert logs_in(held.url)
        whom = {
            "exec": lambda: os.kill(held.process.pid, signal.SIGKILL),
            "copied exec": lambda: os.kill(held.process.pid, signal.SIGKILL),
            "monitor": lambda: os.kill(held.monitor, signal.SIGKILL),
            "program": lambda: os.kill(held.pid, signal.SIGKILL),
            "group of the program": lambda: os.killpg(held.pid, signal.SIGKILL),
            "group of exec": lambda: os.killpg(held.process.pid, signal.SIGKILL),
        }
        token = rig.task_tokens(file.stem)
        assert len(token) == 1
        begun = time.monotonic()
        whom[victim]()
        wait_for(held.is_gone, 5)
        gone_s = time.monotonic() - begun
        wait_for(lambda: not rig.task_tokens(file.stem), 5)
        dead_s = time.monotonic() - begun
        wait_for(lambda: not logs_in(held.url), 10)
        wait_for(lambda: not held.file.exists(), 5)
    wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"), 30)
    assert rig.record(file.stem).task.end_reason == "completed"
    # far from the bars of the benchmark, which a busy machine would miss
    assert gone_s < 2 and dead_s < 4, (gone_s, dead_s)


def test_what_the_program_left_behind_ends_with_it(rig: Rig, spec: Spec) -> None:
    left = execute(rig, spec(), "--", "sh", "-c", "setsid sleep 611 >/dev/null 2>&1 & echo $!")
    wait_for(lambda: not is_alive(int(left.stdout)), 5)


def test_where_the_kernel_holds_no_orphans_that_is_said_and_the_group_ends_all_the_same(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    with running(rig, spec(), tmp_path, program=WITHOUT_PRCTL) as held:
        held.process.kill()
        wait_for(lambda: not is_alive(held.pid) and not logs_in(held.url), 5)
        assert is_alive(held.daemon)
        os.kill(held.daemon, signal.SIGKILL)
        said = b" ".join(held.process.stderr.read().split())
    assert b"only the program's process group is killed" in said
    assert b"from reading the secrets in memory" in said


def test_a_slow_reader_gets_all_the_output_and_holds_up_no_end(rig: Rig, spec: Spec) -> None:
    file = spec()
    # more than one pipe holds, and no more than the two on its way
    process = started(rig, file, "--", sys.executable, "-c", "print('x' * 120_000)")
    wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"), 30)
    assert process.poll() is None
    said, _ = process.communicate(timeout=20)
    assert len(said) == 120_001 and process.returncode == 0


def test_a_reader_that_goes_ends_the_program(rig: Rig, spec: Spec) -> None:
    script = f"{' '.join(command(spec(), '--', 'yes'))} | head -1"
    done = subprocess.run(["sh", "-c", script], env=environment(rig), capture_output=True, timeout=60, check=False)
    assert done.stdout == b"y\n"


def test_streams_that_are_closed_stay_so_for_the_program(rig: Rig, spec: Spec) -> None:
    show = "import os, sys; sys.stderr.write(str([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1)]))"
    words = shlex.join(command(spec(), "--mask", "never", "--", sys.executable, "-c", show))
    script = f"{words} <&- >&-"
    done = subprocess.run(["sh", "-c", script], env=environment(rig), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr.count(b"/dev/null") == 2, done


def test_a_program_that_stops_its_monitor_ends_with_its_task(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, ready = spec(), tmp_path / "ready"
    stops = f"kill -STOP $PPID; trap '' TERM; touch {ready}; while :; do sleep 0.1; done"
    process = started(rig, file, "--stop-timeout", "1s", "--", "sh", "-c", stops)
    wait_for(ready.exists, 30)
    rig("operator", "revoke", file.stem, "--reason", "look", code=None)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 125 and b"was killed" in said


# what the program does to keep its access, or its files, after it has ended
DEEP = """
import os
opened = os.open(os.path.dirname(os.environ["PGPASSFILE"]), os.O_RDONLY)
for _ in range(3000):
    os.mkdir("d", dir_fd=opened)
    opened, old = os.open("d", os.O_RDONLY, dir_fd=opened), opened
    os.close(old)
"""
HOSTILE = {
    "directories too deep to remove": [sys.executable, "-c", DEEP],
    "no right to its files": ["sh", "-c", "chmod 000 $(dirname $PGPASSFILE)"],
    "its monitor stopped": ["sh", "-c", "kill -STOP $PPID; setsid sleep 300 & exit 0"],
}


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_a_program_that_has_ended_keeps_nothing(rig: Rig, spec: Spec, tmp_path: Path, words: list[str]) -> None:
    file, said = spec(window="10m"), tmp_path / "said"
    keeps = f'printf \'%s\' "$DATABASE_URL" > {said}; exec "$@"'
    execute(rig, file, "--preset", "postgres", "--", "sh", "-c", keeps, "sh", *words, code=None)
    wait_for(lambda: not rig.task_tokens(file.stem) and not logs_in(said.read_text()), 5)
    wait_for(lambda: rig.state(file.stem) in ("confirmed", "sealed"), 20)
    assert rig.record(file.stem).task.end_reason == "completed"


def test_a_program_goes_on_when_its_task_gets_more_time(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, ready = spec(window="10s"), tmp_path / "ready"
    process = started(rig, file, "--", "sh", "-c", f"touch {ready}; sleep 13; exit 7")
    wait_for(ready.exists, 30)
    rig("agent", "extend", file.stem, "--for", "30s", "--reason", "one table is left")
    _, said = process.communicate(timeout=40)
    assert process.returncode == 7, said


def test_a_program_whose_session_the_end_of_its_task_closes_is_told_of_the_end(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    file, ready = spec(), tmp_path / "ready"
    query = f"import psycopg; c = psycopg.connect(); open({str(ready)!r}, 'w'); c.execute('SELECT pg_sleep(60)')"
    process = started(rig, file, "--preset", "postgres", "--", sys.executable, "-c", query)
    wait_for(ready.exists, 30)
    rig("operator", "revoke", file.stem, "--reason", "look", code=None)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 125 and f"task {file.stem} is over: it is ".encode() in said, said
    # also where the session ends before a worker has published why
    assert b'(revoked by operator: "look")' in said, said


@pytest.mark.parametrize("stubborn", [False, True], ids=["ends", "ignores it"])
def test_a_task_that_is_revoked_ends_its_program(rig: Rig, spec: Spec, tmp_path: Path, stubborn: bool) -> None:
    file = spec()
    ready = tmp_path / "ready"
    trap = "trap '' TERM; " if stubborn else ""
    stays = f"{trap}touch {ready}; while :; do sleep 0.1; done"
    process = started(rig, file, "--stop-timeout", "1s", "--", "sh", "-c", stays)
    wait_for(ready.exists, 30)
    rig("operator", "revoke", file.stem, "--reason", 'stop "it"', code=None)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 125
    assert f"the program was stopped, because task {file.stem} is over".encode() in said
    # what another person wrote stays in its quotation marks
    assert b"""(revoked by operator: "stop 'it'")""" in said


def test_a_second_exec_of_a_task_says_who_holds_it(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec()
    with running(rig, file, tmp_path) as held:
        refused = execute(rig, file.stem, "--", "sh", "-c", "echo ran", code=125)
        assert f"is held by another process, {held.process.pid}".encode() in refused.stderr
        assert refused.stdout == b"" and logs_in(held.url)


def test_a_wrapping_that_somebody_else_opened_starts_nothing_and_ends_the_task(rig: Rig, spec: Spec) -> None:
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    message = rig.document(f"inbox/{rig.entity('research-agent')}/{file.stem}")
    rig.vault(message["wrapping"][0]["token"]).write("sys/wrapping/unwrap")
    refused = execute(rig, file.stem, "--", "sh", "-c", "echo ran", code=125)
    assert b"somebody opened it before you" in refused.stderr and refused.stdout == b""
    wait_for(lambda: rig.record(file.stem).task.end_reason == "intercepted", 20)
    # the agent asked for no end: an end that was completed would hide the theft
    assert rig.admin.read(f"jitvault/data/requests/{rig.entity('research-agent')}/{file.stem}/end") is None


def test_an_inbox_document_that_no_worker_delivered_starts_nothing_and_ends_the_task(rig: Rig, spec: Spec) -> None:
    file = spec(more="  deliver: agent\n")
    rig("operator", "grant", file)
    rig.put(f"inbox/{rig.entity('research-agent')}/{file.stem}", {"wrapping": [{}]})
    refused = execute(rig, file.stem, "--", "sh", "-c", "echo ran", code=125)
    assert b"is nothing that a worker delivers" in refused.stderr and refused.stdout == b""
    wait_for(lambda: rig.record(file.stem).task.end_reason == "intercepted", 20)


def test_a_run_that_was_killed_whole_ends_by_its_heartbeat_and_the_next_sweeps_its_files(
    rig: Rig, spec: Spec, tmp_path: Path
) -> None:
    file = spec()
    with running(rig, file, tmp_path) as held:
        monitor = held.monitor
        os.kill(monitor, signal.SIGSTOP)
        os.kill(held.process.pid, signal.SIGKILL)
        os.kill(monitor, signal.SIGKILL)
        wait_for(lambda: not is_alive(held.pid), 5)
        assert held.file.exists() and logs_in(held.url)
        os.kill(held.daemon, signal.SIGKILL)
        wait_for(lambda: not logs_in(held.url), 30)
        assert rig.record(file.stem).task.end_reason == "heartbeat"
    execute(rig, spec(), "--preset", "postgres", "--", "true")
    assert not held.file.exists()


def test_at_a_terminal_the_program_has_one_and_ctrl_c_reaches_it(rig: Rig, spec: Spec) -> None:
    program = "trap 'exit 42' INT; stty size; test -t 0 && test -t 1 && echo a-terminal; while :; do sleep 0.1; done"
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command(spec(), "--", "sh", "-c", program), environment(rig))
    seen = b""
    sent = False
    with suppress(OSError):
        while data := os.read(master, 4096):
            seen += data
            if b"a-terminal" in seen and not sent:
                sent = True
                os.write(master, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert b"a-terminal" in seen and os.waitstatus_to_exitcode(status) == 42, seen
