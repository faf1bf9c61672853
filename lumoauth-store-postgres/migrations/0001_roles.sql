-- Every key begins with the organization. Text is compared by bytes (COLLATE "C"), so orders do not depend on the
-- server's locale. A record is the JSON text that core reads and writes; the columns beside it are only what look-ups,
-- orders and guards need. Times are milliseconds since 1970, counted by the servers and not by the database.

CREATE TABLE organization (
    org_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT organization_id PRIMARY KEY (org_id)
);

CREATE TABLE aauth_resource (
    org_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    identifier text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT aauth_resource_id PRIMARY KEY (org_id, id),
    CONSTRAINT aauth_resource_number UNIQUE (org_id, number),
    CONSTRAINT aauth_resource_identifier UNIQUE (org_id, identifier)
);

CREATE TABLE agent (
    org_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    slug text COLLATE "C" NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    api_key bytea,
    aauth text COLLATE "C",
    workload bytea,
    status text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text COLLATE "C",
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT agent_id PRIMARY KEY (org_id, id),
    CONSTRAINT agent_slug UNIQUE (org_id, slug),
    CONSTRAINT agent_client_id UNIQUE (org_id, client_id)
);
-- An agent without an API key takes no room here.
CREATE UNIQUE INDEX agent_api_key ON agent (org_id, api_key) WHERE api_key IS NOT NULL;
-- Nor does one without a part in AAuth.
CREATE UNIQUE INDEX agent_aauth ON agent (org_id, aauth) WHERE aauth IS NOT NULL;
-- Nor does one that is no workload. Several agents may trust the same one.
CREATE INDEX agent_workload ON agent (org_id, workload) WHERE workload IS NOT NULL;

CREATE TABLE api_key (
    org_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    hash bytea NOT NULL,
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT api_key_number PRIMARY KEY (org_id, number),
    CONSTRAINT api_key_hash UNIQUE (org_id, hash)
);

CREATE TABLE client (
    org_id text COLLATE "C" NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT client_client_id PRIMARY KEY (org_id, client_id),
    CONSTRAINT client_number UNIQUE (org_id, number)
);

CREATE TABLE users (
    org_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    number bigint NOT NULL,
    email text COLLATE "C" NOT NULL,
    name text COLLATE "C",
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT users_id PRIMARY KEY (org_id, id),
    CONSTRAINT users_number UNIQUE (org_id, number),
    CONSTRAINT users_email UNIQUE (org_id, email)
);

CREATE TABLE consent (
    org_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT consent_id PRIMARY KEY (org_id, id),
    CONSTRAINT consent_between UNIQUE (org_id, user_id, client_id)
);

-- `decided` and `consumed` are only ever set, together with what the record says of it. `open` ends with the decision, or
-- when somebody told that its time had ended without one. How many of an agent may be open is counted of what is `bounded`.
CREATE TABLE approval (
    org_id text COLLATE "C" NOT NULL,
    token text COLLATE "C" NOT NULL,
    agent uuid NOT NULL,
    on_behalf_of uuid,
    expires_at bigint NOT NULL,
    keep_until bigint NOT NULL,
    open boolean NOT NULL,
    decided boolean NOT NULL,
    consumed boolean NOT NULL,
    bounded boolean NOT NULL,
    record json NOT NULL,
    CONSTRAINT approval_token PRIMARY KEY (org_id, token)
);
CREATE INDEX approval_pending ON approval (org_id, expires_at, token) WHERE open;
CREATE INDEX approval_asked ON approval (org_id, agent) WHERE open AND bounded;
CREATE INDEX approval_purge ON approval (keep_until);

-- What of an agent waits for people in its tasks, the last of it until `keep_until`, which is 0 where nothing waits. It is
-- held by whoever changes a task of the agent, or asks for an approval; a row that is missing says that nothing waits.
CREATE TABLE jit_load (
    org_id text COLLATE "C" NOT NULL,
    agent uuid NOT NULL,
    keep_until bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT jit_load_agent PRIMARY KEY (org_id, agent)
);
CREATE INDEX jit_load_purge ON jit_load (keep_until);

-- `closed` is only ever set, together with the closing in the record.
CREATE TABLE jit_task (
    org_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    closed boolean NOT NULL,
    keep_until bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT jit_task_id PRIMARY KEY (org_id, id)
);
CREATE INDEX jit_task_purge ON jit_task (keep_until);

