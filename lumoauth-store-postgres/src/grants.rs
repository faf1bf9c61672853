//! Revocation marks on PostgreSQL.

use async_trait::async_trait;
use lumoauth_core::{
    audit::Event,
    clock::Timestamp,
    id::OrgId,
    store::{GrantStore, Handle, Revoked, StoreError},
};

use crate::{
    PostgresStore,
    records::{Recorded, changed, recorded},
    values::millis,
};

const MARK: &str = recorded!(
    "INSERT INTO revocation_mark (org_id, handle, keep_until)
    VALUES ($1, $5, $6)
    ON CONFLICT (org_id, handle) DO NOTHING"
);

const KEEP: &str = "UPDATE revocation_mark SET keep_until = greatest(keep_until, $3)
    WHERE org_id = $1 AND handle = $2
    RETURNING 1";

const ANY: &str = "SELECT 1 FROM revocation_mark WHERE org_id = $1 AND handle = ANY($2) LIMIT 1";

/// How often a mark that a purge took away between two statements is made anew.
const MAX_TRIES: u32 = 5;

#[async_trait]
impl GrantStore for PostgresStore {
    async fn revoke(
        &self,
        org: &OrgId,
        handle: Handle,
        keep_until: Timestamp,
        on: &Event,
    ) -> Result<Revoked, StoreError> {
        const OPERATION: &str = "grants.revoke";
        let on = Recorded::new(OPERATION, org, on)?;
        let keep_until = millis(keep_until);
        let handle = handle.as_bytes().as_slice();
        let pool = self.pool.one_call();
        for _ in 0..MAX_TRIES {
            let mark = || on.statement(MARK).bind(handle).bind(keep_until);
            if changed(OPERATION, &pool.change(OPERATION, mark).await?)? {
                return Ok(Revoked::Revoked);
            }
            let keep = || sqlx::query(KEEP).bind(org.as_str()).bind(handle).bind(keep_until);
            if !pool.repeatable(OPERATION, keep).await?.is_empty() {
                return Ok(Revoked::AlreadyRevoked);
            }
        }
        Err(StoreError::unavailable(OPERATION, "the mark is purged as fast as it is made"))
    }

    async fn any_revoked(&self, org: &OrgId, handles: &[Handle]) -> Result<bool, StoreError> {
        if handles.is_empty() {
            return Ok(false);
        }
        let handles: Vec<&[u8]> = handles.iter().map(|handle| handle.as_bytes().as_slice()).collect();
        let statement = || sqlx::query(ANY).bind(org.as_str()).bind(&handles);
        Ok(!self.pool.repeatable("grants.any_revoked", statement).await?.is_empty())
    }
}
