"""What a login may do with a ledger on PostgreSQL.

The rights that a worker or a reader needs follow from the schema. The same list is granted, compared with what a login
has, and named where a statement was refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

from jitvault.errors import LedgerUnavailable, UsageError
from jitvault.formats.plural import counted
from jitvault.ledger.storage import schema
from jitvault.model.ledger_facts import LedgerLogin

_VERSION = "alembic_version"
_SEQUENCES = tuple(
    f"{table.name}_{column.name}_seq"
    for table in schema.metadata.sorted_tables
    if (column := table.autoincrement_column) is not None
)
_TABLES = (*schema.metadata.tables, _VERSION)
_ACTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_MOST_NAMED = 3
# A right to one column is a right too many, and not enough for a statement.
_OF_COLUMNS = ("SELECT", "INSERT", "UPDATE", "REFERENCES")
_OF_TABLES = text(
    """
    SELECT relname, act, has_table_privilege(pg_class.oid, act) AS whole,
           CASE WHEN act IN :columns THEN has_any_column_privilege(pg_class.oid, act) END AS partly
    FROM pg_class, unnest(CAST(:acts AS text[])) AS act
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname IN :tables
    """
).bindparams(bindparam("columns", expanding=True), bindparam("tables", expanding=True))
# The server may ask about any relation before it compares the names, and refuses to for one that is no sequence.
_OF_SEQUENCES = text(
    """
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname IN :sequences
      AND CASE relkind WHEN 'S' THEN has_sequence_privilege(oid, 'USAGE') END
    """
).bindparams(bindparam("sequences", expanding=True))
_OWNS = text(
    """
    SELECT current_user, coalesce(bool_or(pg_has_role(relowner, 'MEMBER')), false) FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname IN :tables
    """
).bindparams(bindparam("tables", expanding=True))


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """The right to one act on a table, or to the numbers of a sequence."""

    on: str
    act: str

    def __str__(self) -> str:
        return f"{self.act} on {self.on}"


def needed(*, writes: bool) -> frozenset[Right]:
    """Return the rights that a login needs: a worker's, if it `writes`."""
    if not writes:
        return frozenset(Right(table, "SELECT") for table in _TABLES)
    numbers = {Right(sequence, "USAGE") for sequence in _SEQUENCES}
    return frozenset(numbers | {Right(table, act) for table in _TABLES for act in _acts_of_worker(table)})


def grants(login: str, *, writes: bool, where: str = "public") -> list[str]:
    """Return the statements that give a login just the rights it needs.

    In one transaction, so that a worker that runs meanwhile lacks none. `where` is the schema that has the ledger.
    Raises UsageError for `public`, which PostgreSQL takes for every role, in quotation marks as well.
    """
    if login == "public":
        raise UsageError("`public` is every role of the server, and no login", hint="Name the role that logs in.")
    to, inside = _quoted(login), _quoted(where)
    wanted = needed(writes=writes)
    kinds = [("", _TABLES), ("SEQUENCE ", _SEQUENCES)]
    return [
        "BEGIN",
        f"SET LOCAL search_path TO {inside}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {inside} FROM {to}",
        f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {inside} FROM {to}",
        f"GRANT USAGE ON SCHEMA {inside} TO {to}",
        *(
            f"GRANT {', '.join(acts)} ON {kind}{', '.join(names)} TO {to}"
            for kind, objects in kinds
            for acts, names in _by_acts(wanted, objects)
        ),
        "COMMIT",
    ]


def login_of(connection: Connection, *, writes: bool) -> LedgerLogin:
    """Return what this connection's login lacks, and has beyond its need."""
    tables = {"tables": list(_TABLES)}
    name, owns = connection.execute(_OWNS, tables).one()
    of_tables = connection.execute(_OF_TABLES, {**tables, "acts": list(_ACTS), "columns": list(_OF_COLUMNS)}).all()
    numbers = connection.execute(_OF_SEQUENCES, {"sequences": list(_SEQUENCES)}).scalars()
    sequences = {Right(sequence, "USAGE") for sequence in numbers}
    whole = {Right(row.relname, row.act) for row in of_tables if row.whole}
    some = whole | {Right(row.relname, row.act) for row in of_tables if row.partly}
    wanted = needed(writes=writes)
    return LedgerLogin(
        name=name,
        writes=writes,
        owns=owns,
        missing=tuple(map(str, sorted(wanted - whole - sequences))),
        excess=tuple(map(str, sorted((some | sequences) - wanted))),
    )


def refusal(login: LedgerLogin) -> LedgerUnavailable | None:
    """Return the error that names the rights which a login lacks, if any."""
    if not login.missing:
        return None
    others = len(login.missing) - _MOST_NAMED
    more = f" and {counted(others, 'more right')}" if others > 0 else ""
    named = ", ".join(login.missing[:_MOST_NAMED])
    return LedgerUnavailable(f"the ledger cannot be used: its login {login.name} lacks {named}{more}", hint=login.mend)


def _quoted(name: str) -> str:
    """Return a name as SQL, with its capitals and whatever else is in it."""
    return '"' + name.replace('"', '""') + '"'


def _acts_of_worker(table: str) -> tuple[str, ...]:
    if table == _VERSION:
        return ("SELECT",)
    if table in schema.ADDED_TO:
        return ("SELECT", "INSERT")
    return ("SELECT", "INSERT", "UPDATE", "DELETE") if table in schema.FORGOTTEN else ("SELECT", "INSERT", "UPDATE")


def _by_acts(rights: Collection[Right], objects: Iterable[str]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return the acts to grant, each group of them with its objects."""
    found = defaultdict[tuple[str, ...], list[str]](list)
    for name in sorted(objects):
        found[tuple(act for act in (*_ACTS, "USAGE") if Right(name, act) in rights)].append(name)
    return [(acts, names) for acts, names in sorted(found.items()) if acts]
