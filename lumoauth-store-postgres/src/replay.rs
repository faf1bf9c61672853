//! The role that remembers what may be used only once. Its memory is as durable as everything else here, so nothing is
//! ever older than it.

use async_trait::async_trait;
use lumoauth_core::{
    clock::Timestamp,
    id::OrgId,
    store::{Remembered, ReplayStore, StoreError},
};

use crate::{PostgresStore, values::millis};

/// One row if the value was not known.
const REMEMBER: &str = "\
    INSERT INTO replay_mark (org_id, space, key, until) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (org_id, space, key) DO NOTHING \
    RETURNING 1";

#[async_trait]
impl ReplayStore for PostgresStore {
    async fn remember(
        &self,
        org: &OrgId,
        space: &str,
        key: &[u8; 32],
        _issued_at: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Remembered, StoreError> {
        if now >= until {
            return Ok(Remembered::TooOld);
        }
        let remember =
            || sqlx::query(REMEMBER).bind(org.as_str()).bind(space).bind(key.as_slice()).bind(millis(until));
        let rows = self.pool.change("replay.remember", remember).await?;
        Ok(if rows.is_empty() { Remembered::Replay } else { Remembered::First })
    }
}
