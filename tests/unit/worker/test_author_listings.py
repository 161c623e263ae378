"""Whose documents are listed next: soon, seldom where it takes long, and nobody is passed over for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jitvault.worker.author_listings import REST, SHORTEST_REST_S, AuthorListings


def test_an_author_is_listed_at_once_and_then_rests_for_many_times_as_long() -> None:
    listings = AuthorListings()
    assert listings.take(0.0) is None
    listings.want("mallory", 0.0)
    assert listings.take(0.0) == "mallory" and listings.take(0.0) is None
    listings.done("mallory", 0.0, 3.0)
    for _ in range(1000):
        listings.want("mallory", 0.0)
    assert listings.take(2.9 + 3.0 * REST) is None
    assert listings.take(3.0 + 3.0 * REST) == "mallory" and listings.take(999.0) is None


def test_nobody_waits_for_the_listing_of_somebody_who_wrote_much() -> None:
    listings = AuthorListings()
    for name, took_s in (("ann", 2.0), ("mallory", 60.0), ("olga", 0.1)):
        listings.done(name, 0.0, took_s)
        listings.want(name, 9_000.0)
    listings.want("new", 9_000.0)
    assert [listings.take(10_000.0) for _ in range(5)] == ["new", "olga", "ann", "mallory", None]


def test_those_who_are_wanted_again_and_again_do_not_keep_one_waiting_whose_listing_takes_long() -> None:
    listings, now = AuthorListings(), 100.0
    listings.done("ann", now - 5.0, now)
    now += 5.0 * REST
    listings.want("ann", now)
    others, taken = "mno", list[str | None]()
    while "ann" not in taken and len(taken) < 100:
        for other in others:
            listings.want(other, now)
        begun, now = now, now + 0.5
        taken.append(listings.take(begun))
        if taken[-1]:
            listings.done(taken[-1], begun, begun + 0.01)
    assert "ann" in taken and len(taken) <= 5.0 / 0.5 + len(others)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 5)), max_size=60))
def test_whoever_is_wanted_is_listed_in_the_end_and_never_more_often_than_its_cost_allows(
    wishes: list[tuple[str, int, int]],
) -> None:
    listings, now = AuthorListings(), 0.0
    rests_until, wanted = dict[str, float](), set[str]()
    for author, pause_s, took_s in wishes:
        now += pause_s
        listings.want(author, now)
        wanted.add(author)
        if (taken := listings.take(now)) is not None:
            assert taken in wanted and rests_until.get(taken, 0.0) <= now
            wanted.discard(taken)
            listings.done(taken, now, now + took_s)
            now += took_s
            rests_until[taken] = now + max(SHORTEST_REST_S, REST * took_s)
    end = max([now, *rests_until.values()])
    assert {listings.take(end) for _ in range(4)} - {None} == wanted
