"""Each rule trips at what it is for and not beside it: at its limits, with hostile values, in any order of lines."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.create_intent import LIFE, Intent
from jitvault.audit.observation import PLAIN, Kind, Observation, Place
from jitvault.audit.tripwires.fleet_rules import FLEET_RULES, of_fleet
from jitvault.audit.tripwires.task_rules import MOST_ABOUT_ITSELF, RULES, of_task
from jitvault.audit.tripwires.trip import FREEZING, INTERCEPTIONS, Rule, TaskLimits, TripwireHit
from jitvault.model.states import EndReason

START = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
TOKEN, OTHER, WORKER, WRAPPING = "accessor-task", "accessor-other", "accessor-worker", "accessor-wrapping"
PATH = "database/creds/app-ro"
UNWRAP = "sys/wrapping/unwrap"
ALIASES = {"w-token": TOKEN, "t-token": TOKEN, "w-secret": TOKEN, "w-other": OTHER}
BOUNDS = TaskLimits(
    tokens=frozenset({TOKEN}),
    leases=frozenset({f"{PATH}/1"}),
    networks=("10.0.0.0/24", "2001:db8::/64"),
    paths=frozenset({PATH}),
    opens_at=None,
    ended_at=None,
    ended_in=None,
    agent_knew=False,
    grace=timedelta(seconds=90),
    lease_budget=2,
    denied_limit=2,
    workers=frozenset({WORKER}),
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def line(kind: Kind, n: float = 1, **how: Any) -> Observation:
    """A closing line `n` seconds after the start; each has a request of its own."""
    fresh = f"{kind}-{n}-{sorted(how.items())}"
    found = Observation(
        line=fresh,
        place=Place("audit", 1, int(1000 * n)),
        at=at(n),
        closing=True,
        kind=kind,
        request_id=f"request {fresh}",
        path=PATH,
        subject="",
        actor="",
        op="",
        remote="10.0.0.7",
        failed=False,
        error="",
        token="",
        alias="",
        detail={},
    )
    return replace(found, **how)


def used(n: float = 1, **how: Any) -> Observation:
    return line(Kind.USED, n, **{"subject": TOKEN, "actor": TOKEN, **how})


def lease(n: float = 1, **how: Any) -> Observation:
    return line(Kind.LEASE_ISSUED, n, **{"subject": f"{PATH}/{n}", "actor": TOKEN, **how})


def denied(n: float = 1, **how: Any) -> Observation:
    how = {"subject": TOKEN, "actor": TOKEN, "path": f"secret/{n}", "failed": True, "detail": {"denied": True}, **how}
    return line(Kind.DENIED, n, **how)


def unwrapped(n: float = 1, **how: Any) -> Observation:
    how = {"subject": TOKEN, "actor": WRAPPING, "token": "w-token", "alias": "t-token", "path": UNWRAP, **how}
    return line(Kind.UNWRAPPED, n, **how)


def unwrap_refused(n: float = 2, **how: Any) -> Observation:
    how = {"token": "w-token", "path": UNWRAP, "closing": False, "failed": True, "error": "not valid", **how}
    return line(Kind.UNWRAP_REFUSED, n, **how)


def cubbyhole(n: float = 1, **how: Any) -> Observation:
    how = {"token": "w-token", "actor": WRAPPING, "path": "cubbyhole/response", **how}
    return line(Kind.CUBBYHOLE_READ, n, **how)


def refused(n: float = 1, **how: Any) -> Observation:
    return line(Kind.REFUSED, n, **{"token": "t-token", "failed": True, "closing": False, **how})


def both(closing: Observation, begun: float) -> list[Observation]:
    """The two lines of one request, which began at `begun`."""
    kind = Kind.USED if closing.kind is Kind.LEASE_ISSUED else closing.kind
    place = Place("audit", 1, int(1000 * begun))
    request = replace(closing, line=f"{closing.line} request", at=at(begun), closing=False, kind=kind, place=place)
    return [request, closing]


def trips(*lines: Observation, **bounds: Any) -> list[TripwireHit]:
    """The trips of `lines`; where the token ended, its revocation stands at its time among them."""
    if (ended_at := bounds.get("ended_at")) is not None:
        bounds = {"ended_in": Place("audit", 1, int(1000 * (ended_at - START).total_seconds())), **bounds}
    return of_task(replace(BOUNDS, **bounds), lines, ALIASES)


def rules(*lines: Observation, **bounds: Any) -> list[Rule]:
    return [trip.rule for trip in trips(*lines, **bounds)]


# -- all rules --------------------------------------------------------------------------------------------


def test_a_task_that_keeps_within_its_bounds_trips_nothing() -> None:
    lines = [
        line(Kind.TOKEN_CREATED, 1, subject=TOKEN, actor=WORKER, alias="w-token", remote="192.0.2.1"),
        unwrapped(2),
        used(3, path="auth/token/lookup-self"),
        *both(lease(5), 4),
        used(6, path="auth/token/lookup-self", alias="w-secret", detail={"wrapped": True}),
        denied(8),
        line(Kind.TOKEN_REVOKED, 9, subject=TOKEN, actor=TOKEN, path="auth/token/revoke-self"),
    ]
    assert rules(*lines, opens_at=at(1), ended_at=at(9), agent_knew=True) == []


def test_no_lines_trip_nothing() -> None:
    assert trips() == []
    assert fleet() == []


def test_every_rule_has_one_function() -> None:
    assert sorted(rule for rule, _ in (*RULES, *FLEET_RULES)) == sorted(Rule)
    assert {rule for rule, _ in FLEET_RULES} == FREEZING


def test_a_trip_says_what_where_and_why() -> None:
    o = unwrapped(3, remote="192.0.2.9")
    assert trips(o) == [
        TripwireHit(
            rule=Rule.UNWRAP_OUTSIDE_NETWORK,
            at=at(3),
            line=o.line,
            request_id=o.request_id,
            message="The task's token was unwrapped from 192.0.2.9, outside its network 10.0.0.0/24, 2001:db8::/64.",
            reason=EndReason.INTERCEPTED,
            freezes=False,
        )
    ]


def everything() -> tuple[list[Observation], dict[str, Any]]:
    """Lines that trip every rule of a task."""
    lines = [
        *both(used(2, path="secret/early"), 1),
        unwrapped(12, remote="192.0.2.9"),
        unwrap_refused(13),
        line(Kind.REWRAPPED, 14, token="w-secret", alias="w-new", actor=WRAPPING, path="sys/wrapping/rewrap"),
        cubbyhole(15, token="w-secret"),
        *both(denied(16.5), 16),
        denied(17),
        denied(17.5),
        line(Kind.RENEWED, 17.8, subject=TOKEN, actor=OTHER, path="auth/token/renew"),
        *[o for n in (18, 19, 20, 21) for o in both(lease(n + 0.5), n)],
        *both(used(22.5, alias="w-new", detail={"wrapped": True}), 22),
        refused(40),
        used(41),
    ]
    return lines, {"opens_at": at(10), "ended_at": at(30), "agent_knew": True}


def test_every_rule_of_a_task_can_trip() -> None:
    lines, bounds = everything()
    found = trips(*lines, **bounds)
    assert {trip.rule for trip in found} == set(Rule) - FREEZING
    assert [trip.at for trip in found] == sorted(trip.at for trip in found)
    for trip in found:
        assert trip.reason is (EndReason.INTERCEPTED if trip.rule in INTERCEPTIONS else EndReason.TRIPWIRE)
        assert not trip.freezes
        assert trip.message.endswith(".")


@given(st.data())
def test_neither_order_nor_repetition_of_the_lines_changes_the_trips(data: Any) -> None:
    lines, bounds = everything()
    again = data.draw(st.lists(st.sampled_from(lines), max_size=5))
    assert trips(*data.draw(st.permutations([*lines, *again])), **bounds) == trips(*lines, **bounds)


def test_lines_of_another_task_change_nothing() -> None:
    lines, bounds = everything()
    swap = {TOKEN: OTHER, "w-token": "w-other", "t-token": "w-other", "w-secret": "w-other"}
    theirs = [
        replace(
            o,
            line=f"other {o.line}",
            request_id=f"other {o.request_id}",
            subject=swap.get(o.subject, o.subject),
            actor=swap.get(o.actor, o.actor),
            token=swap.get(o.token, o.token),
        )
        for o in lines
    ]
    assert trips(*theirs, **bounds) == []
    assert trips(*theirs, *lines, **bounds) == trips(*lines, **bounds)


def test_no_tokens_trip_nothing() -> None:
    lines, bounds = everything()
    assert trips(*lines, **bounds, tokens=frozenset()) == []
    assert of_task(replace(BOUNDS, tokens=frozenset({TOKEN})), [refused(token=""), unwrap_refused(token="")], {}) == []


@pytest.mark.parametrize("client", [{"op": "op-1"}, {"detail": {"task": "other", "entity": "e"}}])
def test_what_a_client_chooses_changes_no_trip(client: dict[str, Any]) -> None:
    lines, bounds = everything()
    forged = [replace(o, **{**client, "detail": {**o.detail, **client.get("detail", {})}}) for o in lines]
    assert trips(*forged, **bounds) == trips(*lines, **bounds)


def test_both_lines_of_a_request_are_one_act_and_lines_without_one_are_each_their_own() -> None:
    early = both(used(2), 1)
    assert len(trips(*early, opens_at=at(10))) == 1
    assert trips(*early, opens_at=at(10))[0].line == early[0].line
    assert len(trips(*(replace(o, request_id="") for o in early), opens_at=at(10))) == 2


def test_a_message_holds_no_token_and_no_control_characters() -> None:
    token = "hvs." + "CAESIJ0lQ1wq" * 8
    for path in (f"auth/token/renew/{token}", f"secret/\x1b[2J{token}\n"):
        (trip,) = trips(used(path=path, remote="\x1b[31m\n10.0.0.7"))
        assert trip.rule is Rule.OUTSIDE_TEMPLATE
        assert token not in trip.message
        assert "CAESIJ" not in trip.message
        assert trip.message.isprintable()
    (trip,) = trips(used(path="secret/" + "x" * 5000))
    assert len(trip.message) < 300


# -- unwrap_outside_network -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "remote", ["10.0.0.0", "10.0.0.255", "2001:db8::1", "2001:0DB8:0:0::1", "::ffff:10.0.0.7", "2001:db8::1%eth0"]
)
def test_an_unwrap_from_within_the_network_is_as_it_should_be(remote: str) -> None:
    assert rules(unwrapped(remote=remote)) == []


@pytest.mark.parametrize(
    "remote",
    [
        *("10.0.1.0", "9.255.255.255", "192.0.2.9", "2001:db8:0:1::", "::1", "::ffff:192.0.2.1", "fe80::1%eth0"),
        *("10.0.0.7:8200", "[2001:db8::1]:8200", "[2001:db8::1]", "10.0.0.7%x", "10.0.0.07", "10.0.0", "10.0.0.7/24"),
        *("", " ", "localhost", "unix:@", "\x00", "\u0661\u0660.0.0.7"),
    ],
)
def test_an_unwrap_from_outside_or_from_nowhere_trips(remote: str) -> None:
    (trip,) = trips(unwrapped(remote=remote))
    assert trip.rule is Rule.UNWRAP_OUTSIDE_NETWORK


def test_a_task_without_networks_is_unwrapped_anywhere() -> None:
    assert rules(unwrapped(remote="192.0.2.9"), unwrapped(2, remote=""), networks=()) == []


def test_networks_are_taken_together_and_what_is_no_network_holds_nothing() -> None:
    assert rules(unwrapped(remote="192.0.2.9"), networks=("10.0.0.0/24", "192.0.2.0/24")) == []
    assert rules(unwrapped(), networks=("garbage", "10.0.0.1/24")) == []
    assert rules(unwrapped(), networks=("garbage",)) == [Rule.UNWRAP_OUTSIDE_NETWORK]
    assert rules(unwrapped(remote="::ffff:10.0.0.7"), networks=("::ffff:10.0.0.0/120",)) == []


def test_only_an_unwrap_that_gave_the_token_counts() -> None:
    away = "192.0.2.9"
    assert rules(unwrapped(remote=away, failed=True), unwrapped(2, remote=away, closing=False)) == []
    assert rules(unwrapped(remote=away, subject=OTHER, token="w-other")) == []
    # the network of the token says nothing of where its secrets are unwrapped
    assert rules(lease(remote=away, actor=WRAPPING, token="w-secret", path=UNWRAP)) == []


def test_an_unwrap_by_another_tasks_agent_trips_in_the_task_that_it_befalls() -> None:
    assert rules(unwrapped(remote="192.0.2.9", actor=OTHER)) == [Rule.UNWRAP_OUTSIDE_NETWORK]


# -- unwrap_refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        unwrapped(1),
        lease(1, actor=WRAPPING, token="w-token", path=UNWRAP),
        line(Kind.REWRAPPED, 1, token="w-token", alias="w-new"),
        cubbyhole(1),
    ],
)
def test_an_unwrap_that_is_refused_because_somebody_was_first_trips(first: Observation) -> None:
    found = [trip for trip in trips(first, unwrap_refused(2, remote="10.0.0.8")) if trip.line != first.line]
    assert [trip.rule for trip in found] == [Rule.UNWRAP_REFUSED]
    assert found[0].reason is EndReason.INTERCEPTED
    assert found[0].message == (
        "An unwrap from 10.0.0.8 was refused, because the wrapping had been used from 10.0.0.7 at 09:00:01 UTC."
    )


def test_an_unwrap_that_is_refused_with_nobody_before_it_is_no_trip() -> None:
    assert rules(unwrap_refused(2)) == []
    # later, failed, or of another wrapping
    assert rules(unwrap_refused(2), unwrapped(3)) == []
    assert rules(unwrapped(1, failed=True), unwrap_refused(2)) == []
    assert rules(unwrapped(1, closing=False), unwrap_refused(2)) == []
    assert rules(unwrapped(1, token="w-secret"), unwrap_refused(2)) == []
    assert rules(unwrap_refused(1), unwrap_refused(2)) == []
    assert rules(unwrap_refused(1, token="unknown", detail={"spent": True})) == []


NOT_VALID = "wrapping token is not valid or does not exist"


def issued(n: float = 0, **how: Any) -> Observation:
    how = {"subject": TOKEN, "alias": "w-token", "detail": {"asked": {"wrap_ttl_s": 60}}, **how}
    return line(Kind.TOKEN_CREATED, n, **how)


def test_an_unwrap_by_another_spelling_of_the_wrapping_is_known_by_what_it_gave() -> None:
    first = unwrapped(1, token="w-token-respelled")
    found = trips(issued(), first, unwrap_refused(2, remote="10.0.0.8"))
    assert [trip.rule for trip in found] == [Rule.UNWRAP_REFUSED]
    assert "had been used from 10.0.0.7 at 09:00:01 UTC" in found[0].message
    assert rules(issued(), replace(first, subject=OTHER), unwrap_refused(2)) == []


def test_a_refusal_before_the_wrappings_time_is_over_trips_whoever_emptied_it() -> None:
    refused_early = unwrap_refused(54, error=NOT_VALID)
    (found,) = trips(issued(), refused_early)
    assert found.rule is Rule.UNWRAP_REFUSED and "before the wrapping's time was over" in found.message
    # its time is over, or may be by another node's clock; it failed for another reason; its token was revoked before
    assert rules(issued(), unwrap_refused(56, error=NOT_VALID)) == []
    assert rules(issued(), unwrap_refused(54, error="local node not active")) == []
    assert rules(issued(), line(Kind.TOKEN_REVOKED, 53, subject=TOKEN), refused_early) == []
    # a request that it is not for used it up, which is a hit of its own
    spent = unwrap_refused(1, detail={"spent": True})
    assert rules(issued(), spent, refused_early) == [Rule.UNWRAP_REFUSED]
    # how long the wrapping lives is not known
    assert rules(issued(detail={}), refused_early) == []


def test_what_a_standby_failed_at_before_it_forwarded_it_is_no_refusal() -> None:
    """It comes first, and stands after the unwrap itself where the standby's clock is ahead."""
    standby = unwrap_refused(2, place=Place("standby", 1, 1))
    assert rules(unwrapped(1), standby) == [Rule.UNWRAP_REFUSED]
    why = "1 error occurred: * error decrementing wrapping token's use-count: failed to persist entry: "
    for error in (why + "cannot write to readonly storage", "please forward to the active node"):
        assert rules(unwrapped(1), replace(standby, error=error)) == []


