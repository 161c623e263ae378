CREATE TABLE audit_gaps (
    source VARCHAR(255) NOT NULL,
    epoch INTEGER NOT NULL,
    kind VARCHAR(16) NOT NULL,
    what VARCHAR(500) NOT NULL,
    at DATETIME NOT NULL,
    CONSTRAINT pk_audit_gaps PRIMARY KEY (source, epoch)
);

CREATE TABLE audit_salts (
    mark VARCHAR(80) NOT NULL,
    first_at DATETIME NOT NULL,
    CONSTRAINT pk_audit_salts PRIMARY KEY (mark)
);

CREATE TABLE audit_sources (
    name VARCHAR(255) NOT NULL,
    identity VARCHAR(500) NOT NULL,
    "offset" BIGINT NOT NULL,
    epoch INTEGER NOT NULL,
    vouched BOOLEAN NOT NULL,
    read_at DATETIME,
    claim_epoch INTEGER DEFAULT 0 NOT NULL,
    claim_until FLOAT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_audit_sources PRIMARY KEY (name),
    CONSTRAINT ck_audit_sources_vouched CHECK (vouched IN (0, 1))
);

CREATE TABLE canaries (
    source VARCHAR(255) NOT NULL,
    epoch INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    at DATETIME NOT NULL,
    CONSTRAINT pk_canaries PRIMARY KEY (source, epoch, "offset")
);

CREATE INDEX ix_canaries_at ON canaries (at);

CREATE INDEX ix_canaries_source ON canaries (source, at);

CREATE TABLE documents (
    kind VARCHAR(8) NOT NULL,
    author VARCHAR(64) NOT NULL,
    about VARCHAR(63) NOT NULL,
    news INTEGER NOT NULL,
    read INTEGER NOT NULL,
    standing VARCHAR(8),
    body JSON,
    CONSTRAINT pk_documents PRIMARY KEY (kind, author, about)
);

CREATE INDEX ix_documents_about ON documents (about);

CREATE TABLE findings (
    id INTEGER NOT NULL,
    task_id VARCHAR(63),
    rule VARCHAR(64) NOT NULL,
    message VARCHAR(1000) NOT NULL,
    at DATETIME NOT NULL,
    line VARCHAR(64),
    request_id VARCHAR(64),
    closed_at DATETIME,
    closed_why VARCHAR(500),
    closed_by VARCHAR(255),
    closed_by_entity VARCHAR(64),
    author VARCHAR(64),
    more INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_findings PRIMARY KEY (id),
    CONSTRAINT uq_findings_task_id UNIQUE (task_id, rule, message)
);

CREATE INDEX ix_findings_author ON findings (author, rule);

CREATE INDEX ix_findings_open ON findings (at) WHERE closed_at IS NULL;

CREATE TABLE freezes (
    id INTEGER NOT NULL,
    reason VARCHAR(1000) NOT NULL,
    line VARCHAR(64) NOT NULL,
    at DATETIME NOT NULL,
    lifted_at DATETIME,
    lifted_why VARCHAR(500),
    CONSTRAINT pk_freezes PRIMARY KEY (id),
    CONSTRAINT uq_freezes_line UNIQUE (line)
);

CREATE TABLE installation (
    one INTEGER NOT NULL,
    id VARCHAR(64) NOT NULL,
    claim_epoch INTEGER DEFAULT 0 NOT NULL,
    claim_until FLOAT DEFAULT 0 NOT NULL,
    generation INTEGER DEFAULT 0 NOT NULL,
    product VARCHAR(20),
    CONSTRAINT pk_installation PRIMARY KEY (one),
    CONSTRAINT ck_installation_single CHECK (one = 1)
);

CREATE TABLE judged (
    path VARCHAR(255) NOT NULL,
    author VARCHAR(64) NOT NULL,
    version INTEGER NOT NULL,
    written_at DATETIME NOT NULL,
    judgement VARCHAR(16) NOT NULL,
    line_at DATETIME,
    judged_at DATETIME NOT NULL,
    CONSTRAINT pk_judged PRIMARY KEY (path)
);

CREATE INDEX ix_judged_author ON judged (author);

CREATE TABLE lines_not_kept (
    kind VARCHAR(20) NOT NULL,
    lines BIGINT NOT NULL,
    last_at DATETIME NOT NULL,
    last_remote VARCHAR(64) NOT NULL,
    CONSTRAINT pk_lines_not_kept PRIMARY KEY (kind)
);

