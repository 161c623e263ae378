CREATE TABLE audit_gaps (
    source TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    what TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_audit_gaps PRIMARY KEY (source, epoch)
);

CREATE TABLE audit_salts (
    mark TEXT NOT NULL,
    first_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_audit_salts PRIMARY KEY (mark)
);

CREATE TABLE audit_sources (
    name TEXT NOT NULL,
    identity TEXT NOT NULL,
    "offset" BIGINT NOT NULL,
    epoch INTEGER NOT NULL,
    vouched BOOLEAN NOT NULL,
    read_at TIMESTAMP WITH TIME ZONE,
    claim_epoch INTEGER DEFAULT 0 NOT NULL,
    claim_until FLOAT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_audit_sources PRIMARY KEY (name)
);

CREATE TABLE canaries (
    source TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_canaries PRIMARY KEY (source, epoch, "offset")
);

CREATE INDEX ix_canaries_at ON canaries (at);

CREATE INDEX ix_canaries_source ON canaries (source, at);

CREATE TABLE documents (
    kind TEXT NOT NULL,
    author TEXT NOT NULL,
    about TEXT NOT NULL,
    news INTEGER NOT NULL,
    read INTEGER NOT NULL,
    standing TEXT,
    body JSON,
    CONSTRAINT pk_documents PRIMARY KEY (kind, author, about)
);

CREATE INDEX ix_documents_about ON documents (about);

CREATE TABLE findings (
    id SERIAL NOT NULL,
    task_id TEXT,
    rule TEXT NOT NULL,
    message TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    line TEXT,
    request_id TEXT,
    closed_at TIMESTAMP WITH TIME ZONE,
    closed_why TEXT,
    closed_by TEXT,
    closed_by_entity TEXT,
    author TEXT,
    more INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_findings PRIMARY KEY (id),
    CONSTRAINT uq_findings_task_id UNIQUE (task_id, rule, message)
);

CREATE INDEX ix_findings_author ON findings (author, rule);

CREATE INDEX ix_findings_open ON findings (at) WHERE closed_at IS NULL;

CREATE TABLE freezes (
    id SERIAL NOT NULL,
    reason TEXT NOT NULL,
    line TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    lifted_at TIMESTAMP WITH TIME ZONE,
    lifted_why TEXT,
    CONSTRAINT pk_freezes PRIMARY KEY (id),
    CONSTRAINT uq_freezes_line UNIQUE (line)
);

CREATE TABLE installation (
    one INTEGER NOT NULL,
    id TEXT NOT NULL,
    claim_epoch INTEGER DEFAULT 0 NOT NULL,
    claim_until FLOAT DEFAULT 0 NOT NULL,
    generation INTEGER DEFAULT 0 NOT NULL,
    product TEXT,
    CONSTRAINT pk_installation PRIMARY KEY (one),
    CONSTRAINT ck_installation_single CHECK (one = 1)
);

CREATE TABLE judged (
    path TEXT NOT NULL,
    author TEXT NOT NULL,
    version INTEGER NOT NULL,
    written_at TIMESTAMP WITH TIME ZONE NOT NULL,
    judgement TEXT NOT NULL,
    line_at TIMESTAMP WITH TIME ZONE,
    judged_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_judged PRIMARY KEY (path)
);

CREATE INDEX ix_judged_author ON judged (author);

CREATE TABLE lines_not_kept (
    kind TEXT NOT NULL,
    lines BIGINT NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_remote TEXT NOT NULL,
    CONSTRAINT pk_lines_not_kept PRIMARY KEY (kind)
);

CREATE TABLE listings (
    kind TEXT NOT NULL,
    gaps INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_listings PRIMARY KEY (kind)
);

CREATE TABLE notices (
    id TEXT NOT NULL,
    task_id TEXT,
    kind TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    body JSON NOT NULL,
    tries INTEGER DEFAULT 0 NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    told_at TIMESTAMP WITH TIME ZONE,
    author TEXT,
    severe INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_notices PRIMARY KEY (id)
);

CREATE INDEX ix_notices_due_at ON notices (due_at);

CREATE TABLE observations (
    line TEXT NOT NULL,
    source TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    closing BOOLEAN NOT NULL,
    kind TEXT NOT NULL,
    request_id TEXT NOT NULL,
    path TEXT NOT NULL,
    subject TEXT NOT NULL,
    actor TEXT NOT NULL,
    op TEXT NOT NULL,
    remote TEXT NOT NULL,
    failed BOOLEAN NOT NULL,
    error TEXT NOT NULL,
    token TEXT NOT NULL,
    alias TEXT NOT NULL,
    detail JSON NOT NULL,
    CONSTRAINT pk_observations PRIMARY KEY (line),
    CONSTRAINT ck_observations_kind CHECK (kind IN ('canary', 'token_created', 'unwrapped', 'unwrap_refused', 'rewrapped', 'cubbyhole_read', 'lease_issued', 'used', 'denied', 'refused', 'renewed', 'lease_revoked', 'lease_lookup', 'token_revoked', 'token_lookup', 'hazard', 'written', 'own'))
);

