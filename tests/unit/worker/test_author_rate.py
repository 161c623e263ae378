"""What one author writes is looked at at a rate; the rest waits or is read again, and nobody else waits for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jitvault.worker.author_rate import AT_ONCE, KEPT, AuthorRate
from jitvault.worker.task_queue import Job, Urgency


def job(task_id: str, author: str = "mallory", **how: object) -> Job:
    return Job(task_id, Urgency.ASKED, author=author, **how)  # type: ignore[arg-type]


def released(gate: AuthorRate, now: float, waits: int = 0) -> list[str]:
    return [one.task_id for one in gate.release(now, lambda _author: waits)]


def test_after_a_few_at_once_they_come_at_the_rate_in_their_order() -> None:
    gate = AuthorRate(per_minute=30)
    for n in range(40):
        gate.keep(job(f"t-{n}"), 0.0)
    assert released(gate, 0.0) == ["t-0", "t-1", "t-2"]
    assert released(gate, 1.9) == [] and released(gate, 2.0) == ["t-3"]
    assert released(gate, 6.0) == ["t-4", "t-5"]


def test_another_author_does_not_wait_for_that_and_no_hand_is_filled_with_one_authors() -> None:
    gate = AuthorRate(per_minute=10_000)
    for n in range(1000):
        gate.keep(job(f"t-{n}"), 0.0)
    gate.keep(job("o", author="olga"), 0.0)
    assert released(gate, 0.0) == [f"t-{n}" for n in range(AT_ONCE)] + ["o"]
    assert released(gate, 0.0, waits=AT_ONCE - 1) == [f"t-{AT_ONCE}"]
    assert released(gate, 0.0, waits=AT_ONCE) == []


def test_what_is_more_than_is_kept_is_read_again_from_vault() -> None:
    gate = AuthorRate(per_minute=1)
    for n in range(KEPT):
        gate.keep(job(f"t-{n}"), 0.0)
    assert gate.take_behind() == set()
    gate.keep(job("one-more"), 0.0)
    gate.keep(job("t-0", hint="entity"), 0.0)
    assert gate.take_behind() == {"mallory"} and gate.take_behind() == set()
    assert gate.release(0.0, lambda _: 0) == [job("t-0", hint="entity")], "two documents of one task are one job"


def test_who_waits_is_told_after_a_while_and_who_writes_no_more_is_forgotten() -> None:
    gate = AuthorRate(per_minute=60)
    for n in range(100):
        gate.keep(job(f"t-{n}"), 0.0)
    gate.release(0.0, lambda _: 0)
    assert gate.waiting(5.0, longer_than_s=5.0) == {} and gate.waiting(5.1, longer_than_s=5.0) == {"mallory": 94}
    for second in range(1, 200):
        gate.release(float(second), lambda _: 0)
    assert gate.waiting(200.0, longer_than_s=5.0) == {} and not gate._authors


def test_the_backlog_leaves_a_part_of_the_quota_to_what_is_written_now() -> None:
    gate = AuthorRate(per_minute=100)
    assert [gate.spend("olga", 0.0, spare=0.5) for _ in range(6)] == [True] * 5 + [False]
    assert [gate.spend("olga", 0.0) for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.floats(0, 20)), max_size=60))
def test_nobody_has_more_than_their_rate_and_nothing_is_lost(steps: list[tuple[str, int, float]]) -> None:
    gate, now, wanted, done = AuthorRate(per_minute=6), 0.0, set[str](), list[tuple[str, float]]()
    for author, task, passed in steps:
        now += passed
        gate.keep(job(f"{author}-{task}", author), now)
        wanted.add(f"{author}-{task}")
        done += [(one.author, now) for one in gate.release(now, lambda _: 0)]
    for author in "ab":
        times = [at for name, at in done if name == author]
        assert all(later - at >= 60 or n - m < 12 for n, later in enumerate(times) for m, at in enumerate(times[:n]))
    waits = gate.waiting(now + 1, longer_than_s=0)
    assert sum(waits.values()) <= len(wanted)
    for second in range(200):
        gate.release(now + second, lambda _: 0)
    assert not gate.waiting(now + 1000, longer_than_s=0)
