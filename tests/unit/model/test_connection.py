"""Where a credential is used, in words, as a URL and in a token's metadata: nothing of it is anything but text."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.model.connection import ConnectionFacts, CredentialUse, uses_as_word, uses_of_word

FACTS = ConnectionFacts(host="db.example.org", port=5432, database="app", tls="verify-full", ca_file="/etc/ca.pem")
USE = CredentialUse(template="pg-read", path="database/creds/app-ro", choices={"database": "app"}, connection=FACTS)


def test_in_words() -> None:
    assert FACTS.in_words() == "db.example.org:5432, database app, TLS verify-full by /etc/ca.pem"
    other = ConnectionFacts(host="::1", port=8443, tls="disable")
    assert other.in_words() == "[::1]:8443, without TLS"


@given(st.text(), st.text(), st.text(min_size=1))
def test_every_value_of_the_url_comes_back_whatever_is_in_it(user: str, password: str, database: str) -> None:
    dsn = ConnectionFacts(host="::1", port=5432, database=database, tls="require").dsn(user, password)
    assert dsn.isascii() and not set(dsn) & set(" \n\t'\"`$();<>|\\{}")
    parts = urlsplit(dsn)
    assert (parts.hostname, parts.port) == ("::1", 5432)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)
    assert (unquote(parts.path[1:]), parts.query, parts.fragment) == (database, "sslmode=require", "")


def test_the_ca_is_in_the_url() -> None:
    assert parse_qs(urlsplit(FACTS.dsn("u", "p")).query) == {"sslmode": ["verify-full"], "sslrootcert": ["/etc/ca.pem"]}


def test_metadata_come_back() -> None:
    bare = CredentialUse(template="other", path="pki/issue/x")
    word = uses_as_word([USE, bare])
    assert uses_of_word(word) == (bare, USE)
    assert json.loads(word)[0] == {"template": "other", "path": "pki/issue/x"}


def with_(**changes: Any) -> str:
    connection = {**msgspec.to_builtins(FACTS), **changes}
    return json.dumps([{"template": "pg-read", "path": "p", "connection": connection}])


def test_what_no_template_can_say_is_not_believed() -> None:
    assert len(uses_of_word(with_())) == 1
    for word in (
        *("", "null", "{}", "[{}]", "[[", "[" * 10_000, json.dumps([{"template": "x", "path": 1}])),
        *(with_(port=0), with_(port="5432"), with_(tls="prefer"), with_(host="")),
        with_(host="db\nexport PATH=/evil"),
        with_(host="$(id)"),
        with_(host="fe80::1%eth0"),
        with_(database="a';id;'"),
        with_(ca_file="/etc/a b"),
        with_(ca_file="ca.pem"),
        json.dumps([{"template": "x", "path": "p" * 80_000}]),
    ):
        assert uses_of_word(word) == (), word[:80]


@pytest.mark.parametrize("host", ["db", "10.0.0.1", "db.example.org.", "-db", "db:1", "1::2::3"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    wrong = ConnectionFacts(host=host, port=1, tls="require").problem()
    assert (wrong is None) == (host in ("db", "10.0.0.1")), wrong
