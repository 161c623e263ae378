"""What `jitvault exec` is given may be odd, too much or missing: it says so with a documented exit code, or it works.

Nothing is left in a file, a process or the environment, and no token.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attended import Attended, wait_for
from disk import small_disk
from rig import Rig
from test_exec import command, environment, execute, own_memory, started

from jitvault.sandbox.placement import find_programs

pytestmark = pytest.mark.usefixtures("lab")
Spec = Callable[..., Path]
# no quote of SQL, which the engine's statement would end at
ODD = '"\\$&%:@/ #?;|<>*~`!{}[]()=+,'
POLICY = 'length = 24\nrule "charset" {{ charset = "abcdefghijkmnpq" min-chars = 4 }}\n{rule}'
NO_TMPFS = 'mount --bind "$1" /dev/shm; shift; exec "$@"'


@pytest.fixture
def rig(rig: Rig) -> Iterator[Rig]:
    with own_memory(rig), Attended(rig):
        yield rig


def is_over(rig: Rig, task: str) -> bool:
    wait_for(lambda: rig.state(task) in ("confirmed", "sealed"), 30)
    return not rig.task_tokens(task)


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["of bytes", "of files"])
def test_a_full_memory_starts_nothing_that_needs_it(rig: Rig, spec: Spec, tmp_path: Path, full: str) -> None:
    file, echo = spec(), ("--", "sh", "-c", "echo ran ${JITVAULT_CONTEXT_FILE:-without}")
    with small_disk(tmp_path / "memory", megabytes=1, files=0 if full == "of bytes" else 1) as disk:
        if full == "of bytes":
            disk.fill()
        there = {"XDG_RUNTIME_DIR": str(disk.directory)}
        refused = execute(rig, file, "--preset", "postgres", *echo, code=125, **there)
        assert b"No space left on device" in refused.stderr and b"Nothing was started" in refused.stderr
        assert refused.stdout == b"" and is_over(rig, file.stem)
        # who needs no file is started, without the one for a model
        named = ("--env", "WORD=postgres-readonly.password")
        assert execute(rig, spec(), *named, *echo, **there).stdout == b"ran without\n"
        disk.free()
        assert not list(disk.directory.iterdir())


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A directory on a disk, wherever the tests' own files lie."""
    with tempfile.TemporaryDirectory(prefix="jitvault-", dir="/var/tmp") as directory:
        yield Path(directory)


