"""What becomes of a published task when the ledger is made anew: laws, and each way out of them."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from credential_story import Story
from hypothesis import given
from hypothesis import strategies as st
from test_published_task import HONEST, honest
from test_revision import revision as a_revision

from jitvault.audit.observation import Kind
from jitvault.documents.published_task import ChainEnd, PublishedRefusal, PublishedTask, packed, read_published
from jitvault.errors import InvalidInput, WrongState
from jitvault.model.event_bodies import PublishedEnd
from jitvault.model.kinds import EventKind
from jitvault.model.revision import Revision
from jitvault.model.states import BEFORE_GRANT, LIVE_STATES, OVER, State, check_move
from jitvault.policy.decision import Decision, Obligations
from jitvault.recovery.issued_tokens import IssuedToken, ListedToken, issued_tokens, with_leases, worker_sessions
from jitvault.recovery.outcomes import (
    LedgerState,
    RecoveryAction,
    RecoveryEvidence,
    parents_first,
    recovery_action,
    task_to_recover,
    with_all_below,
)

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
FINAL = OVER - BEFORE_GRANT
ROLE = "jitvault-15m"
NOTHING = RecoveryEvidence(requested=True, tokens=False, alive=False, receipt=False, covered=True)
evidence = st.builds(
    RecoveryEvidence,
    requested=st.booleans(),
    tokens=st.booleans(),
    alive=st.booleans(),
    receipt=st.booleans(),
    covered=st.booleans(),
)
states = st.sampled_from(State)


def said(state: State = State.ACTIVE, **changes: Any) -> PublishedTask:
    found = honest(
        state=state,
        revision=1,
        body=b"{}",
        requester="e-1",
        agent="e-2",
        parent=None,
        chain=ChainEnd(7, "h7"),
        end_reason=None,
        grant_id="a" * 32,
        ends_at=None,
        decision={},
        ttl={},
        receipt=None,
        digest=Revision.of(b"{}").digest,
        proof=None,
        extension=None,
        extensions=[],
        refused_grant=None,
        error=None,
    )
    return msgspec.structs.replace(found, **changes)


def here(state: State, **changes: Any) -> LedgerState:
    found = LedgerState(state, "e-1", said().digest, "a" * 32, holds=False, told=False)
    return replace(found, **changes)


# -- laws -----------------------------------------------------------------------------------------------------


@given(state=states, found=evidence)
def test_what_may_have_been_granted_is_never_before_its_grant_again(state: State, found: RecoveryEvidence) -> None:
    if state in LIVE_STATES or found.tokens or (state is State.APPROVED and not found.covered):
        assert recovery_action(said(state), None, found) is not RecoveryAction.ANEW


@given(state=states, found=evidence, own=st.none() | st.builds(here, states))
def test_nothing_is_closed_without_a_receipt_that_was_verified(
    state: State, found: RecoveryEvidence, own: LedgerState | None
) -> None:
    if recovery_action(said(state), own, found) is RecoveryAction.CLOSED:
        assert found.receipt and state in (State.SEALED, State.UNVERIFIED)


@given(state=states, found=evidence, own=states)
def test_nothing_that_is_final_here_is_opened(state: State, found: RecoveryEvidence, own: State) -> None:
    if own in FINAL:
        became = recovery_action(said(state), here(own), found)
        assert became in (RecoveryAction.CONTRADICTS, RecoveryAction.GOES_ON, RecoveryAction.LEFT) or (
            became is RecoveryAction.CLOSED and state is own
        )


@given(state=states, found=evidence, own=st.none() | st.builds(here, states))
def test_every_move_that_follows_is_one_that_the_table_has(
    state: State, found: RecoveryEvidence, own: LedgerState | None
) -> None:
    became = recovery_action(said(state), own, found)
    after = {
        RecoveryAction.ENDING: State.ENDING,
        RecoveryAction.CLOSED: state,
        RecoveryAction.CANCELLED: State.CANCELLED,
    }.get(became)
    if after is not None:
        check_move("t-1", own.state if own else None, after, EventKind.RECOVERED)


@given(found=evidence, state=states)
def test_what_nobody_asked_for_is_not_taken_in_unless_it_got_a_token(found: RecoveryEvidence, state: State) -> None:
    made_up = replace(found, requested=False, tokens=False)
    assert recovery_action(said(state), None, made_up) is RecoveryAction.LEFT
    # its author removed the request
    if state in LIVE_STATES | {State.ENDING}:
        assert recovery_action(said(state), None, replace(made_up, tokens=True)) is RecoveryAction.ENDING


def test_only_a_recovery_passes_over_states() -> None:
    check_move("t-1", State.APPROVED, State.ENDING, EventKind.RECOVERED)
    for before in (State.APPROVED, None):
        with pytest.raises(WrongState):
            check_move("t-1", before, State.ENDING, "decided")
    for before in FINAL:
        with pytest.raises(WrongState):
            check_move("t-1", before, State.ENDING, EventKind.RECOVERED)


# -- a ledger that was lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "found", "expected"),
    [
        (State.PENDING_APPROVAL, {"covered": False}, RecoveryAction.ANEW),
        (State.PENDING_APPROVAL, {"tokens": True}, RecoveryAction.ENDING),
        (State.APPROVED, {}, RecoveryAction.ANEW),
        (State.APPROVED, {"covered": False}, RecoveryAction.ENDING),
        (State.DENIED, {}, RecoveryAction.ANEW),
        (State.CANCELLED, {}, RecoveryAction.CANCELLED),
        (State.CANCELLED, {"tokens": True}, RecoveryAction.ENDING),
        (State.ISSUING, {}, RecoveryAction.ENDING),
        (State.ACTIVE, {"tokens": True, "alive": True}, RecoveryAction.ENDING),
        (State.CONFIRMED, {"receipt": True}, RecoveryAction.ENDING),
        (State.SEALED, {"receipt": True}, RecoveryAction.CLOSED),
        (State.SEALED, {"tokens": True}, RecoveryAction.LEFT),
        (State.SEALED, {"tokens": True, "alive": True}, RecoveryAction.ENDING),
        (State.UNVERIFIED, {"receipt": True}, RecoveryAction.CLOSED),
    ],
)
def test_what_a_lost_task_becomes(state: State, found: dict[str, bool], expected: RecoveryAction) -> None:
    assert recovery_action(said(state), None, replace(NOTHING, **found)) is expected


# -- a ledger that is older -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "state", "found", "expected"),
    [
        (State.APPROVED, State.ACTIVE, {"tokens": True}, RecoveryAction.ENDING),
        (State.APPROVED, State.CANCELLED, {}, RecoveryAction.CANCELLED),
        (State.PENDING_APPROVAL, State.APPROVED, {}, RecoveryAction.GOES_ON),
        (State.ISSUED, State.ACTIVE, {"tokens": True, "alive": True}, RecoveryAction.GOES_ON),
        (State.ACTIVE, State.ISSUING, {"tokens": True}, RecoveryAction.ENDING),
        (State.ACTIVE, State.SEALED, {"receipt": True}, RecoveryAction.CLOSED),
        (State.ACTIVE, State.SEALED, {}, RecoveryAction.ENDING),
        (State.CONFIRMED, State.ENDING, {}, RecoveryAction.ENDING),
        (State.SEALED, State.SEALED, {}, RecoveryAction.GOES_ON),
        (State.SEALED, State.ACTIVE, {"tokens": True}, RecoveryAction.CONTRADICTS),
        (State.ENDING, State.ACTIVE, {}, RecoveryAction.CONTRADICTS),
        (State.ISSUED, State.CANCELLED, {}, RecoveryAction.CONTRADICTS),
        (State.CANCELLED, State.ACTIVE, {}, RecoveryAction.CONTRADICTS),
        (State.SEALED, State.UNVERIFIED, {"receipt": True}, RecoveryAction.CONTRADICTS),
    ],
)
def test_what_a_task_becomes_that_the_ledger_has(
    own: State, state: State, found: dict[str, bool], expected: RecoveryAction
) -> None:
    assert recovery_action(said(state), here(own), replace(NOTHING, **found)) is expected


def test_a_ledger_that_holds_what_was_published_is_left_alone() -> None:
    for own in State:
        assert recovery_action(said(), here(own, holds=True), NOTHING) is RecoveryAction.KEPT
        assert recovery_action(said(), here(own, told=True), NOTHING) is RecoveryAction.TOLD


def test_another_token_or_another_revision_does_not_go_on() -> None:
    alive = replace(NOTHING, tokens=True, alive=True)
    for other in ({"grant_id": "b" * 32}, {"digest": "sha256:other"}, {"grant_id": None}):
        assert recovery_action(said(), here(State.ACTIVE, **other), alive) is RecoveryAction.ENDING
    assert recovery_action(said(grant_id=None), here(State.ACTIVE, grant_id=None), alive) is RecoveryAction.ENDING


def test_another_requester_is_a_contradiction() -> None:
    assert recovery_action(said(), here(State.APPROVED, requester="e-9"), NOTHING) is RecoveryAction.CONTRADICTS


# -- tokens ---------------------------------------------------------------------------------------------------


def made(n: int, since: float, until: float, role: str = ROLE) -> IssuedToken:
    since_, at = (NOW + timedelta(seconds=s) for s in (since, until))
    return IssuedToken(f"acc-{n}", role, f"op-{n}", since_, at, f"line-{n}", "audit", f"task-{n}", f"grant-{n}")


def alive(n: int, at: float, role: str = ROLE) -> ListedToken:
    return ListedToken(f"auth/token/create/{role}/h{n}", role, NOW + timedelta(seconds=at), None)


def test_a_token_is_known_by_the_time_of_its_issue() -> None:
    found = with_leases([made(1, 0, 1), made(2, 2, 3), made(3, 4, 5)], [alive(2, 2.5), alive(1, 0.5), alive(9, 9)])
    assert [one.lease and one.lease[-2:] for one in found] == ["h1", "h2", None]
    assert not any(one.unclear for one in found)


def test_a_token_of_another_role_is_none_of_it() -> None:
    (found,) = with_leases([made(1, 0, 1)], [alive(1, 0.5, "jitvault-8h")])
    assert (found.lease, found.unclear) == (None, False)


def test_where_two_can_be_meant_none_is() -> None:
    both = with_leases([made(1, 0, 2), made(2, 1, 3)], [alive(1, 1.5)])
    assert [(one.lease, one.unclear) for one in both] == [(None, True), (None, True)]
    one = with_leases([made(1, 0, 2)], [alive(1, 0.5), alive(2, 1.5)])
    assert [(each.lease, each.unclear) for each in one] == [(None, True)]


times = st.integers(0, 6)


@given(
    spans=st.lists(st.tuples(times, times).map(sorted), max_size=5), at=st.lists(times, max_size=5), seed=st.randoms()
)
def test_a_lease_is_of_one_token_and_a_token_has_one(spans: list[list[int]], at: list[int], seed: Any) -> None:
    creates = [made(n, *span) for n, span in enumerate(spans)]
    tokens = [alive(n, moment) for n, moment in enumerate(at)]
    found = with_leases(creates, tokens)
    for one in found:
        fits = [token for token in tokens if one.since <= token.issued_at <= one.at]
        assert one.lease is None or [token.lease for token in fits] == [one.lease]
        assert one.unclear == (one.lease is None and bool(fits))
    leases = [one.lease for one in found if one.lease]
    assert len(leases) == len({*leases})
    # the order in which Vault lists them says nothing
    assert with_leases(creates, seed.sample(tokens, len(tokens))) == found


def test_only_a_holder_of_the_workers_policy_made_a_task_token() -> None:
    story = Story()
    for n, detail in enumerate(({"worker": True, "task": "hmac-t", "grant": "hmac-g"}, {"task": "hmac-t"})):
        how = {"path": f"auth/token/create/{ROLE}", "request_id": f"r{n}", "detail": detail, "actor": f"actor-{n}"}
        story.add(Kind.TOKEN_CREATED, closing=False, **how)
        story.add(Kind.TOKEN_CREATED, f"acc-{n}", **how)
    (one,) = issued_tokens(story.lines)
    assert (one.accessor, one.task, one.grant, one.role) == ("acc-0", "hmac-t", "hmac-g", ROLE)
    assert one.since < one.at
    assert worker_sessions(story.lines).keys() == {"actor-0"}
    story.add(Kind.TOKEN_CREATED, "acc-9", path=f"auth/token/create/{ROLE}", failed=True, detail={"worker": True})
    assert len(issued_tokens(story.lines)) == 1


# -- what was published ---------------------------------------------------------------------------------------


def document(**changes: Any) -> dict[str, Any]:
    revision = a_revision()
    own = {
        "installation": revision.content.installation,
        "task_id": revision.content.task,
        "state": "active",
        "end_reason": None,
        "revision": revision.content.revision,
        "digest": revision.digest,
        "chain": {"seq": 3, "head": "h3"},
        "body": base64.b64encode(revision.body).decode(),
        "grant_id": "a" * 32,
        "ends_at": "2030-01-31T09:15:00Z",
        "decision": Decision(True, Obligations(), (), "sha256:p").as_json(),
        "ttl": {"ttl_s": 60},
        "receipt": packed({"payload": "x"}),
    }
    return {**HONEST, **own, **changes}


def read(**changes: Any) -> PublishedTask:
    found = read_published(a_revision().content.task, document(**changes), NOW)
    assert not isinstance(found, PublishedRefusal)
    return task_to_recover(found, document()["installation"])


def test_a_published_document_is_read() -> None:
    found = read()
    assert (found.state, found.chain, found.digest) == (State.ACTIVE, ChainEnd(3, "h3"), a_revision().digest)
    assert (found.requester, found.agent, found.parent) == ("e-req", "e-agent", None)
    assert found.receipt == {"payload": "x"}
    assert found.chain_and_state == PublishedEnd(seq=3, head="h3", state=State.ACTIVE, refused_request="n")


@pytest.mark.parametrize(
    "forged",
    [
        {"installation": "another"},
        {"state": "granted"},
        {"digest": "sha256:" + "0" * 64},
        {"body": "no base64"},
        {"body": base64.b64encode(b"[]").decode()},
        {"body": base64.b64encode(b"{}").decode()},
        {"revision": 2},
        {"revision": "one"},
        {"chain": None},
        {"end_reason": "for no reason"},
        {"ends_at": "tomorrow"},
        {"decision": None},
    ],
)
def test_what_is_no_document_of_the_workers_is_none(forged: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        read(**forged)


@pytest.mark.parametrize("changed", [{}, {"task_id": "t-other"}])
def test_the_document_of_another_task_is_none(changed: dict[str, str]) -> None:
    found = read_published("t-other", document(**changed), NOW)
    assert not isinstance(found, PublishedRefusal)
    with pytest.raises(InvalidInput):
        task_to_recover(found, document()["installation"])


def test_an_id_that_is_none_is_not_kept() -> None:
    assert read(grant_id="x" * 500).grant_id is None


def test_each_comes_after_the_one_that_handed_on_to_it() -> None:
    def task(name: str, parent: str | None) -> PublishedTask:
        return said(task_id=name, parent=parent)

    names = [one.task_id for one in parents_first([task("a", "c"), task("b", None), task("c", "b"), task("d", "gone")])]
    assert names == ["b", "c", "a", "d"]
    # what somebody made up may go in a circle
    assert {one.task_id for one in parents_first([task("a", "b"), task("b", "a")])} == {"a", "b"}


def below(parent: str | None, *names: str) -> list[PublishedTask]:
    return [said(task_id=name, parent=parent) for name in names]


def test_with_a_lost_task_come_all_that_were_delegated_below_it() -> None:
    tasks = [*below("c", "a"), *below(None, "b"), *below("b", "c", "d"), *below("gone", "e")]
    assert [one.task_id for one in with_all_below("c", tasks)] == ["c", "a"]
    assert [one.task_id for one in with_all_below("b", tasks)] == ["b", "c", "a", "d"]
    assert with_all_below("gone", tasks) == []