def test_within_a_stretch_the_place_says_who_was_first_else_vaults_time() -> None:
    same_time = unwrap_refused(2, at=at(1), place=Place("audit", 1, 1001))
    assert rules(unwrapped(1), same_time) == [Rule.UNWRAP_REFUSED]
    assert rules(unwrapped(1), replace(same_time, place=Place("audit", 1, 999))) == []
    assert rules(unwrapped(1), replace(same_time, place=Place("audit", 2, 1001))) == []
    assert rules(unwrapped(1), replace(same_time, place=Place("other", 1, 1), at=at(1.1))) == [Rule.UNWRAP_REFUSED]
    # a clock that was set back does not turn a stretch around
    assert rules(unwrapped(1), unwrap_refused(2, at=at(0.5))) == [Rule.UNWRAP_REFUSED]


def test_a_refused_unwrap_of_something_else_is_no_trip() -> None:
    assert rules(unwrapped(1, token="unknown"), unwrap_refused(2, token="unknown")) == []
    assert rules(unwrapped(1, token=""), unwrap_refused(2, token="")) == []


def test_once_the_task_is_completed_nobody_was_robbed_by_a_late_unwrap() -> None:
    lines = [unwrapped(1), unwrap_refused(20)]
    assert rules(*lines, ended_at=at(10), agent_knew=True) == []
    assert rules(*lines, ended_at=at(20), agent_knew=True) == [Rule.UNWRAP_REFUSED]
    assert rules(*lines, ended_at=at(10), agent_knew=False) == [Rule.UNWRAP_REFUSED]
    assert rules(*lines, ended_at=None, agent_knew=True) == [Rule.UNWRAP_REFUSED]