CREATE INDEX ix_observations_actor ON observations (actor);

CREATE INDEX ix_observations_alias ON observations (alias) WHERE alias != '';

CREATE INDEX ix_observations_kind ON observations (kind, at);

CREATE INDEX ix_observations_op ON observations (op);

CREATE INDEX ix_observations_subject ON observations (subject);

CREATE INDEX ix_observations_token ON observations (token) WHERE token != '';

CREATE TABLE orphans (
    lease_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    path TEXT NOT NULL,
    task_id TEXT,
    issued_at TIMESTAMP WITH TIME ZONE,
    expires_at TIMESTAMP WITH TIME ZONE,
    line TEXT NOT NULL,
    request_id TEXT NOT NULL,
    first_seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    verdict TEXT NOT NULL,
    revoking BOOLEAN NOT NULL,
    checks JSON NOT NULL,
    CONSTRAINT pk_orphans PRIMARY KEY (lease_id),
    CONSTRAINT ck_orphans_kind CHECK (kind IN ('token', 'lease')),
    CONSTRAINT ck_orphans_verdict CHECK (verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable'))
);

CREATE TABLE over_quota (
    author TEXT NOT NULL,
    waiting INTEGER NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_over_quota PRIMARY KEY (author)
);

CREATE TABLE rewritten (
    path TEXT NOT NULL,
    folder TEXT DEFAULT '' NOT NULL,
    lines BIGINT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    source TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    claim INTEGER,
    CONSTRAINT pk_rewritten PRIMARY KEY (path)
);

CREATE INDEX ix_rewritten_at ON rewritten (at);

CREATE INDEX ix_rewritten_folder ON rewritten (folder);

CREATE TABLE tasks (
    task_id TEXT NOT NULL,
    state TEXT NOT NULL,
    end_reason TEXT,
    revision INTEGER NOT NULL,
    digest TEXT NOT NULL,
    requester TEXT NOT NULL,
    agent TEXT NOT NULL,
    parent TEXT,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    head TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    ends_at TIMESTAMP WITH TIME ZONE,
    ending_at TIMESTAMP WITH TIME ZONE,
    dead_ms INTEGER,
    confirmed_ms INTEGER,
    receipt JSON,
    claim_epoch INTEGER DEFAULT 0 NOT NULL,
    claim_until FLOAT DEFAULT 0 NOT NULL,
    keeper TEXT,
    CONSTRAINT pk_tasks PRIMARY KEY (task_id),
    CONSTRAINT ck_tasks_state CHECK (state IN ('pending_approval', 'approved', 'issuing', 'issued', 'active', 'ending', 'confirmed', 'sealed', 'unverified', 'denied', 'cancelled', 'lapsed')),
    CONSTRAINT ck_tasks_end_reason CHECK (end_reason IN ('completed', 'deadline', 'expired', 'unclaimed', 'intercepted', 'issue_failed', 'policy', 'heartbeat', 'frozen', 'tripwire', 'operator', 'parent', 'drift')),
    CONSTRAINT fk_tasks_parent FOREIGN KEY(parent) REFERENCES tasks (task_id)
);

CREATE INDEX ix_tasks_open ON tasks (state, due_at) WHERE state NOT IN ('cancelled', 'denied', 'lapsed', 'sealed', 'unverified');

CREATE INDEX ix_tasks_parent ON tasks (parent);

CREATE TABLE worker_sessions (
    accessor_hmac TEXT NOT NULL,
    first_at TIMESTAMP WITH TIME ZONE NOT NULL,
    last_at TIMESTAMP WITH TIME ZONE NOT NULL,
    remote TEXT DEFAULT '' NOT NULL,
    CONSTRAINT pk_worker_sessions PRIMARY KEY (accessor_hmac)
);

CREATE TABLE writers (
    author TEXT NOT NULL,
    since TIMESTAMP WITH TIME ZONE NOT NULL,
    lines INTEGER NOT NULL,
    CONSTRAINT pk_writers PRIMARY KEY (author)
);

CREATE TABLE accesses (
    task_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    template TEXT NOT NULL,
    agent TEXT NOT NULL,
    owner TEXT NOT NULL,
    lease_budget INTEGER NOT NULL,
    CONSTRAINT pk_accesses PRIMARY KEY (task_id, revision, template),
    CONSTRAINT fk_accesses_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE checks (
    task_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    n INTEGER NOT NULL,
    ok BOOLEAN NOT NULL,
    evidence JSON NOT NULL,
    CONSTRAINT pk_checks PRIMARY KEY (task_id, subject, n),
    CONSTRAINT fk_checks_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE decisions (
    task_id TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    name TEXT NOT NULL,
    decision TEXT NOT NULL,
    digest TEXT NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT pk_decisions PRIMARY KEY (task_id, entity_id),
    CONSTRAINT fk_decisions_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE events (
    task_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    prev TEXT NOT NULL,
    hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    at TEXT NOT NULL,
    body JSON NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (task_id, seq),
    CONSTRAINT fk_events_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE grants (
    grant_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    digest TEXT NOT NULL,
    role TEXT NOT NULL,
    create_op TEXT NOT NULL,
    wrapped_accessor TEXT,
    accessor_hmac TEXT,
    token_lease TEXT,
    creation_path TEXT,
    requested_ttl_s INTEGER NOT NULL,
    ttl_s INTEGER NOT NULL,
    step_s INTEGER NOT NULL,
    wrap_ttl_s INTEGER NOT NULL,
    issued_at TIMESTAMP WITH TIME ZONE,
    expires_at TIMESTAMP WITH TIME ZONE,
    rolling BOOLEAN NOT NULL,
    renew_at TIMESTAMP WITH TIME ZONE,
    delivered BOOLEAN NOT NULL,
    settled BOOLEAN NOT NULL,
    verdict TEXT NOT NULL,
    dead_at TIMESTAMP WITH TIME ZONE,
    wrapping_hmac TEXT,
    asked JSON,
    CONSTRAINT pk_grants PRIMARY KEY (grant_id),
    CONSTRAINT ck_grants_verdict CHECK (verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')),
    CONSTRAINT uq_grants_task_id UNIQUE (task_id, attempt),
    CONSTRAINT fk_grants_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE INDEX ix_grants_accessor_hmac ON grants (accessor_hmac);

CREATE INDEX ix_grants_create_op ON grants (create_op);

CREATE INDEX ix_grants_wrapping_hmac ON grants (wrapping_hmac);

CREATE UNIQUE INDEX uq_grants_unsettled ON grants (task_id) WHERE NOT settled;

CREATE TABLE operations (
    op_id TEXT NOT NULL,
    task_id TEXT,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL,
    answer TEXT,
    sent_at TIMESTAMP WITH TIME ZONE NOT NULL,
    answered_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_operations PRIMARY KEY (op_id),
    CONSTRAINT ck_operations_state CHECK (state IN ('intended', 'answered', 'unknown', 'settled', 'abandoned')),
    CONSTRAINT fk_operations_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE INDEX ix_operations_state ON operations (state, answered_at);

CREATE INDEX ix_operations_task_id ON operations (task_id);

CREATE TABLE revisions (
    task_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    digest TEXT NOT NULL,
    body BYTEA NOT NULL,
    decision JSON NOT NULL,
    CONSTRAINT pk_revisions PRIMARY KEY (task_id, revision),
    CONSTRAINT fk_revisions_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE leases (
    lease_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    path TEXT NOT NULL,
    target_name TEXT,
    issued_at TIMESTAMP WITH TIME ZONE NOT NULL,
    renew_at TIMESTAMP WITH TIME ZONE,
    verdict TEXT NOT NULL,
    dead_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_leases PRIMARY KEY (lease_id),
    CONSTRAINT ck_leases_verdict CHECK (verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')),
    CONSTRAINT fk_leases_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id),
    CONSTRAINT fk_leases_grant_id FOREIGN KEY(grant_id) REFERENCES grants (grant_id)
);

CREATE INDEX ix_leases_task_id ON leases (task_id);

CREATE OR REPLACE FUNCTION jitvault_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$;

CREATE TRIGGER events_no_update BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION jitvault_append_only();

CREATE TRIGGER events_no_delete BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION jitvault_append_only();

CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION jitvault_append_only();

CREATE TRIGGER observations_no_update BEFORE UPDATE ON observations FOR EACH ROW EXECUTE FUNCTION jitvault_append_only();

CREATE TRIGGER observations_no_delete BEFORE DELETE ON observations FOR EACH ROW EXECUTE FUNCTION jitvault_append_only();

CREATE TRIGGER observations_no_truncate BEFORE TRUNCATE ON observations FOR EACH STATEMENT EXECUTE FUNCTION jitvault_append_only();
