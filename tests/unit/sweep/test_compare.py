"""The laws of the comparison: each thing in one class, whatever the order, and nothing young or open is acted on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jitvault.sweep.compare import Class, Classification, Issue, KnownState, Listed, Owned, PendingOperation, compare

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
SETTLE = timedelta(seconds=90)
ROLE, PATH = "auth/token/create/jitvault-15m", "database/creds/app"
OLD = NOW - timedelta(minutes=5)
MS = timedelta(milliseconds=1)


def ago(seconds: int) -> datetime:
    return NOW - timedelta(seconds=seconds)


def token(name: str, at: datetime | None = OLD, **more: object) -> Listed:
    fields = {"expires_at": at + timedelta(minutes=2) if at else None, **more}
    return Listed(f"{ROLE}/{name}", "token", ROLE, at, **fields)  # type: ignore[arg-type]


def lease(name: str, at: datetime | None = OLD, **more: object) -> Listed:
    return Listed(f"{PATH}/{name}", "lease", PATH, at, **more)  # type: ignore[arg-type]


def grant(name: str, at: datetime = OLD, *, dead: bool = False) -> Owned:
    return Owned(name, "token", ROLE, f"task-{name}", at, dead=dead, wrap_ttl=timedelta(minutes=2))


def held(name: str, *, dead: bool = False) -> Owned:
    return Owned(f"{PATH}/{name}", "lease", PATH, f"task-{name}", OLD, dead=dead)


def created(line: str, at: datetime = OLD, since: datetime | None = None, subject: str = "") -> Issue:
    return Issue("token", subject, ROLE, since or at - MS, at, line)


def read(name: str, line: str, at: datetime = OLD) -> Issue:
    return Issue("lease", f"{PATH}/{name}", PATH, at - MS, at, line)


def judged(*listed: Listed, **books: object) -> list[Classification]:
    return compare(listed, KnownState(**books), now=NOW, settle=SETTLE)  # type: ignore[arg-type]


def classes(found: list[Classification]) -> list[Class]:
    return [one.of for one in found]


def test_what_a_check_made_is_known_once_it_is_gone_and_not_before() -> None:
    gone = {"issues": [read("a", "l1"), read("b", "l2")], "checked": frozenset({f"{PATH}/a"})}
    assert classes(judged(**gone)) == [Class.KNOWN, Class.UNLINKED]
    assert classes(judged(lease("a"), **gone)) == [Class.ORPHAN, Class.UNLINKED]


def test_a_token_is_known_by_its_issue_time_and_by_nothing_near_it() -> None:
    assert classes(judged(token("a"), owned=[grant("a")])) == [Class.KNOWN]
    assert classes(judged(token("a", OLD + timedelta(microseconds=1)), owned=[grant("a")])) == [Class.ORPHAN]
    other = Owned("a", "token", ROLE + "-net", "task", OLD)
    assert classes(judged(token("a"), owned=[other])) == [Class.ORPHAN]


def test_a_grant_explains_one_token_and_one_wrapping() -> None:
    pair = (token("a"), token("b"))
    assert sorted(classes(judged(*pair, owned=[grant("a")]))) == [Class.KNOWN, Class.ORPHAN]
    wrappings = (token("w", OLD + MS, renewable=False), token("x", OLD + 2 * MS, renewable=False))
    assert classes(judged(*wrappings, owned=[grant("a")])) == [Class.KNOWN, Class.ORPHAN]


def test_what_cannot_be_renewed_is_a_wrapping_only_if_it_was_made_right_then_and_lives_as_short() -> None:
    late = token("w", OLD + timedelta(seconds=2), renewable=False, expires_at=OLD + timedelta(minutes=1))
    long_lived = token("w", OLD + MS, renewable=False, expires_at=OLD + timedelta(hours=1))
    before = token("w", OLD - MS, renewable=False)
    for one in (late, long_lived, before):
        assert classes(judged(one, owned=[grant("a")])) == [Class.ORPHAN]


def test_what_a_task_calls_dead_and_vault_has_is_an_orphan_of_that_task() -> None:
    found = judged(token("a"), lease("l"), owned=[grant("a", dead=True), held("l", dead=True)])
    assert [(one.of, one.task_id) for one in found] == [(Class.ORPHAN, "task-a"), (Class.ORPHAN, "task-l")]


def test_a_lease_that_vault_has_given_up_is_irrevocable_and_one_of_nobody_an_orphan() -> None:
    given_up = lease("l", revoke_error="no such host")
    assert classes(judged(given_up, owned=[held("l")])) == [Class.IRREVOCABLE]
    assert classes(judged(given_up)) == [Class.ORPHAN]


def test_what_vault_was_to_end_long_ago_is_told_where_it_does_not_say_that_it_gave_up() -> None:
    """A lease that waits for its turn is a moment old."""
    overdue, waiting = lease("l", expires_at=NOW - SETTLE), lease("l", expires_at=NOW - SETTLE + MS)
    (found,) = judged(overdue, owned=[held("l")])
    assert (found.of, "trying to revoke it or has given up" in found.why) == (Class.IRREVOCABLE, True)
    assert classes(judged(waiting, owned=[held("l")])) == [Class.KNOWN]
    assert classes(judged(overdue)) == [Class.ORPHAN]
    assert classes(judged(overdue, owned=[held("l", dead=True)])) == [Class.ORPHAN]


def test_an_open_act_explains_one_token_with_its_wrapping_and_only_in_its_time() -> None:
    act = PendingOperation("token", ROLE, "t", OLD - MS, OLD + MS, "the issue")
    pair = (token("a"), token("w", OLD + MS, renewable=False))
    assert classes(judged(*pair, opened=[act])) == [Class.WAITING] * 2
    assert classes(judged(token("a"), token("b"), opened=[act])) == [Class.WAITING, Class.ORPHAN]
    assert classes(judged(token("a", OLD + 2 * MS), opened=[act])) == [Class.ORPHAN]
    assert classes(judged(lease("l"), opened=[act])) == [Class.ORPHAN]


def test_who_is_as_old_as_the_window_is_judged_and_who_is_younger_or_has_no_time_is_not() -> None:
    assert classes(judged(token("a", NOW - SETTLE))) == [Class.ORPHAN]
    assert classes(judged(token("a", NOW - SETTLE + MS))) == [Class.WAITING]
    assert classes(judged(lease("l", None))) == [Class.WAITING]
    assert classes(judged(token("a", ago(1)), owned=[grant("a", ago(1), dead=True)])) == [Class.KNOWN]


def test_the_line_that_shows_how_an_orphan_was_made_is_not_told_besides() -> None:
    found = judged(token("a"), lease("l"), issues=[created("c", OLD + MS, OLD - MS), read("l", "r")])
    assert [(one.of, one.issue and one.issue.line) for one in found] == [(Class.ORPHAN, "c"), (Class.ORPHAN, "r")]


def test_a_line_of_what_is_gone_is_told_once_and_not_while_it_is_young() -> None:
    assert classes(judged(issues=[created("c")])) == [Class.UNLINKED]
    assert classes(judged(issues=[created("c")], told=frozenset({"c"}))) == [Class.KNOWN]
    assert classes(judged(issues=[created("c", ago(5))])) == [Class.WAITING]


# -- laws ------------------------------------------------------------------------------------------------------

times = st.sampled_from([None, *(ago(s) for s in (1, 60, 89, 90, 91, 300)), *(ago(300) + n * MS for n in (1, 2, 3))])
dated = times.filter(lambda at: at is not None)
names = st.sampled_from("abcdefgh")
worlds = st.fixed_dictionaries(
    {
        "listed": st.lists(
            st.one_of(
                st.builds(lambda n, at, r: token(n, at, renewable=r), names, times, st.booleans()),
                st.builds(lambda n, at, e: lease(n, at, revoke_error=e), names, times, st.sampled_from([None, "x"])),
            ),
            unique_by=lambda one: one.lease_id,
            max_size=8,
        ),
        "owned": st.lists(
            st.one_of(
                st.builds(lambda n, at, d: grant(n, at, dead=d), names, dated, st.booleans()),
                st.builds(lambda n, d: held(n, dead=d), names, st.booleans()),
            ),
            unique_by=lambda one: one.subject,
            max_size=6,
        ),
        "opened": st.lists(
            st.builds(
                lambda kind, at, n: PendingOperation(
                    kind, ROLE if kind == "token" else PATH, "t", at - MS, at + n * MS, "an act"
                ),
                st.sampled_from(["token", "lease"]),
                dated,
                st.integers(0, 3),
            ),
            max_size=3,
        ),
        "issues": st.lists(
            st.one_of(
                st.builds(lambda n, at: created(f"c{n}", at, at - 2 * MS), names, dated),
                st.builds(lambda n, m, at: read(n, f"r{m}", at), names, names, dated),
            ),
            unique_by=lambda issue: issue.line,
            max_size=6,
        ),
        "told": st.frozensets(names.map(lambda n: f"c{n}")),
    }
)


def told(found: list[Classification]) -> list[tuple[object, ...]]:
    return sorted((one.listed.lease_id if one.listed else "", one.issue.line if one.issue else "", one.of, one.why)
                  for one in found)  # fmt: skip


@given(worlds)
def test_everything_is_in_exactly_one_class(world: dict[str, object]) -> None:
    listed = world.pop("listed")
    found = judged(*listed, **world)  # type: ignore[misc]
    assert sorted(one.listed.lease_id for one in found if one.listed) == sorted(x.lease_id for x in listed)  # type: ignore[attr-defined]
    without = [one.issue.line for one in found if one.listed is None and one.issue]
    assert len(without) == len(set(without)) == sum(1 for one in found if one.listed is None)
    shown = {one.issue.line for one in found if one.listed and one.issue}
    assert shown.isdisjoint(without)
    leases = {x.lease_id for x in listed}  # type: ignore[attr-defined]
    missing = {i.line for i in world["issues"]} - set(without) - shown  # type: ignore[attr-defined]
    assert all(i.subject in leases for i in world["issues"] if i.line in missing)  # type: ignore[attr-defined]


@given(worlds, st.randoms())
def test_the_order_of_what_is_given_changes_nothing(world: dict[str, object], random: object) -> None:
    listed = world.pop("listed")
    before = told(judged(*listed, **world))  # type: ignore[misc]
    for part in ("owned", "opened", "issues"):
        random.shuffle(world[part])  # type: ignore[attr-defined]
    mixed = list(listed)  # type: ignore[call-overload]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert told(judged(*mixed, **world)) == before  # type: ignore[arg-type]


@given(worlds)
def test_nothing_young_and_nothing_that_an_open_act_explains_is_ever_acted_on(world: dict[str, object]) -> None:
    listed = world.pop("listed")
    found = judged(*listed, **world)  # type: ignore[misc]
    for one in found:
        if one.of is Class.ORPHAN:
            assert one.issued_at is not None and NOW - one.issued_at >= SETTLE
        if one.of is Class.UNLINKED:
            assert one.issued_at is not None and NOW - one.issued_at >= SETTLE
    for act in world["opened"]:  # type: ignore[attr-defined]
        inside = [x for x in listed if x.kind == act.kind and x.path == act.path]  # type: ignore[attr-defined]
        inside = [x for x in inside if x.issued_at and act.since <= x.issued_at <= act.until and x.renewable]
        ours = [one for one in found if one.listed in inside]
        # of those that nothing else explains the first is left alone
        if ours and all(one.of is Class.ORPHAN and one.task_id is None for one in ours):
            others = [a for a in world["opened"] if a is not act]  # type: ignore[attr-defined]
            assert others, ours
