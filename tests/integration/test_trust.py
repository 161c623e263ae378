"""Nothing is issued without a trusted audit stream, and nothing is confirmed over a gap in it without a listing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attended import Attended, wait_for
from commands import EXAMPLE, Quick
from copied_world import copied_world
from hands import Mirror, by_hash
from rig import PREFIX, Held, Rig, own_rig, rests_on

from jitvault.agent.unwrap import read_all
from jitvault.audit import classify
from jitvault.audit.decoding import decoder as decoding
from jitvault.audit.entry import Entry
from jitvault.audit.files.file_source import FileSource
from jitvault.audit.observation import Observation, Place
from jitvault.context import new_id
from jitvault.formats.secret import Secret
from jitvault.formats.server_product import Product
from jitvault.sandbox.servers import VaultServer, running_servers
from jitvault.sandbox.vault_configuration import AuditDevice
from jitvault.sandbox.world import World, env, provisioned
from jitvault.stream import reading as observe
from jitvault.vault.client import Connection, Vault
from jitvault.wiring import SystemClock

pytestmark = pytest.mark.usefixtures("hurried")
Spec = Callable[..., Path]
USUAL_PATIENCE_S = observe.PATIENCE_S


@pytest.fixture
def rig(rig: Rig, mirrored: None) -> Rig:
    return rig


@pytest.fixture
def patient(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line comes: one is waited for as long as elsewhere, since the mirror is late on a busy machine."""
    monkeypatch.setattr(observe, "PATIENCE_S", USUAL_PATIENCE_S)


@pytest.fixture
def second(world: World, tmp_path: Path) -> Iterator[Mirror]:
    copy = Mirror(world.audit_file, tmp_path / "second.log")
    yield copy
    copy.close()


@pytest.fixture
def both(rig: Rig, mirror: Mirror, second: Mirror) -> Rig:
    """The same rig with two sources."""
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": f"{mirror.path}:{second.path}"}
    return rig


def held_in(rig: Rig, file: Path) -> Held:
    """An active task whose lease the ledger has seen."""
    held = rig.active(file)
    status = rig("operator", "status", file.stem).json
    assert [lease["lease_id"] for lease in status["leases"]] == [held.lease_id]
    return held


def not_confirmed(rig: Rig, task: str, *codes: int, findings: tuple[int, ...] = (0, 7)) -> dict[str, Any]:
    """`complete` with one of the exit codes; whatever it could read, nothing is proven and the access is gone."""
    ended = rig("operator", "complete", task, code=None)
    assert ended.code in codes
    assert '"confirmed": true' not in ended.stdout
    status = rig("operator", "status", task, code=None)
    assert status.code in findings
    verdicts = [grant.verdict for grant in rig.record(task).grants] + [
        lease.verdict for lease in rig.record(task).leases
    ]
    assert {verdict.value for verdict in verdicts} <= {"gone", "acknowledged", "revoke_requested"}
    assert rig.record(task).task.state == "ending"
    return dict(ended.json) if ended.stdout else {}


def examined(rig: Rig, *, code: int = 0, extra: dict[str, str] | None = None) -> dict[str, Any]:
    """What `audit status` prints; its error, if there is one, is under `error`."""
    result = rig("auditor", "audit", "status", code=code, extra=extra)
    return {**result.json, "error": result.error if code else None}


# -- audit status ----------------------------------------------------------------------------------------------


def test_a_stream_that_is_ours_is_trusted_and_tells_its_lag_and_clock(rig: Rig, mirror: Mirror) -> None:
    found = examined(rig)
    assert (found["state"], found["why"], found["frozen"]) == ("trusted", None, None)
    assert 0 <= found["lag_ms"] < 5000
    assert abs(found["skew_ms"]) < 5000
    (source,) = found["sources"]
    assert (source["name"], source["counts"], source["stretch"], source["gaps"]) == (str(mirror.path), True, 1, [])
    assert source["offset"] <= mirror.path.stat().st_size
    canary = datetime.fromisoformat(source["last_canary"])
    assert abs(datetime.now(UTC) - canary) < timedelta(seconds=10)
    # a second one is a new canary, further on
    again = examined(rig)["sources"][0]
    assert again["offset"] > source["offset"]
    assert again["last_canary"] > source["last_canary"]


