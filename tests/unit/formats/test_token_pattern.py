"""Tokens of both servers are known for tokens, whatever letters they happen to have, and nothing else is."""

from __future__ import annotations

from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.formats.token_pattern import HIDDEN, is_wrapping, without_tokens

PLAIN = ascii_letters + digits
NAMESPACES = st.sampled_from(["", ".9rY2b"])


def random(prefix: str, alphabet: str, length: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=length, max_size=length).map(lambda text: prefix + text)


OPENBAO, VAULT = random("s.", PLAIN, 24), random("hvs.", PLAIN + "-_", 91)
SHORT = random("hvs.", PLAIN, 24)
SERVICE = st.one_of(OPENBAO, VAULT, SHORT)
OTHERS = st.one_of(
    random("b.", PLAIN + "-_", 120),
    random("hvb.", PLAIN + "-_", 130),
    random("r.", PLAIN, 24),
    random("hvr.", PLAIN, 24),
)
JWT = st.just("eyJhbGciOiJFUzUxMiJ9.eyJpc3MiOiIi.AbC-d_9")


@given(st.one_of(st.tuples(SERVICE, NAMESPACES).map("".join), JWT))
def test_a_wrapping_token_of_either_server_is_taken_as_one(token: str) -> None:
    assert is_wrapping(token)
    assert not is_wrapping(token + " ") and not is_wrapping("x" + token)


@given(OTHERS)
def test_no_batch_or_recovery_token_wraps_anything(token: str) -> None:
    assert not is_wrapping(token)


@given(st.one_of(SERVICE, OTHERS, JWT), NAMESPACES, st.sampled_from(["'", " ", "(", "=", "/"]))
def test_no_part_of_a_token_is_shown_also_where_it_was_cut(token: str, namespace: str, before: str) -> None:
    assert without_tokens(f"got {before}{token}{namespace}'!") == f"got {before}{HIDDEN}'!"
    assert without_tokens(f"got {before}{token[:80]}") == f"got {before}{HIDDEN}"


@pytest.mark.parametrize(
    "text",
    [
        "database/creds/app-readonly/kWm8Ua2Jx0Zb4Yq6Tn3Rc5Ve",
        "sha256:" + "0a" * 32,
        "jitvault/tasks.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "there is no task build.s.42",
        "auth/token/create/jitvault-15m at b.example.org",
    ],
)
def test_what_is_no_token_is_shown(text: str) -> None:
    assert without_tokens(text) == text
