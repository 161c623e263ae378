"""Audit lines as no server would write them all, for the properties that hold for each of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

HMAC = "hmac-sha256:" + "5" * 64
_PATHS = [
    "sys/audit-hash/jitvault",
    "auth/token/create/jitvault-15m",
    "sys/wrapping/unwrap",
    "sys/wrapping/rewrap",
    "cubbyhole/response",
    "sys/leases/revoke/database/creds/app/1",
    "sys/leases/renew",
    "sys/revoke/a",
    "sys/leases/lookup",
    "sys/leases/tidy",
    "auth/token/revoke-accessor",
    "auth/token/lookup-accessor",
    "auth/token/revoke-self",
    "auth/token/renew-self",
    "jitvault/data/requests/1",
    "database/config/app",
    "database/creds/app",
    "kv/data/app",
    "sys/mounts",
    "",
]
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_NAME = st.sampled_from([HMAC, "hmac-sha256:aa", "", "\U0001f600", "ü\n"])
_POLICIES = st.lists(st.sampled_from(["root", "default", "jitvault-worker", "jitvault-access-1"]), max_size=3)


def _some(required: dict[str, Any] | None = None, /, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required or {}, optional={**optional, "unknown": _ANY})


_DATA = _some(
    input=_NAME,
    lease_id=_NAME,
    accessor=_NAME,
    token=_NAME,
    error=_NAME | st.none(),
    http_status_code=st.sampled_from([200, 202, 202.0, 404]),
    username=_NAME,
    serial_number=_NAME,
)
_AUTH = _some(
    accessor=_NAME, client_token=_NAME, policies=_POLICIES | st.none(), metadata=_some(task=_NAME), entity_id=_NAME
)
_ERRORS = ["", "permission denied", "1 error occurred:\n\t* permission denied\n\n", "1 error occurred:\n\t* other\n\n"]
_WELL_FORMED = _some(
    {
        "time": st.sampled_from(["2026-11-24T15:43:07.034043907Z", "2026-11-24T17:43:07+02:00"]),
        "type": st.sampled_from(["request", "response"]),
    },
    auth=_AUTH | st.none(),
    request=_some(
        {"path": st.sampled_from(_PATHS)},
        id=_NAME,
        operation=st.sampled_from(["read", "update", "create", "list", ""]),
        client_token=_NAME,
        data=_DATA | st.none(),
        headers=st.dictionaries(st.sampled_from(["x-jitvault-op", "user-agent"]), st.lists(_NAME, max_size=2)),
        remote_address=_NAME,
        namespace=_some(id=_NAME, path=st.sampled_from(["", "team/"])),
    ),
    response=_some(
        auth=_AUTH | st.none(),
        data=_DATA | st.none(),
        wrap_info=_some(token=_NAME, accessor=_NAME, wrapped_accessor=_NAME),
        secret=_some(lease_id=_NAME),
        warnings=st.lists(st.text(max_size=5), max_size=5),
    ),
    error=st.sampled_from(_ERRORS),
)
_PARTS = """
    time type error auth auth.policies auth.accessor request request.path request.data request.headers
    response response.data response.auth response.warnings
"""
_SPOILT = st.sampled_from(_PARTS.split())


@st.composite
def _spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """An entry in which one thing has another shape."""
    entry = draw(_WELL_FORMED)
    *parents, name = draw(_SPOILT).split(".")
    within = entry
    for parent in parents:
        within[parent] = within.get(parent) or {}
        within = within[parent]
    within[name] = draw(_ANY)
    return entry


@st.composite
def _written(draw: st.DrawFn, entries: st.SearchStrategy[dict[str, Any]]) -> bytes:
    """An entry in JSON, with its keys in any order and its texts escaped in either way."""
    entry = draw(entries)
    names = draw(st.permutations(list(entry)))
    spaces = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    return json.dumps({n: entry[n] for n in names}, ensure_ascii=draw(st.booleans()), separators=spaces).encode()


ENTRIES = _written(_WELL_FORMED)
LINES = ENTRIES | _written(_spoilt())


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(ENTRIES))
    begin = draw(st.integers(0, len(raw)))
    raw[begin : begin + draw(st.integers(0, 20))] = draw(st.binary(max_size=6))
    return bytes(raw).replace(b"\n", b"\r")


BROKEN = _broken() | st.sampled_from([b"", b" ", b"\0", b"null", b"{}", b"[]", b"{} {}", b'{"a":', b"}", b"\xff"])