CREATE TABLE listings (
    kind VARCHAR(8) NOT NULL,
    gaps INTEGER NOT NULL,
    at DATETIME NOT NULL,
    CONSTRAINT pk_listings PRIMARY KEY (kind)
);

CREATE TABLE notices (
    id VARCHAR(32) NOT NULL,
    task_id VARCHAR(63),
    kind VARCHAR(16) NOT NULL,
    at DATETIME NOT NULL,
    body JSON NOT NULL,
    tries INTEGER DEFAULT 0 NOT NULL,
    due_at DATETIME,
    told_at DATETIME,
    author VARCHAR(64),
    severe INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT pk_notices PRIMARY KEY (id)
);

CREATE INDEX ix_notices_due_at ON notices (due_at);

CREATE TABLE observations (
    line VARCHAR(64) NOT NULL,
    source VARCHAR(255) NOT NULL,
    epoch INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    at DATETIME NOT NULL,
    closing BOOLEAN NOT NULL,
    kind VARCHAR(20) NOT NULL,
    request_id VARCHAR(64) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    subject VARCHAR(512) NOT NULL,
    actor VARCHAR(80) NOT NULL,
    op VARCHAR(64) NOT NULL,
    remote VARCHAR(64) NOT NULL,
    failed BOOLEAN NOT NULL,
    error VARCHAR(255) NOT NULL,
    token VARCHAR(80) NOT NULL,
    alias VARCHAR(80) NOT NULL,
    detail JSON NOT NULL,
    CONSTRAINT pk_observations PRIMARY KEY (line),
    CONSTRAINT ck_observations_kind CHECK (kind IN ('canary', 'token_created', 'unwrapped', 'unwrap_refused', 'rewrapped', 'cubbyhole_read', 'lease_issued', 'used', 'denied', 'refused', 'renewed', 'lease_revoked', 'lease_lookup', 'token_revoked', 'token_lookup', 'hazard', 'written', 'own')),
    CONSTRAINT ck_observations_closing CHECK (closing IN (0, 1)),
    CONSTRAINT ck_observations_failed CHECK (failed IN (0, 1))
);

CREATE INDEX ix_observations_actor ON observations (actor);

CREATE INDEX ix_observations_alias ON observations (alias) WHERE alias != '';

CREATE INDEX ix_observations_kind ON observations (kind, at);

CREATE INDEX ix_observations_op ON observations (op);

CREATE INDEX ix_observations_subject ON observations (subject);

CREATE INDEX ix_observations_token ON observations (token) WHERE token != '';