def test_a_person_without_the_workers_identity_sees_what_the_ledger_remembers(rig: Rig, mirror: Mirror) -> None:
    before = examined(rig)
    found = examined(rig, extra={"JITVAULT_WORKER_TOKEN": ""})
    assert found["state"] == "unknown"
    assert found["sources"] == before["sources"]
    shown = rig.cli("auditor", "audit", "status")
    assert "The audit stream is trusted" in shown.stdout
    assert str(mirror.path) in shown.stdout.replace("\n", "")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    """Another Vault with an audit file of its own."""
    with VaultServer(tmp_path_factory.mktemp("foreign"), max_request_duration=timedelta(seconds=2)) as other:
        yield other


@pytest.mark.parametrize("what", ["missing", "empty directory", "frozen", "another file", "another Vault's", "a link"])
def test_a_stream_that_cannot_be_read_up_to_now_is_untrusted_and_grants_nothing(
    rig: Rig, spec: Spec, tmp_path: Path, foreign: VaultServer, what: str
) -> None:
    path = tmp_path / "stream"
    said = "does not show the request that was just sent to Vault"
    if what == "missing":
        said = "cannot be read"
    elif what == "empty directory":
        path.mkdir()
        said = "there is no audit source"
    elif what == "frozen":
        path.write_bytes(b"".join(rig.own_lines()))
    elif what == "another file":
        path.write_text("not an audit line\n" * 3)
    elif what == "another Vault's":
        path = foreign.audit_file
    else:
        path.symlink_to(path)
        said = "cannot be read"
    extra = {"JITVAULT_AUDIT_FILE": str(path)}
    found = examined(rig, code=7, extra=extra)
    assert found["state"] == "untrusted"
    assert said in found["why"] == found["error"]["message"]
    assert found["lag_ms"] is found["skew_ms"] is None
    file = spec()
    assert said in rig("operator", "grant", file, code=7, extra=extra).error["message"]
    assert rig.task_tokens(file.stem) == []
    assert rig.record(file.stem).grants == ()
    # the same with the right one
    assert examined(rig)["state"] == "trusted"
    assert rig("operator", "grant", file.stem).json["state"] == "issued"


