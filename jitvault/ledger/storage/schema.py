"""The ledger's tables, with the rules that the database itself enforces."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    literal_column,
    text,
)

from jitvault.audit.observation import Kind
from jitvault.ledger.model import OpState
from jitvault.ledger.storage.column_types import Bytes, UtcTime
from jitvault.model.states import OVER, EndReason, State, Verdict

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


# The condition of the partial index, word for word: a query has to use these words for the index to be used.
IS_OPEN = text(f"state NOT IN ({', '.join(repr(state.value) for state in sorted(OVER))})")


def is_given(column: Column[str]) -> ColumnElement[bool]:
    """Return the condition that a column is not empty.

    In the words of the partial index over the lines that have a value, so that the index is used.
    """
    return column != literal_column("''")


def _one_of(column: str, values: type[State | EndReason | Verdict | Kind | OpState]) -> CheckConstraint:
    listed = ", ".join(f"'{value.value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _task() -> Column[str]:
    return Column("task_id", String(63), ForeignKey("tasks.task_id"), nullable=False)


installation = Table(
    "installation",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False),
    # the claim of the sweep: which process may revoke what belongs to no task
    Column("claim_epoch", Integer, nullable=False, server_default=text("0")),
    Column("claim_until", Float, nullable=False, server_default=text("0")),
    # the highest generation of rules of any worker that used the ledger (`jitvault.model.rules_generation`)
    Column("generation", Integer, nullable=False, server_default=text("0")),
    # the server product that the ledger was last used with (`jitvault.formats.server_product`); NULL where none said
    Column("product", String(20)),
    CheckConstraint("one = 1", name="single"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", String(63), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("end_reason", String(20)),
    Column("revision", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("requester", String(64), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("parent", String(63), ForeignKey("tasks.task_id"), index=True),
    Column("version", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("head", String(64), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("due_at", UtcTime),
    Column("ends_at", UtcTime),
    Column("ending_at", UtcTime),
    Column("dead_ms", Integer),
    Column("confirmed_ms", Integer),
    Column("receipt", JSON(none_as_null=True)),
    # The claim is not part of the task: it says which process may change the task now, by the database's clock.
    Column("claim_epoch", Integer, nullable=False, server_default=text("0")),
    Column("claim_until", Float, nullable=False, server_default=text("0")),
    # the process that renews the task from its memory
    Column("keeper", String(16)),
    _one_of("state", State),
    _one_of("end_reason", EndReason),
    Index("ix_tasks_open", "state", "due_at", sqlite_where=IS_OPEN, postgresql_where=IS_OPEN),
)

revisions = Table(
    "revisions",
    metadata,
    Column("task_id", String(63), ForeignKey("tasks.task_id"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("body", Bytes, nullable=False),
    Column("decision", JSON, nullable=False),
)

# what a revision asks for, by agent, owner and template; held leases are counted before more is granted
accesses = Table(
    "accesses",
    metadata,
    Column("task_id", String(63), ForeignKey("tasks.task_id"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("template", String(63), primary_key=True),
    Column("agent", String(64), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("lease_budget", Integer, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("task_id", String(63), ForeignKey("tasks.task_id"), primary_key=True),
    Column("entity_id", String(64), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("reason", String(500), nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("grant_id", String(32), primary_key=True),
    _task(),
    Column("attempt", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("role", String(128), nullable=False),
    Column("create_op", String(32), nullable=False),
    Column("wrapped_accessor", String(128)),
    Column("accessor_hmac", String(80), index=True),
    Column("token_lease", String(255)),
    Column("creation_path", String(255)),
    Column("requested_ttl_s", Integer, nullable=False),
    Column("ttl_s", Integer, nullable=False),
    Column("step_s", Integer, nullable=False),
    Column("wrap_ttl_s", Integer, nullable=False),
    Column("issued_at", UtcTime),
    Column("expires_at", UtcTime),
    Column("rolling", Boolean(create_constraint=True, name="rolling"), nullable=False),
    Column("renew_at", UtcTime),
    Column("delivered", Boolean(create_constraint=True, name="delivered"), nullable=False),
    Column("settled", Boolean(create_constraint=True, name="settled"), nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("dead_at", UtcTime),
    # the HMAC of the delivered wrapping token, so that a line that names it is known without the line that made it
    Column("wrapping_hmac", String(80), index=True),
    # what the create's request says, each word with its HMAC; a line that says something else is not the worker's
    Column("asked", JSON(none_as_null=True)),
    _one_of("verdict", Verdict),
    UniqueConstraint("task_id", "attempt"),
    Index("ix_grants_create_op", "create_op"),
)
# "Never two live task tokens": the database refuses a second unsettled grant of a task.
Index(
    "uq_grants_unsettled",
    grants.c.task_id,
    unique=True,
    sqlite_where=text("settled = 0"),
    postgresql_where=text("NOT settled"),
)

leases = Table(
    "leases",
    metadata,
    Column("lease_id", String(512), primary_key=True),
    _task(),
    Column("grant_id", String(32), ForeignKey("grants.grant_id"), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("target_name", String(255)),
    Column("issued_at", UtcTime, nullable=False),
    Column("renew_at", UtcTime),
    Column("verdict", String(20), nullable=False),
    Column("dead_at", UtcTime),
    _one_of("verdict", Verdict),
    Index("ix_leases_task_id", "task_id"),
)

checks = Table(
    "checks",
    metadata,
    Column("task_id", String(63), ForeignKey("tasks.task_id"), primary_key=True),
    Column("subject", String(512), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("ok", Boolean(create_constraint=True, name="ok"), nullable=False),
    Column("evidence", JSON, nullable=False),
)

operations = Table(
    "operations",
    metadata,
    Column("op_id", String(32), primary_key=True),
    # NULL for an act on what belongs to no task
    Column("task_id", String(63), ForeignKey("tasks.task_id")),
    Column("kind", String(32), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("state", String(16), nullable=False),
    Column("answer", String(255)),
    Column("sent_at", UtcTime, nullable=False),
    Column("answered_at", UtcTime),
    _one_of("state", OpState),
    Index("ix_operations_task_id", "task_id"),
    Index("ix_operations_state", "state", "answered_at"),
)

# untracked credentials: found in Vault, and explained by no task
orphans = Table(
    "orphans",
    metadata,
    Column("lease_id", String(512), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("task_id", String(63)),
    Column("issued_at", UtcTime),
    Column("expires_at", UtcTime),
    # the audit line that shows how the credential was made
    Column("line", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("first_seen_at", UtcTime, nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("revoking", Boolean(create_constraint=True, name="revoking"), nullable=False),
    Column("checks", JSON, nullable=False),
    CheckConstraint("kind IN ('token', 'lease')", name="kind"),
    _one_of("verdict", Verdict),
)

events = Table(
    "events",
    metadata,
    Column("task_id", String(63), ForeignKey("tasks.task_id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("prev", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("at", String(40), nullable=False),
    Column("body", JSON, nullable=False),
)

observations = Table(
    "observations",
    metadata,
    Column("line", String(64), primary_key=True),
    Column("source", String(255), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("closing", Boolean(create_constraint=True, name="closing"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("actor", String(80), nullable=False),
    Column("op", String(64), nullable=False),
    Column("remote", String(64), nullable=False),
    Column("failed", Boolean(create_constraint=True, name="failed"), nullable=False),
    Column("error", String(255), nullable=False),
    Column("token", String(80), nullable=False),
    Column("alias", String(80), nullable=False),
    Column("detail", JSON, nullable=False),
    _one_of("kind", Kind),
    Index("ix_observations_subject", "subject"),
    Index("ix_observations_actor", "actor"),
    Index("ix_observations_op", "op"),
    Index("ix_observations_kind", "kind", "at"),
)
# Few lines have these values: an index over all lines would cost more than all other indexes.
for _column in (observations.c.token, observations.c.alias):
    _given = is_given(_column)
    Index(f"ix_observations_{_column.name}", _column, sqlite_where=_given, postgresql_where=_given)

canaries = Table(
    "canaries",
    metadata,
    Column("source", String(255), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("at", UtcTime, nullable=False),
    # for the nearest canary to a moment in each source, and for the newest of all
    Index("ix_canaries_source", "source", "at"),
    Index("ix_canaries_at", "at"),
)

audit_sources = Table(
    "audit_sources",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("identity", String(500), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("epoch", Integer, nullable=False),
    # whether a canary of this worker was found in the source; until then its lines are not trusted
    Column("vouched", Boolean(create_constraint=True, name="vouched"), nullable=False),
    Column("read_at", UtcTime),
    Column("claim_epoch", Integer, nullable=False, server_default=text("0")),
    Column("claim_until", Float, nullable=False, server_default=text("0")),
)

audit_gaps = Table(
    "audit_gaps",
    metadata,
    Column("source", String(255), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("what", String(500), nullable=False),
    Column("at", UtcTime, nullable=False),
)

# how many lines of each kind were counted instead of stored, because anyone can cause them
lines_not_kept = Table(
    "lines_not_kept",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("lines", BigInteger, nullable=False),
    Column("last_at", UtcTime, nullable=False),
    Column("last_remote", String(64), nullable=False),
)

# the HMAC of one constant, for each salt that the audit device ever had
audit_salts = Table(
    "audit_salts",
    metadata,
    Column("mark", String(80), primary_key=True),
    Column("first_at", UtcTime, nullable=False),
)

worker_sessions = Table(
    "worker_sessions",
    metadata,
    Column("accessor_hmac", String(80), primary_key=True),
    Column("first_at", UtcTime, nullable=False),
    Column("last_at", UtcTime, nullable=False),
    # the address from which Vault saw this session act
    Column("remote", String(64), nullable=False, server_default=text("''")),
)

findings = Table(
    "findings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task_id", String(63)),
    Column("rule", String(64), nullable=False),
    Column("message", String(1000), nullable=False),
    Column("at", UtcTime, nullable=False),
    # the audit line that shows the finding, and the request of that line
    Column("line", String(64)),
    Column("request_id", String(64)),
    # set when an operator closed the finding: policy does not count it any more
    Column("closed_at", UtcTime),
    Column("closed_why", String(500)),
    # who closed it, as Vault named that identity; both are empty for one that was closed before this was stored
    Column("closed_by", String(255)),
    Column("closed_by_entity", String(64)),
    # the entity that wrote the document that the finding is about
    Column("author", String(64)),
    # how many further findings of the author and rule this row counts
    Column("more", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("task_id", "rule", "message"),
    Index("ix_findings_author", "author", "rule"),
)
_open = findings.c.closed_at.is_(None)
Index("ix_findings_open", findings.c.at, sqlite_where=_open, postgresql_where=_open)

# notices to people, written with the change that they report; due_at is NULL once one was delivered
notices = Table(
    "notices",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("task_id", String(63)),
    Column("kind", String(16), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("body", JSON, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("due_at", UtcTime),
    Column("told_at", UtcTime),
    # whose act caused the notice: authors take turns
    Column("author", String(64)),
    Column("severe", Integer, nullable=False, server_default=text("0")),
    Index("ix_notices_due_at", "due_at"),
)

freezes = Table(
    "freezes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("reason", String(1000), nullable=False),
    Column("line", String(64), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("lifted_at", UtcTime),
    Column("lifted_why", String(500)),
    UniqueConstraint("line"),
)

# versions of requests that were read and began no task; not read again while they are the newest
judged = Table(
    "judged",
    metadata,
    Column("path", String(255), primary_key=True),
    Column("author", String(64), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("written_at", UtcTime, nullable=False),
    Column("judgement", String(16), nullable=False),
    Column("line_at", UtcTime),
    Column("judged_at", UtcTime, nullable=False),
)

# authors who wrote more than a worker takes in, and how many of their documents wait
over_quota = Table(
    "over_quota",
    metadata,
    Column("author", String(64), primary_key=True),
    Column("waiting", Integer, nullable=False),
    Column("since", UtcTime, nullable=False),
    Column("at", UtcTime, nullable=False),
)

# the newest counted write of each document, and how many writes were counted instead of stored; beyond a number of
# documents of one author, of all others in their folder together: that row's path is the folder
rewritten = Table(
    "rewritten",
    metadata,
    Column("path", String(512), primary_key=True),
    Column("folder", String(256), nullable=False, server_default=text("''"), index=True),
    Column("lines", BigInteger, nullable=False),
    Column("at", UtcTime, nullable=False, index=True),
    Column("source", String(255), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("claim", Integer),
)

# how many lines about an author's documents were stored in the hour that began at `since`
writers = Table(
    "writers",
    metadata,
    Column("author", String(256), primary_key=True),
    Column("since", UtcTime, nullable=False),
    Column("lines", Integer, nullable=False),
)

# the documents in Vault by which access ends: how often each was seen to be written, and the result of reading it
documents = Table(
    "documents",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("author", String(64), primary_key=True),
    # a task id, or the key of a scope
    Column("about", String(63), primary_key=True, index=True),
    Column("news", Integer, nullable=False),
    Column("read", Integer, nullable=False),
    Column("standing", String(8)),
    Column("body", JSON),
)

# when all documents of a kind were last listed, and how many gaps the audit stream had then
listings = Table(
    "listings",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("gaps", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
)

APPEND_ONLY = ("events", "observations")
"""The tables whose rows triggers keep from being changed and deleted."""
ADDED_TO = frozenset({*APPEND_ONLY, "audit_gaps", "audit_salts", "canaries"})
"""The tables to whose rows a worker only adds."""
FORGOTTEN = frozenset({"documents", "judged", "over_quota", "rewritten"})
"""The tables whose rows a worker deletes: notes about documents that lie in Vault."""
