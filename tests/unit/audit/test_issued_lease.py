"""What lease a line shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from credential_story import LEASE, TOKEN, Story

from jitvault.audit.observation import Issued, Kind, Observation, issued

PATH = "database/creds/app-ro"


def line(**how: Any) -> Observation:
    made = Story().issued(path=PATH, detail={"target_name": "v-token-app-ro-x"}).lines[0]
    return replace(made, **how)


def test_a_read_shows_its_lease() -> None:
    assert issued(line()) == Issued(LEASE, PATH, "v-token-app-ro-x", line().at)


def test_a_path_that_is_read_is_taken_from_the_line() -> None:
    # an engine may name its leases as it likes
    assert issued(line(subject="other/x/y")) == Issued("other/x/y", PATH, "v-token-app-ro-x", line().at)


@pytest.mark.parametrize("path", ["sys/wrapping/unwrap", "sys/wrapping/rewrap"])
@pytest.mark.parametrize(
    ("lease_id", "expected"),
    [(LEASE, PATH), ("a/b/c/d/e", "a/b/c/d"), ("x/y", "x"), ("nameless", "")],
)
def test_an_unwrap_shows_the_lease_of_what_was_read_elsewhere(path: str, lease_id: str, expected: str) -> None:
    found = issued(line(path=path, subject=lease_id, actor=""))
    assert found is not None
    assert (found.lease_id, found.path) == (lease_id, expected)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ({"target_name": "v-1"}, "v-1"),
        # a mount that was not tuned shows an HMAC, which no probe can look for
        ({"target_name": "hmac-sha256:1e1e"}, None),
        ({"target_name": ""}, None),
        ({}, None),
        ({"warnings": ["x"]}, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [PATH, "sys/wrapping/unwrap"])
def test_the_target_name_is_known_where_it_is_plain(path: str, detail: dict[str, Any], expected: str | None) -> None:
    found = issued(line(path=path, detail=detail))
    assert found is not None
    assert found.target_name == expected


@pytest.mark.parametrize("kind", [k for k in Kind if k is not Kind.LEASE_ISSUED])
def test_no_other_kind_of_line_shows_a_lease(kind: Kind) -> None:
    assert issued(line(kind=kind)) is None


def test_a_request_shows_no_lease() -> None:
    assert issued(line(closing=False)) is None


def test_a_lease_counts_though_its_line_shows_an_error() -> None:
    # the backend made it; better one too many to take back
    assert issued(line(failed=True, actor=TOKEN)) is not None
