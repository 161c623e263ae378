"""Which columns of a task's rows its event chain vouches for, by a digest of what each event writes.

Each event of a task has under `rows` the digest of every row that it writes, and of every column that it writes in the
task's own row. Whoever changes one of them in the database does not change the chain, and is found (`edited_rows`).

A digest covers a whole row, so a change of one lease reads no other. Of the task's own row each column has a digest:
the audit stream writes one of them without having checked the others. Decisions have a digest of their own (`votes`),
because an edit of them is mended from Vault. Operations are not covered: the stream settles them, and they say what was
sent, not what a task is. Neither are accesses, which repeat the revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from jitvault.errors import CorruptRecord
from jitvault.formats.canonical_json import canonical_bytes, sha256_hex
from jitvault.formats.rfc3339 import rfc3339
from jitvault.ledger.model import CheckRow, GrantRow, LeaseRow, RevisionRow, Row, TaskRecord, TaskRow, columns_of
from jitvault.model.event_bodies import RowDigests, ledger_part
from jitvault.model.event_chain import Event

COLUMNS = 1
"""The version of the digested columns. A change of them raises it, and `GENERATION` as well."""

CHANGED_BY_RENEWAL: Mapping[type, frozenset[str]] = {
    # When a worker looks again. A wrong time is bounded by `due_time`, and makes at most a renewal too early or too
    # late: then the token starves, which ends access.
    TaskRow: frozenset({"due_at", "version"}),  # the version only tells one writer that another wrote in between
    # When the token is renewed next, as above. `expires_at` is not here: a proof that a token expired rests on it.
    GrantRow: frozenset({"renew_at"}),
    LeaseRow: frozenset({"renew_at"}),
}
"""The columns that a renewal changes without an event (`jitvault.ledger.upkeep`). No digest covers them."""

# the chain's own end, which `chain_problems` compares
_OF_CHAIN = frozenset({"seq", "head"})
_KEYS: Mapping[type, tuple[str, ...]] = {
    TaskRow: (),
    RevisionRow: ("revision",),
    GrantRow: ("grant_id",),
    LeaseRow: ("lease_id",),
    CheckRow: ("n", "subject"),
}
DIGESTED: Mapping[type, tuple[str, ...]] = {
    kind: tuple(name for name in columns_of(kind) if name not in _OF_CHAIN | CHANGED_BY_RENEWAL.get(kind, frozenset()))
    for kind in _KEYS
}
"""The columns of each kind of row that the chain vouches for."""
_NAMES = {TaskRow: "task", RevisionRow: "revision", GrantRow: "grant", LeaseRow: "lease", CheckRow: "check"}


def digests_of(rows: Iterable[Row], written: Mapping[str, object]) -> RowDigests | None:
    """Return what an event says of the rows that it writes.

    `written` are the columns that it writes in the task's row.
    """
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if type(row) in _KEYS:
            found.setdefault(_NAMES[type(row)], {})[_key(row)] = sha256_hex(canonical_bytes(_covered(row)))
    columns = {name: value for name, value in written.items() if name in DIGESTED[TaskRow]}
    if columns:
        found["task"] = {name: sha256_hex(canonical_bytes(_column(value))) for name, value in columns.items()}
    return RowDigests(columns=COLUMNS, digests=found) if found else None


def edited_rows(record: TaskRecord) -> list[str]:
    """Return in words which rows of a task are not as its events wrote them.

    Of the revisions, a record has only the one that counts.
    """
    try:
        vouched = _vouched(record.events)
    except CorruptRecord as error:
        return [str(error)]
    problems = list(_edited_columns(record.task, vouched.pop("task", {})))
    rows: tuple[Row, ...] = (record.revision, *record.grants, *record.leases, *record.checks)
    for row in rows:
        name, key = _NAMES[type(row)], _key(row)
        digest = vouched.get(name, {}).pop(key, None)
        if digest is None:
            problems.append(f"{name} {key} is in the ledger, and no event wrote it")
        elif not _has(digest, _covered(row)):
            problems.append(f"{name} {key} is not as it was written")
    vouched.pop("revision", None)
    return problems + [f"{name} {key} is missing" for name, keys in vouched.items() for key in keys]


def edited_columns(task: TaskRow, events: Iterable[Event]) -> list[str]:
    """Return in words which columns of a task's own row are not as its events wrote them."""
    try:
        return list(_edited_columns(task, _vouched(events).get("task", {})))
    except CorruptRecord as error:
        return [str(error)]


def _edited_columns(task: TaskRow, vouched: Mapping[str, str]) -> Iterator[str]:
    for name in DIGESTED[TaskRow]:
        if name not in vouched or not _has(vouched[name], _column(getattr(task, name))):
            yield f"the task's {name} was set by hand"


def _vouched(events: Iterable[Event]) -> dict[str, dict[str, str]]:
    """Return the last digest of each row and each column of the task.

    Raises CorruptRecord for digests of other columns.
    """
    found: dict[str, dict[str, str]] = {}
    for event in events:
        rows = ledger_part(event).rows
        if rows is None:
            continue
        if rows.columns != COLUMNS:
            raise CorruptRecord(f"event {event.seq} has digests of columns that this version does not know")
        for name, digests in rows.digests.items():
            found.setdefault(name, {}).update(digests)
    return found


def _has(digest: str, covered: Mapping[str, Any]) -> bool:
    """Return whether this is the digest."""
    try:
        return sha256_hex(canonical_bytes(covered)) == digest
    except (TypeError, ValueError, RecursionError):
        # an edited column can hold what JSON cannot hold exactly
        return False


def _key(row: Row) -> str:
    return " ".join(str(getattr(row, name)) for name in _KEYS[type(row)])


def _covered(row: Row) -> dict[str, Any]:
    return {name: _plain(getattr(row, name)) for name in DIGESTED[type(row)]}


def _column(value: object) -> dict[str, Any]:
    return {"value": _plain(value)}


def _plain(value: Any) -> Any:
    """Return a column's value as JSON data, the same before it is stored and after."""
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    return value.hex() if isinstance(value, bytes) else value
