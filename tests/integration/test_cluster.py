"""A cluster of three nodes: the record is the union of their files, and who is active changes while access is held.

What a standby writes is in docs/vault-facts.md, "Several nodes". To be run alone:
`python -m pytest -n 0 tests/integration/test_cluster.py`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, Node, running_cluster
from commands import EXAMPLE, Cli
from rig import PREFIX, ROLE, Held, Rig, own_rig, rests_on

from jitvault.errors import JitvaultError, VaultRejected
from jitvault.formats.secret import Secret
from jitvault.lifecycle.advance import advance
from jitvault.model.states import State
from jitvault.model.vault_access import access_policy
from jitvault.sandbox.servers import Servers
from jitvault.sandbox.world import World, env, provisioned
from jitvault.settings import load
from jitvault.vault.active_node import LOOK_AGAIN_S, ActiveNode
from jitvault.vault.client import Connection, Vault
from jitvault.wiring import Wiring

Spec = Callable[..., Path]

UNWRAP = "sys/wrapping/unwrap"
READ_ONLY = "cannot write to readonly storage"
DONE = [("request", ""), ("response", "")]


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with running_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def world(running: Cluster) -> World:
    return provisioned(Servers(running.directory, running.active, running.postgres))


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    running.mend()
    yield running
    running.mend()


@pytest.fixture
def variables(world: World, cluster: Cluster) -> dict[str, str]:
    return {**env(world, "", EXAMPLE), "JITVAULT_AUDIT_FILE": cluster.audit_files}


@pytest.fixture
def rig(world: World, cluster: Cluster, variables: dict[str, str], tmp_path: Path) -> Rig:
    return at(cluster.active, own_rig(world, variables, tmp_path))


def at(node: Node, rig: Rig) -> Rig:
    """The same ledger and the same people, who all speak to this node."""
    variables = {**rig.cli.variables, "VAULT_ADDR": node.address}
    return Rig(replace(rig.world, address=node.address), Cli(variables, rig.cli.home), rig.place)


def outcome(rig: Rig, task: str) -> dict[str, Any]:
    """What the ledger holds of a task, without what differs between any two tasks."""
    record = rig.record(task)
    (token,) = (grant.accessor_hmac for grant in record.grants)
    names = {lease.lease_id: "lease" for lease in record.leases} | {token: "token"}
    # how often something was asked for depends on the pace; that one line is entered twice does not
    own = "FROM observations WHERE ? IN (actor, subject) AND kind != 'canary'"
    twice = f"SELECT request_id, kind, closing {own} GROUP BY request_id, kind, closing HAVING count(*) > 1"
    return {
        "verdicts": [grant.verdict.value for grant in record.grants] + [lease.verdict.value for lease in record.leases],
        "checks": sorted((names.get(check.subject, "task"), check.n, check.ok) for check in record.checks),
        "lines": sorted(rig.rows(f"SELECT DISTINCT kind, closing {own} AND NOT failed", token)),
        "twice": rig.rows(twice, token),
        "findings": rig.findings(task),
    }


def counted(rig: Rig) -> set[str]:
    """The nodes whose files count."""
    return {Path(name).parent.name for (name,) in rig.rows("SELECT name FROM audit_sources WHERE vouched")}


def evidence(ended: dict[str, Any], n: int) -> list[str]:
    """What check `n` rests on, wherever it was made; it has to hold."""
    every = [*ended["token"]["checks"], *(check for lease in ended["leases"] for check in lease["checks"])]
    found = [check for check in every if check["n"] == n]
    assert found and all(check["ok"] for check in found), found
    return [rests_on(check) for check in found]


def sealed(rig: Rig, task: str) -> None:
    rig.settle()
    assert rig("operator", "status", task).json["state"] == "sealed"


# -- the files of all nodes -------------------------------------------------------------------------------------


def test_the_story_on_a_cluster(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    file = spec()
    rig.active(file)
    ended = rig("operator", "complete", file.stem).json
    assert ended["confirmed"]
    assert all(e.startswith(f"{cluster.active.audit_file} bytes") for e in evidence(ended, 5))
    # no standby was asked anything of ours, so what its file says counts for nothing
    assert counted(rig) == {str(cluster.active)}
    sealed(rig, file.stem)
    assert rig.findings(file.stem) == []


def test_every_node_hashes_with_the_same_salt(cluster: Cluster) -> None:
    hashes = [node.as_root("put", "sys/audit-hash/jitvault", {"input": "x"}).json()["data"] for node in cluster.nodes]
    assert hashes[0]["hash"].startswith("hmac-sha256:")
    assert hashes == [hashes[0]] * 3


def test_the_same_lines_in_two_files_are_one_record(
    rig: Rig, spec: Spec, cluster: Cluster, world: World, variables: dict[str, str], tmp_path: Path
) -> None:
    alone = spec()
    rig.active(alone)
    assert rig("operator", "complete", alone.stem).json["confirmed"]
    # a second name of the same file: a copy that lags behind is an interruption, and its proof another one
    copy = tmp_path / "copy.log"
    copy.hardlink_to(cluster.active.audit_file)
    files = f"{copy}:{cluster.audit_files}"
    both = at(cluster.active, own_rig(world, {**variables, "JITVAULT_AUDIT_FILE": files}, tmp_path / "both"))
    for one in (copy, cluster.active.audit_file):
        alone_there = {"JITVAULT_AUDIT_FILE": str(one)}
        both("operator", "grant", spec(), extra=alone_there)
        # its last line is read where it stands
        both("auditor", "audit", "status", extra=alone_there)
    assert len(counted(both)) == 2
    file = spec()
    both.active(file)
    assert both("operator", "complete", file.stem).json["confirmed"]
    assert outcome(both, file.stem) == outcome(rig, alone.stem)


# -- through a standby ------------------------------------------------------------------------------------------


def test_commands_that_are_given_a_standby_speak_to_the_active_node(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    node = cluster.standbys[0]
    standby, begin = at(node, rig), len(node.lines)
    file = spec()
    rig.use(standby.granted(file))
    assert standby("operator", "complete", file.stem).json["confirmed"]
    assert node.lines[begin:] == []
    assert rig.findings(file.stem) == []


@pytest.mark.needs("reading-standbys")
def test_what_a_standby_writes(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    """It does what it can itself; what has to be written it tries, fails, and hands on, under another request id."""
    node, active = cluster.standbys[0], cluster.active
    agent = at(node, rig).vault(rig.token_of("agent"))

    def both(act: Callable[[], Any], path: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Type and error of the lines at the standby and at the active node."""
        begun = [len(node.lines), len(active.lines)]
        with suppress(VaultRejected):
            act()
        lines = [one.lines[begin:] for one, begin in zip((node, active), begun, strict=True)]
        here, there = ([o for o in found if o["request"]["path"] == path] for found in lines)
        assert not {o["request"]["id"] for o in here} & {o["request"]["id"] for o in there}
        return tuple([(o["type"], " ".join(o.get("error", "").split())) for o in found] for found in (here, there))

    file = spec()
    wrapping = rig.granted(file)["wrapping"][0]["token"]
    cluster.answers_reads(node)
    taken: list[dict[str, Any]] = []
    here, there = both(lambda: taken.append(agent.write(UNWRAP, {"token": wrapping})), UNWRAP)
    assert (here[0], there) == (("request", ""), DONE)
    assert here[1][1].endswith(f"use-count: failed to persist entry: {READ_ONLY}")
    again = both(lambda: agent.write(UNWRAP, {"token": wrapping}), UNWRAP)
    assert again == ([("request", "wrapping token is not valid or does not exist")], [])

    cluster.catch_up()
    task = at(node, rig).vault(taken[0]["auth"]["client_token"])
    here, there = both(lambda: task.read(PREFIX), PREFIX)
    assert (here, there) == ([DONE[0], ("response", f"1 error occurred: * {READ_ONLY}")], DONE)
    assert both(lambda: task.read("auth/token/lookup-self"), "auth/token/lookup-self") == (DONE, [])
    # The active node's file alone does not hold everything that a token did, and no canary comes to a standby. What
    # cannot be missed is there: every lease, and the unwrap that gave the token away.
    ended = rig("operator", "complete", file.stem).json
    assert (ended["confirmed"], len(ended["leases"])) == (True, 1)


