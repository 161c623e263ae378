"""The page for the worst night: every block of it is run, as it stands there, on real servers with live tasks."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import write_program
from hands import THIEF, ask
from rig import PREFIX, ROLE, Held, Rig
from test_pki import certificate_of, certified, on_the_crl
from test_pki import granted as approved

from jitvault.model.vault_access import access_policy
from jitvault.sandbox.binary import find_binary
from jitvault.sandbox.placement import find_programs
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, provisioned

Spec = Callable[..., Path]
ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "operations" / "break-glass.md").read_text()
# the words after `console` are the scenarios that a block belongs to
BLOCKS = [
    (set(names.split()), text)
    for names, text in re.findall(r"^```console(.*)\n((?:(?!```).*\n)*)```$", PAGE, re.MULTILINE)
]
# what whoever has HashiCorp's program alone may have pasted before
(SERVERS_BLOCK,) = re.findall(
    r"^```sh\n(.*?)^```$", (ROOT / "docs" / "servers.md").read_text(), re.MULTILINE | re.DOTALL
)
SCENARIOS = {"practise", "jitvault", "gone", "back", "force", "stolen", "stolen-approle", "stolen-password"}
WORKER_ROLE = "auth/approle/role/jitvault-worker"


@pytest.fixture
def lab() -> Iterator[World]:
    # servers of each test's own: everything that lives there is ended, the worker too
    with running_servers() as servers:
        yield provisioned(servers)


@pytest.fixture
def rig(lab: World, rig: Rig, hurried: None) -> Rig:
    rig("operator", "audit", "status")
    return rig


@pytest.fixture(params=["password", "approle"])
def login(request: pytest.FixtureRequest, rig: Rig, tmp_path: Path) -> str:
    """How the worker of the installation logs in; the entity has another name in each."""
    if request.param == "approle":
        log_in_by_approle(rig, tmp_path)
        rig("operator", "audit", "status")
    return str(request.param)


def log_in_by_approle(rig: Rig, directory: Path) -> None:
    """Make the worker that `init --worker-approle` makes, and take the sandbox's own away."""
    rig.cli("admin", "init", "--yes", "--worker-approle", "--worker-cidr", "127.0.0.0/8")
    for path in ("identity/entity/name/worker", "auth/userpass/users/worker"):
        rig.admin.delete(path)
    secret_id = directory / "secret-id"
    secret_id.write_text(rig.admin.write(f"{WORKER_ROLE}/secret-id")["data"]["secret_id"])
    rig.cli.variables = {name: value for name, value in rig.cli.variables.items() if name != "JITVAULT_WORKER_TOKEN"}
    rig.cli.variables |= {
        "JITVAULT_WORKER_LOGIN": "approle",
        "JITVAULT_WORKER_ROLE_ID": (rig.admin.read(f"{WORKER_ROLE}/role-id") or {})["data"]["role_id"],
        "JITVAULT_WORKER_SECRET_ID_FILE": str(secret_id),
    }


def worker_token(rig: Rig, login: str) -> str:
    """A token of the worker, as one who read what it logs in with has it."""
    if login == "password":
        return rig.world.worker_token.reveal()
    secret_id = Path(rig.cli.variables["JITVAULT_WORKER_SECRET_ID_FILE"]).read_text()
    given = {"role_id": rig.cli.variables["JITVAULT_WORKER_ROLE_ID"], "secret_id": secret_id}
    status, answer = ask(rig, "PUT", "auth/approle/login", body=given, source=THIEF)
    assert status == 200
    return str(answer["auth"]["client_token"])


