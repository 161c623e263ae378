"""An agent on its own host, with its identity and Vault's address alone: it asks, is approved, works, and is killed.

Where the tests run as root it is another user, who can read neither the tests' files nor anybody's keys; the name of
each test says as whom. `tests/integration/test_exec_killed.py` kills at every point; here each identity is killed at
a few, and PostgreSQL is asked each time whether its login is refused.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from agent_host import KIND, AgentHost
from attended import Attended, wait_for
from go_between import GoBetween
from identities import SPIFFE, Place, identities, registered, rig_of
from rig import Rig
from workload_api import WorkloadApi, workload_api

from jitvault.sandbox.placement import find_programs

Spec = Callable[..., Path]
# Vault's requests at which `exec` is killed, once they are answered
REQUESTS = {
    "as it unwraps": "PUT sys/wrapping/unwrap",
    "as it reads": "GET database/creds/",
    "as it signs the end": "PUT jitvault/data/requests/.*/end",
}
IDENTITIES = {
    "spiffe": ("as it unwraps", "exec"),
    "file": ("as it reads", "monitor", "as it signs the end"),
    "cert": ("program", "group of exec", "group of the program"),
}
QUERY = "SELECT count(*) FROM orders"
# each writes how many orders there are; then it says who it is, by a file that is there only when it is whole
SAYS = 'echo "$$ $DATABASE_URL $PGPASSFILE" > ~/said.part; mv ~/said.part ~/said'
BY_PSQL = f"'{{psql}}' -Atc '{QUERY}' > ~/count && {SAYS}; exec '{{psql}}' -c 'SELECT pg_sleep(600)'"
BY_PYTHON = f"""'{sys.executable}' -c 'import psycopg
print(psycopg.connect().execute("{QUERY}").fetchone()[0])' > ~/count && {SAYS}; exec sleep {{seconds}}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with identities(tmp_path_factory.mktemp("keys")) as found:
        yield found


@pytest.fixture(scope="module")
def api(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkloadApi]:
    with workload_api(tmp_path_factory.mktemp("s"), place.issuer, SPIFFE) as found:
        yield found


@pytest.fixture
def rig(place: Place, tmp_path: Path) -> Iterator[Rig]:
    rig = rig_of(place, tmp_path)
    with Attended(rig):
        yield rig


@pytest.fixture
def between(place: Place) -> Iterator[GoBetween]:
    host, _, port = place.world.address.removeprefix("http://").partition(":")
    between = GoBetween((host, int(port)))
    yield between
    between.down()


@dataclass
class Agent:
    """A registered agent with its host."""

    kind: str
    name: str
    host: AgentHost
    variables: dict[str, str]

    def run(self, *words: str | Path) -> subprocess.Popen[str]:
        argv = self.host.argv([sys.executable, "-m", "jitvault", *words])
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv,
            env=self.host.environment(**self.variables),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def exec(self, spec: str, program: str) -> Iterator[subprocess.Popen[str]]:
        process = self.run("exec", spec, "--preset", "postgres", "--stop-timeout", "2s", "--", "sh", "-c", program)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=20)


@pytest.fixture
def agent(
    request: pytest.FixtureRequest, rig: Rig, place: Place, api: WorkloadApi, between: GoBetween, tmp_path: Path
) -> Agent:
    """Its host has what `agents add` said, its identity, and Vault's address."""
    kind, home = request.param, tmp_path / "home"
    home.mkdir()
    host = AgentHost(home)
    name, there = registered(rig, place, api, kind, home)
    there = {key: value.replace(str(home), str(host.inside)) for key, value in there.items()}
    there["VAULT_ADDR"] = between.address
    if kind == "spiffe":
        # the agent has the socket and not the keys beside it
        socket = Path(api.address.removeprefix("unix://"))
        socket.chmod(0o666)
        os.link(socket, home / "api.sock")
        there |= {"SPIFFE_ENDPOINT_SOCKET": f"unix://{host.inside}/api.sock"}
    elif kind == "file":
        host.own(home / "jwt")
    else:
        # TLS ends in Vault itself
        there |= {"VAULT_ADDR": place.tls_address, "VAULT_CACERT": host.put(place.authority.file)}
        there["VAULT_CLIENT_CERT"] = host.put(place.client.certificate)
        there["VAULT_CLIENT_KEY"] = host.put(place.client.key)
    return Agent(kind, name, host, there)


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param("spiffe", id=f"spiffe, {KIND}"),
        pytest.param("file", id=f"file, {KIND}", marks=pytest.mark.thorough),
        pytest.param("cert", id=f"cert, {KIND}", marks=pytest.mark.thorough),
    ],
    indirect=True,
)
def test_an_agent_works_with_its_identity_alone_and_wherever_it_is_killed_it_is_out(
    rig: Rig, agent: Agent, between: GoBetween, spec: Spec
) -> None:
    before = rig.database_roles()
    for victim in IDENTITIES[agent.kind]:
        between.clear()
        for path in (agent.host.home / "count", agent.host.home / "said"):
            path.unlink(missing_ok=True)
        file = spec(criticality="medium")
        file.write_text(file.read_text().replace("research-agent", agent.name))
        put = agent.host.put(file)
        if victim == "exec":
            _killed_while_it_waits(agent, put, file.stem)
        url = _worked_and_killed(rig, agent, between, put, file.stem, victim)
        wait_for(lambda: not agent.host.processes(), 5)
        wait_for(lambda task=file.stem: not rig.task_tokens(task), 6)
        wait_for(lambda url=url: not (url and logs_in(url)), 10)
        wait_for(lambda: rig.database_roles() == before, 10)
        wait_for(lambda: not agent.host.files_in_memory(), 5)
        wait_for(lambda task=file.stem: rig.record(task).task.state in ("confirmed", "sealed"), 30)
        assert rig.record(file.stem).task.end_reason == "completed", victim