def test_the_tokens_own_cubbyhole_holds_no_wrapping() -> None:
    own = cubbyhole(1, actor=TOKEN, token="t-token")
    assert rules(own, unwrap_refused(2, actor=TOKEN, token="t-token")) == []


# -- rewrapped, wrapping_read -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"token": "w-token"}, {"token": "w-secret"}, {"token": "lost", "subject": TOKEN}])
def test_a_rewrap_trips(how: dict[str, str]) -> None:
    o = line(Kind.REWRAPPED, alias="w-new", actor=WRAPPING, path="sys/wrapping/rewrap", **how)
    (trip,) = trips(o)
    assert (trip.rule, trip.reason) == (Rule.REWRAPPED, EndReason.INTERCEPTED)
    assert rules(replace(o, failed=True)) == rules(replace(o, closing=False)) == []


def test_a_rewrap_of_another_wrapping_does_not() -> None:
    assert rules(line(Kind.REWRAPPED, token="w-other"), line(Kind.REWRAPPED, 2, token="", subject=OTHER)) == []


@pytest.mark.parametrize("token", ["w-token", "w-secret"])
def test_a_wrapping_that_is_read_the_old_way_trips(token: str) -> None:
    (trip,) = trips(cubbyhole(token=token))
    assert (trip.rule, trip.reason) == (Rule.WRAPPING_READ, EndReason.INTERCEPTED)
    assert rules(cubbyhole(token=token, failed=True)) == rules(cubbyhole(token=token, closing=False)) == []


