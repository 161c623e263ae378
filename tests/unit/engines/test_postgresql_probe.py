"""What counts against a login of what was found at its PostgreSQL server."""

from __future__ import annotations

import pytest

from jitvault.engines.postgresql.sessions import KnownLogins, _Found, _judged, _Open, _Roles

OWN, OTHER = 100, 200
GONE = _Roles({}, {})


def orphan(oid: int) -> _Open:
    """A session of a role that is gone."""
    return _Open(pid=1, oid=oid, name=None)


@pytest.mark.parametrize(
    ("roles", "oid", "found", "refused", "sessions"),
    [
        (GONE, OWN, _Found(), True, 0),
        (GONE, OWN, _Found(sessions=(orphan(OTHER),)), True, 0),
        (GONE, OWN, _Found(sessions=(orphan(OWN),)), True, 1),
        (GONE, None, _Found(sessions=(orphan(OTHER),)), True, 1),
        (GONE, OWN, _Found(nameless=frozenset({(7, "3/4")})), True, 1),
        (_Roles({}, {"v-x": True}), OWN, _Found(), False, 0),
        (_Roles({}, {"v-x": False}), OWN, _Found(), False, 0),
        (_Roles({}, {"v-x": False}), OWN, _Found(sessions=(_Open(1, OWN, "v-x"),)), False, 1),
        (_Roles({}, {"v-y": True}), OWN, _Found(sessions=(_Open(1, OTHER, "v-y"),)), True, 0),
    ],
)
def test_what_counts_against_a_login(
    roles: _Roles, oid: int | None, found: _Found, refused: bool, sessions: int
) -> None:
    probed = _judged("v-x", roles, oid, found)
    assert (probed.refused, probed.open_sessions) == (refused, sessions)


def test_the_newest_logins_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jitvault.engines.postgresql.sessions._LOGINS_KNOWN", 2)
    known = KnownLogins()
    known.note("a", {"v-1": 1})
    known.note("a", {"v-2": 2, "v-3": 3})
    assert [known.of("a", name) for name in ("v-1", "v-2", "v-3")] == [None, 2, 3]
    assert known.of("another server", "v-3") is None
