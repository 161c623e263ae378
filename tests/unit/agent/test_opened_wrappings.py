"""A wrapping token that this user opened is refused, and what cannot be remembered prevents nothing."""

from __future__ import annotations

import json
import os
import resource
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from jitvault.agent.opened_wrappings import KEPT_FOR, locked_record, opened_of_task, state_directory
from jitvault.errors import WrongState
from jitvault.formats.secret import Secret

TOKEN = Secret("s.0123456789abcdefghijklmn")


def no_warning(message: str) -> None:
    raise AssertionError(message)


def opened(directory: Path, token: Secret = TOKEN, task: str = "t-1") -> Path:
    with locked_record(token, directory, no_warning) as record:
        record.keep(task)
    return directory / sha256(token.reveal().encode()).hexdigest()


def test_what_was_opened_is_refused_with_its_time_its_task_and_who_can_end_it(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    path = opened(tmp_path / "a" / "b")
    said = json.loads(path.read_text())
    assert before <= datetime.fromisoformat(said["at"]) <= datetime.now(UTC)
    with pytest.raises(WrongState) as refused, locked_record(TOKEN, tmp_path / "a" / "b", no_warning):
        raise AssertionError("Vault would be asked")
    assert f"of task t-1 before, at {said['at'][:10]} {said['at'][11:19]} UTC" in str(refused.value)
    for command in ("`jitvault revoke t-1 --reason WHY`", "`jitvault complete t-1`"):
        assert command in refused.value.hint
    # another token is another one
    with locked_record(Secret("s.other"), tmp_path / "a" / "b", no_warning):
        pass


def test_only_the_user_may_look_and_the_token_is_nowhere(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "jitvault" / "unwrapped"
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state" / "jitvault").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        path = opened(directory)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (directory.parent, directory, path)]
    assert modes == [0o700, 0o700, 0o600]
    assert TOKEN.reveal() not in path.read_text() + str(path)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o755, "what is not ours stays as it is"


def test_what_vault_did_not_answer_is_not_remembered(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), locked_record(TOKEN, tmp_path, no_warning):
        raise ConnectionError
    assert list(tmp_path.iterdir()) == []
    opened(tmp_path)


def test_a_process_that_died_before_the_answer_leaves_nothing_that_refuses(tmp_path: Path) -> None:
    (tmp_path / sha256(TOKEN.reveal().encode()).hexdigest()).touch()
    opened(tmp_path)


@pytest.mark.parametrize("content", ["no json", "[]", '{"at": "x", "task_id": "t"}', "{}", "[" * 5000, "\x00\xff"])
def test_a_record_that_cannot_be_read_still_refuses(tmp_path: Path, content: str) -> None:
    path = opened(tmp_path)
    path.write_text(content)
    today = f"before, at {datetime.now(UTC):%Y-}"
    with pytest.raises(WrongState, match=today), locked_record(TOKEN, tmp_path, no_warning):
        pass


@pytest.mark.parametrize("place", ["a-file/unwrapped", "x" * 300])
def test_where_nothing_can_be_written_it_warns_and_goes_on(tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").touch()
    said: list[str] = []
    for _ in range(2):
        with locked_record(TOKEN, tmp_path / place, said.append) as record:
            record.keep("t-1")
    assert len(said) == 2 and all("cannot be written" in message and TOKEN.reveal() not in message for message in said)


def test_a_full_disk_is_told_when_it_is_too_late_to_prevent_anything(tmp_path: Path) -> None:
    said: list[str] = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with locked_record(TOKEN, tmp_path, said.append) as record:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            record.keep("t-1")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (message,) = said
    assert "Unwrapping it a second time would end the task" in message


def test_two_at_once_ask_vault_once(tmp_path: Path) -> None:
    asked: list[str] = []
    refused: list[str] = []

    def unwrap(name: str) -> None:
        try:
            with locked_record(TOKEN, tmp_path, no_warning) as record:
                asked.append(name)
                time.sleep(0.1)
                record.keep("t-1")
        except WrongState:
            refused.append(name)

    threads = [threading.Thread(target=unwrap, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(asked), len(refused)) == (1, 3)


def test_a_second_one_goes_on_where_the_first_one_got_nothing(tmp_path: Path) -> None:
    asked: list[int] = []

    def unwrap() -> None:
        with locked_record(TOKEN, tmp_path, no_warning):
            asked.append(1)
            time.sleep(0.05)

    threads = [threading.Thread(target=unwrap) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 4
    assert list(tmp_path.iterdir()) == []


def test_old_records_go_when_a_new_one_comes(tmp_path: Path) -> None:
    old, younger = opened(tmp_path, Secret("s.old")), opened(tmp_path, Secret("s.younger"))
    for path, age in ((old, KEPT_FOR + timedelta(hours=1)), (younger, KEPT_FOR - timedelta(hours=1))):
        at = time.time() - age.total_seconds()
        os.utime(path, (at, at))
    newest = opened(tmp_path)
    assert set(tmp_path.iterdir()) == {younger, newest}


def test_the_last_wrapping_of_a_task_is_found_by_its_name(tmp_path: Path) -> None:
    assert opened_of_task("t-1", "", tmp_path / "none") is None
    first = opened(tmp_path, Secret("s.first"))
    first.write_text(json.dumps({"at": "2030-01-01T00:00:00Z", "task_id": "t-1"}))
    second = opened(tmp_path, Secret("s.second"))
    second.write_text(json.dumps({"at": "2030-01-02T00:00:00Z", "task_id": "t-1"}))
    opened(tmp_path, Secret("s.third"), "t-2")
    found = opened_of_task("t-1", "", tmp_path)
    assert found is not None and found.at == datetime(2030, 1, 2, tzinfo=UTC)
    assert opened_of_task("t-3", "", tmp_path) is None
    # a task of that name in another Vault
    second.write_text(json.dumps({"at": "2030-01-02T00:00:00Z", "task_id": "t-1", "vault": "http://a"}))
    first.unlink()
    assert opened_of_task("t-1", "http://a", tmp_path) is not None
    assert opened_of_task("t-1", "http://b", tmp_path) is None


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"HOME": "/h"}, "/h/.local/state/jitvault/unwrapped"),
        ({"HOME": "/h", "XDG_STATE_HOME": ""}, "/h/.local/state/jitvault/unwrapped"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, "/h/.local/state/jitvault/unwrapped"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/state"}, "/state/jitvault/unwrapped"),
        ({}, "/dev/null/.local/state/jitvault/unwrapped"),
    ],
)
def test_the_place_is_the_users_state_directory(environment: dict[str, str], place: str) -> None:
    assert state_directory(environment) == Path(place)
