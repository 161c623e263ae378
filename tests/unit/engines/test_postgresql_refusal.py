"""Which SQLSTATE of a login that failed counts, by what libpq says."""

from __future__ import annotations

import pytest

from jitvault.engines.postgresql.refusal import code_in

_AT = 'connection to server at "db.example" (192.0.2.1), port 5432 failed: FATAL:  '


@pytest.mark.parametrize(
    ("codes", "counts"),
    [
        ((), ""),
        (("28P01",), "28P01"),
        (("53300",), "53300"),
        # with TLS the server was full, and without TLS it lets nobody in
        (("53300", "28000"), "53300"),
        (("28000", "57P03"), "57P03"),
        # with TLS the password was wrong
        (("28P01", "28000"), "28000"),
    ],
)
def test_a_busy_server_says_nothing_of_a_login(codes: tuple[str, ...], counts: str) -> None:
    assert code_in("".join(f"{_AT}{code}\n" for code in codes)) == counts