-- `waiting` ends with the answer or with the task; `callback_due` is the end of what waits, or the answer.
CREATE TABLE jit_request (
    org_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    on_behalf_of uuid,
    expires_at bigint NOT NULL,
    keep_until bigint NOT NULL,
    waiting boolean NOT NULL,
    callback_due bigint,
    record json NOT NULL,
    CONSTRAINT jit_request_id PRIMARY KEY (org_id, id)
);
CREATE INDEX jit_request_pending ON jit_request (org_id, expires_at, id) WHERE waiting;
CREATE INDEX jit_request_due ON jit_request (callback_due) WHERE callback_due IS NOT NULL;
CREATE INDEX jit_request_purge ON jit_request (keep_until);

CREATE TABLE mcp_server (
    org_id text COLLATE "C" NOT NULL,
    server_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    version bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT mcp_server_id PRIMARY KEY (org_id, server_id),
    CONSTRAINT mcp_server_number UNIQUE (org_id, number)
);

-- Which server an identifier or alias names.
CREATE TABLE mcp_server_target (
    org_id text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    server_id text COLLATE "C" NOT NULL,
    CONSTRAINT mcp_server_target_target PRIMARY KEY (org_id, target)
);
CREATE INDEX mcp_server_target_server ON mcp_server_target (org_id, server_id);

CREATE TABLE sealed_key (
    org_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    purpose text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    record json NOT NULL,
    CONSTRAINT sealed_key_id PRIMARY KEY (org_id, id),
    CONSTRAINT sealed_key_generation UNIQUE (org_id, purpose, generation)
);

CREATE TABLE revocation_mark (
    org_id text COLLATE "C" NOT NULL,
    handle bytea NOT NULL,
    keep_until bigint NOT NULL,
    CONSTRAINT revocation_mark_handle PRIMARY KEY (org_id, handle)
);
CREATE INDEX revocation_mark_purge ON revocation_mark (keep_until);

-- What is handed out and comes back once. `body` is the protocol's, and bytes because text holds no NUL.
CREATE TABLE ticket (
    org_id text COLLATE "C" NOT NULL,
    purpose text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    body bytea NOT NULL,
    expires_at bigint NOT NULL,
    keep_until bigint NOT NULL,
    family bytea,
    used boolean NOT NULL,
    CONSTRAINT ticket_hash PRIMARY KEY (org_id, purpose, hash)
);
-- One that was never used has nothing to be remembered for once it has ended.
CREATE INDEX ticket_purge ON ticket ((CASE WHEN used THEN keep_until ELSE expires_at END));

-- Only the newest of a family has no successor. The others are kept as long, to recognise who comes with one of them.
CREATE TABLE refresh_token (
    org_id text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    family bytea NOT NULL,
    body bytea NOT NULL,
    expires_at bigint NOT NULL,
    rotated_at bigint,
    successor bytea,
    CONSTRAINT refresh_token_hash PRIMARY KEY (org_id, hash)
);
CREATE INDEX refresh_token_purge ON refresh_token (expires_at);

