"""Why something is gone that the ledger believes to be alive, and what explains nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from credential_story import LEASE, LEASE_HMAC, START, STRANGER, TOKEN, WORKER, Story, others
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.observation import Kind, Observation
from jitvault.sweep.compare import Owned
from jitvault.sweep.missing import MissingCause, MissingCredential, explain

ROLE, PATH = "auth/token/create/jitvault-15m", "database/creds/app-ro"
OF_LEASE = Owned(LEASE, "lease", PATH, "t", START)
OF_TOKEN = Owned(TOKEN, "token", ROLE, "t", START)
HOUR = timedelta(hours=1)


def why(story: Story | list[Observation], owned: Owned = OF_LEASE, **how: Any) -> MissingCredential:
    lines = story.lines if isinstance(story, Story) else story
    names = frozenset({LEASE, LEASE_HMAC} if owned.kind == "lease" else {TOKEN})
    given = {
        "sessions": frozenset({WORKER}),
        "expires_at": None,
        "step": HOUR / 4,
        "now": START + HOUR,
        "token_is_gone": False,
        **how,
    }
    return explain(owned, names, lines, **given)


# -- its time was over -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actor", "detail", "how"),
    [
        (WORKER, {"increment_s": 60}, MissingCause.EXPIRED),
        (WORKER, {}, MissingCause.EXPIRED),
        (STRANGER, {"increment_s": 60}, MissingCause.EXPIRED),
        (STRANGER, {"increment_s": 7200}, MissingCause.UNEXPLAINED),
        (STRANGER, {}, MissingCause.UNEXPLAINED),
    ],
    ids=str,
)
def test_a_renewal_by_whomever_is_a_longer_life(actor: str, detail: dict[str, int], how: MissingCause) -> None:
    """What is missing before its time was over did not end by that."""
    for owned, name in ((OF_LEASE, LEASE), (OF_LEASE, LEASE_HMAC), (OF_TOKEN, TOKEN)):
        story = Story().issued().add(Kind.RENEWED, name, actor=actor, detail=detail)
        assert why(story, owned, expires_at=START + HOUR / 2).how is how
        assert why(Story().issued().add(Kind.RENEWED, name, actor=actor, failed=True), owned, expires_at=START).how is (
            MissingCause.EXPIRED
        )


def test_a_renewal_by_the_worker_whose_line_has_no_time_is_a_step() -> None:
    story = Story().issued().add(Kind.RENEWED, TOKEN, actor=WORKER)
    renewed_at = story.lines[-1].at
    for now, how in ((renewed_at + HOUR / 2, MissingCause.UNEXPLAINED), (renewed_at + HOUR, MissingCause.EXPIRED)):
        assert why(story, OF_TOKEN, expires_at=START, step=HOUR, now=now).how is how


# -- somebody ended it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actor", "said"),
    [
        (TOKEN, "somebody else revoked it from 127.0.0.1 at 09:00:00"),
        (STRANGER, "somebody else revoked it from 127.0.0.1 at 09:00:00"),
        (WORKER, "the worker revoked it at 2030-01-31 09:00:00 UTC, and the ledger does not hold that"),
    ],
)
def test_who_ended_a_lease_is_said_with_the_line(actor: str, said: str) -> None:
    for name in (LEASE, LEASE_HMAC):
        story = Story().issued().revoked(subject=name, actor=actor)
        ghost = why(story)
        assert (ghost.how, ghost.line, ghost.at) == (MissingCause.ENDED, story.lines[-1].line, story.lines[-1].at)
        assert said.replace("at 09", "at 2030-01-31 09") in ghost.why


def test_a_token_that_gave_itself_back_says_so() -> None:
    ghost = why(Story().created().token_revoked(actor=TOKEN), OF_TOKEN)
    assert (ghost.how, ghost.why) == (MissingCause.ENDED, "the token revoked itself at 2030-01-31 09:00:00 UTC")


@pytest.mark.parametrize(
    "how",
    [{"failed": True}, {"closing": False}, {"subject": "another"}, {"subject": ""}, {"detail": {"warnings": ["none"]}}],
    ids=str,
)
def test_what_is_no_end_explains_nothing(how: dict[str, Any]) -> None:
    for story, owned in ((Story().revoked(**how), OF_LEASE), (Story().token_revoked(**how), OF_TOKEN)):
        ghost = why(story, owned)
        assert (ghost.how, ghost.line, ghost.at) == (MissingCause.UNEXPLAINED, "", None)
        assert ghost.why == "no line of the audit stream says who ended it"


def test_the_end_of_another_kind_is_none() -> None:
    assert why(Story().token_revoked(subject=LEASE)).how is MissingCause.UNEXPLAINED
    assert why(Story().revoked(subject=TOKEN), OF_TOKEN).how is MissingCause.UNEXPLAINED


@pytest.mark.parametrize("start", ["sys/leases/revoke-prefix/", "sys/revoke-prefix/"])
@pytest.mark.parametrize(
    ("owned", "prefix", "ended"),
    [
        (OF_LEASE, PATH, True),
        (OF_LEASE, f"{PATH}/", True),
        (OF_LEASE, "database", True),
        (OF_LEASE, LEASE, True),
        # Vault ends what stands below the whole name
        (OF_LEASE, PATH[:-1], False),
        (OF_LEASE, f"{PATH}/another", False),
        (OF_LEASE, ROLE, False),
        (OF_TOKEN, ROLE, True),
        (OF_TOKEN, "auth/token", True),
        (OF_TOKEN, ROLE[:-1], False),
        (OF_TOKEN, PATH, False),
        (OF_TOKEN, f"{ROLE}/h1", False),
        (replace(OF_TOKEN, token_lease=f"{ROLE}/h1"), f"{ROLE}/h1", True),
        (replace(OF_TOKEN, token_lease=f"{ROLE}/h1"), f"{ROLE}/h2", False),
    ],
)
def test_what_was_revoked_below_a_prefix_is_what_stands_below_it(
    start: str, owned: Owned, prefix: str, ended: bool
) -> None:
    ghost = why(Story().hazard(start + prefix), owned)
    assert (ghost.how is MissingCause.ENDED) is ended
    if ended:
        assert f"somebody else revoked everything below {prefix} from" in ghost.why


def test_what_was_revoked_below_a_prefix_before_it_was_made_is_not_that() -> None:
    story = Story().hazard(f"sys/leases/revoke-prefix/{PATH}")
    at = story.lines[0].at
    for issued_at, how in (
        (at + timedelta(microseconds=1), MissingCause.UNEXPLAINED),
        (at, MissingCause.ENDED),
        (None, MissingCause.ENDED),
    ):
        assert why(story, replace(OF_LEASE, issued_at=issued_at)).how is how


# -- its time is over, its token is gone, or its record was dropped ----------------------------------------------


def test_a_time_that_is_over_explains_it_at_its_instant() -> None:
    assert why(Story(), expires_at=START + HOUR).how is MissingCause.EXPIRED
    assert why(Story(), expires_at=START + HOUR + timedelta(microseconds=1)).how is MissingCause.UNEXPLAINED
    # somebody's act is the better explanation
    assert why(Story().revoked(actor=STRANGER), expires_at=START).how is MissingCause.ENDED


@pytest.mark.parametrize(
    "path", ["sys/leases/revoke-force/database", "sys/revoke-force/database", "sys/leases/tidy", "auth/token/tidy"]
)
def test_what_drops_records_explains_nothing_and_is_named(path: str) -> None:
    story = Story().hazard(path)
    for owned in (OF_LEASE, OF_TOKEN):
        # nor does the end of its token, since the backend may not have been asked
        ghost = why(story, owned, token_is_gone=True)
        assert (ghost.how, ghost.line) == (MissingCause.UNEXPLAINED, story.lines[0].line)
        assert ghost.why.startswith(f"{path} by ") or path in ghost.why
    assert why(story, token_is_gone=True, expires_at=START).how is MissingCause.EXPIRED
    later = replace(OF_LEASE, issued_at=START + HOUR)
    assert why(story, later, token_is_gone=True).how is MissingCause.WITH_ITS_TOKEN
    assert why(Story().hazard(path, failed=True), token_is_gone=True).how is MissingCause.WITH_ITS_TOKEN


def test_a_lease_goes_with_its_token_and_a_token_with_nothing() -> None:
    assert why(Story(), token_is_gone=True).how is MissingCause.WITH_ITS_TOKEN
    assert why(Story(), OF_TOKEN, token_is_gone=True).how is MissingCause.UNEXPLAINED


# -- laws --------------------------------------------------------------------------------------------------------


@given(
    st.lists(others((0, 1200)), max_size=8, unique_by=lambda o: o.line),
    st.booleans(),
    st.sampled_from([OF_LEASE, OF_TOKEN]),
)
def test_an_end_always_has_its_line_and_nothing_else_has_one_that_ended_it(
    lines: list[Observation], gone: bool, owned: Owned
) -> None:
    ghost = why(lines, owned, token_is_gone=gone)
    assert ghost.owned is owned
    named = [o for o in lines if o.line == ghost.line]
    if ghost.how is MissingCause.ENDED:
        assert named
        assert all(o.closing and not o.failed for o in named)
    elif ghost.how is not MissingCause.UNEXPLAINED:
        assert ghost.line == ""
    if ghost.how is MissingCause.WITH_ITS_TOKEN:
        assert gone
        assert owned.kind == "lease"


@given(st.lists(others((0, 1200)), max_size=6), st.lists(others((0, 1200)), max_size=3))
def test_what_is_explained_stays_explained_whatever_else_happened(
    lines: list[Observation], more: list[Observation]
) -> None:
    if why(lines).how is MissingCause.ENDED:
        assert why([*lines, *more]).how is MissingCause.ENDED
