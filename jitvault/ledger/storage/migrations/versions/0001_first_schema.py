"""The first schema."""

import sqlalchemy as sa
from alembic import op

from jitvault.ledger.storage.column_types import UtcTime
from jitvault.ledger.storage.dialect import append_only
from jitvault.ledger.storage.schema import APPEND_ONLY

revision = "0001"
down_revision = None


def upgrade() -> None:
    _audit_gaps()
    _audit_salts()
    _audit_sources()
    _canaries()
    _findings()
    _freezes()
    _installation()
    _notices()
    _observations()
    _orphans()
    _tasks()
    _worker_sessions()
    _accesses()
    _checks()
    _decisions()
    _events()
    _grants()
    _operations()
    _revisions()
    _leases()
    for table in APPEND_ONLY:
        for statement in append_only(op.get_bind().dialect.name, table):
            op.execute(statement)


def _audit_gaps() -> None:
    op.create_table(
        "audit_gaps",
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("what", sa.String(length=500), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("source", "epoch", name=op.f("pk_audit_gaps")),
    )


def _audit_salts() -> None:
    op.create_table(
        "audit_salts",
        sa.Column("mark", sa.String(length=80), nullable=False),
        sa.Column("first_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("mark", name=op.f("pk_audit_salts")),
    )


def _audit_sources() -> None:
    op.create_table(
        "audit_sources",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("identity", sa.String(length=500), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("vouched", sa.Boolean(create_constraint=True, name="vouched"), nullable=False),
        sa.Column("read_at", UtcTime(), nullable=True),
        sa.Column("claim_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("claim_until", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_sources")),
    )


def _canaries() -> None:
    op.create_table(
        "canaries",
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("source", "epoch", "offset", name=op.f("pk_canaries")),
    )


def _findings() -> None:
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(length=63), nullable=True),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=1000), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("closed_at", UtcTime(), nullable=True),
        sa.Column("closed_why", sa.String(length=500), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_findings")),
        sa.UniqueConstraint("task_id", "rule", "message", name=op.f("uq_findings_task_id")),
    )