-- Events that wait for their number. `arrived` (microseconds by the database's clock) and `nth` (the place in the call)
-- give the order in which they are numbered. An event may wait twice; whoever numbers it drops what is there already. So
-- one index is enough, and it only grows at its end.
CREATE TABLE outbox (
    org_id text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    arrived bigint NOT NULL,
    nth integer NOT NULL,
    at bigint NOT NULL,
    body text NOT NULL,
    CONSTRAINT outbox_order PRIMARY KEY (org_id, arrived, nth, event_id)
);

-- Append-only: nothing deletes a row or changes its leaf. Retention takes the body, the actor and the target away.
CREATE TABLE audit_log (
    org_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    event_id uuid NOT NULL,
    at bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    actor_id text COLLATE "C" NOT NULL,
    target_id text COLLATE "C",
    outcome text COLLATE "C" NOT NULL,
    body json,
    -- The hash of the entry in the tree over the log (RFC 9162).
    leaf bytea NOT NULL,
    CONSTRAINT audit_log_seq PRIMARY KEY (org_id, seq),
    CONSTRAINT audit_log_event UNIQUE (org_id, event_id)
);
CREATE INDEX audit_log_actor ON audit_log (org_id, actor_id, seq);
CREATE INDEX audit_log_target ON audit_log (org_id, target_id, seq) WHERE target_id IS NOT NULL;
CREATE INDEX audit_log_kind ON audit_log (org_id, kind, seq);

-- How many entries there are of each hour, and where they are. Kept by whoever numbers events.
CREATE TABLE audit_count (
    org_id text COLLATE "C" NOT NULL,
    hour bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    total bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    first_at bigint NOT NULL,
    last_at bigint NOT NULL,
    CONSTRAINT audit_count_line PRIMARY KEY (org_id, hour, kind, outcome)
);

-- How many entries an organization has, and what their tree needs to grow. Whoever numbers events holds this row.
CREATE TABLE audit_head (
    org_id text COLLATE "C" NOT NULL,
    size bigint NOT NULL,
    -- The roots of the perfect trees that the tree consists of, 32 bytes each.
    peaks bytea NOT NULL,
    -- Up to which number bodies were dropped.
    dropped bigint NOT NULL,
    CONSTRAINT audit_head_org PRIMARY KEY (org_id)
);

-- The roots of the tree over 1024 entries each, counted from zero: with them a proof reads few leaves.
CREATE TABLE audit_block (
    org_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    root bytea NOT NULL,
    CONSTRAINT audit_block_number PRIMARY KEY (org_id, number)
);

-- Signed heads of the tree.
CREATE TABLE audit_checkpoint (
    org_id text COLLATE "C" NOT NULL,
    size bigint NOT NULL,
    signed text NOT NULL,
    CONSTRAINT audit_checkpoint_size PRIMARY KEY (org_id, size)
);

CREATE TABLE budget_counter (
    org_id text COLLATE "C" NOT NULL,
    owner uuid NOT NULL,
    generation bigint NOT NULL,
    meter smallint NOT NULL,
    window_kind smallint NOT NULL,
    window_start bigint NOT NULL,
    used bigint NOT NULL,
    ends_at bigint NOT NULL,
    CONSTRAINT budget_counter_line PRIMARY KEY (org_id, owner, generation, meter, window_kind, window_start)
);
CREATE INDEX budget_counter_purge ON budget_counter (ends_at);

CREATE TABLE budget_charge (
    org_id text COLLATE "C" NOT NULL,
    actor uuid NOT NULL,
    key bytea NOT NULL,
    request_hash bytea NOT NULL,
    keep_until bigint NOT NULL,
    -- What is held until it is told what was used, as JSON. The two times say what state it is in: `live_until` is NULL
    -- if nothing is held any more, and `parked_until` unless it waits for a human.
    hold text COLLATE "C",
    live_until bigint,
    parked_until bigint,
    CONSTRAINT budget_charge_id PRIMARY KEY (org_id, actor, key)
);
CREATE INDEX budget_charge_live ON budget_charge (org_id, actor, live_until) WHERE live_until IS NOT NULL;
CREATE INDEX budget_charge_parked ON budget_charge (parked_until) WHERE parked_until IS NOT NULL;
CREATE INDEX budget_charge_purge ON budget_charge (keep_until) WHERE parked_until IS NULL;

CREATE TABLE rate_limit (
    org_id text COLLATE "C" NOT NULL,
    source bytea NOT NULL,
    length_ms bigint NOT NULL,
    ends_at bigint NOT NULL,
    used bigint NOT NULL,
    CONSTRAINT rate_limit_window PRIMARY KEY (org_id, source, length_ms, ends_at)
);
CREATE INDEX rate_limit_purge ON rate_limit (ends_at);

CREATE TABLE replay_mark (
    org_id text COLLATE "C" NOT NULL,
    space text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    until bigint NOT NULL,
    CONSTRAINT replay_mark_key PRIMARY KEY (org_id, space, key)
);
CREATE INDEX replay_mark_purge ON replay_mark (until);

-- The policy of an organization is one thing with one revision; whoever changes it locks its row here.
CREATE TABLE policy_head (
    org_id text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    oldest bigint NOT NULL,
    CONSTRAINT policy_head_id PRIMARY KEY (org_id)
);

-- A record without a body says that it was removed, until that may be forgotten.
CREATE TABLE policy_record (
    org_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    body json,
    forget_after bigint,
    CONSTRAINT policy_record_id PRIMARY KEY (org_id, kind, key)
);
CREATE INDEX policy_record_revision ON policy_record (org_id, revision);
CREATE INDEX policy_record_forget_after ON policy_record (forget_after) WHERE forget_after IS NOT NULL;