def test_reading_another_cubbyhole_or_ones_own_does_not() -> None:
    assert rules(cubbyhole(token="w-other"), cubbyhole(2, token="")) == []
    assert rules(cubbyhole(token="t-token", actor=TOKEN)) == []


# -- denied -----------------------------------------------------------------------------------------------


def test_denied_requests_trip_when_they_reach_the_limit() -> None:
    lines = [denied(1), denied(2), denied(3, remote="10.0.0.9")]
    assert rules(*lines[:2], denied_limit=3) == []
    (trip,) = trips(*lines, denied_limit=3)
    assert (trip.rule, trip.reason, trip.line) == (Rule.DENIED, EndReason.TRIPWIRE, lines[2].line)
    assert trip.message == "Vault denied 3 requests of the task's token, the last for 'secret/3' from 10.0.0.9."


def test_more_denied_requests_are_told_but_it_stays_the_same_trip() -> None:
    (trip,) = trips(denied(1), denied(2), denied(3))
    assert trip.line == denied(2).line
    assert "3 requests" in trip.message
    assert "'secret/3'" in trip.message


def test_a_limit_of_one_trips_at_the_first() -> None:
    (trip,) = trips(denied(1), denied_limit=1)
    assert trip.message.startswith("Vault denied 1 request of")
    assert rules(denied_limit=1) == rules(denied_limit=0) == []
    assert rules(denied(1), denied_limit=0) == [Rule.DENIED]


def test_both_lines_of_a_denied_request_count_once() -> None:
    assert rules(*both(denied(2), 1)) == []
    assert rules(*both(denied(2), 1), *both(denied(4), 3)) == [Rule.DENIED]


def test_a_denied_act_on_another_credential_counts_too() -> None:
    probing = line(Kind.TOKEN_LOOKUP, 2, subject=OTHER, actor=TOKEN, failed=True, detail={"denied": True})
    assert rules(denied(1), probing) == [Rule.DENIED]
    assert rules(denied(1), replace(probing, detail={})) == []
    assert rules(denied(1), replace(probing, actor=OTHER, subject=TOKEN)) == []


def test_denied_requests_after_the_end_do_not_count() -> None:
    assert rules(denied(1), denied(11), ended_at=at(10)) == []
    assert rules(denied(1), denied(10), ended_at=at(10)) == [Rule.DENIED]
    assert rules(denied(1), *both(denied(12), 9), ended_at=at(10)) == [Rule.DENIED]
    # what only the answer says was denied began with the request all the same
    request, answer = both(denied(12), 9)
    assert rules(denied(1), replace(request, kind=Kind.USED, detail={}), answer, ended_at=at(10)) == [Rule.DENIED]


LEASE_HMAC = f"hmac-sha256:{'1e':0<64}"
ABOUT_ITSELF = [
    {"path": "auth/token/renew-self", "detail": {"denied": True, "itself": True}},
    {"kind": Kind.RENEWED, "path": "auth/token/renew-accessor", "detail": {"denied": True, "itself": True}},
    {"kind": Kind.RENEWED, "path": "sys/leases/renew", "subject": LEASE_HMAC},
    {"kind": Kind.RENEWED, "path": f"sys/leases/renew/{PATH}/1", "subject": f"{PATH}/1"},
    {"kind": Kind.LEASE_LOOKUP, "path": "sys/leases/lookup", "subject": LEASE_HMAC},
]


def about_itself(n: float, how: dict[str, Any]) -> Observation:
    return replace(denied(n), **how)


@pytest.mark.parametrize("how", ABOUT_ITSELF)
def test_what_an_ordinary_client_asks_about_its_own_token_and_leases_trips_nothing_when_it_is_denied(
    how: dict[str, Any],
) -> None:
    bounds = {"denied_limit": 1, "hashed_leases": frozenset({LEASE_HMAC})}
    few = [o for n in range(MOST_ABOUT_ITSELF) for o in both(about_itself(n + 0.5, how), n)]
    assert rules(*few, **bounds) == []
    # one more is as any other denied request, and so is any other beside them
    flood = about_itself(100, how)
    (trip,) = trips(*few, flood, **bounds)
    assert (trip.rule, trip.line) == (Rule.DENIED, flood.line)
    assert trip.message.startswith("Vault denied 1 request of the task's token")
    (trip,) = trips(*few, denied(100), **bounds)
    assert trip.line == denied(100).line
    assert rules(*few, denied(100), denied_limit=2, hashed_leases=bounds["hashed_leases"]) == []


def test_all_kinds_of_questions_about_itself_are_counted_together() -> None:
    lines = [about_itself(n, ABOUT_ITSELF[n % len(ABOUT_ITSELF)]) for n in range(MOST_ABOUT_ITSELF)]
    bounds = {"denied_limit": 1, "hashed_leases": frozenset({LEASE_HMAC})}
    assert rules(*lines, **bounds) == []
    assert rules(*lines, about_itself(99, ABOUT_ITSELF[0]), **bounds) == [Rule.DENIED]


@pytest.mark.parametrize(
    "how",
    [
        {"path": "auth/token/renew-self", "detail": {"denied": True}},
        {"kind": Kind.RENEWED, "path": "sys/leases/renew", "subject": f"hmac-sha256:{'2f':0<64}"},
        {"kind": Kind.RENEWED, "path": "sys/leases/renew", "subject": ""},
        {"kind": Kind.LEASE_LOOKUP, "path": "sys/leases/lookup", "subject": "database/creds/app-ro/2"},
        {"kind": Kind.LEASE_REVOKED, "path": "sys/leases/revoke", "subject": f"{PATH}/1"},
        {"kind": Kind.RENEWED, "path": "auth/token/renew-accessor", "subject": OTHER},
        {"path": PATH},
    ],
)
def test_the_same_about_anything_else_trips_at_once(how: dict[str, Any]) -> None:
    bounds = {"denied_limit": 1, "hashed_leases": frozenset({LEASE_HMAC})}
    assert rules(about_itself(1, how), **bounds) == [Rule.DENIED]