def _freezes() -> None:
    op.create_table(
        "freezes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=1000), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("lifted_at", UtcTime(), nullable=True),
        sa.Column("lifted_why", sa.String(length=500), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_freezes")),
        sa.UniqueConstraint("line", name=op.f("uq_freezes_line")),
    )


def _installation() -> None:
    op.create_table(
        "installation",
        sa.Column("one", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("claim_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("claim_until", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("one = 1", name=op.f("ck_installation_single")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_installation")),
    )


def _observations() -> None:
    op.create_table(
        "observations",
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("closing", sa.Boolean(create_constraint=True, name="closing"), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("subject", sa.String(length=512), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("op", sa.String(length=64), nullable=False),
        sa.Column("remote", sa.String(length=64), nullable=False),
        sa.Column("failed", sa.Boolean(create_constraint=True, name="failed"), nullable=False),
        sa.Column("error", sa.String(length=255), nullable=False),
        sa.Column("token", sa.String(length=80), nullable=False),
        sa.Column("alias", sa.String(length=80), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('canary', 'token_created', 'unwrapped', 'unwrap_refused', 'rewrapped', 'cubbyhole_read', 'lease_issued', 'used', 'denied', 'refused', 'renewed', 'lease_revoked', 'lease_lookup', 'token_revoked', 'token_lookup', 'hazard', 'written', 'own')",
            name=op.f("ck_observations_kind"),
        ),
        sa.PrimaryKeyConstraint("line", name=op.f("pk_observations")),
    )
    op.create_index("ix_observations_actor", "observations", ["actor"], unique=False)
    op.create_index(
        "ix_observations_alias",
        "observations",
        ["alias"],
        unique=False,
        sqlite_where=sa.text("alias != ''"),
        postgresql_where=sa.text("alias != ''"),
    )
    op.create_index("ix_observations_kind", "observations", ["kind", "at"], unique=False)
    op.create_index("ix_observations_op", "observations", ["op"], unique=False)
    op.create_index("ix_observations_subject", "observations", ["subject"], unique=False)
    op.create_index(
        "ix_observations_token",
        "observations",
        ["token"],
        unique=False,
        sqlite_where=sa.text("token != ''"),
        postgresql_where=sa.text("token != ''"),
    )


def _tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("end_reason", sa.String(length=20), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("requester", sa.String(length=64), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("parent", sa.String(length=63), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("head", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("due_at", UtcTime(), nullable=True),
        sa.Column("ends_at", UtcTime(), nullable=True),
        sa.Column("ending_at", UtcTime(), nullable=True),
        sa.Column("dead_ms", sa.Integer(), nullable=True),
        sa.Column("confirmed_ms", sa.Integer(), nullable=True),
        sa.Column("receipt", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("claim_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("claim_until", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "end_reason IN ('completed', 'deadline', 'expired', 'unclaimed', 'intercepted', 'issue_failed', 'policy', 'heartbeat', 'frozen', 'tripwire', 'operator', 'parent', 'drift')",
            name=op.f("ck_tasks_end_reason"),
        ),
        sa.CheckConstraint(
            "state IN ('pending_approval', 'approved', 'issuing', 'issued', 'active', 'ending', 'confirmed', 'sealed', 'unverified', 'denied', 'cancelled', 'lapsed')",
            name=op.f("ck_tasks_state"),
        ),
        sa.ForeignKeyConstraint(["parent"], ["tasks.task_id"], name=op.f("fk_tasks_parent")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    op.create_index("ix_tasks_due", "tasks", ["state", "due_at"], unique=False)
    op.create_index(op.f("ix_tasks_parent"), "tasks", ["parent"], unique=False)


def _worker_sessions() -> None:
    op.create_table(
        "worker_sessions",
        sa.Column("accessor_hmac", sa.String(length=80), nullable=False),
        sa.Column("first_at", UtcTime(), nullable=False),
        sa.Column("last_at", UtcTime(), nullable=False),
        sa.Column("remote", sa.String(length=64), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("accessor_hmac", name=op.f("pk_worker_sessions")),
    )


def _orphans() -> None:
    op.create_table(
        "orphans",
        sa.Column("lease_id", sa.String(length=512), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("task_id", sa.String(length=63), nullable=True),
        sa.Column("issued_at", UtcTime(), nullable=True),
        sa.Column("expires_at", UtcTime(), nullable=True),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("first_seen_at", UtcTime(), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("revoking", sa.Boolean(create_constraint=True, name="revoking"), nullable=False),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.CheckConstraint("kind IN ('token', 'lease')", name=op.f("ck_orphans_kind")),
        sa.CheckConstraint(
            "verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')",
            name=op.f("ck_orphans_verdict"),
        ),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_orphans")),
    )


def _checks() -> None:
    op.create_table(
        "checks",
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=512), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("ok", sa.Boolean(create_constraint=True, name="ok"), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_checks_task_id")),
        sa.PrimaryKeyConstraint("task_id", "subject", "n", name=op.f("pk_checks")),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("entity_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_decisions_task_id")),
        sa.PrimaryKeyConstraint("task_id", "entity_id", name=op.f("pk_decisions")),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("prev", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("at", sa.String(length=40), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_events_task_id")),
        sa.PrimaryKeyConstraint("task_id", "seq", name=op.f("pk_events")),
    )


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("role", sa.String(length=128), nullable=False),
        sa.Column("create_op", sa.String(length=32), nullable=False),
        sa.Column("wrapped_accessor", sa.String(length=128), nullable=True),
        sa.Column("accessor_hmac", sa.String(length=80), nullable=True),
        sa.Column("token_lease", sa.String(length=255), nullable=True),
        sa.Column("creation_path", sa.String(length=255), nullable=True),
        sa.Column("requested_ttl_s", sa.Integer(), nullable=False),
        sa.Column("ttl_s", sa.Integer(), nullable=False),
        sa.Column("step_s", sa.Integer(), nullable=False),
        sa.Column("wrap_ttl_s", sa.Integer(), nullable=False),
        sa.Column("issued_at", UtcTime(), nullable=True),
        sa.Column("expires_at", UtcTime(), nullable=True),
        sa.Column("rolling", sa.Boolean(create_constraint=True, name="rolling"), nullable=False),
        sa.Column("renew_at", UtcTime(), nullable=True),
        sa.Column("delivered", sa.Boolean(create_constraint=True, name="delivered"), nullable=False),
        sa.Column("settled", sa.Boolean(create_constraint=True, name="settled"), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("dead_at", UtcTime(), nullable=True),
        sa.CheckConstraint(
            "verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')",
            name=op.f("ck_grants_verdict"),
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_grants_task_id")),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("pk_grants")),
        sa.UniqueConstraint("task_id", "attempt", name=op.f("uq_grants_task_id")),
    )
    op.create_index(op.f("ix_grants_accessor_hmac"), "grants", ["accessor_hmac"], unique=False)
    op.create_index(
        "uq_grants_unsettled",
        "grants",
        ["task_id"],
        unique=True,
        sqlite_where=sa.text("settled = 0"),
        postgresql_where=sa.text("NOT settled"),
    )


def _operations() -> None:
    op.create_table(
        "operations",
        sa.Column("op_id", sa.String(length=32), nullable=False),
        sa.Column("task_id", sa.String(length=63), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=512), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("answer", sa.String(length=255), nullable=True),
        sa.Column("sent_at", UtcTime(), nullable=False),
        sa.Column("answered_at", UtcTime(), nullable=True),
        sa.CheckConstraint(
            "state IN ('intended', 'answered', 'unknown', 'settled', 'abandoned')", name=op.f("ck_operations_state")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_operations_task_id")),
        sa.PrimaryKeyConstraint("op_id", name=op.f("pk_operations")),
    )
    op.create_index("ix_operations_state", "operations", ["state", "answered_at"], unique=False)
    op.create_index("ix_operations_task_id", "operations", ["task_id"], unique=False)


def _revisions() -> None:
    op.create_table(
        "revisions",
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("decision", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_revisions_task_id")),
        sa.PrimaryKeyConstraint("task_id", "revision", name=op.f("pk_revisions")),
    )


def _accesses() -> None:
    op.create_table(
        "accesses",
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("template", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("lease_budget", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_accesses_task_id")),
        sa.PrimaryKeyConstraint("task_id", "revision", "template", name=op.f("pk_accesses")),
    )


def _notices() -> None:
    op.create_table(
        "notices",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("task_id", sa.String(length=63), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", UtcTime(), nullable=True),
        sa.Column("told_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index("ix_notices_due_at", "notices", ["due_at"], unique=False)


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("lease_id", sa.String(length=512), nullable=False),
        sa.Column("task_id", sa.String(length=63), nullable=False),
        sa.Column("grant_id", sa.String(length=32), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("target_name", sa.String(length=255), nullable=True),
        sa.Column("issued_at", UtcTime(), nullable=False),
        sa.Column("renew_at", UtcTime(), nullable=True),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("dead_at", UtcTime(), nullable=True),
        sa.CheckConstraint(
            "verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')",
            name=op.f("ck_leases_verdict"),
        ),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.grant_id"], name=op.f("fk_leases_grant_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_leases_task_id")),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_leases")),
    )
    op.create_index("ix_leases_task_id", "leases", ["task_id"], unique=False)
