from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.errors import InvalidInput
from jitvault.model.vault_access import (
    CAPS,
    Fetch,
    access_policy,
    cap_of,
    data_by_path,
    last_end,
    role_name,
    smallest_cap,
)

PATHS = st.from_regex(r"[a-z0-9_-]{1,20}(/[A-Za-z0-9._@:-]{1,20}){1,4}", fullmatch=True)
NETWORKS = st.none() | st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True)


def test_a_policy_grants_one_path_and_the_tokens_own_two_endpoints() -> None:
    assert access_policy("database/creds/app-readonly").text == (
        'path "database/creds/app-readonly" {\n  capabilities = ["read"]\n}\n\n'
        'path "auth/token/lookup-self" {\n  capabilities = ["read"]\n}\n\n'
        'path "auth/token/revoke-self" {\n  capabilities = ["update"]\n}\n'
    )


@given(PATHS)
def test_a_policy_is_named_by_its_text(path: str) -> None:
    policy = access_policy(path)
    assert policy.sha256 == hashlib.sha256(policy.text.encode()).hexdigest()
    assert policy.name == f"jitvault-access-{policy.sha256[:16]}"
    assert access_policy(path) == policy


@given(PATHS, PATHS)
def test_another_path_has_another_policy(one: str, other: str) -> None:
    assert (access_policy(one).name == access_policy(other).name) == (one == other)


@given(st.sampled_from(["15m", "1h", "8h"]), NETWORKS)
def test_a_roles_cap_is_read_back_from_its_name(cap: str, network: str | None) -> None:
    role = role_name(cap, network)
    assert role.startswith("jitvault-")
    assert cap_of(role) == CAPS[cap]


def test_a_network_has_roles_of_its_own() -> None:
    assert role_name("1h", None) == "jitvault-1h"
    assert role_name("1h", "office") == "jitvault-1h-office"
    assert role_name("1h", "15m") == "jitvault-1h-15m"
    assert cap_of("jitvault-1h-15m") == timedelta(hours=1)


@given(st.integers(1, 8 * 3600))
def test_the_smallest_cap_covers_the_window_and_no_smaller_one_does(seconds: int) -> None:
    window = timedelta(seconds=seconds)
    cap = smallest_cap(window)
    assert CAPS[cap] >= window
    assert all(length < window for length in CAPS.values() if length < CAPS[cap])


@pytest.mark.parametrize(
    ("seconds", "cap"), [(1, "15m"), (900, "15m"), (901, "1h"), (3600, "1h"), (3601, "8h"), (28_800, "8h")]
)
def test_the_caps_are_15m_1h_and_8h(seconds: int, cap: str) -> None:
    assert smallest_cap(timedelta(seconds=seconds)) == cap


def test_a_window_over_the_longest_cap_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 8:00:00"):
        smallest_cap(timedelta(hours=8, seconds=1))


# -- what is sent -----------------------------------------------------------------------------------------------

BODIES = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._@:/,-]{1,40}", fullmatch=True),
    max_size=5,
)


def test_a_policy_pins_each_value_that_is_sent() -> None:
    text = access_policy("pki/issue/web", "update", {"ttl": "15m", "common_name": "a.svc"}).text
    assert text.startswith(
        'path "pki/issue/web" {\n'
        '  capabilities        = ["update"]\n'
        '  required_parameters = ["common_name", "ttl"]\n'
        '  allowed_parameters  = { "common_name" = ["a.svc"], "ttl" = ["15m"] }\n}\n\n'
    )
    assert text.endswith(access_policy("database/creds/app-readonly").text.partition("\n\n")[2])


def test_a_policy_that_pins_nothing_allows_nothing() -> None:
    """An empty list of allowed parameters would allow every one of them."""
    text = access_policy("pki/issue/web", "update", {}).text
    assert 'denied_parameters = { "*" = [] }' in text
    assert "allowed_parameters" not in text


@given(PATHS, BODIES, BODIES)
def test_what_is_sent_is_what_the_policy_is_named_by(path: str, one: dict[str, str], other: dict[str, str]) -> None:
    named = access_policy(path, "update", one).name
    assert (named == access_policy(path, "update", other).name) == (one == other)
    assert named == access_policy(path, "update", dict(reversed(one.items()))).name


@pytest.mark.parametrize(
    ("key", "value"),
    [("cn", "*.svc"), ("cn", 'x"'), ("cn", "x\ny"), ("cn", ""), ("cn", "{{x}}"), ("*", "x"), ("CN", "x"), ("c n", "x")],
)
def test_what_could_mean_more_in_a_policy_is_refused(key: str, value: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be pinned"):
        access_policy("pki/issue/web", "update", {key: value})


def test_nothing_can_be_sent_with_a_read() -> None:
    with pytest.raises(InvalidInput, match=r"spec\.data has to be empty"):
        access_policy("database/creds/app-readonly", "read", {"ttl": "5m"})


@given(st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), PATHS, BODIES)
def test_a_token_says_in_one_word_what_its_agent_asks_for(template: str, path: str, data: dict[str, str]) -> None:
    sends, reads = Fetch(template, path, "update", data), Fetch(template, path)
    for fetch in (sends, reads):
        assert Fetch.of_word(fetch.as_word()) == fetch
        assert len(fetch.as_word().split()) == 1
    assert reads.as_word() == f"{template}={path}"
    assert data_by_path([sends]) == {path: data}
    assert data_by_path([reads]) == {}


def test_a_role_that_is_none_of_ours_bounds_no_token() -> None:
    made_at = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
    assert last_end(role_name("15m", "office"), made_at) == made_at + timedelta(minutes=15)
    assert last_end("jitvault-forever", made_at) is None
    assert last_end(role_name("15m", None), None) is None
