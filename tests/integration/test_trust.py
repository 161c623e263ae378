"""Nothing is issued without a trusted audit stream, and nothing is confirmed over a gap in it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rig import Held, Rig, hurried, own_rig

from jitvault.audit.file import FileSource
from jitvault.sandbox.servers import OpenBao
from jitvault.sandbox.world import World
from jitvault.services import observe

Spec = Callable[..., Path]


class Mirror:
    """A copy of Vault's audit file that follows it, with hands on it: what a log shipper could do."""

    def __init__(self, original: Path, path: Path) -> None:
        self.path = path
        self.keep: Callable[[bytes], bool] = lambda _line: True
        self._original = original
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._read = original.stat().st_size
        path.touch()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._copy()
            time.sleep(0.002)

    def _copy(self) -> None:
        with self._original.open("rb") as original:
            original.seek(self._read)
            new = original.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        if whole:
            # without a file there is nobody to write for: the lines come once it is there again
            target = self.path if self.path.exists() else self.path.with_suffix(".away")
            with target.open("ab") as copy:
                copy.writelines(line for line in whole.splitlines(keepends=True) if self.keep(line))

    def change(self, act: Callable[[Path], object]) -> None:
        with self._lock:
            self._copy()
            act(self.path)


@pytest.fixture
def mirror(world: World, tmp_path: Path) -> Iterator[Mirror]:
    copy = Mirror(world.audit_file, tmp_path / "mirror.log")
    yield copy
    copy.close()


@pytest.fixture
def rig(
    world: World, variables: dict[str, str], tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> Rig:
    monkeypatch.setattr(observe, "PATIENCE_S", 0.5)
    hurried(monkeypatch)
    return own_rig(world, {**variables, "JITVAULT_AUDIT_FILE": str(mirror.path)}, tmp_path)


def held_in(rig: Rig, file: Path) -> Held:
    """An active task whose lease the ledger has seen."""
    held = rig.active(file)
    status = rig("operator", "status", file.stem).json
    assert [lease["lease_id"] for lease in status["leases"]] == [held.lease_id]
    return held


def not_confirmed(rig: Rig, task: str, *codes: int) -> dict[str, Any]:
    """`complete` with one of the exit codes; whatever it could read, nothing is proven and the access is gone."""
    ended = rig("operator", "complete", task, code=None)
    assert ended.code in codes
    assert '"confirmed": true' not in ended.stdout
    status = rig("operator", "status", task, code=None)
    assert status.code in (0, 7)
    verdicts = [grant.verdict for grant in rig.file(task).grants] + [lease.verdict for lease in rig.file(task).leases]
    assert {verdict.value for verdict in verdicts} <= {"gone", "acknowledged", "revoke_requested"}
    assert rig.file(task).task.state == "ending"
    return dict(ended.json) if ended.stdout else {}


# -- no trust, no grant ------------------------------------------------------------------------------------


def test_another_vaults_stream_grants_nothing(rig: Rig, spec: Spec, tmp_path: Path) -> None:
    other = OpenBao(tmp_path / "other", max_request_duration=timedelta(seconds=2))
    other.start()
    with other:
        file = spec()
        refused = rig("operator", "grant", file, code=7, extra={"JITVAULT_AUDIT_FILE": str(other.audit_file)})
        assert "another Vault" in refused.error["message"]
    assert rig.task_tokens(file.stem) == []
    assert rig.file(file.stem).grants == ()


@pytest.mark.parametrize("what", ["missing", "directory", "frozen"])
def test_a_stream_that_cannot_be_read_up_to_now_grants_nothing(rig: Rig, spec: Spec, tmp_path: Path, what: str) -> None:
    path = tmp_path / "stream"
    if what == "directory":
        path.mkdir()
    elif what == "frozen":
        path.write_bytes(rig.world.audit_file.read_bytes())
    file = spec()
    rig("operator", "grant", file, code=7, extra={"JITVAULT_AUDIT_FILE": str(path)})
    assert rig.task_tokens(file.stem) == []


def test_a_stream_that_lacks_our_own_lines_grants_and_confirms_nothing(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = held_in(rig, file)
    time.sleep(1.1)
    mirror.keep = lambda line: b"x-jitvault-op" not in line
    # an act counts as missing once it is a second old
    not_confirmed(rig, file.stem, 6, 7)
    assert not rig.is_live(held.token)
    time.sleep(1.1)
    not_confirmed(rig, file.stem, 7)
    other = spec()
    assert "own acts" in rig("operator", "grant", other, code=7).error["message"]
    assert rig.task_tokens(other.stem) == []


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


@pytest.mark.parametrize("gap", [_truncate, _replace, _garbage, _half_a_line])
def test_a_gap_in_the_stream_is_never_confirmed_over(
    rig: Rig, spec: Spec, mirror: Mirror, gap: Callable[[Path], None]
) -> None:
    file = spec()
    held = held_in(rig, file)
    mirror.change(gap)
    ended = not_confirmed(rig, file.stem, 6)
    assert ended["leases"][0]["verdict"] == ended["token"]["verdict"] == "gone"
    assert [c["n"] for c in ended["leases"][0]["checks"] if not c["ok"]] == [5]
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    # the gap is behind: the next task is proven
    other = spec()
    rig.active(other)
    assert rig("operator", "complete", other.stem).json["confirmed"]


def test_what_is_taken_away_unseen_is_proven_when_the_stream_is_back(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = held_in(rig, file)
    away = mirror.path.with_suffix(".away")
    mirror.change(lambda path: path.rename(away))
    refused = rig("operator", "complete", file.stem, code=7)
    assert '"confirmed"' not in refused.stdout
    assert not rig.is_live(held.token)
    assert not rig.lease_is_live(held.lease_id)
    mirror.change(away.rename)
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_a_status_without_the_stream_ends_nothing(rig: Rig, spec: Spec, mirror: Mirror) -> None:
    file = spec()
    held = held_in(rig, file)
    away = mirror.path.with_suffix(".away")
    mirror.change(lambda path: path.rename(away))
    rig("operator", "status", file.stem, code=7)
    assert rig.is_live(held.token)
    mirror.change(away.rename)
    assert rig("operator", "status", file.stem).json["state"] == "active"


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