@pytest.mark.needs("reading-standbys")
def test_a_standby_shows_the_audited_header_only_once_it_was_unsealed_after_it_was_configured(
    rig: Rig, cluster: Cluster
) -> None:
    node, header = cluster.standbys[0], "x-jitvault-test"
    rig.admin.write(f"sys/config/auditing/request-headers/{header}", {"hmac": False})
    cluster.catch_up()

    def shown() -> bool:
        begin = len(node.lines)
        assert node.as_root("get", "auth/token/lookup-self", headers={header: "it"}).status_code == 200
        return [o["request"].get("headers") for o in node.lines[begin:]] == [{header: ["it"]}] * 2

    assert not shown()
    node.kill()
    cluster.mend()
    assert shown()


@pytest.mark.needs("reading-standbys")
def test_what_a_standby_failed_at_before_it_forwarded_it_is_nobodys_act(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    """Both files count here. The agent and the worker go through the old active node, which forwards."""
    rig.granted(spec())
    old = cluster.step_down()
    new = at(cluster.active, rig)
    file = spec()
    granted = new.granted(file)
    assert {str(old), str(cluster.active)} <= counted(new)
    cluster.answers_reads(old)
    agent = at(old, new).vault(rig.token_of("agent"))
    token = agent.write(UNWRAP, {"token": granted["wrapping"][0]["token"]})["auth"]["client_token"]
    lease = (at(old, new).vault(token).read(PREFIX) or {})["lease_id"]
    assert new("operator", "status", file.stem).json["state"] == "active"
    # the worker's own acts, as a worker that does not look who is active would send them
    worker = at(old, new).vault(rig.cli.variables["JITVAULT_WORKER_TOKEN"])
    begin = len(old.lines)
    worker.write(f"sys/leases/revoke/{lease}", {"sync": True}, op="0" * 32)
    errors = [o.get("error", "") for o in old.lines[begin:] if o["request"]["path"] == f"sys/leases/revoke/{lease}"]
    assert [READ_ONLY in error for error in errors] == [False, True]
    ended = new("operator", "complete", file.stem).json
    assert ended["confirmed"]
    failed = "SELECT count(*) FROM observations WHERE source = ? AND failed AND error LIKE ?"
    assert new.rows(failed, str(old.audit_file), f"%{READ_ONLY}%")[0][0] >= 3
    assert new.findings(file.stem) == []


# -- another one becomes active ---------------------------------------------------------------------------------


def test_a_failover_while_a_task_is_held_is_confirmed_by_looking(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    file = spec()
    held = rig.active(file)
    assert rig("operator", "status", file.stem).json["state"] == "active"
    dead = cluster.kill_active()
    new = at(cluster.active, rig)
    held.secrets += [dict(new.vault(held.token).read(PREFIX) or {})]
    # the old one's file stays as it is and looks as trusted as ever: only the new one's says what happens now
    status = new("operator", "status", file.stem).json
    assert {row["lease_id"] for row in status["leases"]} == {secret["lease_id"] for secret in held.secrets}
    ended = new("operator", "complete", file.stem).json
    assert ended["confirmed"]
    assert {lease["lease_id"] for lease in ended["leases"]} == {secret["lease_id"] for secret in held.secrets}
    token = new.record(file.stem).grants[0].accessor_hmac
    sources = new.rows("SELECT DISTINCT source FROM observations WHERE actor = ?", token)
    assert {Path(name).parent.name for (name,) in sources} == {str(dead), str(cluster.active)}
    # never silently: what it rests on says so
    assert len(evidence(ended, 5)) == 3
    for said in evidence(ended, 5):
        assert "interrupted; nothing unaccounted for was listed" in said
        assert "it was alive after the gap" in said
    assert evidence(ended, 7)[0].endswith("the stream was interrupted after the token was made: listed")
    assert not new.is_live(held.token)
    sealed(new, file.stem)

    # the look-ups that sealed it
    new("operator", "status", file.stem)
    before, events = outcome(new, file.stem), len(new.record(file.stem).events)
    cluster.mend()
    dead.as_root("put", "sys/audit-hash/jitvault", {"input": "x"})
    # whatever the node that came back has to say is read, with a canary of its own
    again = spec()
    new.granted(again)
    new("operator", "status", file.stem)
    assert outcome(new, file.stem) == before
    assert len(new.record(file.stem).events) == events
    assert new.rows("SELECT count(*) FROM freezes") == [(0,)]


def test_a_step_down_under_load_leads_to_no_false_proof(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    """Five agents read while another node takes over; whoever had no answer asks the new one."""
    roles = rig.database_roles()
    files = [spec() for _ in range(5)]
    granted = {file.stem: rig.granted(file) for file in files}
    ready = threading.Barrier(len(files) + 1)

    def work(task: str) -> Held:
        held = rig.use(granted[task])
        ready.wait(30)
        for _ in range(3):
            reader = at(cluster.active, rig).vault(held.token)
            with suppress(JitvaultError):
                held.secrets += [dict(reader.read(PREFIX) or {})]
        return held

    with ThreadPoolExecutor(max_workers=5) as pool:
        working = [pool.submit(work, file.stem) for file in files]
        ready.wait(30)
        cluster.step_down()
        held = [one.result() for one in working]
    new = at(cluster.active, rig)
    other = spec()
    new.active(other)
    for file in (*files, other):
        assert new("operator", "complete", file.stem).json["confirmed"], new.findings(file.stem)
        assert new.findings(file.stem) == []
    assert not any(new.is_live(one.token) for one in held)
    assert new.rows("SELECT rule, message FROM findings") == []
    assert new.rows("SELECT count(*) FROM freezes") == [(0,)]
    assert new.database_roles() <= roles


# -- a sweep over the files of all nodes --------------------------------------------------------------------------


def swept(rig: Rig, *options: str, code: int = 0) -> dict[str, Any]:
    found = dict(rig("operator", "sweep", *options, code=code).json)
    return {part: found[part] for part in ("orphans", "unlinked", "ghosts", "irrevocable") if found[part]}


def made_outside(rig: Rig) -> str:
    """A token that an administrator makes through our role, in a wrapping as tasks have it; gives the token."""
    body = {"policies": [access_policy(PREFIX).name], "ttl": "300s"}
    wrapping = rig.admin.write(ROLE, body, wrap_ttl_s=60)["wrap_info"]["token"]
    return str(rig.admin.write(UNWRAP, {"token": wrapping})["auth"]["client_token"])


def test_a_sweep_holds_vault_against_the_files_of_all_nodes(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    # what other tests' ledgers hold is nobody's here
    rig.settle()
    rig("operator", "sweep", "--fix", code=None)
    rig("operator", "unfreeze", "--reason", "it was other tests", code=None)
    rig.granted(spec())
    # two files count from here on
    cluster.step_down()
    new = at(cluster.active, rig)
    held, done = spec(), spec()
    new.active(held)
    new.active(done)
    assert new("operator", "complete", done.stem).json["confirmed"]
    assert len(counted(new)) > 1
    rig.settle()
    assert swept(new) == {}
    token = made_outside(new)
    before = new.vault(token).read(PREFIX) or {}
    rig.settle()
    found = swept(new, code=12)
    assert sorted(one["kind"] for one in found["orphans"]) == ["lease", "token"]

    # another node has to prove what was made at this one
    cluster.kill_active()
    other = at(cluster.active, new)
    fixed = swept(other, "--fix", code=0)
    assert {one["kind"]: one["verdict"] for one in fixed["orphans"]} == {
        "token": "audit_confirmed",
        "lease": "audit_confirmed",
    }, fixed
    assert not other.is_live(token)
    assert not other.lease_is_live(str(before["lease_id"]))
    rig.settle()
    assert swept(other) == {}
    other("operator", "unfreeze", "--reason", "it was the test", code=None)


def test_a_check_up_says_which_node_it_asked_and_which_is_active(rig: Rig, cluster: Cluster) -> None:
    rig("operator", "submit", EXAMPLE)

    def node(asked: Node) -> dict[str, Any]:
        found = at(asked, rig)("operator", "doctor", code=None)
        assert found.json["can"] == {"grant": True, "revoke": True, "prove": True}, found
        return next(dict(check) for check in found.json["checks"] if check["name"] == "node")

    assert node(cluster.active)["seen"] == "it is the active node"
    standby = node(cluster.standbys[0])
    assert (standby["status"], cluster.active.address in standby["seen"]) == ("ok", True)


# -- a process that runs on -------------------------------------------------------------------------------------


def test_one_client_follows_the_active_node(cluster: Cluster) -> None:
    standby = cluster.standbys[0]
    connection = Connection(standby.address)
    node = ActiveNode(connection)
    vault = Vault(replace(connection, node=node), Secret(standby.root_token))
    with closing(vault):
        vault.write("cubbyhole/x", {"n": 1})
        assert node.address() == cluster.active.address
        # what steps down answers all the same, as a standby
        cluster.step_down()
        time.sleep(LOOK_AGAIN_S)
        assert node.address() == cluster.active.address
        # while nobody is active it waits for the next one, and sends what was not taken to that
        victim = next(n for n in cluster.nodes if n.address == node.address())
        victim.kill()
        vault.write("cubbyhole/x", {"n": 2})
        assert node.address() == cluster.active.address != victim.address
    # the first address may be the one that is dead
    dead = ActiveNode(Connection(victim.address), [n.address for n in cluster.nodes])
    assert dead.lost(victim.address)
    assert dead.address() == cluster.active.address
    alone = ActiveNode(Connection(victim.address))
    assert (alone.address(), alone.lost(victim.address)) == (victim.address, False)


@pytest.mark.timeout(400)
def test_the_leader_dies_while_a_worker_ends_tasks(rig: Rig, spec: Spec, cluster: Cluster) -> None:
    cluster.step_down()
    standby = cluster.standbys[0]
    rig = at(cluster.active, rig)
    tasks = [spec(window="3m") for _ in range(4)]
    for file in tasks:
        rig.active(file)
        nobody = {"JITVAULT_WORKER_TOKEN": ""}
        rig("operator", "complete", file.stem, "--wait", "0", extra=nobody, code=13)
    waiting = deque(file.stem for file in tasks)
    confirmed, failures = list[str](), list[str]()
    with at(standby, rig).environment(None):
        wiring = Wiring(load())
    wiring.worker.tokens.lookup_self()
    # Where the death leaves no proof of a token's revocation, the latest expiry that the chain names has to be over: it
    # allows for renewals, to the end of the window, and for a lost answer.
    deadline = time.monotonic() + 240

    def end_them(own: Wiring) -> None:
        while time.monotonic() < deadline:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                state = advance(own.worker, task, hint=rig.entity("operator")).task.state
            except JitvaultError as error:
                # as a worker does: whatever kept it from this task now, the task is due again
                failures.append(repr(error))
                time.sleep(0.2)
                state = State.ENDING
            (confirmed if state in (State.CONFIRMED, State.SEALED) else waiting).append(task)

    threads = [threading.Thread(target=end_them, args=(wiring.for_thread(),)) for _ in range(2)]
    with closing(wiring):
        for thread in threads:
            thread.start()
        while not any(rig.record(file.stem).task.state is State.ENDING for file in tasks):
            time.sleep(0.01)
        cluster.active.kill()
        for thread in threads:
            thread.join()
    assert (sorted(confirmed), list(waiting)) == (sorted(file.stem for file in tasks), []), failures
    for file in tasks:
        assert rig.findings(file.stem) == []
        assert at(cluster.active, rig).task_tokens(file.stem) == []