def _environment(rig: Rig, directory: Path, *, jitvault: bool, client: str) -> dict[str, str]:
    """What somebody has at hand: `bao` or `vault`, and `psql`; `jitvault` only where it is still there."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    write_program(programs / "jitvault")
    if not jitvault:
        (programs / "jitvault").write_text("#!/bin/sh\nexit 127\n")
    # HashiCorp's program knows no BAO_ variables: who has that one alone, and OpenBao's under its name, gets as far
    program = "unset BAO_ADDR BAO_TOKEN\n" if client == "vault" else ""
    (programs / client).write_text(f'#!/bin/sh\n{program}exec {shlex.quote(str(find_binary().path))} "$@"\n')
    (programs / client).chmod(0o755)
    system = [place for place in os.environ["PATH"].split(":") if not (Path(place) / "bao").exists()]
    places = (programs, find_programs() / "bin", *system)
    postgres = rig.world.servers.postgres
    return {
        **(rig.cli.environment("operator") if jitvault else {"HOME": str(directory)}),
        "PATH": ":".join(map(str, places)),
        "LANG": "C.UTF-8",
        "BAO_ADDR": rig.world.address,
        "BAO_TOKEN": rig.world.admin_token.reveal(),
        "LOG": str(rig.world.audit_file),
        "TARGET": rig.world.target_dsn,
        "PROBE": f"host={postgres.host} port={postgres.port} dbname=app user=jitvault_probe",
        "THIEF": THIEF,
        "SETTLE": "2.2",
    }


def _run(rig: Rig, scenario: str, directory: Path, *, jitvault: bool = True, login: str = "", **more: str) -> str:
    """Run all blocks of a scenario in one shell, and see that each keeps what it promises."""
    blocks = [text for names, text in BLOCKS if names & {scenario, f"{scenario}-{login}"}]
    script = "\n".join(f"{text}\necho '@@'" for text in blocks)
    client = "vault" if login == "approle" else find_binary().product.command
    if client == "vault":
        script = f"{SERVERS_BLOCK}\n{script}"
    environment = {**_environment(rig, directory, jitvault=jitvault, client=client), **more}
    printed = _in_a_shell(script, environment, directory).split("@@\n")
    assert len(printed) == len(blocks) + 1, printed
    for text, said in zip(blocks, printed, strict=False):
        _check_kept(text, said)
    return "".join(printed)


def _in_a_shell(script: str, environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", f"exec 2>&1\n{script}"],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.stdout


def _check_kept(text: str, said: str) -> None:
    """What each line `# see:` of a block promises was printed, in that order."""
    rest = said
    for promise in re.findall(r"^# see: (.*)$", text, re.MULTILINE):
        # as a whole: `jitvault-15m` is not kept by what is said of `jitvault-15m-loopback`
        kept = re.search(re.escape(promise) + r"(?![\w-])", rest)
        assert kept, f"{promise!r} is not in what came then:\n{rest}\n-- of all:\n{said}"
        rest = rest[kept.end() :]


def _is_over(rig: Rig, *held: Held) -> None:
    """Nothing lives: no task token, no lease below a template's path, no role at the target."""
    for one in held:
        assert not rig.is_live(one.token)
        assert not one.secrets or not rig.lease_is_live(one.lease_id)
    roles = [role for role in rig.admin.list("auth/token/roles") if role.startswith("jitvault-")]
    paths = [f"auth/token/create/{role}" for role in roles]
    for path in (*paths, PREFIX, "database/creds/app-readwrite", "pki/issue/service"):
        assert rig.admin.list(f"sys/leases/lookup/{path}/") == [], path
    assert rig.database_roles() == set()


def test_every_block_belongs_to_a_scenario_and_promises_something() -> None:
    assert set().union(*(names for names, _ in BLOCKS)) == SCENARIOS
    assert all(names for names, _ in BLOCKS)
    assert PAGE.count("```") == 2 * len(BLOCKS)
    assert all("# see: " in text for _, text in BLOCKS)


def test_the_sandbox_has_everything_to_practise_with(variables: dict[str, str], tmp_path: Path) -> None:
    exports = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    (tmp_path / "dev.env").write_text("".join(exports))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (block,) = (text for names, text in BLOCKS if "practise" in names)
    script = f"{block}\nfor P in bao psql jitvault; do command -v $P; done"
    # nothing but the system's own programs and what the sandbox brought
    said = _in_a_shell(script, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, tmp_path)
    _check_kept(block, said)
    found = said.splitlines()[-3:]
    assert [Path(one).name for one in found] == ["bao", "psql", "jitvault"], said
    assert all(one.startswith(f"{tmp_path}/.venv/") for one in found), said
    assert "password" not in said


