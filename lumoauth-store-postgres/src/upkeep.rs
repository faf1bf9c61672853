//! Readiness, the clock, and tidying.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use lumoauth_core::{
    clock::{SyncedClock, Timestamp},
    store::{REPLAY_GRACE, StoreError, Upkeep},
};
use sqlx::Row;

use crate::{
    PostgresStore, policies,
    values::{from_millis, millis},
};

const PING: &str = "upkeep.ping";

/// The database's clock, in milliseconds.
const READ_CLOCK: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// An answer that took longer says too little about what time it is.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);

/// Whether the last answer of the clock came too late, which is said once and not with each of them.
static TOO_SLOW: AtomicBool = AtomicBool::new(false);

/// How long after its window a counter is kept, for facts that arrive late.
const COUNTER_GRACE: Duration = Duration::from_secs(48 * 3600);

// Rows that are in use are left for the next time. What is to be dropped is chosen before anything is dropped
// (`MATERIALIZED`), so it is never more than asked for.

const PURGE_MARKS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, handle FROM revocation_mark WHERE keep_until < $1 \
        ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM revocation_mark AS mark USING ended \
    WHERE mark.org_id = ended.org_id AND mark.handle = ended.handle \
    RETURNING 1";

const PURGE_TICKETS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, purpose, hash FROM ticket \
        WHERE CASE WHEN used THEN keep_until ELSE expires_at END < $1 \
        ORDER BY CASE WHEN used THEN keep_until ELSE expires_at END LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM ticket USING ended \
    WHERE ticket.org_id = ended.org_id AND ticket.purpose = ended.purpose AND ticket.hash = ended.hash \
    RETURNING 1";

const PURGE_REFRESH_TOKENS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, hash FROM refresh_token WHERE expires_at < $1 \
        ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM refresh_token AS token USING ended \
    WHERE token.org_id = ended.org_id AND token.hash = ended.hash \
    RETURNING 1";

const PURGE_APPROVALS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, token FROM approval WHERE keep_until < $1 \
        ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM approval USING ended \
    WHERE approval.org_id = ended.org_id AND approval.token = ended.token \
    RETURNING 1";

const PURGE_TASKS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, id FROM jit_task WHERE keep_until < $1 \
        ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM jit_task USING ended \
    WHERE jit_task.org_id = ended.org_id AND jit_task.id = ended.id \
    RETURNING 1";

const PURGE_REQUESTS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, id FROM jit_request WHERE keep_until < $1 \
        ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM jit_request USING ended \
    WHERE jit_request.org_id = ended.org_id AND jit_request.id = ended.id \
    RETURNING 1";

const PURGE_LOADS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, agent FROM jit_load WHERE keep_until < $1 \
        ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM jit_load AS load USING ended \
    WHERE load.org_id = ended.org_id AND load.agent = ended.agent \
    RETURNING 1";

const PURGE_COUNTERS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, owner, generation, meter, window_kind, window_start \
        FROM budget_counter WHERE ends_at < $1 \
        ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM budget_counter AS counter USING ended \
    WHERE counter.org_id = ended.org_id AND counter.owner = ended.owner \
        AND counter.generation = ended.generation AND counter.meter = ended.meter \
        AND counter.window_kind = ended.window_kind AND counter.window_start = ended.window_start \
    RETURNING 1";

/// What is parked has to be freed first.
const PURGE_CHARGES: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, actor, key FROM budget_charge WHERE keep_until < $1 AND parked_until IS NULL \
        ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM budget_charge AS charge USING ended \
    WHERE charge.org_id = ended.org_id AND charge.actor = ended.actor AND charge.key = ended.key \
    RETURNING 1";

const PURGE_RATE_LIMITS: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, source, length_ms, ends_at FROM rate_limit WHERE ends_at < $1 \
        ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM rate_limit AS counter USING ended \
    WHERE counter.org_id = ended.org_id AND counter.source = ended.source \
        AND counter.length_ms = ended.length_ms AND counter.ends_at = ended.ends_at \
    RETURNING 1";

const PURGE_REPLAY: &str = "\
    WITH ended AS MATERIALIZED ( \
        SELECT org_id, space, key FROM replay_mark WHERE until < $1 \
        ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED) \
    DELETE FROM replay_mark AS mark USING ended \
    WHERE mark.org_id = ended.org_id AND mark.space = ended.space AND mark.key = ended.key \
    RETURNING 1";

impl PostgresStore {
    /// A clock that follows the database's. Servers that share the database share the time with it: give it to the
    /// server, and its maintenance keeps it in step. Between two rounds it goes on by this machine's monotonic clock, which
    /// stands still while the machine sleeps: after that it is behind until the next round.
    pub fn clock(&self) -> Arc<SyncedClock> {
        self.clock.clone()
    }

    /// Reads the database's clock and sets the server's by it.
    pub(crate) async fn sync_clock(&self) -> Result<(), StoreError> {
        let (rows, round_trip) = self.pool.measured(PING, || sqlx::query(READ_CLOCK)).await?;
        let read = rows.first().ok_or(sqlx::Error::RowNotFound).and_then(|row| row.try_get(0));
        let read = read.and_then(from_millis).map_err(|error| StoreError::corrupt(PING, error))?;
        if round_trip < MAX_ROUND_TRIP {
            // It was read at some time in between.
            self.clock.set(read.plus(round_trip / 2));
            TOO_SLOW.store(false, Ordering::Relaxed);
        } else if !TOO_SLOW.swap(true, Ordering::Relaxed) {
            tracing::warn!(?round_trip, "the database answers too slowly to take the time from it");
        }
        Ok(())
    }
}

#[async_trait]
impl Upkeep for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.sync_clock().await
    }

    async fn purge(&self, now: Timestamp, max: u32) -> Result<u64, StoreError> {
        let max = i64::from(max);
        let mut dropped = 0;
        for (statement, before) in [
            (PURGE_RATE_LIMITS, now),
            (PURGE_REPLAY, now.minus(REPLAY_GRACE)),
            (PURGE_MARKS, now),
            (PURGE_TICKETS, now),
            (PURGE_REFRESH_TOKENS, now),
            (PURGE_APPROVALS, now),
            (PURGE_TASKS, now),
            (PURGE_REQUESTS, now),
            (PURGE_LOADS, now),
            (PURGE_COUNTERS, now.minus(COUNTER_GRACE)),
            (PURGE_CHARGES, now),
            (policies::PURGE, now),
        ] {
            if dropped < max {
                let purge = || sqlx::query(statement).bind(millis(before)).bind(max - dropped);
                let rows = self.pool.change("upkeep.purge", purge).await?;
                dropped = dropped.saturating_add(i64::try_from(rows.len()).unwrap_or(i64::MAX));
            }
        }
        Ok(dropped.unsigned_abs())
    }
}