def test_without_a_memory_no_secret_is_written_to_a_disk(rig: Rig, spec: Spec, on_disk: Path) -> None:
    disk = on_disk / "disk"
    disk.mkdir()
    there = {**environment(rig), "HOME": str(on_disk), "XDG_RUNTIME_DIR": str(disk)}
    echo = ("--", "sh", "-c", "echo ran ${JITVAULT_CONTEXT_FILE:-without}")

    def run(file: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
        hidden = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", NO_TMPFS, "-", str(disk)]
        seen = shutil.copy(file, on_disk)
        return subprocess.run(
            [*hidden, *command(seen, *words)], env=there, capture_output=True, timeout=60, check=False
        )

    file = spec()
    refused = run(file, "--preset", "postgres", *echo)
    assert refused.returncode == 125 and refused.stdout == b"", refused
    assert b"neither XDG_RUNTIME_DIR nor /dev/shm is a tmpfs" in b" ".join(refused.stderr.split())
    assert is_over(rig, file.stem) and not list(disk.iterdir())
    assert run(spec(), *echo).stdout == b"ran without\n"


# -- secrets, words and output ----------------------------------------------------------------------------------------


@contextmanager
def odd_passwords(rig: Rig) -> Iterator[None]:
    """The engine's passwords are made of what shells, URLs and PostgreSQL's files give a meaning."""
    charset = ODD.replace("\\", "\\\\").replace('"', '\\"').replace("${", "$${")
    rule = f'rule "charset" {{ charset = "{charset}" min-chars = 16 }}'
    rig.admin.write("sys/policies/password/odd", {"policy": POLICY.format(rule=rule)})
    rig.admin.write("database/config/app", {"password_policy": "odd"})
    rig.vouch()
    try:
        yield
    finally:
        rig.admin.write("database/config/app", {"password_policy": ""})
        rig.recheck()


def test_a_password_of_odd_characters_logs_in_by_every_way_and_is_masked(rig: Rig, spec: Spec) -> None:
    psql = find_programs() / "bin" / "psql"
    query = "SELECT 'in', count(*) FROM orders"
    script = f"""set -e
'{psql}' -Atc "{query}"
'{psql}' -d "$DATABASE_URL" -Atc "{query}"
unset PGPASSFILE
PGPASSWORD=$WORD '{psql}' -Atc "{query}"
PGPASSWORD=$(cat "$FILE") '{psql}' -Atc "{query}"
printf '%s\\n' "$WORD"; env | grep ^DATABASE_URL; cat "$FILE"
"""
    named = ("--env", "WORD=postgres-readonly.password", "--file", "FILE=postgres-readonly.password")
    with odd_passwords(rig):
        done = execute(rig, spec(), "--preset", "postgres", *named, "--", "sh", "-c", script)
        *logins, word, url, file = done.stdout.decode().splitlines()
        assert len(logins) == 4 and {each.split("|")[0] for each in logins} == {"in"}, done
        # blanks around a secret are no part of it, and this password may begin or end with one
        masked = "[jitvault:postgres-readonly.password]"
        assert word.strip() == file.strip() == masked and masked in url.rpartition("@")[0], url
        plain = ("--mask", "never", "--", "sh", "-c", 'printf %s "$WORD"')
        shown = execute(rig, spec(), *named, *plain).stdout.decode()
        assert sum(char in ODD for char in shown) >= 16 and "\\" in ODD


def test_words_and_variables_that_are_no_text_reach_the_program_as_they_are(rig: Rig, spec: Spec) -> None:
    odd = b"\xff\xfe'\"\n$x"
    show = "import os, sys; sys.stdout.buffer.write(os.fsencode(sys.argv[1]) + b'|' + os.environb[b'ODD'])"
    words = [os.fsencode(word) for word in command(spec(), "--", sys.executable, "-c", show)]
    there = {os.fsencode(name): os.fsencode(value) for name, value in environment(rig).items()}
    done = subprocess.run([*words, odd], env={**there, b"ODD": odd}, capture_output=True, timeout=60, check=False)
    assert done.stdout == odd + b"|" + odd, done


def test_an_env_file_that_is_no_text_asks_for_nothing(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file, lines = spec(), tmp_path / "env"
    lines.write_bytes(b"WORD=\xff\xfe\n")
    refused = execute(rig, file, "--env-file", lines, "--", "sh", "-c", "echo ran", code=125)
    assert b"cannot be read as text" in refused.stderr and refused.stdout == b""
    assert rig.state(file.stem) is None


def test_output_without_an_end_takes_no_memory(rig: Rig, spec: Spec) -> None:
    """A secret at every edge of what is read at once, and one line of 100 MB."""
    show = "import os; w = os.environ['WORD'].encode() + b'.' * 65_500\nfor n in range(1_600): os.write(1, w)"
    words = command(spec(), "--env", "WORD=postgres-readonly.password", "--", sys.executable, "-c", show)
    with subprocess.Popen(words, env=environment(rig), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        marks = size = most_kb = 0
        status = Path("/proc") / str(process.pid) / "status"
        left = b""
        while data := process.stdout.read(1 << 20):
            marks += (left + data).count(b"[jitvault:") - left.count(b"[jitvault:")
            size, left = size + len(data), data[-20:]
            # that of its own memory: what wait4(2) says counts the process that started it as well
            peak = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            most_kb = int(peak[0]) if peak else most_kb
    assert process.returncode == 0 and marks == 1_600 and size > 100_000_000
    assert 0 < most_kb < 150_000


# -- while it waits, and without anybody ------------------------------------------------------------------------------


@pytest.mark.parametrize(("who", "verb"), [("approver-1", "deny"), ("operator", "cancel")])
def test_a_task_that_ends_while_it_waits_starts_nothing(rig: Rig, spec: Spec, who: str, verb: str) -> None:
    file = spec(criticality="medium")
    with started(rig, file, "--", "sh", "-c", "echo ran") as process:
        assert b"jitvault approve" in process.stderr.readline()
        rig(who, verb, file.stem, "--reason", "not now", *(["--yes"] if verb == "deny" else []))
        wait_for(lambda: process.poll() is not None, 30)
        output, error = process.communicate()
    assert process.returncode == 125 and output == b"", error
    assert f"task {file.stem} is {'denied: ' if verb == 'deny' else 'cancelled'}" in error.decode(), error


def test_without_a_network_nothing_is_asked_for(rig: Rig, spec: Spec) -> None:
    begun = time.monotonic()
    refused = execute(rig, spec(), "--", "sh", "-c", "echo ran", code=125, VAULT_ADDR="http://127.0.0.1:9")
    assert b"http://127.0.0.1:9" in refused.stderr and refused.stdout == b""
    assert time.monotonic() - begun < 20