def test_the_kill_switch_and_what_a_person_revoked_can_only_be_closed(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    file = spec()
    by_hand = rig.active(file)
    rig.admin.write("sys/leases/revoke", {"lease_id": by_hand.lease_id, "sync": True})
    rig("operator", "revoke", "--all", "--reason", "x", "--yes", "--wait", "0", code=6)
    _run(rig, "force", tmp_path, TASK=file.stem)
    assert rig("operator", "status", file.stem, code=None).json["state"] == "unverified"
    _is_over(rig, by_hand)

    held = [rig.active(spec()) for _ in range(2)]
    rig.granted(spec())
    said = _run(rig, "jitvault", tmp_path)
    assert "3 of 3 tasks are ended and proven" in said
    _is_over(rig, *held)


@pytest.mark.parametrize("login", ["approle"], indirect=True)
def test_without_jitvault_and_when_it_is_back(rig: Rig, spec: Spec, tmp_path: Path, login: str) -> None:
    reader, orders = spec(), certified(spec)
    held = [rig.active(reader), rig.use(approved(rig, orders))]
    wrapped = rig.granted(spec())["wrapping"][0]["token"]
    # a lease that no token of ours owns: only the loop over the paths ends it
    late = rig.admin.read(PREFIX)
    assert late is not None
    worker = worker_token(rig, login)
    with rig.connect(held[0].login):
        said = _run(rig, "gone", tmp_path, jitvault=False)
    assert "NOT on the CRL" not in said
    _is_over(rig, *held)
    assert not rig.lease_is_live(late["lease_id"])
    assert on_the_crl(rig, certificate_of(held[1]))
    assert ask(rig, "PUT", "sys/wrapping/unwrap", wrapped)[0] == 400
    assert ask(rig, "GET", "auth/token/lookup-self", worker)[0] == 403
    assert "worker: " in said and "jitvault-worker\n" in said
    _run(rig, "back", tmp_path)
    for file in (reader, orders):
        shown = rig("operator", "status", file.stem).json
        assert shown["proof"]["confirmed"], shown["proof"]


def test_a_stolen_worker(rig: Rig, spec: Spec, tmp_path: Path, login: str) -> None:
    file = spec()
    held = rig.active(file)
    stolen = worker_token(rig, login)
    body = {"policies": [access_policy(PREFIX).name], "meta": {"jitvault_task": "the-thief"}, "ttl": "300s"}
    status, made = ask(rig, "PUT", ROLE, stolen, body, source=THIEF, headers={"X-Vault-Wrap-TTL": "60s"})
    assert status == 200
    opened = ask(rig, "PUT", "sys/wrapping/unwrap", made["wrap_info"]["token"], source=THIEF)[1]
    token = opened["auth"]["client_token"]
    taken = ask(rig, "GET", PREFIX, token, source=THIEF)[1]
    accessor = rig.admin.write("auth/token/lookup", {"token": stolen})["data"]["accessor"]
    said = _run(rig, "stolen", tmp_path, login=login)
    (accessors,) = re.findall(r"^accessors: (.*)$", said, re.MULTILINE)
    assert accessor in accessors.split()
    # nobody else was refused
    entities = [rig.admin.read(f"identity/entity/name/{name}") for name in rig.admin.list("identity/entity/name/")]
    assert not any(entity["data"]["disabled"] for entity in entities if entity)
    assert said.count("\nworker: ") == 1, said
    assert f'"remote_address":"{THIEF}"' in said
    assert '"jitvault_task":"the-thief"' in said
    assert f'"lease_id":"{taken["lease_id"]}"' in said
    assert not rig.is_live(stolen)
    assert not rig.is_live(token)
    assert not rig.lease_is_live(taken["lease_id"])
    _is_over(rig, held)
