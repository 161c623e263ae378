"""Whose turn it is: nobody is in two hands, nobody is lost, and who hangs or fails takes nobody's turn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.worker.task_queue import (
    FIRST_PAUSE_S,
    FIRST_STOP_S,
    HELD_ELSEWHERE_PAUSE_S,
    LONGEST_PAUSE_S,
    SLOW_S,
    Job,
    TaskQueue,
    Urgency,
)


def job(task_id: str, urgency: Urgency = Urgency.DUE, **how: object) -> Job:
    return Job(task_id, urgency, **how)  # type: ignore[arg-type]


def taken(agenda: TaskQueue, now: float) -> list[str]:
    """Everything that can be taken now."""
    found = []
    while (one := agenda.take(now)) is not None:
        found.append(one.task_id)
    return found


def test_what_is_to_be_revoked_comes_first_and_the_others_share_the_hands() -> None:
    agenda = TaskQueue(hands=99, may_hang=1)
    kinds = {"e": Urgency.END, "h": Urgency.HELD, "a": Urgency.ASKED, "d": Urgency.DUE, "b": Urgency.BACKLOG}
    for name, urgency in kinds.items():
        for n in range(8):
            agenda.want(job(f"{name}{n}", urgency), 0.0)
    for n in range(8):
        agenda.want(job(f"r{n}", Urgency.REVOKE), 0.0)
    order = taken(agenda, 0.0)
    # neither renewals nor anything else is kept waiting by any number of revocations
    assert order[:8] == ["r0", "e0", "r1", "h0", "r2", "h1", "r3", "h2"]
    assert order[8:14] == ["r4", "a0", "r5", "h3", "r6", "h4"]
    # no kind of work keeps another from being done
    assert {name[0] for name in order[16:30]} == set(kinds)
    assert [name for name in order if name[0] == "h"] == [f"h{n}" for n in range(8)], "who came first"


def test_documents_are_read_in_turns_of_their_authors() -> None:
    agenda = TaskQueue(hands=99, may_hang=1)
    for n in range(1000):
        agenda.want(job(f"junk-{n}", Urgency.ASKED, author="mallory"), 0.0)
    for name in ("a", "b"):
        agenda.want(job(name, Urgency.ASKED, author="olga"), 0.0)
    assert agenda.waiting_of("mallory") == 1000
    assert taken(agenda, 0.0)[:5] == ["junk-0", "a", "junk-1", "b", "junk-2"]
    assert agenda.waiting_of("olga") == 0


def test_without_revocations_each_kind_of_work_has_its_share() -> None:
    agenda = TaskQueue(hands=99, may_hang=1)
    kinds = {"e": Urgency.END, "h": Urgency.HELD, "a": Urgency.ASKED, "d": Urgency.DUE, "b": Urgency.BACKLOG}
    for name, urgency in kinds.items():
        for n in range(50):
            agenda.want(job(f"{name}{n}", urgency), 0.0)
    shares = Counter(name[0] for name in taken(agenda, 0.0)[:28])
    assert shares == {"h": 13, "a": 6, "e": 3, "d": 3, "b": 3}


def test_one_operators_thousand_revocations_delay_nobodys_grant_and_nobody_elses_revocation() -> None:
    agenda = TaskQueue(hands=4, may_hang=1)
    for n in range(1000):
        agenda.want(job(f"t-{n}", Urgency.REVOKE, author="mallory"), 0.0)
    agenda.want(job("end", Urgency.REVOKE, author="olga"), 0.0)
    agenda.want(job("grant", Urgency.ASKED, author="olga"), 0.0)
    order = []
    for _ in range(8):
        one = agenda.take(0.0)
        assert one
        order.append(one.task_id)
        agenda.done(one, 0.0)
    assert order[:4] == ["t-0", "grant", "end", "t-1"]


def test_what_pauses_keeps_no_further_document_of_its_author_waiting() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    agenda.want(job("t", Urgency.ASKED, author="olga"), 0.0)
    one = agenda.take(0.0)
    assert one
    agenda.failed(one, 0.0)
    assert agenda.waiting_of("olga") == 0
    assert agenda.wait_s(FIRST_PAUSE_S, 9.0) == 9.0
    assert agenda.waiting_of("olga") == 1


def test_what_two_want_stands_in_the_shorter_queue() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    for n in range(1000):
        agenda.want(job(f"t-{n}", Urgency.ASKED, author="mallory"), 0.0)
    agenda.want(job("t-999", Urgency.ASKED, author="olga"), 0.0)
    assert [agenda.take(0.0), agenda.waiting_of("olga")] == [job("t-0", Urgency.ASKED, author="mallory"), 1]
    agenda.done(job("t-0"), 0.0)
    assert agenda.take(0.0) == job("t-999", Urgency.ASKED, author="olga")


def test_a_revocation_finds_a_hand_where_all_others_are_full() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    for n in range(3):
        agenda.want(job(f"hangs-{n}"), SLOW_S * n)
        agenda.take(SLOW_S * n)
    assert agenda.running() == 2
    for n in range(2):
        agenda.want(job(f"end-{n}", Urgency.REVOKE), 9.0)
    assert taken(agenda, 9.0) == ["end-0"] and agenda.threads == 3
    agenda.done(job("end-0"), 9.1)
    assert taken(agenda, 9.1) == ["end-1"]


def test_what_is_wanted_again_while_it_waits_is_one_job_with_the_best_of_both() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    agenda.want(job("t", Urgency.DUE), 0.0)
    agenda.want(job("t", Urgency.END, hint="entity", author="entity", hurry=True), 0.0)
    assert agenda.take(0.0) == Job("t", Urgency.END, "entity", "entity", hurry=True)
    assert agenda.waiting == 0


def test_news_of_a_task_in_hand_brings_it_back_and_that_it_is_due_does_not() -> None:
    agenda = TaskQueue(hands=2, may_hang=1)
    agenda.want(job("t"), 0.0)
    one = agenda.take(0.0)
    assert one
    agenda.want(job("t"), 0.1)
    agenda.want(job("t", Urgency.ASKED), 0.1, news=True)
    assert agenda.take(0.1) is None
    agenda.done(one, 0.2)
    assert agenda.take(0.2) == job("t", Urgency.ASKED)
    agenda.done(one, 0.3)
    assert agenda.take(0.3) is None


def test_who_fails_is_left_alone_for_longer_and_longer_and_news_end_that() -> None:
    agenda, now, pauses = TaskQueue(hands=1, may_hang=1), 0.0, []
    agenda.want(job("t"), now)
    for _ in range(9):
        one = agenda.take(now)
        assert one
        pauses.append(agenda.failed(one, now))
        agenda.want(job("t"), now)
        assert agenda.take(now + pauses[-1] - 0.01) is None, "that it is still due is no news"
        now += pauses[-1]
    assert pauses[:4] == [FIRST_PAUSE_S * 2**n for n in range(4)] and pauses[-1] == LONGEST_PAUSE_S
    one = agenda.take(now)
    assert one
    agenda.failed(one, now)
    agenda.want(job("t"), now, news=True)
    assert agenda.take(now) is not None


def test_a_failure_that_is_forgotten_comes_back_by_a_want_alone_and_still_not_at_once() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    agenda.want(job("t"), 0.0)
    one = agenda.take(0.0)
    assert one
    agenda.failed(one, 0.0, forget=True)
    assert agenda.take(1000.0) is None
    agenda.want(job("t"), 0.1)
    assert agenda.take(0.5) is None and agenda.take(1.0) is not None


def test_those_that_hang_take_the_places_for_those_and_everybody_else_has_theirs() -> None:
    agenda = TaskQueue(hands=2, may_hang=2)
    for n in range(4):
        agenda.want(job(f"hangs-{n}"), 0.0)
    assert taken(agenda, 0.0) == ["hangs-0", "hangs-1"]
    # they turn out to hang: two more fit, and after that nobody
    assert taken(agenda, SLOW_S) == ["hangs-2", "hangs-3"]
    agenda.want(job("quick", Urgency.ASKED), SLOW_S)
    assert taken(agenda, SLOW_S) == []
    # from now on they are known: never more than two of them at once
    for n in range(4):
        agenda.failed(job(f"hangs-{n}"), 2 * SLOW_S)
    later = 100.0
    assert sorted(taken(agenda, later)) == ["hangs-0", "hangs-1", "quick"]
    assert agenda.hanging(later) == 2
    agenda.want(job("another", Urgency.ASKED), later)
    assert taken(agenda, later) == ["another"]


def test_vault_that_takes_no_more_is_asked_for_half_as_much_and_then_for_more_again() -> None:
    agenda = TaskQueue(hands=8, may_hang=1)
    for n in range(20):
        agenda.want(job(f"t-{n:02}"), 0.0)
    agenda.halve_limit()
    agenda.halve_limit()
    assert len(taken(agenda, 0.0)) == 2
    for _ in range(9):
        agenda.halve_limit()
    assert agenda.limit == 1
    for _ in range(100):
        agenda.served()
    assert agenda.limit == 8 and len(taken(agenda, 0.0)) == 6


def test_while_renewals_are_late_nothing_is_begun_but_what_ends_or_keeps_access() -> None:
    agenda = TaskQueue(hands=8, may_hang=1)
    for n, urgency in enumerate(Urgency):
        agenda.want(job(f"t-{n}", urgency), 0.0)
    begun = list(iter(lambda: agenda.take(0.0, only_access=True), None))
    assert sorted(each.urgency for each in begun) == [Urgency.REVOKE, Urgency.END, Urgency.HELD]
    # the others are still there once renewals are in time again
    assert sorted(taken(agenda, 0.0)) == ["t-3", "t-4", "t-5"]


def test_while_renewals_are_late_neither_ends_nor_renewals_wait_for_all_of_the_others() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    for n in range(9):
        agenda.want(job(f"end-{n}", Urgency.END), 0.0)
        agenda.want(job(f"held-{n}", Urgency.HELD), 0.0)
    begun = []
    for _ in range(6):
        each = agenda.take(0.0, only_access=True)
        assert each is not None
        agenda.done(each, 0.0)
        begun.append(each.urgency)
    assert sorted(begun) == 3 * [Urgency.END] + 3 * [Urgency.HELD]


def test_of_what_is_due_no_more_is_taken_ahead_than_the_hands_are_ready_for() -> None:
    agenda, due = TaskQueue(hands=2, may_hang=1), (Urgency.HELD, Urgency.DUE)
    for n in range(9):
        agenda.want(job(f"asked-{n}", Urgency.ASKED), 0.0)
    # that everybody asks for something keeps nothing that is due from being found
    assert agenda.room(0.0, *due) == agenda.room(0.0, Urgency.HELD) == 6
    for n in range(6):
        agenda.want(job(f"due-{n}"), 0.0)
    assert agenda.room(0.0, *due) == 0 and agenda.room(0.0, Urgency.HELD) == 6
    agenda.want(job("held", Urgency.HELD), 0.0)
    assert agenda.room(0.0, Urgency.HELD) == 5
    agenda.halve_limit()
    assert agenda.room(0.0, Urgency.HELD) == 2


def test_that_it_is_due_adds_nothing_to_what_is_in_hand_left_alone_or_known_to_be() -> None:
    agenda = TaskQueue(hands=2, may_hang=1)
    assert agenda.want(job("failed"), 0.0) and agenda.want(job("running"), 0.0)
    for _ in range(2):
        assert agenda.take(0.0)
    agenda.failed(job("failed"), 0.0)
    assert agenda.want(job("asked", Urgency.ASKED), 0.0) and agenda.want(job("due"), 0.0)
    assert agenda.already_due(0.0) == {"failed", "running", "due"}
    # nobody should hold for it what another worker could do
    assert not agenda.want(job("failed"), 0.0) and not agenda.want(job("running"), 0.0)
    assert agenda.want(job("asked", Urgency.HELD), 0.0)
    assert agenda.take(0.0) == job("asked", Urgency.HELD), "one that waits its turn is brought forward"


def test_what_another_works_on_is_looked_at_again_and_takes_no_hand_meanwhile() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    agenda.want(job("t", Urgency.ASKED, since=3), 0.0)
    one = agenda.take(0.0)
    assert one
    agenda.want(job("t", Urgency.END, since=5), 0.0, news=True)
    agenda.held_elsewhere(one, 0.0)
    assert agenda.running() == 0 and agenda.take(0.0) is None
    assert agenda.take(HELD_ELSEWHERE_PAUSE_S) == job("t", Urgency.END, since=5)


def test_of_two_wishes_a_claim_has_to_be_later_than_both_and_what_this_worker_began_it_finishes() -> None:
    both = job("t", since=3, if_due=True).and_also(job("t", since=5))
    assert both == job("t", since=5)
    assert both.and_also(job("t")) == job("t")
    agenda = TaskQueue(hands=1, may_hang=1)
    agenda.want(both, 0.0)
    one = agenda.take(0.0)
    assert one
    agenda.failed(one, 0.0)
    assert agenda.take(FIRST_PAUSE_S) == job("t")


def test_a_job_for_several_documents_is_shown_by_lines_if_each_of_them_is() -> None:
    end, grant, found = job("t", shown=("end",)), job("t", shown=("grant",)), job("t")
    assert end.and_also(grant).shown == ("end", "grant")
    assert end.and_also(found).shown == found.and_also(end).shown == ()


def test_while_vault_serves_nobody_it_is_asked_once_in_a_while_and_at_once_when_it_does_again() -> None:
    agenda, now, tries = TaskQueue(hands=4, may_hang=4), 0.0, 0
    for n in range(1000):
        agenda.want(job(f"t-{n:04}"), now)
    while now < 10:
        while (one := agenda.take(now)) is not None:
            agenda.failed(one, now)
            agenda.pause(now)
            tries += 1
        now += agenda.wait_s(now, at_most=5.0)
    assert 10 <= tries <= 15
    agenda.served()
    agenda.pause(now)
    assert agenda.wait_s(now, at_most=5.0) == pytest.approx(FIRST_STOP_S)


def test_how_long_to_wait_is_until_the_first_is_ready() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    assert agenda.wait_s(0.0, at_most=5.0) == 5.0
    agenda.want(job("t"), 0.0)
    one = agenda.take(0.0)
    assert one
    agenda.done(one, 0.0, again_in=2.0)
    assert agenda.wait_s(0.5, at_most=5.0) == pytest.approx(1.5)


def test_records_of_those_that_nobody_wants_any_more_are_forgotten() -> None:
    agenda = TaskQueue(hands=1, may_hang=1)
    agenda.want(job("t"), 0.0)
    one = agenda.take(0.0)
    assert one
    agenda.failed(one, 0.0, forget=True)
    agenda.forget_old(FIRST_PAUSE_S)
    assert agenda._records
    agenda.forget_old(FIRST_PAUSE_S + LONGEST_PAUSE_S + 1)
    assert not agenda._records


def lay_down(agenda: TaskQueue, one: Job, how: str, now: float) -> None:
    if how == "failed":
        agenda.failed(one, now)
    elif how == "anothers":
        agenda.held_elsewhere(one, now)
    else:
        agenda.done(one, now, again_in=1.0 if how == "again" else None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "news", "take", "done", "again", "failed", "anothers", "refused", "pass"]),
        st.sampled_from("abcdef"),
        st.sampled_from(list(Urgency)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 3), st.integers(1, 2))
def test_nobody_is_in_two_hands_no_hand_too_many_and_news_is_never_lost(
    steps: list[tuple[str, str, Urgency]], hands: int, may_hang: int
) -> None:
    agenda, now, running = TaskQueue(hands, may_hang), 0.0, dict[str, Job]()
    owed: set[str] = set()
    for act, name, urgency in steps:
        if act in ("want", "news"):
            agenda.want(job(name, urgency), now, news=act == "news")
            owed |= {name} if act == "news" else set()
        elif act == "take" and (one := agenda.take(now)):
            assert one.task_id not in running
            running[one.task_id] = one
            owed.discard(one.task_id)
        elif act in ("done", "again", "failed", "anothers") and name in running:
            one = running.pop(name)
            # what another works on is still to be done
            owed |= {name} if act == "anothers" else set()
            lay_down(agenda, one, act, now)
        elif act == "refused":
            agenda.halve_limit()
            agenda.pause(now)
        elif act == "pass":
            now += SLOW_S
        assert len(running) == agenda.running() <= agenda.threads
    # whoever has news gets a hand in the end
    for _ in range(200):
        for one in running.values():
            agenda.done(one, now)
        running.clear()
        now += LONGEST_PAUSE_S
        while (one := agenda.take(now)) is not None:
            running[one.task_id] = one
            owed.discard(one.task_id)
        if not owed:
            return
    raise AssertionError(owed)