CREATE TABLE orphans (
    lease_id VARCHAR(512) NOT NULL,
    kind VARCHAR(8) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    task_id VARCHAR(63),
    issued_at DATETIME,
    expires_at DATETIME,
    line VARCHAR(64) NOT NULL,
    request_id VARCHAR(64) NOT NULL,
    first_seen_at DATETIME NOT NULL,
    verdict VARCHAR(20) NOT NULL,
    revoking BOOLEAN NOT NULL,
    checks JSON NOT NULL,
    CONSTRAINT pk_orphans PRIMARY KEY (lease_id),
    CONSTRAINT ck_orphans_kind CHECK (kind IN ('token', 'lease')),
    CONSTRAINT ck_orphans_verdict CHECK (verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')),
    CONSTRAINT ck_orphans_revoking CHECK (revoking IN (0, 1))
);

CREATE TABLE over_quota (
    author VARCHAR(64) NOT NULL,
    waiting INTEGER NOT NULL,
    since DATETIME NOT NULL,
    at DATETIME NOT NULL,
    CONSTRAINT pk_over_quota PRIMARY KEY (author)
);

CREATE TABLE rewritten (
    path VARCHAR(512) NOT NULL,
    folder VARCHAR(256) DEFAULT '' NOT NULL,
    lines BIGINT NOT NULL,
    at DATETIME NOT NULL,
    source VARCHAR(255) NOT NULL,
    epoch INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    claim INTEGER,
    CONSTRAINT pk_rewritten PRIMARY KEY (path)
);

CREATE INDEX ix_rewritten_at ON rewritten (at);

CREATE INDEX ix_rewritten_folder ON rewritten (folder);

CREATE TABLE tasks (
    task_id VARCHAR(63) NOT NULL,
    state VARCHAR(20) NOT NULL,
    end_reason VARCHAR(20),
    revision INTEGER NOT NULL,
    digest VARCHAR(71) NOT NULL,
    requester VARCHAR(64) NOT NULL,
    agent VARCHAR(64) NOT NULL,
    parent VARCHAR(63),
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    head VARCHAR(64) NOT NULL,
    created_at DATETIME NOT NULL,
    due_at DATETIME,
    ends_at DATETIME,
    ending_at DATETIME,
    dead_ms INTEGER,
    confirmed_ms INTEGER,
    receipt JSON,
    claim_epoch INTEGER DEFAULT 0 NOT NULL,
    claim_until FLOAT DEFAULT 0 NOT NULL,
    keeper VARCHAR(16),
    CONSTRAINT pk_tasks PRIMARY KEY (task_id),
    CONSTRAINT ck_tasks_state CHECK (state IN ('pending_approval', 'approved', 'issuing', 'issued', 'active', 'ending', 'confirmed', 'sealed', 'unverified', 'denied', 'cancelled', 'lapsed')),
    CONSTRAINT ck_tasks_end_reason CHECK (end_reason IN ('completed', 'deadline', 'expired', 'unclaimed', 'intercepted', 'issue_failed', 'policy', 'heartbeat', 'frozen', 'tripwire', 'operator', 'parent', 'drift')),
    CONSTRAINT fk_tasks_parent FOREIGN KEY(parent) REFERENCES tasks (task_id)
);

CREATE INDEX ix_tasks_open ON tasks (state, due_at) WHERE state NOT IN ('cancelled', 'denied', 'lapsed', 'sealed', 'unverified');

CREATE INDEX ix_tasks_parent ON tasks (parent);

CREATE TABLE worker_sessions (
    accessor_hmac VARCHAR(80) NOT NULL,
    first_at DATETIME NOT NULL,
    last_at DATETIME NOT NULL,
    remote VARCHAR(64) DEFAULT '' NOT NULL,
    CONSTRAINT pk_worker_sessions PRIMARY KEY (accessor_hmac)
);

CREATE TABLE writers (
    author VARCHAR(256) NOT NULL,
    since DATETIME NOT NULL,
    lines INTEGER NOT NULL,
    CONSTRAINT pk_writers PRIMARY KEY (author)
);

CREATE TABLE accesses (
    task_id VARCHAR(63) NOT NULL,
    revision INTEGER NOT NULL,
    template VARCHAR(63) NOT NULL,
    agent VARCHAR(64) NOT NULL,
    owner VARCHAR(64) NOT NULL,
    lease_budget INTEGER NOT NULL,
    CONSTRAINT pk_accesses PRIMARY KEY (task_id, revision, template),
    CONSTRAINT fk_accesses_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE checks (
    task_id VARCHAR(63) NOT NULL,
    subject VARCHAR(512) NOT NULL,
    n INTEGER NOT NULL,
    ok BOOLEAN NOT NULL,
    evidence JSON NOT NULL,
    CONSTRAINT pk_checks PRIMARY KEY (task_id, subject, n),
    CONSTRAINT fk_checks_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id),
    CONSTRAINT ck_checks_ok CHECK (ok IN (0, 1))
);

CREATE TABLE decisions (
    task_id VARCHAR(63) NOT NULL,
    entity_id VARCHAR(64) NOT NULL,
    name VARCHAR(255) NOT NULL,
    decision VARCHAR(16) NOT NULL,
    digest VARCHAR(71) NOT NULL,
    expires_at DATETIME NOT NULL,
    reason VARCHAR(500) NOT NULL,
    CONSTRAINT pk_decisions PRIMARY KEY (task_id, entity_id),
    CONSTRAINT fk_decisions_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE events (
    task_id VARCHAR(63) NOT NULL,
    seq INTEGER NOT NULL,
    prev VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    at VARCHAR(40) NOT NULL,
    body JSON NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (task_id, seq),
    CONSTRAINT fk_events_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE grants (
    grant_id VARCHAR(32) NOT NULL,
    task_id VARCHAR(63) NOT NULL,
    attempt INTEGER NOT NULL,
    digest VARCHAR(71) NOT NULL,
    role VARCHAR(128) NOT NULL,
    create_op VARCHAR(32) NOT NULL,
    wrapped_accessor VARCHAR(128),
    accessor_hmac VARCHAR(80),
    token_lease VARCHAR(255),
    creation_path VARCHAR(255),
    requested_ttl_s INTEGER NOT NULL,
    ttl_s INTEGER NOT NULL,
    step_s INTEGER NOT NULL,
    wrap_ttl_s INTEGER NOT NULL,
    issued_at DATETIME,
    expires_at DATETIME,
    rolling BOOLEAN NOT NULL,
    renew_at DATETIME,
    delivered BOOLEAN NOT NULL,
    settled BOOLEAN NOT NULL,
    verdict VARCHAR(20) NOT NULL,
    dead_at DATETIME,
    wrapping_hmac VARCHAR(80),
    asked JSON,
    CONSTRAINT pk_grants PRIMARY KEY (grant_id),
    CONSTRAINT ck_grants_verdict CHECK (verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')),
    CONSTRAINT uq_grants_task_id UNIQUE (task_id, attempt),
    CONSTRAINT fk_grants_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id),
    CONSTRAINT ck_grants_rolling CHECK (rolling IN (0, 1)),
    CONSTRAINT ck_grants_delivered CHECK (delivered IN (0, 1)),
    CONSTRAINT ck_grants_settled CHECK (settled IN (0, 1))
);

CREATE INDEX ix_grants_accessor_hmac ON grants (accessor_hmac);

CREATE INDEX ix_grants_create_op ON grants (create_op);

CREATE INDEX ix_grants_wrapping_hmac ON grants (wrapping_hmac);

CREATE UNIQUE INDEX uq_grants_unsettled ON grants (task_id) WHERE settled = 0;

CREATE TABLE operations (
    op_id VARCHAR(32) NOT NULL,
    task_id VARCHAR(63),
    kind VARCHAR(32) NOT NULL,
    subject VARCHAR(512) NOT NULL,
    state VARCHAR(16) NOT NULL,
    answer VARCHAR(255),
    sent_at DATETIME NOT NULL,
    answered_at DATETIME,
    CONSTRAINT pk_operations PRIMARY KEY (op_id),
    CONSTRAINT ck_operations_state CHECK (state IN ('intended', 'answered', 'unknown', 'settled', 'abandoned')),
    CONSTRAINT fk_operations_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE INDEX ix_operations_state ON operations (state, answered_at);

CREATE INDEX ix_operations_task_id ON operations (task_id);

CREATE TABLE revisions (
    task_id VARCHAR(63) NOT NULL,
    revision INTEGER NOT NULL,
    digest VARCHAR(71) NOT NULL,
    body BLOB NOT NULL,
    decision JSON NOT NULL,
    CONSTRAINT pk_revisions PRIMARY KEY (task_id, revision),
    CONSTRAINT fk_revisions_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id)
);

CREATE TABLE leases (
    lease_id VARCHAR(512) NOT NULL,
    task_id VARCHAR(63) NOT NULL,
    grant_id VARCHAR(32) NOT NULL,
    path VARCHAR(1024) NOT NULL,
    target_name VARCHAR(255),
    issued_at DATETIME NOT NULL,
    renew_at DATETIME,
    verdict VARCHAR(20) NOT NULL,
    dead_at DATETIME,
    CONSTRAINT pk_leases PRIMARY KEY (lease_id),
    CONSTRAINT ck_leases_verdict CHECK (verdict IN ('live', 'revoke_requested', 'acknowledged', 'gone', 'audit_confirmed', 'target_confirmed', 'revoke_failed', 'irrevocable', 'expired', 'never_issued', 'unverifiable')),
    CONSTRAINT fk_leases_task_id FOREIGN KEY(task_id) REFERENCES tasks (task_id),
    CONSTRAINT fk_leases_grant_id FOREIGN KEY(grant_id) REFERENCES grants (grant_id)
);

CREATE INDEX ix_leases_task_id ON leases (task_id);

CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;

CREATE TRIGGER observations_no_update BEFORE UPDATE ON observations BEGIN SELECT RAISE(ABORT, 'observations is append-only'); END;

CREATE TRIGGER observations_no_delete BEFORE DELETE ON observations BEGIN SELECT RAISE(ABORT, 'observations is append-only'); END;

-- What SQLite is to think of the lines' indexes: how many rows there are, and how many of them have one value (or, of
-- two columns, one pair). Without it SQLite takes the index by kind, of which there may be millions of rows, as readily as
-- the one by subject, of which there are a few. The first ANALYZE makes the table for it, the last one has it read by
-- those who have the ledger open.
ANALYZE installation;

INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('observations', 'ix_observations_kind', '1000000 60000 2'),
    ('observations', 'ix_observations_actor', '1000000 60'),
    ('observations', 'ix_observations_subject', '1000000 6'),
    ('observations', 'ix_observations_op', '1000000 3'),
    ('observations', 'ix_observations_token', '40000 2'),
    ('observations', 'ix_observations_alias', '40000 2'),
    ('observations', 'sqlite_autoindex_observations_1', '1000000 1');

ANALYZE sqlite_schema;
