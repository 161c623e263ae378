"""Which held tasks are renewed from memory: those of which nothing was heard since their whole turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from builders import LEASE, NOW, grant, revision, task
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.changes import EVERYTHING, KEYS, Change, document_place
from jitvault.documents.paths import decision_path, freeze_path, published_path, request_path, vault_path
from jitvault.ledger.kept_tasks import KeptTask, KeptTasks, OfferedTask, mount_of
from jitvault.ledger.model import LeaseRow, TaskRecord
from jitvault.model.states import State, Verdict


def kept(task_id: str = "t-1", due_at: datetime | None = NOW, leases: Sequence[LeaseRow] = ()) -> KeptTask:
    row = replace(task(task_id, State.ACTIVE), due_at=due_at)
    record = TaskRecord(row, revision(task_id), (), (grant(task_id),), tuple(leases), (), (), (), ())
    return KeptTask(record, (), None, None, 0)


def keep(tasks: KeptTasks, *every: KeptTask) -> None:
    for each in every:
        tasks.end_turn(each.task_id, tasks.begin_turn(each.task_id), each, has_access=True)


def _place(path: str) -> str:
    return document_place(vault_path("delete", path))


@pytest.mark.parametrize(
    ("places", "counts"),
    [
        ((_place(request_path("e-9", "t-1", "end")),), True),
        ((_place(request_path("e-9", "t-1", "submit")),), True),
        ((_place(decision_path("e-9", "t-1", "/withdraw")),), True),
        ((_place(request_path("e-9", "t-2", "end")), "jitvault/requests/e-9/"), False),
        ((_place(published_path("t-1")),), False),
        ((KEYS,), True),
        ((EVERYTHING,), True),
        # facts, which every renewal asks for
        (("identity/",), False),
        ((_place(freeze_path("e-9", "all")),), False),
    ],
)
@pytest.mark.parametrize("when", ["before its turn", "in its turn", "afterwards", "in hand"])
def test_a_change_that_may_concern_a_task_forgets_it(places: tuple[str, ...], counts: bool, when: str) -> None:
    tasks, line = KeptTasks(), [Change(places, "r-1", closing=True)]
    if when == "before its turn":
        tasks.saw(line)
    begun = tasks.begin_turn("t-1")
    if when == "in its turn":
        tasks.saw(line)
    tasks.end_turn("t-1", begun, kept(), has_access=True)
    if when == "afterwards":
        tasks.saw(line)
    in_hand = tasks.take_due(NOW, 9)
    if when == "in hand":
        tasks.saw(line)
    for each in in_hand:
        tasks.put_back(each)
    assert (len(tasks) == 0) == (counts and when != "before its turn")


def test_a_turn_that_begins_forgets_what_was_kept() -> None:
    tasks = KeptTasks()
    keep(tasks, kept())
    tasks.begin_turn("t-1")
    assert len(tasks) == 0 and tasks.take_due(NOW, 9) == []


def test_news_before_a_turn_of_another_thread_counts_for_a_task_in_hand() -> None:
    tasks = KeptTasks()
    keep(tasks, kept())
    (taken,) = tasks.take_due(NOW, 9)
    tasks.forget("t-1")
    tasks.begin_turn("t-1")
    assert tasks.had_news("t-1")
    tasks.put_back(taken)
    assert len(tasks) == 0


def test_a_task_in_hand_is_no_other_threads_until_it_is_left() -> None:
    tasks = KeptTasks()
    keep(tasks, kept())
    assert tasks.due_here(NOW) == {"t-1"}
    (taken,) = tasks.take_due(NOW, 9)
    assert tasks.take_due(NOW, 9) == [] and tasks.due_here(NOW) == {"t-1"}
    tasks.leave(taken.task_id)
    assert tasks.due_here(NOW) == set() and len(tasks) == 0


def test_a_task_that_is_late_stays_kept_and_shows_for_how_long() -> None:
    tasks = KeptTasks()
    keep(tasks, kept("t-1"), kept("t-2", NOW + timedelta(seconds=1)))
    assert tasks.late_s(NOW - timedelta(seconds=1)) == 0
    now = NOW + timedelta(minutes=5)
    assert tasks.late_s(now) == 300
    assert [each.task_id for each in tasks.take_due(now, 1)] == ["t-1"]
    assert tasks.late_s(now) == 299
    # what is forgotten is nobody's delay
    tasks.forget("t-2")
    assert tasks.late_s(now) == 0


def test_a_task_that_is_offered_is_in_hand_until_a_turn_and_counts_as_late() -> None:
    tasks, room = KeptTasks(), KeptTasks().room
    offered = OfferedTask("t-1", NOW)
    tasks.offer(offered)
    assert tasks.room == room - 1 and tasks.late_s(NOW + timedelta(seconds=7)) == 7
    assert tasks.due_here(NOW) == {"t-1"}
    assert tasks.take_due(NOW, 9) == [offered] and tasks.due_here(NOW) == {"t-1"}
    # one that had no turn is offered again
    tasks.put_back(offered)
    assert tasks.take_due(NOW, 9) == [offered]
    tasks.leave("t-1")
    assert tasks.due_here(NOW) == set() and tasks.room == room


def test_a_task_that_was_left_is_not_offered_again_before_a_whole_turn_and_then_only_if_it_can_be_kept() -> None:
    tasks = KeptTasks()
    assert tasks.takes("t-1")
    for over in (tasks.drop, tasks.leave):
        tasks.offer(OfferedTask("t-1", NOW))
        tasks.take_due(NOW, 9)
        over("t-1")
        assert tasks.takes("t-1") is (over == tasks.drop) and tasks.due_here(NOW) == set()
    assert not tasks.takes("t-1")
    tasks.end_turn("t-1", tasks.begin_turn("t-1"), None, has_access=True)
    assert not tasks.takes("t-1")
    keep(tasks, kept("t-1"))
    assert tasks.takes("t-1")
    # what is over is remembered by nobody
    tasks.forget("t-1")
    tasks.end_turn("t-1", tasks.begin_turn("t-1"), None, has_access=False)
    assert tasks.takes("t-1") and not tasks.needs_look("t-1")
    # unless there was news meanwhile
    begun = tasks.begin_turn("t-1")
    tasks.forget("t-1")
    tasks.end_turn("t-1", begun, None, has_access=False)
    assert tasks.needs_look("t-1")


def test_news_of_a_task_has_it_looked_at_until_it_is_kept_again() -> None:
    tasks = KeptTasks()
    assert not tasks.needs_look("t-1")
    tasks.forget("t-1")
    assert tasks.needs_look("t-1") and not tasks.needs_look("t-2")
    # a turn that fails says nothing
    tasks.begin_turn("t-1")
    assert tasks.needs_look("t-1")
    keep(tasks, kept("t-1"))
    assert not tasks.needs_look("t-1")
    # so has one that was not as it was when its renewal was to begin
    assert [each.task_id for each in tasks.take_due(NOW, 9)] == ["t-1"]
    tasks.drop("t-1")
    assert tasks.needs_look("t-1")


@pytest.mark.parametrize("of_all", [(KEYS,), (EVERYTHING,)])
def test_news_of_all_tasks_has_each_that_is_offered_looked_at(of_all: tuple[str, ...]) -> None:
    tasks = KeptTasks()
    tasks.saw([Change(of_all, "r-1", closing=True)])
    assert tasks.needs_look("t-1")


def test_of_more_news_than_is_remembered_none_is_lost() -> None:
    tasks = KeptTasks()
    for n in range(50_000):
        tasks.forget(f"t-{n}")
    assert tasks.needs_look("t-0") and not tasks.needs_look("another")
    tasks.forget("one more")
    assert tasks.needs_look("t-0") and tasks.needs_look("another")


def test_what_is_kept_comes_before_what_is_offered() -> None:
    tasks = KeptTasks()
    tasks.offer(OfferedTask("t-2", NOW - timedelta(seconds=9)))
    keep(tasks, kept("t-1"))
    assert [each.task_id for each in tasks.take_due(NOW, 9)] == ["t-1", "t-2"]


def test_tasks_with_leases_of_a_mount_that_hangs_are_left_to_whole_turns_for_a_minute() -> None:
    lease = LeaseRow(LEASE, "t-1", "g-1", "database/creds/app", None, NOW, Verdict.LIVE, None)
    other = replace(lease, path="other/creds/app")
    tasks = KeptTasks()
    tasks.avoid(mount_of(lease), NOW)
    later = NOW + timedelta(seconds=59)
    keep(tasks, kept("t-1", later, [lease]), kept("t-2", later, [other]), kept("t-3", later))
    assert sorted(each.task_id for each in tasks.take_due(later, 9)) == ["t-2", "t-3"]
    keep(tasks, kept("t-1", later, [lease]))
    assert [each.task_id for each in tasks.take_due(NOW + timedelta(minutes=1), 9)] == ["t-1"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 20)), max_size=40), st.integers(0, 20))
def test_what_is_due_is_what_was_kept_last_and_comes_in_its_order(turns: list[tuple[str, int]], now: int) -> None:
    tasks, last = KeptTasks(), dict[str, int]()
    for name, second in turns:
        keep(tasks, kept(name, NOW + timedelta(seconds=second)))
        last[name] = second
    at = NOW + timedelta(seconds=now)
    due = sorted(second for second in last.values() if second <= now)
    assert tasks.due_here(at) == {name for name, second in last.items() if second <= now}
    found = tasks.take_due(at, 99)
    assert [(each.due_at - NOW).seconds for each in found if each.due_at] == due
    assert {each.task_id for each in found} == {name for name, second in last.items() if second in due}
