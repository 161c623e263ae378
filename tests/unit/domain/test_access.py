from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.domain.access import CAPS, access_policy, cap_of, role_name, smallest_cap
from jitvault.errors import InvalidInput

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