# -- outside_template -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [used, lease])
@pytest.mark.parametrize(
    "path",
    ["secret/data/app", f"{PATH}/", f"{PATH}x", PATH.upper(), "", "cubbyhole", "auth/token/lookup", "sys/mounts"],
)
def test_what_the_token_does_elsewhere_trips(make: Any, path: str) -> None:
    (trip,) = trips(make(path=path))
    assert (trip.rule, trip.reason) == (Rule.OUTSIDE_TEMPLATE, EndReason.TRIPWIRE)
    assert rules(make(path=path, failed=True)) == rules(make(path=path, closing=False)) == []
    assert rules(make(path=path, actor=OTHER)) == []


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        "auth/token/lookup-self",
        "auth/token/renew-self",
        "auth/token/revoke-self",
        "sys/wrapping/unwrap",
        "sys/wrapping/lookup",
        "sys/capabilities-self",
        "sys/internal/ui/resultant-acl",
        "sys/internal/ui/mounts/secret/app",
        "cubbyhole/mine",
        "cubbyhole/",
    ],
)
def test_what_its_templates_have_and_what_is_its_own_does_not(path: str) -> None:
    assert rules(used(path=path), lease(path=path)) == []


@pytest.mark.parametrize(
    "kind", [Kind.HAZARD, Kind.TOKEN_CREATED, Kind.WRITTEN, Kind.LEASE_REVOKED, Kind.TOKEN_REVOKED, Kind.RENEWED]
)
def test_any_other_kind_of_act_is_outside_as_well(kind: Kind) -> None:
    assert rules(line(kind, actor=TOKEN, path="database/config/app")) == [Rule.OUTSIDE_TEMPLATE]


def test_a_wrapped_secret_that_somebody_else_unwraps_is_no_act_of_the_token() -> None:
    assert rules(lease(actor=OTHER, token="w-secret", path="elsewhere")) == []


# -- before_window ----------------------------------------------------------------------------------------


def test_use_before_the_window_trips() -> None:
    (trip,) = trips(used(1), opens_at=at(2.5))
    assert (trip.rule, trip.reason) == (Rule.BEFORE_WINDOW, EndReason.TRIPWIRE)
    assert "1.5 s before" in trip.message
    assert rules(used(1), opens_at=None) == rules(used(1), opens_at=at(1)) == rules(used(2), opens_at=at(1)) == []


def test_an_act_begins_with_its_request() -> None:
    assert rules(*both(used(3), 1), opens_at=at(2)) == [Rule.BEFORE_WINDOW]


@pytest.mark.parametrize("make", [lease, denied])
def test_any_act_counts_also_one_that_fails(make: Any) -> None:
    assert rules(make(1), opens_at=at(2)) == [Rule.BEFORE_WINDOW]


def test_what_others_do_with_the_token_before_the_window_is_no_use() -> None:
    made = line(Kind.TOKEN_CREATED, 1, subject=TOKEN, actor=WORKER, alias="w-token")
    looked_up = line(Kind.TOKEN_LOOKUP, 2, subject=TOKEN, actor=WORKER)
    assert rules(made, looked_up, unwrapped(3), opens_at=at(9)) == []


# -- after_end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [used, lease, denied, refused])
def test_use_after_an_end_that_was_told_trips(make: Any) -> None:
    (trip,) = trips(make(12.5), ended_at=at(10), agent_knew=True)
    assert (trip.rule, trip.reason) == (Rule.AFTER_END, EndReason.TRIPWIRE)
    assert "2.5 s after it was revoked." in trip.message
    assert rules(make(10), ended_at=at(10), agent_knew=True) == rules(make(9), ended_at=at(10), agent_knew=True) == []
    assert rules(make(12), ended_at=None, agent_knew=True) == []


@pytest.mark.parametrize("make", [used, lease, denied, refused])
def test_an_agent_that_was_not_told_may_try_for_the_grace(make: Any) -> None:
    assert rules(make(11), make(100), ended_at=at(10)) == []
    (trip,) = trips(make(100.001), ended_at=at(10))
    assert trip.rule is Rule.AFTER_END
    assert trip.message.endswith("90.0 s after it was revoked, and the agent had time to learn of that.")


@pytest.mark.parametrize("make", [used, lease, denied, refused])
def test_a_use_before_the_end_is_no_finding_whatever_vaults_clock(make: Any) -> None:
    """The clock was set back in between, or another node's was behind: the end has an earlier time than the use."""
    earlier, elsewhere = Place("audit", 1, 5), Place("node-2", 1, 1)
    assert rules(make(3600), ended_at=at(10), ended_in=Place("audit", 1, 4_000_000), agent_knew=True) == []
    assert rules(make(3600, place=earlier), ended_at=at(10), ended_in=Place("audit", 1, 6), agent_knew=True) == []
    assert rules(make(40), ended_at=at(10), ended_in=elsewhere, agent_knew=True) == []
    assert rules(make(41), ended_at=at(10), ended_in=elsewhere, agent_knew=True) == [Rule.AFTER_END]


@pytest.mark.parametrize("agent_knew", [True, False])
def test_a_read_in_flight_is_no_trip(agent_knew: bool) -> None:
    for answer in (11, 500):
        assert rules(*both(lease(answer), 9), ended_at=at(10), agent_knew=agent_knew) == []
        assert rules(*both(lease(answer), 10), ended_at=at(10), agent_knew=agent_knew) == []
    assert rules(*both(lease(500), 499), ended_at=at(10), agent_knew=agent_knew) == [Rule.AFTER_END]


def test_an_answer_without_its_request_was_not_in_flight() -> None:
    request, answer = both(lease(12), 9)
    assert rules(answer, ended_at=at(10), agent_knew=True) == [Rule.AFTER_END]
    elsewhere = replace(request, request_id="another")
    assert rules(elsewhere, answer, ended_at=at(10), agent_knew=True) == [Rule.AFTER_END]


def test_lines_without_a_request_answer_nothing() -> None:
    request, answer = (replace(o, request_id="") for o in both(lease(12), 9))
    assert rules(request, answer, ended_at=at(10), agent_knew=True) == [Rule.AFTER_END]


def test_a_request_that_is_shown_twice_began_with_the_first() -> None:
    request, answer = both(lease(12), 9)
    again = replace(request, line="another", at=at(11), place=Place("standby", 1, 7))
    assert rules(request, again, answer, ended_at=at(10), agent_knew=True) == []


def test_a_refused_token_is_known_by_what_it_stands_for() -> None:
    assert rules(refused(20, token="w-token"), ended_at=at(10), agent_knew=True) == [Rule.AFTER_END]
    assert rules(refused(20, token="w-other"), ended_at=at(10), agent_knew=True) == []
    assert rules(refused(20, token="unknown"), refused(21, token=""), ended_at=at(10), agent_knew=True) == []


