"""How long `jitvault exec` takes to start a program, and how soon nothing is left when somebody is killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.latency import working
from benchmarks.measure import Figure
from benchmarks.scene import Scene, scene, spec_of
from jitvault.agent.execution.process_tree import descendants
from jitvault.errors import VaultRefused
from jitvault.lifecycle.requests.sign import sign_grant_request, sign_submission
from jitvault.model.spec import parse_spec
from jitvault.model.states import State
from jitvault.vault.client import Connection, Vault

TIMES = 20
_LOOK_S, _PATIENCE_S = 0.001, 20.0
# says when it runs, in nanoseconds of the wall clock, and stays
_PROGRAM = "import sys, time; open(sys.argv[1], 'w').write(f'{time.time_ns()}\\n'); time.sleep(60)"
VICTIMS = ("exec", "monitor", "program")


def run(directory: Path) -> list[Figure]:
    """Each figure is the median, and its worst beside it, of 20 runs with a worker as a process of its own."""
    with scene(directory / "execution") as world, working(world):
        starts = [_start(world, directory) for _ in range(TIMES)]
        killed = {victim: [_killed(world, directory, victim) for _ in range(TIMES)] for victim in VICTIMS}
    said = f"access in hand, over the bare program, {TIMES} times"
    figures = [
        Figure("exec_start_ms", median(starts), "ms", said, bar=400),
        Figure("exec_start_worst_ms", max(starts), "ms", said),
    ]
    for victim, runs in killed.items():
        for number, (part, bar) in enumerate((("gone", 100), ("dead", 300), ("proven", 2000))):
            taken = [each[number] for each in runs]
            words = f"kill -9 of the {victim}: {_WORDS[part]}, {TIMES} times"
            figures.append(Figure(f"{victim}_killed_{part}_ms", median(taken), "ms", words, bar=bar))
            figures.append(Figure(f"{victim}_killed_{part}_worst_ms", max(taken), "ms", words))
    return figures


_WORDS = {
    "gone": "until no process of it is left",
    "dead": "until Vault does not know the task's token",
    "proven": "until the task is confirmed",
}


def _start(world: Scene, directory: Path) -> float:
    """Milliseconds from the start of `jitvault exec` to the program's first statement, less those of the bare one."""
    task = _issued(world)
    said = directory / f"{task}.started"
    begun = time.time_ns()
    process = _begin(world, task, said)
    taken = (_when(said) - begun) / 1e6
    process.terminate()
    process.wait(_PATIENCE_S)
    bare = directory / f"{task}.bare"
    begun = time.time_ns()
    alone = subprocess.Popen([sys.executable, "-c", _PROGRAM, bare])
    taken -= (_when(bare) - begun) / 1e6
    alone.kill()
    alone.wait()
    return taken


def _killed(world: Scene, directory: Path, victim: str) -> tuple[float, float, float]:
    """Milliseconds from the kill until the processes are gone, the token is dead, and its end is proven."""
    task = _issued(world)
    said = directory / f"{task}.started"
    process = _begin(world, task, said)
    _when(said)
    below = descendants(process.pid)
    whom = {"exec": process.pid, "monitor": below[0], "program": below[-1]}[victim]
    record = world.wiring.ledger.record(task)
    accessor = record.grants[-1].wrapped_accessor if record else None
    admin = Vault(Connection(world.world.address), world.world.admin_token)
    killed_at = datetime.now(UTC)
    os.kill(whom, signal.SIGKILL)
    gone = _until(lambda: not any(map(_is_alive, below)), killed_at)
    dead = _until(lambda: not _knows(admin, accessor), killed_at)
    proven = _until(lambda: _confirmed_at(world, task) is not None, killed_at)
    confirmed = _confirmed_at(world, task)
    if confirmed is not None:
        proven = (confirmed - killed_at).total_seconds() * 1000
    process.wait(_PATIENCE_S)
    return gone, dead, proven


def _issued(world: Scene) -> str:
    """A task whose wrapping is in the inbox of its requester, who runs `jitvault exec` here."""
    spec = parse_spec(json.dumps(spec_of(f"bench-{secrets.token_hex(6)}")).encode())
    sign_submission(world.operator, spec, revise=False)
    sign_grant_request(world.operator, spec)
    path = f"inbox/{world.operator.entity}/{spec.id}"
    _until(lambda: world.operator.documents.get(path) is not None, datetime.now(UTC))
    return spec.id


def _begin(world: Scene, task: str, said: Path) -> subprocess.Popen[bytes]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    own = {"VAULT_ADDR": world.world.address, "VAULT_TOKEN": world.world.operator_token.reveal()}
    argv = [sys.executable, "-m", "jitvault", "exec", task, "--", sys.executable, "-c", _PROGRAM, str(said)]
    return subprocess.Popen(argv, env={**kept, **own, "XDG_STATE_HOME": str(said.parent)}, stderr=subprocess.DEVNULL)


def _when(said: Path) -> int:
    """When the program said that it runs, in nanoseconds."""
    deadline = time.monotonic() + _PATIENCE_S
    while not said.exists() or not said.read_text().endswith("\n"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the program did not start within {_PATIENCE_S:.0f} s")
        time.sleep(_LOOK_S)
    return int(said.read_text())


def _until(holds: Callable[[], bool], since: datetime) -> float:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it did not come true within {_PATIENCE_S:.0f} s")
        time.sleep(_LOOK_S)
    return (datetime.now(UTC) - since).total_seconds() * 1000


def _knows(admin: Vault, accessor: str | None) -> bool:
    try:
        admin.write("auth/token/lookup-accessor", {"accessor": accessor})
    except VaultRefused:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _confirmed_at(world: Scene, task: str) -> datetime | None:
    record = world.wiring.ledger.record(task)
    if record is None or record.task.state not in (State.CONFIRMED, State.SEALED):
        return None
    return next((datetime.fromisoformat(event.at) for event in record.events if event.kind == "confirmed"), None)