def test_a_shipper_that_is_late_is_lagging_until_it_has_caught_up(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    examined(rig)
    file = spec()
    mirror.hold()
    rig.admin.read("sys/mounts")
    # the file grows behind what is asked now
    rig.admin.write("sys/audit-hash/jitvault", {"input": "somebody else's"})
    late = mirror.path.stat().st_size
    hash_ = observe.canary

    def with_older_lines(worker: Any, **kwargs: Any) -> Any:
        mirror.sync()
        return hash_(worker, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jitvault.stream.status.canary", with_older_lines)
        found = examined(rig, code=7)
    assert mirror.path.stat().st_size > late
    assert found["state"] == "lagging", found
    assert "behind" in found["why"]
    assert "in a moment" in found["error"]["hint"]
    rig("operator", "grant", file, code=7)
    assert rig.task_tokens(file.stem) == []
    mirror.let_go()
    assert examined(rig)["state"] == "trusted"
    assert rig("operator", "grant", file.stem).json["state"] == "issued"


def test_a_shipper_that_filters_our_own_lines_grants_and_confirms_nothing(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = held_in(rig, file)
    time.sleep(1.1)
    mirror.keep = lambda line: b"x-jitvault-op" not in line
    # an act counts as missing once it is a second old
    not_confirmed(rig, file.stem, 6, 7)
    assert not rig.is_live(held.token)
    time.sleep(1.1)
    not_confirmed(rig, file.stem, 7)
    found = examined(rig, code=7)
    assert found["state"] == "untrusted"
    assert "own acts" in found["why"]
    assert "filtered" in found["error"]["hint"]
    other = spec()
    assert "own acts" in rig("operator", "grant", other, code=7).error["message"]
    assert rig.task_tokens(other.stem) == []


@pytest.mark.parametrize("hours", [1, -1])
def test_clocks_that_differ_take_access_away_and_confirm_nothing(
    rig: Rig, spec: Spec, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By as much as this host's clock is set forward, Vault's is behind."""
    file, other = spec(), spec()
    held = held_in(rig, file)
    with monkeypatch.context() as patch:
        patch.setattr(SystemClock, "now", lambda _self: datetime.now(UTC) + timedelta(hours=hours))
        said = f"s {'behind' if hours > 0 else 'ahead of'} this host's"
        found = examined(rig, code=7)
        assert found["state"] == "untrusted"
        assert said in found["why"]
        assert "NTP" in found["error"]["hint"]
        assert said in rig("operator", "grant", other, code=7).error["message"]
        assert rig.task_tokens(other.stem) == []
        ended = rig("operator", "complete", file.stem, code=7)
        assert said in ended.error["message"]
        assert '"confirmed": true' not in ended.stdout
        assert not rig.is_live(held.token)
        assert not rig.lease_is_live(held.lease_id)
        assert rig.record(file.stem).task.state == "ending"
    # a clock that was ahead has written times that are still to come
    assert rig("operator", "complete", file.stem).json["confirmed"]


# -- another salt ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lasting() -> Iterator[World]:
    """A world whose Vault keeps its data over a restart."""
    with copied_world() as copied:
        yield copied


@contextmanager
def renamed_device(bao: VaultServer, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The one device goes, one of another name writes to its file, and then the first one is made anew.

    OpenBao does that at a start with another configuration.
    """
    if bao.product is Product.OPENBAO:
        with monkeypatch.context() as patch:
            patch.setattr("jitvault.sandbox.vault_server.AUDIT_DEVICE", name)
            bao.restart()
            yield
        bao.restart()
        return
    (ours,) = bao._devices()
    admin = Vault(Connection(bao.address), Secret(bao.root_token))
    with closing(admin):
        admin.delete(f"sys/audit/{ours.name}")
        admin.write(f"sys/audit/{name}", ours.body)
        yield
        admin.delete(f"sys/audit/{name}")
        admin.write(f"sys/audit/{ours.name}", ours.body)


def test_a_device_that_was_made_anew_is_seen_and_a_task_over_it_is_settled_by_a_listing(
    lasting: World, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is taken away and made again has a new salt; after a mere restart it has its own."""
    rig = own_rig(lasting, env(lasting, "", EXAMPLE), tmp_path)
    bao = lasting.servers.vault
    salt = rig.wiring().worker.hasher.hash("the same")
    kept = spec()
    held_in(rig, kept)
    bao.restart()
    assert rig.wiring().worker.hasher.hash("the same") == salt
    assert examined(rig)["sources"][0]["stretch"] == 1
    ended = rig("operator", "complete", kept.stem).json
    assert ended["confirmed"]
    assert "contiguously" in evidence(ended["leases"][0], 5)

    over = spec()
    held = held_in(rig, over)
    running = rig.wiring().worker
    assert running.hasher.remembered("the same") == salt
    with renamed_device(bao, "another", monkeypatch):
        for command in (("audit", "status"), ("grant", spec())):
            said = rig("operator", *command, code=7).error
            assert "an audit device named jitvault" in said["message"]
            assert "JITVAULT_AUDIT_DEVICE" in said["hint"]
    # one that runs finds it in the first lines, before anything under the new salt is entered
    observe.observe(running)
    assert [epoch for (epoch,) in rig.rows("SELECT epoch FROM audit_gaps WHERE what LIKE '%salt%'")] == [2]
    assert running.hasher.remembered("the same") == rig.wiring().worker.hasher.hash("the same") != salt
    found = examined(rig)
    assert found["state"] == "trusted"
    assert found["sources"][0]["stretch"] == 2
    assert "salt" in found["sources"][0]["gaps"][0]["what"]
    again = rig("operator", "complete", over.stem, code=None)
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    # what happened without the device left no line, and that it was made anew is a hazard: that both credentials were
    # still there afterwards, and nothing else was listed, settles it
    ended = again.json
    assert (again.code, ended["confirmed"]) == (0, True)
    for credential in (ended["leases"][0], ended["token"]):
        assert "alive after the gap" in evidence(credential, 5)
    assert "listed" in evidence(ended["token"], 7)
    # what is granted now is proven as ever
    other = spec()
    held_in(rig, other)
    assert rig("operator", "complete", other.stem).json["confirmed"]


def test_a_device_that_is_made_anew_beside_a_worker_is_told_and_hides_no_lease(
    lasting: World, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody starts a command or the worker again: it finds the other salt before any line under it counts."""
    rig = own_rig(lasting, env(lasting, "", EXAMPLE), tmp_path)
    person = Quick(rig.cli.variables, rig.cli.home)
    file, other = spec(), spec()
    with Attended(rig, canary_s=1.0):
        held = rig.use(person("operator", "grant", file, "--json", worker=False).json)
        wait_for(lambda: [lease.lease_id for lease in rig.record(file.stem).leases] == [held.lease_id])
        with renamed_device(lasting.servers.vault, "another", monkeypatch):
            pass
        query = "SELECT message FROM findings WHERE rule = 'audit_device_anew' AND task_id IS NULL"
        (told,) = wait_for(lambda: rig.rows(query))
        assert "made anew" in told[0]
        assert "look-ups and a listing" in told[0]
        # no line links this lease to its task: the new salt names its token otherwise
        (late,) = read_all(rig.vault(rig.token_of("agent")), held.task)
        person("operator", "complete", file.stem, "--json", "--wait", "30", code=None, worker=False)
        assert rig.record(file.stem).task.end_reason == "completed"
        assert not rig.lease_is_live(late.lease_id)
        assert rig.findings(file.stem) in ([], ["unaccounted_lease"])
        assert "contiguously" not in str([rests_on(c) for c in rig.record(file.stem).checks if c.n == 5])
        # what is granted now is proven as ever
        rig.use(person("operator", "grant", other, "--json", worker=False).json)
        assert person("operator", "complete", other.stem, "--json", worker=False).json["confirmed"]


def test_a_worker_that_did_not_read_of_it_itself_finds_another_salt_by_its_next_canary(rig: Rig) -> None:
    """Of two workers one reads the line of the new device; to the other its own lines would be a stranger's."""
    worker = rig.wiring().worker
    before = observe.canary(worker)
    # what the ledger has of a device that was another one
    rig.sql("UPDATE audit_salts SET mark = 'hmac-sha256:of-the-salt-before'")
    rig.sql("DELETE FROM worker_sessions")
    after = observe.canary(worker)
    assert after.place.epoch == before.place.epoch + 1
    assert "salt" in rig.rows("SELECT what FROM audit_gaps")[0][0]
    assert rig.rows("SELECT count(*) FROM worker_sessions") == [(1,)]


def test_a_ledger_that_was_used_with_the_other_server_says_so_and_starts_another_stretch(rig: Rig, spec: Spec) -> None:
    """The storage of one was moved to the other: installation, tokens and salt are what they were."""
    file = spec()
    held_in(rig, file)
    here = rig.world.servers.vault.product
    (there,) = set(Product) - {here}
    assert rig.rows("SELECT product FROM installation") == [(here.value,)]
    rig.sql("UPDATE installation SET product = ?", there.value)
    said = f"this ledger was used with {there}, and the server is {here}"
    looked = rig("admin", "doctor", code=None).json
    (warned,) = [c for c in looked["checks"] if (c["area"], c["name"]) == ("ledger", "server")]
    assert said in warned["seen"]
    assert said in examined(rig)["sources"][0]["gaps"][0]["what"]
    (told,) = rig.rows("SELECT message FROM findings WHERE rule = 'another_server' AND task_id IS NULL")
    assert said in told[0]
    ended = rig("operator", "complete", file.stem).json
    assert ended["confirmed"]
    assert "alive after the gap" in evidence(ended["leases"][0], 5)
    # told once; of another installation nothing is taken at all, and the server is named there, too
    assert len(examined(rig)["sources"][0]["gaps"]) == 1
    rig.sql("UPDATE installation SET id = 'of-another', product = ?", there.value)
    assert said in str(rig.turn(file.stem, code=11))


@pytest.mark.needs("devices-by-api")
def test_a_device_that_is_enabled_beside_ours_while_a_task_is_held_takes_no_proof(
    lasting: World, spec: Spec, tmp_path: Path
) -> None:
    """Ours went on over it; the second one writes the same into another file, under another salt."""
    rig = own_rig(lasting, env(lasting, "", EXAMPLE), tmp_path)
    held = spec()
    held_in(rig, held)
    second = AuditDevice("file", "second", {"file_path": str(tmp_path / "second.log")})
    rig.admin.write("sys/audit/second", second.body)
    assert rig("operator", "complete", held.stem).json["confirmed"]
    assert rig.findings(held.stem) == []


@pytest.mark.needs("devices-by-api")
def test_a_second_device_that_writes_into_the_file_of_ours_is_told_from_a_stolen_worker(
    spec: Spec, tmp_path: Path
) -> None:
    with copied_world() as world:
        rig = own_rig(world, env(world, "", EXAMPLE), tmp_path)
        held_in(rig, spec())
        (ours,) = world.servers.vault._devices()
        rig.admin.write("sys/audit/second", ours.body)
        rig("operator", "grant", spec(), code=None)
        said = rig("operator", "grant", spec(), code=12).error["message"]
        assert "a second audit device shows it that writes into the same log" in said


@pytest.mark.needs("devices-by-api")
def test_a_device_that_is_disabled_is_told_and_nothing_is_granted_or_proven(spec: Spec, tmp_path: Path) -> None:
    with copied_world() as world:
        rig = own_rig(world, env(world, "", EXAMPLE), tmp_path)
        file = spec()
        held = held_in(rig, file)
        rig.admin.delete("sys/audit/jitvault")
        for command in (("grant", spec()), ("complete", file.stem)):
            assert "an audit device named jitvault" in rig("operator", *command, code=7).error["message"]
        # access is taken away all the same
        assert not rig.is_live(held.token)
        assert not rig.lease_is_live(held.lease_id)


# -- gaps while a task is held -----------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    os.truncate(path, 0)


def _replace(path: Path) -> None:
    empty = path.with_suffix(".new")
    empty.touch()
    empty.replace(path)


def _garbage(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\x00\xff this is no audit line\n")


def _half_a_line(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"time":"2030-01-01T00:00:00Z","type":"resp\n')


GAPS = [_truncate, _replace, _garbage, _half_a_line]


def evidence(shown: dict[str, Any], number: int) -> str:
    """What one check of a lease or the token rests on; the check is ok."""
    (check,) = [check for check in shown["checks"] if check["n"] == number]
    assert check["ok"], check
    return rests_on(check)


def listings_in(rig: Rig, mirror: Mirror, task: str) -> list[str]:
    """The hashes of the lines of the task's listings, as far as they are in the mirror's file."""
    ops = {op.op_id for op in rig.record(task).operations if op.kind == "list_leases"}
    lines = [line for line in mirror.path.read_bytes().splitlines(keepends=True) if b"x-jitvault-op" in line]
    return [
        name
        for name, entry in by_hash(lines).items()
        if entry["type"] == "response" and entry["request"]["headers"].get("x-jitvault-op", [""])[0] in ops
    ]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("gap", GAPS)
def test_over_a_gap_with_everything_accounted_for_a_listing_confirms(
    rig: Rig, spec: Spec, mirror: Mirror, gap: Callable[[Path], None]
) -> None:
    file = spec()
    held = held_in(rig, file)
    mirror.change(gap)
    ended = rig("operator", "complete", file.stem).json
    assert ended["confirmed"]
    assert (ended["leases"][0]["verdict"], ended["token"]["verdict"]) == ("target_confirmed", "audit_confirmed")
    named = listings_in(rig, mirror, file.stem)
    assert named
    for credential in (ended["leases"][0], ended["token"]):
        said = evidence(credential, 5)
        assert "interrupted" in said
        # a line that really lists, and one that found it alive after the gap
        assert any(line[:16] in said for line in named)
        assert "alive after the gap" in said
    assert "interrupted" in evidence(ended["token"], 7)
    assert "listed" in evidence(ended["token"], 7)
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    # the gap is told, and behind: the next task is proven by its lines alone
    assert [g["stretch"] for g in examined(rig)["sources"][0]["gaps"]] == [2]
    other = spec()
    rig.active(other)
    ended = rig("operator", "complete", other.stem).json
    assert ended["confirmed"]
    assert "contiguously" in evidence(ended["leases"][0], 5)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("gap", "scope"), [(_truncate, ("--agent", "research-agent")), (_replace, ("--all",))], ids=["agent", "all"]
)
def test_over_a_gap_that_nobody_has_read_yet_the_kill_switch_proves_all_the_same(
    rig: Rig, spec: Spec, mirror: Mirror, gap: Callable[[Path], None], scope: tuple[str, ...]
) -> None:
    files = [spec(), spec()]
    helds = [held_in(rig, file) for file in files]
    mirror.change(gap)
    # other tests' ledgers left tasks of this agent in Vault, which this one does not know: it says so, with exit 12
    ended = rig("operator", "revoke", *scope, "--reason", "it was stolen", "--yes", code=None).json
    assert {task["task_id"] for task in ended["tasks"] if task["confirmed"]} == {file.stem for file in files}
    for file, held in zip(files, helds, strict=True):
        shown = rig("operator", "status", file.stem).json
        assert shown["proof"]["leases"][0]["verdict"] == "target_confirmed"
        assert "alive after the gap" in evidence(shown["proof"]["leases"][0], 5)
        assert not rig.is_live(held.token)


def elided(line: bytes) -> bytes:
    """The line as a device with `elide_list_responses` writes it."""
    entry = json.loads(line)
    data = (entry.get("response") or {}).get("data") or {}
    if entry["request"].get("operation") != "list" or "keys" not in data:
        return line
    data["keys"] = len(data["keys"])
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def test_over_a_gap_a_listing_of_which_only_the_length_is_shown_proves_nothing_and_that_is_said(
    rig: Rig, spec: Spec, world: World, tmp_path: Path
) -> None:
    mirror = Mirror(world.audit_file, tmp_path / "elided.log", form=elided)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": str(mirror.path)}
    with closing(mirror):
        # what stays there is listed as well
        held_in(rig, spec())
        file = spec()
        held = held_in(rig, file)
        mirror.change(_truncate)
        ended = rig("operator", "complete", file.stem, code=6).json
        assert not rig.is_live(held.token)
        for credential in (ended["token"], ended["leases"][0]):
            (contiguous,) = [check for check in credential["checks"] if check["n"] == 5]
            assert not contiguous["ok"]
            assert "elide_list_responses=true" in rests_on(contiguous)
        checks = {check["name"]: check for check in rig("operator", "doctor", code=None).json["checks"]}
        assert "elide_list_responses=true" in checks["files"]["seen"]


def test_over_a_gap_what_was_handed_on_and_its_parent_are_proven_all_the_same(
    rig: Rig, spec: Spec, mirror: Mirror
) -> None:
    top = spec()
    low = spec(window="5m", more=f"  parent: {top.stem}\n")
    helds = [held_in(rig, file) for file in (top, low)]
    mirror.change(_truncate)
    assert rig("operator", "complete", top.stem).json["confirmed"]
    for file, held in zip((top, low), helds, strict=True):
        proof = rig("operator", "status", file.stem).json["proof"]
        assert "alive after the gap" in evidence(proof["leases"][0], 5)
        assert not rig.is_live(held.token)


# lines that are gone, and lines that cannot be read; each other gap is confirmed over above
@pytest.mark.parametrize("gap", [_truncate, _garbage])
def test_over_a_gap_that_hides_a_lease_of_nobody_nothing_is_confirmed_until_it_is_gone(
    rig: Rig, spec: Spec, mirror: Mirror, gap: Callable[[Path], None]
) -> None:
    file = spec()
    held_in(rig, file)
    mirror.keep = lambda line: PREFIX.encode() not in line
    hidden = rig.admin.read(PREFIX)
    assert hidden
    mirror.sync()
    mirror.keep = lambda _line: True
    mirror.change(gap)
    ended = not_confirmed(rig, file.stem, 6, 12, findings=(12,))
    assert ended["leases"][0]["verdict"] in ("gone", "acknowledged")
    assert ended["token"]["verdict"] in ("gone", "acknowledged")
    assert "unaccounted_lease" in rig.findings(file.stem)
    told = rig("operator", "status", file.stem, code=12).json["findings"]
    assert all(hidden["lease_id"] in found["message"] for found in told)
    assert rig.lease_is_live(hidden["lease_id"])
    rig.admin.write("sys/leases/revoke", {"lease_id": hidden["lease_id"], "sync": True})
    again = rig("operator", "complete", file.stem, code=12).json
    assert again["confirmed"]
    assert again["leases"][0]["verdict"] == "target_confirmed"


def test_over_a_gap_a_lease_of_another_task_is_no_suspect(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file, other = spec(), spec()
    held_in(rig, file)
    held = held_in(rig, other)
    mirror.change(_truncate)
    assert rig("operator", "complete", file.stem).json["confirmed"]
    assert rig.findings(file.stem) == []
    assert rig.lease_is_live(held.lease_id)
    assert rig("operator", "complete", other.stem).json["confirmed"]


def test_over_a_gap_in_which_the_record_was_taken_away_nothing_is_confirmed(
    rig: Rig, spec: Spec, mirror: Mirror
) -> None:
    """Somebody drops the record by force while nobody sees it: Vault says that it is gone, 204 and all."""
    file = spec()
    held = held_in(rig, file)
    user = held.login["user"]
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        # a role that owns something is not dropped: the record goes and the login stays
        target.execute(f'CREATE SCHEMA forced AUTHORIZATION "{user}"')
        mirror.keep = lambda line: b"revoke-force" not in line
        rig.admin.write(f"sys/leases/revoke-force/{PREFIX}")
        mirror.sync()
        mirror.keep = lambda _line: True
        mirror.change(_truncate)
        ended = rig("operator", "complete", file.stem, code=6).json
        assert not ended["confirmed"]
        assert ended["leases"][0]["verdict"] == "gone"
        failed = {check["n"]: rests_on(check) for check in ended["leases"][0]["checks"] if not check["ok"]}
        assert failed.keys() == {5, 6}
        assert "nobody saw it alive" in failed[5]
        # the token was still there after the gap, so its own end is proven
        assert ended["token"]["verdict"] == "audit_confirmed"
        assert not rig.is_live(held.token)
        # that the target has it no more is what makes up for it
        target.execute(f'DROP OWNED BY "{user}"')
        target.execute(f'DROP ROLE "{user}"')
    again = rig("operator", "complete", file.stem).json
    assert "the target refuses it" in evidence(again["leases"][0], 5)


def test_what_is_taken_away_unseen_is_proven_when_the_stream_is_back(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = held_in(rig, file)
    away = mirror.path.with_suffix(".away")
    mirror.change(lambda path: path.rename(away))
    refused = rig("operator", "complete", file.stem, code=7)
    # that access is gone is told all the same
    assert refused.json["confirmed"] is False
    assert "revoked as far as Vault says" in refused.error["message"]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    mirror.change(away.rename)
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_a_turn_without_the_stream_ends_nothing(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = held_in(rig, file)
    away = mirror.path.with_suffix(".away")
    mirror.change(lambda path: path.rename(away))
    rig.turn(file.stem, code=7)
    assert rig.is_live(held.token)
    mirror.change(away.rename)
    assert rig("operator", "status", file.stem).json["state"] == "active"


# -- a second source -----------------------------------------------------------------------------------------


def test_the_same_lines_in_two_sources_are_one_record_and_one_proof(both: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = held_in(both, file)
    ended = both("operator", "complete", file.stem).json
    assert ended["confirmed"]
    assert [lease["lease_id"] for lease in ended["leases"]] == [held.lease_id]
    sources = examined(both)["sources"]
    assert [source["gaps"] for source in sources] == [[], []]
    assert any(source["counts"] for source in sources)
    names = [row[0] for row in both.rows("SELECT line FROM observations")]
    assert len(names) == len(set(names))
    assert set(names) <= by_hash(mirror.path.read_bytes().splitlines(keepends=True)).keys()
    told = [e for e in both.record(file.stem).events if e.kind == "observed"]
    lines = [line for event in told for line in event.body["lines"]]
    assert len(lines) == len(set(lines))


def _forged(world: World, path: Path, change: Callable[[str], str], wanted: Callable[[str], bool]) -> None:
    """Put lines of Vault's own, changed, into another file."""
    lines = [line for line in world.audit_file.read_text().splitlines() if wanted(line)]
    assert lines
    with path.open("a") as file:
        file.writelines(change(line) + "\n" for line in lines[-2:])


def test_lines_of_a_source_in_which_no_canary_was_found_count_for_nothing(
    rig: Rig, spec: Spec, world: World, tmp_path: Path
) -> None:
    forged = tmp_path / "forged.log"
    forged.touch()
    rig.cli.variables = {
        **rig.cli.variables,
        "JITVAULT_AUDIT_FILE": f"{rig.cli.variables['JITVAULT_AUDIT_FILE']}:{forged}",
    }
    file = spec()
    held = held_in(rig, file)
    op = rig.record(file.stem).grants[0].create_op
    _forged(world, forged, lambda line: line.replace(op, "f" * 32), lambda line: op in line)
    _forged(
        world, forged, lambda line: line.replace(held.lease_id, held.lease_id + "x"), lambda line: held.lease_id in line
    )
    for _ in range(2):
        shown = rig("operator", "status", file.stem).json
        assert [lease["lease_id"] for lease in shown["leases"]] == [held.lease_id]
        assert (shown["frozen"], shown["findings"]) == (None, [])
        examined(rig)
    counts = {source["name"]: source["counts"] for source in examined(rig)["sources"]}
    assert counts[str(forged)] is False
    assert rig("operator", "complete", file.stem).json["confirmed"]
    # the same lines in the source that counts are believed: who can write there is outside the threat model
    _forged(
        world,
        Path(next(iter(counts.keys() - {str(forged)}))),
        lambda line: line.replace(op, "f" * 32),
        lambda line: op in line,
    )
    assert rig("operator", "audit", "status", code=12).json["frozen"]


def test_lines_of_a_source_in_which_no_canary_was_found_cost_next_to_nothing(
    rig: Rig, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = tmp_path / "forged.log"
    forged.touch()
    ours = rig.cli.variables["JITVAULT_AUDIT_FILE"]
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_AUDIT_FILE": f"{forged}:{ours}"}
    # neither was ever looked at: one that counts would be searched first, and the other not at all
    rig.admin.write("sys/audit-hash/jitvault", {"input": "x"})
    line = next(line for line in reversed(world.audit_file.read_text().splitlines()) if "sys/audit-hash/" in line)
    read_of: set[str] = set()

    def noted(entry: Entry, *, line: str, place: Place, namespace: str = "") -> Observation | None:
        read_of.add(place.source)
        return classify.observe(entry, line=line, place=place, namespace=namespace)

    monkeypatch.setattr(decoding, "observe", noted)
    blanks = json.dumps({**json.loads(line), "error": " " * 20_000 + "x"})
    with Path(ours).open("a") as file:
        file.write(blanks + "\n")

    def flooded() -> str:
        """What others send while a canary is on its way."""
        forged.write_text("no audit entry\n" + (blanks + "\n") * 50)
        return new_id()

    monkeypatch.setattr(observe, "new_id", flooded)
    begun = time.process_time()
    shown = examined(rig)
    # one such line took 10 s of the whole process
    assert time.process_time() - begun < 5
    assert {source["name"]: source["counts"] for source in shown["sources"]} == {ours: True, str(forged): False}
    assert read_of == {ours}


def test_a_source_that_stops_while_another_goes_on_is_a_gap_for_the_task_that_spans_it(
    both: Rig, spec: Spec, mirror: Mirror, second: Mirror
) -> None:
    second.hold()
    file = spec()
    held = held_in(both, file)
    first, other_name = str(mirror.path), str(second.path)
    counts = {source["name"]: source["counts"] for source in examined(both)["sources"]}
    assert counts == {first: True, other_name: False}
    mirror.hold()
    second.let_go()
    ended = both("operator", "complete", file.stem).json
    assert ended["confirmed"]
    for credential in (ended["leases"][0], ended["token"]):
        assert "interrupted" in evidence(credential, 5)
        assert "alive after the gap" in evidence(credential, 5)
    assert "listed" in evidence(ended["token"], 7)
    assert not both.is_live(held.token)
    sources = {source["name"]: source for source in examined(both)["sources"]}
    assert sources[other_name]["counts"]
    assert sources[other_name]["last_canary"] > sources[first]["last_canary"]
    # a task that lives in the one that goes on is proven by its lines alone
    other = spec()
    held_in(both, other)
    ended = both("operator", "complete", other.stem).json
    assert ended["confirmed"]
    assert "contiguously" in evidence(ended["leases"][0], 5)


# -- the same file, written anew -----------------------------------------------------------------------------


def test_a_file_that_was_truncated_and_grew_again_is_a_gap(world: World, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    lines = world.audit_file.read_bytes().splitlines(keepends=True)[:20]
    path.write_bytes(b"".join(lines))
    source = FileSource(path, name="jitvault")
    position = source.start()
    with path.open("r+b") as file:
        file.truncate(0)
        # as long as before and longer, with an end of a line where the reader stopped
        file.writelines([*reversed(lines), *lines])
    batches = list(source.read(position))
    assert batches[0].gaps
    assert batches[0].position.epoch == 2
    assert sum(batch.lines for batch in batches) == 40


def test_a_file_that_only_grew_is_no_gap(world: World, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    lines = world.audit_file.read_bytes().splitlines(keepends=True)[:20]
    path.write_bytes(b"".join(lines))
    source = FileSource(path, name="jitvault")
    position = source.start()
    for _ in range(3):
        with path.open("ab") as file:
            file.writelines(lines)
        (batch,) = source.read(position)
        assert (batch.gaps, batch.lines, batch.position.epoch) == ((), 20, 1)
        position = batch.position


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hmac_accessor", "false"),
        ("log_raw", "true"),
        pytest.param("format", "jsonx", marks=pytest.mark.needs("jsonx")),
    ],
)
def test_nothing_is_granted_by_a_device_whose_lines_cannot_be_told_to_be_ours(
    tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    """The worker may not read the device's options: its lines show them, and the reason is told."""
    usual = VaultServer._devices

    def plain(server: VaultServer) -> tuple[AuditDevice, ...]:
        return tuple(replace(one, options={**one.options, option: value}) for one in usual(server))

    monkeypatch.setattr(VaultServer, "_devices", plain)
    monkeypatch.setattr(observe, "PATIENCE_S", 1.0)
    with running_servers() as servers:
        world = provisioned(servers)
        rig = own_rig(world, env(world, "", EXAMPLE), tmp_path)
        file = spec()
        assert f"({option}={value})" in rig("operator", "grant", file, code=7).error["message"]
        checks = {check["name"]: check for check in rig("operator", "doctor", code=None).json["checks"]}
        assert checks["files"]["status"] == "fail"
        assert f"({option}={value})" in checks["files"]["seen"]
        assert rig.task_tokens(file.stem) == []