def test_giving_back_a_token_that_is_gone_is_no_use() -> None:
    assert rules(refused(20, path="auth/token/revoke-self"), ended_at=at(10), agent_knew=True) == []
    own = line(Kind.TOKEN_REVOKED, 10, subject=TOKEN, actor=TOKEN, path="auth/token/revoke-self")
    assert rules(*both(own, 9.9), ended_at=at(9.95), agent_knew=True) == []


def test_what_others_do_after_the_end_is_no_use() -> None:
    revoked = line(Kind.TOKEN_REVOKED, 11, subject=TOKEN, actor=WORKER)
    looked_up = line(Kind.TOKEN_LOOKUP, 12, subject=TOKEN, actor=WORKER, failed=True)
    assert rules(revoked, looked_up, unwrap_refused(13), ended_at=at(10), agent_knew=True) == []
    # Vault unwraps a dead token without a word
    assert rules(unwrapped(11), ended_at=at(10), agent_knew=True) == []


# -- over_budget ------------------------------------------------------------------------------------------


def test_more_leases_than_the_budget_trip_once_at_the_first_too_many() -> None:
    lines = [lease(n) for n in (1, 2, 3, 4)]
    assert rules(*lines[:2]) == []
    (trip,) = trips(*lines[:3])
    assert (trip.rule, trip.reason, trip.line) == (Rule.OVER_BUDGET, EndReason.TRIPWIRE, lines[2].line)
    (more,) = trips(*lines)
    assert more.line == lines[2].line
    assert more.message == "The task's token got 4 leases, the last from 10.0.0.7; its templates allow 2."


def test_a_lease_is_counted_once_however_often_it_is_shown() -> None:
    again = lease(4, subject=lease(1).subject)
    assert rules(lease(1), lease(2), again) == []
    (trip,) = trips(lease(1), lease(2), lease(3), again)
    assert trip.line == lease(3).line


def test_only_leases_that_were_issued_count() -> None:
    assert rules(lease(1), lease(2), lease(3, failed=True), lease(4, closing=False), used(5)) == []


def test_leases_that_were_unwrapped_count_for_the_token_that_read_them() -> None:
    stolen = lease(3, actor=OTHER, token="w-secret", path=UNWRAP)
    assert rules(lease(1), lease(2), stolen) == [Rule.OVER_BUDGET]
    assert rules(lease(1), lease(2), replace(stolen, token="w-other", actor=TOKEN)) == []
    assert rules(lease(1), lease(2), replace(stolen, actor=OTHER, token="")) == []


def test_without_a_budget_every_lease_is_too_many() -> None:
    assert rules(lease(1), lease_budget=0) == rules(lease(1), lease_budget=-1) == [Rule.OVER_BUDGET]
    assert rules(lease_budget=0) == []


def read_wrapped(n: float = 1, alias: str = "w-secret") -> list[Observation]:
    """A credential that the task had wrapped: what it asked for, and the answer."""
    asked = used(n, closing=False, detail={"wrapped": True})
    answer = used(n + 0.5, request_id=asked.request_id, alias=alias, detail={"wrapped": True})
    return [asked, answer]


def test_what_was_read_in_a_wrapping_counts_when_it_is_asked_for_and_once() -> None:
    opened = lease(4, actor=WRAPPING, token="w-secret", path=UNWRAP)
    within = [lease(1), *read_wrapped(2), opened]
    assert Rule.OVER_BUDGET not in rules(*within)
    asked = read_wrapped(5, alias="w-more")[0]
    (trip,) = [t for t in trips(*within, asked) if t.rule is Rule.OVER_BUDGET]
    assert trip.line == asked.line
    # who opened it and what it is by then does not matter
    assert Rule.OVER_BUDGET in rules(lease(1), *read_wrapped(2), *read_wrapped(5, alias="w-more"), opened)


# -- wrapped_lease ------------------------------------------------------------------------------------------


def test_a_credential_that_is_read_in_a_wrapping_trips_when_it_is_asked_for() -> None:
    asked, answer = read_wrapped(2)
    for lines in ([asked], [asked, answer]):
        (trip,) = trips(*lines)
        assert (trip.rule, trip.reason, trip.line) == (Rule.WRAPPED_LEASE, EndReason.TRIPWIRE, asked.line)
    assert "10.0.0.7" in trip.message and PATH in trip.message and "-wrap-ttl" in trip.message
    # a TTL of less than a second does not show in the request
    assert rules(replace(asked, detail={}), answer) == [Rule.WRAPPED_LEASE]
    # a line from before this was noted
    assert rules(replace(answer, detail={})) == [Rule.WRAPPED_LEASE]


def test_what_gives_no_credential_may_be_wrapped() -> None:
    asked, answer = read_wrapped()
    assert rules(replace(asked, path="auth/token/lookup-self"), replace(answer, path="auth/token/lookup-self")) == []
    assert rules(replace(asked, actor=OTHER, subject=OTHER), replace(answer, actor=OTHER, subject=OTHER)) == []
    assert rules(denied(path=PATH)) == []


# -- renewed_by_others --------------------------------------------------------------------------------------


def renewed(n: float = 1, **how: Any) -> Observation:
    return line(Kind.RENEWED, n, **{"subject": TOKEN, "actor": OTHER, "path": "auth/token/renew-accessor", **how})


def test_a_renewal_by_anybody_but_the_worker_trips() -> None:
    (trip,) = trips(renewed())
    assert (trip.rule, trip.reason, trip.freezes) == (Rule.RENEWED_BY_OTHERS, EndReason.TRIPWIRE, False)
    assert rules(renewed(actor=WORKER)) == []
    assert rules(renewed(failed=True)) == rules(renewed(closing=False)) == []
    assert rules(renewed(subject=OTHER)) == rules(renewed(subject="database/creds/app-ro/x")) == []
    of_lease = renewed(subject=f"{PATH}/1", path="sys/leases/renew")
    (trip,) = trips(of_lease)
    assert (trip.rule, trip.message.startswith("A lease of the task was renewed")) == (
        Rule.RENEWED_BY_OTHERS,
        True,
    )
    assert rules(replace(of_lease, actor=WORKER)) == rules(replace(of_lease, closing=False)) == []
    # by the token in the body: its answer names the accessor, a line without one only what stands for it
    assert rules(renewed(subject="", token="t-token")) == [Rule.RENEWED_BY_OTHERS]
    assert rules(renewed(subject="", token="w-other")) == []