@pytest.mark.parametrize("agent", [pytest.param("file", id=KIND)], indirect=True)
def test_an_identity_that_is_refused_asks_for_nothing_and_one_that_is_renewed_goes_on(
    rig: Rig, agent: Agent, place: Place, spec: Spec
) -> None:
    file = spec()
    file.write_text(file.read_text().replace("research-agent", agent.name))
    put, jwt = agent.host.put(file), agent.host.home / "jwt"
    subject = f"{SPIFFE}/file"
    refused = {
        "over": place.issuer.jwt(subject, audience="vault", seconds=-1),
        "audience": place.issuer.jwt(subject, audience="elsewhere", seconds=60),
        # its issuer's clock is two minutes ahead of Vault's
        "clock": place.issuer.jwt(subject, audience="vault", seconds=240, since=120),
        "other": place.issuer.jwt(f"{SPIFFE}/other", audience="vault", seconds=60),
        "no JWT": "hello",
        "empty": "",
    }
    for name, text in refused.items():
        jwt.write_text(text)
        with agent.exec(put, "echo ran") as process:
            output, error = process.communicate(timeout=30)
        assert (process.returncode, output) == (125, ""), (name, error)
        assert "JITVAULT_AGENT_JWT_FILE" in error or "the agent's login by JWT was refused" in error, (name, error)
    assert rig.state(file.stem) is None and not agent.host.processes() and not agent.host.files_in_memory()
    # whoever keeps the file writes the next one
    jwt.write_text(place.issuer.jwt(subject, audience="vault", seconds=60))
    with agent.exec(put, "echo ran") as process:
        assert process.communicate(timeout=30)[0] == "ran\n"


@pytest.mark.parametrize("agent", [pytest.param("spiffe", id=KIND)], indirect=True)
def test_a_workload_api_that_hangs_or_knows_nobody_is_said_in_time(
    rig: Rig, agent: Agent, api: WorkloadApi, spec: Spec
) -> None:
    file = spec()
    file.write_text(file.read_text().replace("research-agent", agent.name))
    put = agent.host.put(file)
    try:
        for delay_s, subject in ((30, SPIFFE), (0, None)):
            api.answer(subject, delay_s=delay_s)
            begun = time.monotonic()
            with agent.exec(put, "echo ran") as process:
                output, error = process.communicate(timeout=30)
            assert (process.returncode, output) == (125, ""), error
            assert "the Workload API gave no JWT-SVID" in error and time.monotonic() - begun < 20
    finally:
        api.answer(SPIFFE)
    assert rig.state(file.stem) is None and not agent.host.processes()


def _killed_while_it_waits(agent: Agent, spec: str, task: str) -> None:
    """Its request stays, and the next run goes on with it."""
    with agent.exec(spec, "true") as process:
        assert is_told_who_approves(process, task)
        process.kill()
        wait_for(lambda: not agent.host.processes(), 5)


def _worked_and_killed(rig: Rig, agent: Agent, between: GoBetween, spec: str, task: str, victim: str) -> str:
    """Have the agent's program work and whoever is named killed; return its login."""
    stays = victim not in REQUESTS
    program = BY_PSQL if agent.kind == "cert" else BY_PYTHON
    program = program.format(psql=find_programs() / "bin" / "psql", seconds=600 if stays else 0)
    running: list[subprocess.Popen[str]] = []
    if not stays:
        between.when(REQUESTS[victim], "after", lambda: running[0].kill())  # noqa: PLW0108 (it is started after this)
    with agent.exec(spec, program) as process:
        running.append(process)
        assert is_told_who_approves(process, task)
        rig("approver-1", "approve", task, "--yes")
        said = agent.host.home / "said"
        wait_for(lambda: said.exists() or process.poll() is not None, 30)
        if not stays:
            assert process.wait(30) == -signal.SIGKILL, process.communicate()
            return said.read_text().split()[1] if said.exists() else ""
        assert process.poll() is None, process.communicate()
        pid, url, passwords = said.read_text().split()
        assert int((agent.host.home / "count").read_text()) > 0 and logs_in(url)
        assert passwords.startswith("/dev/shm/jitvault-exec-")
        whom = {
            "exec": process.kill,
            "monitor": lambda: os.kill(parent(int(pid)), signal.SIGKILL),
            "program": lambda: os.kill(int(pid), signal.SIGKILL),
            "group of the program": lambda: os.killpg(int(pid), signal.SIGKILL),
            "group of exec": lambda: os.killpg(process.pid, signal.SIGKILL),
        }
        whom[victim]()
        process.communicate(timeout=20)
    return url


def is_told_who_approves(process: subprocess.Popen[str], task: str) -> bool:
    """Read what it says while it waits."""
    assert process.stderr is not None
    return any(f"jitvault approve {task}" in line for line in process.stderr)


def parent(pid: int) -> int:
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def logs_in(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