# -- unknown_token, unwrap_by_worker ----------------------------------------------------------------------

ADDRESSES = frozenset({"10.9.9.9", "2001:db8:9::1"})


WORDS = {"policies": {"p": "hmac-p", "q": "hmac-q"}, "ttl": {"120s": "hmac-120s"}}
INTENT = Intent("jitvault-15m", 60, words=WORDS, accessor=None, given_up=False, sent_at=START)
ASKED = {"policies": ["hmac-q", "hmac-p"], "ttl": "hmac-120s", "wrap_ttl_s": 60, "also": []}


def fleet(*lines: Observation, **how: Any) -> list[TripwireHit]:
    known = {
        "sessions": frozenset({WORKER}),
        "intents": {"op-1": INTENT},
        "used_again": frozenset(),
        "renewals": {"op-r": TOKEN, "op-l": "database/creds/app-ro/1"},
        "publications": {
            "op-p": "jitvault/data/tasks/t-1",
            "op-d": "jitvault/metadata/tasks/t-1",
            "op-i": "jitvault-inbox/data/e/t-1",
        },
        "signatures": {"op-s": "hmac-s"},
    }
    return of_fleet(lines, **{**known, "worker_addresses": ADDRESSES, "shared": (), **how})


def created(n: float = 1, **how: Any) -> Observation:
    how = {"subject": TOKEN, "actor": WORKER, "op": "op-1", "path": "auth/token/create/jitvault-15m", **how}
    return line(Kind.TOKEN_CREATED, n, **{"detail": {"asked": ASKED}, **how})


def test_a_token_that_the_worker_meant_to_make_is_known() -> None:
    assert fleet(created()) == []
    in_plain = {"policies": ["p", "hmac-q"], "ttl": "120s", "wrap_ttl_s": 60, "also": []}
    assert fleet(created(detail={"asked": in_plain})) == []
    for meant in (replace(INTENT, accessor=TOKEN), replace(INTENT, accessor=TOKEN, given_up=True, sent_at=None)):
        assert fleet(created(), intents={"op-1": meant}) == []


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"policies": ["hmac-p"]}, "other policies"),
        ({"policies": ["hmac-p", "hmac-q", "hmac-q"]}, "other policies"),
        ({"policies": ["hmac-p", "hmac-other"]}, "other policies"),
        ({"policies": ["None"]}, "other policies"),
        ({"ttl": "hmac-8h"}, "another TTL"),
        ({"ttl": "8h"}, "another TTL"),
        ({"wrap_ttl_s": 600}, "a wrapping that lives longer"),
        ({"also": ["period"]}, "period, which its intent does not have"),
    ],
    ids=str,
)
def test_a_token_with_other_terms_than_its_intent_freezes_everything(how: dict[str, Any], says: str) -> None:
    (trip,) = fleet(created(detail={"asked": {**ASKED, **how}}))
    assert (trip.rule, says in trip.message) == (Rule.UNKNOWN_TOKEN, True)
    # of what an older version meant only the rest is known
    unknown = {"op-1": replace(INTENT, words=None)}
    assert fleet(created(detail={"asked": {**ASKED, **how}}), intents=unknown) == []


def test_a_request_of_ours_that_a_second_device_shows_freezes_and_says_so() -> None:
    """Two devices write into one file, each with its own salt."""
    ours, theirs = created(request_id="r-1"), created(2, request_id="r-1", actor="hmac-worker-2", subject="hmac-2")
    (trip,) = fleet(ours, theirs)
    assert "a second audit device" in trip.message
    for stranger in (replace(theirs, request_id="r-2"), replace(theirs, request_id="")):
        (trip,) = fleet(replace(ours, request_id=stranger.request_id and "r-1"), stranger)
        assert "not by a session of the worker" in trip.message


@pytest.mark.parametrize(
    ("intent", "says"),
    [
        ({"accessor": "hmac-other"}, "the operation id of another token"),
        ({"given_up": True}, "whose intent was given up"),
        ({"role": "jitvault-8h"}, "whose intent names the role jitvault-8h"),
        ({"sent_at": START - LIFE}, "long before or after"),
        ({"sent_at": START + LIFE + timedelta(seconds=2)}, "long before or after"),
    ],
    ids=str,
)
def test_an_intent_is_for_one_token_at_its_time(intent: dict[str, Any], says: str) -> None:
    (trip,) = fleet(created(), intents={"op-1": replace(INTENT, **intent)})
    assert (trip.rule, says in trip.message) == (Rule.UNKNOWN_TOKEN, True)
    assert len(fleet(created(), used_again=frozenset({"op-1"}))) == 1


@pytest.mark.parametrize(
    "how",
    [
        {"op": "op-2"},
        {"op": ""},
        {"actor": OTHER},
        {"actor": ""},
        {"actor": OTHER, "op": "x"},
        {"op": "x", "subject": ""},
    ],
)
def test_any_other_token_through_our_roles_freezes_everything(how: dict[str, str]) -> None:
    (trip,) = fleet(created(**how))
    assert (trip.rule, trip.reason, trip.freezes) == (Rule.UNKNOWN_TOKEN, EndReason.TRIPWIRE, True)
    assert "'auth/token/create/jitvault-15m' from 10.0.0.7" in trip.message
    # what was refused made nothing, and a request is no token yet
    assert fleet(created(**how, failed=True)) == fleet(created(**how, closing=False)) == []


def test_a_renewal_by_the_workers_token_that_nobody_meant_freezes_everything() -> None:
    def renewal(**how: Any) -> Observation:
        return line(Kind.RENEWED, **{"subject": TOKEN, "actor": WORKER, "op": "op-r", **how})

    lease = {"op": "op-l", "subject": "database/creds/app-ro/1", "path": "sys/leases/renew"}
    assert fleet(renewal(), renewal(op="x", failed=True), renewal(op="x", closing=False)) == []
    assert fleet(renewal(**lease), renewal(**{**lease, "subject": "hmac-1"})) == []
    # the id of one renewal is leave for no other
    for how in ({"subject": OTHER}, {**lease, "subject": "database/creds/app-ro/2"}, {"op": "op-l"}):
        assert len(fleet(renewal(**how))) == 1
    # whoever else renews ends the task
    assert fleet(renewal(actor=OTHER, op="x")) == []
    another_login = renewal(op="", actor=OTHER, detail={"worker": True})
    for trips in (fleet(renewal(op="op-1")), fleet(renewal(), used_again=frozenset({"op-r"})), fleet(another_login)):
        assert [(trip.rule, trip.freezes) for trip in trips] == [(Rule.UNKNOWN_RENEWAL, True)]


def test_what_the_workers_token_published_and_no_worker_meant_freezes_everything() -> None:
    def published(**how: Any) -> Observation:
        said = {"path": "jitvault/data/tasks/t-1", "subject": "tasks/t-1", "actor": WORKER, "op": "op-p"}
        return line(Kind.OWN, **{**said, **how})

    removal = {"path": "jitvault/metadata/tasks/t-1", "op": "op-d"}
    assert fleet(published(), published(op="x", failed=True), published(op="x", actor=OTHER)) == []
    assert fleet(published(op="x", subject=""), published(n=2, **removal)) == []
    inbox = {"path": "jitvault-inbox/data/e/t-1", "subject": "inbox/e/t-1", "op": "op-i"}
    assert fleet(published(**inbox)) == []
    for o in (
        published(op=""),
        published(op="op-r"),
        # the id of one act is leave for no other one
        published(op="op-d"),
        published(**{**removal, "op": "op-p"}),
        published(path="jitvault/data/tasks/t-2", subject="tasks/t-2"),
        published(path="jitvault/data/templates", subject="templates"),
        published(**{**inbox, "op": "op-p"}),
        published(**{**inbox, "path": "jitvault-inbox/data/e/t-2"}),
        published(**{**inbox, "path": "jitvault-inbox/metadata/e/t-1"}),
        published(op="", actor=OTHER, detail={"worker": True}),
    ):
        assert [(trip.rule, trip.freezes) for trip in fleet(o)] == [(Rule.UNKNOWN_PUBLICATION, True)]
    assert len(fleet(published(), used_again={"op-p"})) == 1


def test_what_the_workers_key_signed_and_no_worker_meant_freezes_everything() -> None:
    def signed(what: str = "hmac-s", **how: Any) -> Observation:
        detail = {"signed": what, **how.pop("detail", {})}
        return line(Kind.OWN, **{"actor": WORKER, "op": "op-s", "detail": detail, **how})

    # the same once more is the same receipt, and what is shown in plain cannot be compared
    assert fleet(signed(), signed(n=2), signed(PLAIN), signed("x", failed=True), signed("x", closing=False)) == []
    # an administrator may, by the token's policies
    assert fleet(signed(op="", actor=OTHER)) == []
    another_login = signed(op="", actor=OTHER, detail={"worker": True})
    for o in (signed(op=""), signed(op="op-p"), signed("hmac-other"), signed(""), another_login):
        assert [(trip.rule, trip.freezes) for trip in fleet(o)] == [(Rule.UNKNOWN_SIGNATURE, True)]


def test_nothing_is_known_without_sessions_or_intents() -> None:
    assert len(fleet(created(), sessions=frozenset())) == len(fleet(created(), intents={})) == 1


def by_worker(kind: Kind = Kind.UNWRAPPED, n: float = 1, **how: Any) -> Observation:
    return line(kind, n, **{"token": "w-token", "remote": "10.9.9.9", "path": UNWRAP, **how})


@pytest.mark.parametrize("kind", [Kind.UNWRAPPED, Kind.LEASE_ISSUED, Kind.CUBBYHOLE_READ, Kind.REWRAPPED])
@pytest.mark.parametrize(
    "remote", ["10.9.9.9", "::ffff:10.9.9.9", "2001:db8:9::1", "2001:0DB8:9:0:0::1", "2001:db8:9::1%eth0"]
)
def test_an_unwrap_from_the_workers_address_freezes_everything(kind: Kind, remote: str) -> None:
    (trip,) = fleet(by_worker(kind, remote=remote))
    assert (trip.rule, trip.reason, trip.freezes) == (Rule.UNWRAP_BY_WORKER, EndReason.INTERCEPTED, True)
    assert "JITVAULT_SHARED_HOSTS" in trip.message
    assert fleet(by_worker(kind, remote=remote, failed=True), by_worker(kind, remote=remote, closing=False)) == []


@pytest.mark.parametrize("remote", ["10.9.9.8", "10.9.9.9:8200", "2001:db8:9::2", "", "garbage", "::ffff:10.9.9.8"])
def test_an_unwrap_from_elsewhere_does_not(remote: str) -> None:
    assert fleet(by_worker(remote=remote)) == []
    assert fleet(by_worker(remote=""), worker_addresses=frozenset({""})) == []


def test_an_address_that_is_none_is_the_workers_if_vault_writes_it_the_same_way() -> None:
    (trip,) = fleet(by_worker(remote="@"), worker_addresses=frozenset({"@"}))
    assert trip.rule is Rule.UNWRAP_BY_WORKER


@pytest.mark.parametrize(
    ("shared", "trips"),
    [
        (("10.9.9.9/32",), False),
        (("192.0.2.0/24", "10.9.0.0/16"), False),
        (("10.9.9.8/32",), True),
        (("garbage", "::/0"), True),
        ((), True),
    ],
)
def test_an_address_that_agents_share_with_the_worker_is_nobodys_in_particular(
    shared: tuple[str, ...], trips: bool
) -> None:
    assert bool(fleet(by_worker(), shared=shared)) is trips


def test_what_is_no_unwrap_may_come_from_the_workers_address() -> None:
    assert fleet(by_worker(Kind.LEASE_ISSUED, token="", path=PATH), by_worker(Kind.UNWRAP_REFUSED, 2)) == []
    assert fleet(by_worker(Kind.TOKEN_LOOKUP), by_worker(Kind.OWN, 2), created(3, remote="10.9.9.9")) == []


@given(st.data())
def test_neither_order_nor_repetition_changes_what_freezes(data: Any) -> None:
    lines = [created(1), created(2, op=""), created(2, actor=OTHER), by_worker(n=3), by_worker(Kind.CUBBYHOLE_READ, 4)]
    again = data.draw(st.lists(st.sampled_from(lines), max_size=4))
    found = fleet(*data.draw(st.permutations([*lines, *again])))
    assert found == fleet(*lines)
    assert len(found) == 4


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_address_and_no_path_breaks_a_rule(remote: str, path: str) -> None:
    lines, bounds = everything()
    hostile = [replace(o, remote=remote, path=path) for o in lines]
    for trip in (
        *trips(*hostile, **bounds),
        *fleet(by_worker(remote=remote, path=path), worker_addresses=frozenset({remote})),
    ):
        assert trip.message.isprintable()
